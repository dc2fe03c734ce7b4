# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Reference tables against the code: nothing lacks, nothing is named that is not there, defaults are the code's."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from cc_manager import names as cc_manager_names
from cc_manager.metrics import CCManagerMetrics
from cc_manager.settings import OPTIONS
from device_plugin.metrics import PluginMetrics
from device_plugin.settings import options as plugin_options
from kube.settings import Option
from prometheus_client import CollectorRegistry

from ansible_collections.confidential.gpu.plugins.module_utils._boot.configure import AUTO, NAMES
from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import ExplainedError
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.families import FAMILIES
from ansible_collections.confidential.gpu.plugins.modules import kernel_cmdline
from docs.texts import ROOT, in_file, names, table, texts

sys.path.insert(0, str(ROOT))
from tests.run import suites

CONTRACT = "tests/unit/container/cc_manager/test_cc_manager_contract.py"
WATCH = "tests/unit/container/kube/test_kube_watch.py"


# --- errors -----------------------------------------------------------------------------------------------------------


def kinds() -> tuple[set[str], set[str]]:
    """Every error that a module can answer with, and of them those that stand for no others."""
    for path in (ROOT / "plugins/module_utils").rglob("errors.py"):
        parts = path.relative_to(ROOT / "plugins").with_suffix("").parts
        importlib.import_module("ansible_collections.confidential.gpu.plugins." + ".".join(parts))

    def below(kind: type[ExplainedError]) -> list[type[ExplainedError]]:
        return [one for child in kind.__subclasses__() for one in (child, *below(child))]

    every = [one for one in below(ExplainedError) if one.__module__.endswith("errors")]
    return {one.__name__ for one in every}, {one.__name__ for one in every if not one.__subclasses__()}


def test_every_error_is_explained_and_no_other() -> None:
    every, alone = kinds()
    listed = [name for row in table("docs/troubleshooting.md", "kind") for name in names(row[0])]
    assert len(listed) == len(set(listed))
    assert alone <= set(listed) <= every


# --- the CC manager ---------------------------------------------------------------------------------------------------


def test_the_cc_managers_settings_and_their_defaults() -> None:
    assert_settings("docs/cc-manager.md", OPTIONS)


def assert_settings(path: str, options: Sequence[Option]) -> None:
    """The table of variables of a page names the program's, with their defaults."""
    listed: dict[str, str] = {}
    for row in table(path, "variable"):
        variables = [name for name in names(row[0]) if not name.startswith("-")]
        defaults = row[1].split(", ") if len(variables) > 1 else [row[1]]
        listed |= dict(zip(variables, defaults, strict=True))
    assert set(listed) == {option.variable for option in options}
    for option in options:
        if option.default:
            assert listed[option.variable] == f"`{option.default}`", option.variable
        else:
            assert "`" not in listed[option.variable], option.variable


def test_the_cc_managers_labels_and_annotations() -> None:
    listed = {name for row in table("docs/cc-manager.md", "on the node") for name in names(row[0])}
    code = {value for key, value in vars(cc_manager_names).items() if key.endswith(("_LABEL", "_ANNOTATION"))}
    assert listed == code


def test_the_cc_managers_metrics() -> None:
    text = (ROOT / "docs/cc-manager.md").read_text()
    section = text[text.index("### Metrics") :].split("\n## ")[0]
    listed = {name.removeprefix("cc_manager") for name in names(section) if name.startswith(("_", "cc_manager_"))}
    # How long a watch has been silent stands under "Health".
    listed |= set(re.findall(r"`cc_manager(_[a-z_]+)`", text))
    assert listed == exposed(CCManagerMetrics().registry, "cc_manager")


def test_the_device_plugins_settings_and_their_defaults() -> None:
    assert_settings("docs/device-plugins.md", plugin_options(("tee", "gpu")))


