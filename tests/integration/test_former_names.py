# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Former names: the role operand, and variables of confidential_containers, do what those that replaced them do."""

from __future__ import annotations

import base64
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FAKES = ROOT / "tests/unit/plugins/coco"
ROLES = ROOT / "roles"


def play(folder: Path, *options: str, plays: list[dict[str, Any]]) -> str:
    """What ansible-playbook prints for plays on this machine."""
    collections = folder / "ansible_collections/confidential"
    collections.mkdir(parents=True)
    (collections / "gpu").symlink_to(ROOT)
    here = {"hosts": "localhost", "gather_facts": False}
    (folder / "plays.yml").write_text(yaml.safe_dump([{**here, **one} for one in plays]))
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(folder), "ANSIBLE_HOME": str(folder / "home")}
    given = json.dumps({"ansible_python_interpreter": sys.executable})
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    command = [program, "-i", "localhost,", "-c", "local", "-e", given, *options, str(folder / "plays.yml")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def options_of(role: str) -> dict[str, Any]:
    """Variables of a role."""
    spec = yaml.safe_load((ROLES / role / "meta/argument_specs.yml").read_text())
    found: dict[str, Any] = spec["argument_specs"]["main"]["options"]
    return found


class Installation:
    """A cluster in a folder, and a role that is given all its variables, none of them with its default."""

    def __init__(self, folder: Path, role: str) -> None:
        self._folder, self._cluster, chart = folder, folder / "cluster", folder / "chart"
        (self._cluster / "api/v1/namespaces").mkdir(parents=True)
        chart.mkdir()
        (chart / "Chart.yaml").write_text("name: cc-manager\nversion: 9.9.9\n")
        (chart / "manifest.yaml").write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: made}\n")
        given = {
            "release": "mine",
            "namespace": "elsewhere",
            "values": {"settings": {"busy": "drain"}},
            "chart": str(chart),
            "helm": self._program("fake_helm"),
            "kubectl": self._program("fake_kubectl"),
            "kubeconfig": str(self._cluster),
            "context": "there",
            "take_ownership": True,
            "timeout": 7,
        }
        self.variables = {f"{role}_{end}": value for end, value in given.items()}
        assert set(self.variables) == set(options_of(role))
        self.play = {"roles": [{"role": f"confidential.gpu.{role}"}], "vars": self.variables}

    def _program(self, name: str) -> str:
        path = self._folder / name
        path.write_text(f"#!{sys.executable} -SE\n" + (FAKES / f"{name}.py").read_text())
        path.chmod(0o755)
        return str(path)

    @property
    def asked(self) -> list[str]:
        """What Helm was called with."""
        return (self._cluster / "helm.txt").read_text().replace(str(self._folder), "FOLDER").splitlines()

    @property
    def values(self) -> dict[str, Any]:
        """The values of each release that is there."""
        found = {}
        for path in self._cluster.glob("api/v1/namespaces/*/secrets/*.json"):
            data = base64.b64decode(base64.b64decode(json.loads(path.read_text())["data"]["release"]))
            found[path.stem] = json.loads(gzip.decompress(data))["config"]
        return found


@pytest.mark.parametrize("options", [(), ("--check",)], ids=["run", "check"])
def test_the_role_operand_does_what_the_role_cc_manager_does(tmp_path: Path, options: tuple[str, ...]) -> None:
    places = [tmp_path / role for role in ("operand", "cc_manager")]
    for place in places:
        place.mkdir()
    former, present = (Installation(place, place.name) for place in places)
    assert "changed=2" in play(tmp_path, *options, plays=[former.play, present.play])
    assert former.asked == present.asked
    assert former.asked[0].startswith("upgrade --install mine FOLDER/chart ")
    assert former.values == present.values
    expected = {} if options else {"sh.helm.release.v1.mine.v1": {"settings": {"busy": "drain"}}}
    assert former.values == expected


def test_the_role_operand_has_the_variables_and_defaults_of_the_role_cc_manager() -> None:
    def specified(role: str) -> dict[str, Any]:
        options = {name.removeprefix(role): dict(one) for name, one in options_of(role).items()}
        for one in options.values():
            del one["description"]
        return options

    def defaults(role: str) -> dict[str, Any]:
        given = yaml.safe_load((ROLES / role / "defaults/main.yml").read_text())
        return {name.removeprefix(role): value for name, value in given.items()}

    assert specified("operand") == specified("cc_manager")
    assert defaults("operand") == defaults("cc_manager")


def test_former_variables_of_confidential_containers_are_the_defaults_of_the_present_ones(tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], list[Any]]] = [
        ({}, [False, {}]),
        ({"operand": True, "operand_values": {"a": 1}}, [True, {"a": 1}]),
        ({"operand": True, "cc_manager": False, "cc_manager_values": {"b": 2}}, [False, {"b": 2}]),
    ]
    prefix = "confidential_containers_"
    content = "{{ [%scc_manager, %scc_manager_values] | to_json }}" % (prefix, prefix)
    tasks = [
        {
            "ansible.builtin.copy": {"content": content, "dest": str(tmp_path / f"found-{number}"), "mode": "0600"},
            "vars": {prefix + name: value for name, value in given.items()},
        }
        for number, (given, _expected) in enumerate(cases)
    ]
    play(tmp_path, plays=[{"vars_files": [str(ROLES / "confidential_containers/defaults/main.yml")], "tasks": tasks}])
    for number, (_given, expected) in enumerate(cases):
        assert json.loads((tmp_path / f"found-{number}").read_text()) == expected


def test_the_former_tag_chooses_the_step() -> None:
    text = (ROLES / "confidential_containers/tasks/install.yml").read_text()
    (step,) = [task for task in yaml.safe_load(text) if task.get("ansible.builtin.import_tasks") == "cc_manager.yml"]
    assert step["tags"] == ["cc_manager", "operand"]