def test_the_device_plugins_metrics() -> None:
    text = (ROOT / "docs/device-plugins.md").read_text()
    section = text[text.index("### Health and metrics") :].split("\n## ")[0]
    listed = set(re.findall(r"`(?:device_plugin)?(_[a-z_]+)`", section))
    assert listed == exposed(PluginMetrics().registry, "device_plugin")


def exposed(registry: CollectorRegistry, prefix: str) -> set[str]:
    """Names as Prometheus shows them, without the prefix; of a histogram one."""
    found = set()
    for family in registry.collect():
        if family.name.startswith(prefix + "_"):
            ending = {"counter": "_total", "info": "_info"}.get(family.type, "")
            found.add((family.name + ending).removeprefix(prefix))
    return found


# --- the collection ---------------------------------------------------------------------------------------------------


def test_modules_and_roles_in_the_readme() -> None:
    rows = table("README.md", "module")
    modules = {name for row in rows for name in names(row[0])}
    roles = {name for row in rows for name in names(row[2])}
    assert modules == {path.stem for path in (ROOT / "plugins/modules").glob("*.py")}
    assert roles == {path.parent.parent.name for path in (ROOT / "roles").glob("*/meta/argument_specs.yml")}


def test_modes_in_the_readme() -> None:
    module = (ROOT / "plugins/modules/cc_mode.py").read_text()
    choices = re.search(r"^  mode:.*?choices: \[([^\]]+)\]", module, re.MULTILINE | re.DOTALL)
    assert choices is not None
    listed = [name for row in table("README.md", "mode") for name in names(row[0])]
    assert sorted(listed) == sorted(word.strip(' "') for word in choices[1].split(","))


def test_chips_are_those_with_a_family() -> None:
    """Where devices are listed, and where it is told what is done with them."""
    chips = {chip.upper() for family in FAMILIES for chip in family.chips}
    listed = " ".join(row[1] for row in table("README.md", "device"))
    for text in (listed, (ROOT / "docs/how-it-works.md").read_text()):
        assert set(re.findall(r"\bG[A-Z]\d{3}\b", text)) == chips, text[:80]


def test_boot_loaders_are_those_that_there_are() -> None:
    option = yaml.safe_load(kernel_cmdline.DOCUMENTATION)["options"]["loader"]
    assert option["choices"] == [AUTO, *NAMES]
    described, rows = " ".join(option["description"]), " ".join(row[1] for row in table("docs/hosts.md", "host"))
    for name in NAMES:
        assert f"V({name})" in described, name
        assert {"grub-dropin": "/etc/default/grub.d"}.get(name, name) in rows, name


def test_suites_in_contributing() -> None:
    listed = {name for row in table("CONTRIBUTING.md", "suite") for name in names(row[0])}
    assert listed == {re.sub(r"^sanity-.*", "sanity-3.x", suite.name) for suite in suites()}


def test_the_variables_of_the_playbook_fleet() -> None:
    """Those that its tasks read and do not set themselves."""
    files = [ROOT / "playbooks/fleet.yml", *(ROOT / "playbooks/tasks").glob("fleet_*.yml")]
    text = "".join(path.read_text() for path in files)
    read = set(re.findall(r"\b(fleet_\w+) *\| *default", text))
    own = set(re.findall(r"(?:register: |^ +)(fleet_\w+)(?::|$)", text, re.MULTILINE))
    listed = {name for row in table("docs/bare-metal.md", "variable") for name in names(row[0])}
    assert listed == read - own


# --- claims -----------------------------------------------------------------------------------------------------------


def test_known_faults_are_the_numbered_tests() -> None:
    rows = table("docs/known-faults.md", "no.")
    listed = {name for row in rows for name in names(row[3])}
    numbered = {name for name in in_file(CONTRACT) | in_file(WATCH) if re.match(r"test_\d\d_", name)}
    assert listed == numbered
    assert [int(row[0]) for row in rows] == list(range(1, len(rows) + 1))
    for row in rows:
        assert all(int(name[5:7]) == int(row[0]) for name in names(row[3])), row[0]


def test_every_fault_of_another_controller_manager_has_a_test() -> None:
    rows = table("docs/cloud-controller.md", "reported")
    assert len(rows) >= 26
    assert len({row[0] for row in rows}) == len(rows)
    for _reported, where, _here, proof in rows:
        assert all(re.fullmatch(r"[\w.-]+/[\w.-]+ \d+", one) for one in where.split(", ")), where
        (test,) = names(proof)
        assert is_there(test), test
    # What has no other test has one of its own, and it is in the table.
    own = "tests/unit/container/ccm/test_ccm_reported.py"
    listed = {test.partition("::")[2] for row in rows for test in names(row[3]) if test.startswith(own)}
    assert listed == in_file(own)


@pytest.mark.parametrize("page", ["README.md", "docs/comparison.md"])
def test_each_comparison_names_a_test(page: str) -> None:
    rows = [row for row in table(page, "") if len(row) == 6]
    assert rows
    for row in rows:
        (proof,) = names(row[5])
        assert is_there(proof), proof


def test_rows_in_the_readme_are_those_of_the_comparison() -> None:
    every = table("docs/comparison.md", "")
    assert [row for row in table("README.md", "") if len(row) == 6 and row not in every] == []


def test_every_test_that_a_text_names_is_there() -> None:
    wrong = []
    for path, text in texts().items():
        wrong += [
            f"{path}: {name}" for name in re.findall(r"\b(tests/[\w/]+\.py::test_\w+)", text) if not is_there(name)
        ]
    assert wrong == []


def test_every_test_that_a_recipe_names_is_there() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "CONTRIBUTING.md").read_text()))
    files = [str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py")]
    assert named
    assert named - {name for path in files for name in in_file(path)} == set()


def is_there(proof: str) -> bool:
    """Whether a file of tests, and the test that is named in it, exist."""
    path, _colons, name = proof.partition("::")
    return (ROOT / path).is_file() and (not name or name in in_file(path))


def test_every_host_with_golden_files_is_in_the_table() -> None:
    rows = " ".join(row[0] for row in table("docs/compatibility.md", "distribution")).lower()
    for path in (ROOT / "tests/unit/plugins/boot/hosts").glob("*.txt"):
        system = re.sub(r"-[\d.]+.*|-(image|systemd|grub2?|uki|tuned|cloud|bare|efi|bls).*", "", path.stem)
        known = {"rhel": "rhel", "sle-micro": "sle micro", "bootc": "bootc"}.get(system, system.replace("-", " "))
        known = {"opensuse leap": "opensuse leap", "pop os": "pop!_os"}.get(known, known)
        assert known in rows, path.name


def test_versions_of_ansible_core_are_those_of_the_set_up() -> None:
    versions = re.findall(r'"ansible-core~=(\d+\.\d+)\.0', (ROOT / "pyproject.toml").read_text())
    for path in ("README.md", "docs/compatibility.md"):
        (row,) = [cells for cells in table_anywhere(path) if cells[0] == "ansible-core"]
        assert sorted(set(re.findall(r"\b2\.\d\d\b", row[1]))) == sorted(set(versions)), path


def table_anywhere(path: str) -> list[list[str]]:
    """Every row of every table of a file."""
    lines = (ROOT / path).read_text().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]


def test_recording_and_text_are_of_one_run() -> None:
    text = (ROOT / "README.md").read_text()
    shown = text[text.index("<!-- demo -->") : text.index("<!-- end -->")]
    lines = [line for line in shown.splitlines()[2:-2] if line.strip()]
    svg = re.sub(r"<[^>]+>", "", (ROOT / "docs/images/demo.svg").read_text())
    assert lines
    assert [line for line in lines if line.rstrip() not in svg] == []


def test_argument_specs_are_there_for_each_role() -> None:
    for role in (ROOT / "roles").iterdir():
        spec = yaml.safe_load((Path(role) / "meta/argument_specs.yml").read_text())
        assert spec["argument_specs"]["main"]["short_description"], role.name
