# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The modules as a whole: arguments in, JSON out, as Ansible runs them and inside this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from answer_forms import amiss

from ansible_collections.confidential.gpu.plugins.doc_fragments import devices
from ansible_collections.confidential.gpu.plugins.module_utils import _buses, _module
from ansible_collections.confidential.gpu.plugins.module_utils._core import answers
from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import InvalidRequest
from ansible_collections.confidential.gpu.plugins.module_utils._pci.sysfs import SysfsBus
from ansible_collections.confidential.gpu.plugins.module_utils._pci.vfio_user import VfioUserBus
from ansible_collections.confidential.gpu.plugins.modules import cc_mode, cc_mode_info

GPU, B200, A100 = "0000:01:00.0", "0000:02:00.0", "0000:05:00.0"
ROOT = Path(__file__).resolve().parents[4]
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(emulated: Any, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a module inside this process against the emulated devices."""

    def run_module(module: Any, **arguments: Any) -> dict[str, Any]:
        with_bus = {"bus": "vfio-user:%s" % emulated.sockets, **arguments}
        with patch_module_args(with_bus), pytest.raises(SystemExit) as ended:
            module.main()
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert bool(ended.value.code) == bool(result.get("failed"))
        return result

    return run_module


# --- cc_mode ----------------------------------------------------------------------------------------------------------


def test_a_change_and_its_fact(run: Run, emulated: Any, tmp_path: Path) -> None:
    fact_file = tmp_path / "confidential_gpu.fact"
    result = run(cc_mode, mode="on", devices=[GPU], fact_file=str(fact_file))
    assert result["changed"]
    assert result["fact"] == {"mode": "on", "gpus": {GPU: "on"}, "nvswitches": {}}
    assert json.loads(fact_file.read_text()) == result["fact"]
    assert emulated.control.state(GPU)["mode"] == "on"


def test_the_second_time_nothing_changes_but_the_fact_is_kept(run: Run, tmp_path: Path) -> None:
    run(cc_mode, mode="on", devices=[GPU])
    result = run(cc_mode, mode="on", devices=[GPU], fact_file=str(tmp_path / "x.fact"))
    assert not result["changed"]
    assert result["plan"] == []
    assert (tmp_path / "x.fact").exists()


def test_check_mode_changes_nothing(run: Run, emulated: Any, tmp_path: Path) -> None:
    result = run(cc_mode, mode="on", devices=[GPU], fact_file=str(tmp_path / "x.fact"), _ansible_check_mode=True)
    assert result["changed"]
    assert [step["step"] for step in result["plan"]] == ["stage", "stage", "reset", "verify"]
    assert result["diff"]["before"] != result["diff"]["after"]
    assert not (tmp_path / "x.fact").exists()
    assert emulated.control.state(GPU)["counters"]["knob_writes"] == 0


@pytest.mark.parametrize(("given", "mode"), [(True, "on"), (False, "off"), ("True", "on"), ("devtools", "devtools")])
def test_modes_may_have_been_booleans_in_yaml(run: Run, given: Any, mode: str) -> None:
    result = run(cc_mode, modes={GPU: given})
    assert result["devices"][0]["mode_after"] == mode


@pytest.mark.parametrize("given", [True, "on", "yes"])
def test_a_mode_may_have_been_a_boolean_in_yaml(run: Run, given: Any) -> None:
    if given == "yes":
        assert run(cc_mode, mode=given)["failed"]
    else:
        assert run(cc_mode, mode=given, devices=[GPU])["devices"][0]["mode_after"] == "on"


def test_a_refusal_tells_what_was_found(run: Run) -> None:
    result = run(cc_mode, mode="on", devices=[GPU, A100])
    assert result["failed"]
    assert not result["changed"]
    assert result["msg"].startswith("0000:05:00.0 (A100): the device cannot do the mode on")
    assert result["error"]["kind"] == "Unsupported"
    assert [device["mode_before"] for device in result["devices"]] == ["off", "unsupported"]


def test_a_failure_in_the_middle_has_changed_something(run: Run, emulated: Any) -> None:
    emulated.control.fault(device=B200, event="reset", action="mode_stuck")
    result = run(cc_mode, mode="on", devices=[GPU, B200])
    assert result["failed"]
    assert result["changed"]
    assert result["error"]["kind"] == "VerifyMismatch"
    assert [device["mode_after"] for device in result["devices"]] == ["on", "off"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "one of the following is required: mode, modes"),
        ({"mode": "on", "modes": {}}, "mutually exclusive"),
        ({"mode": "fast"}, "must be one of"),
        ({"mode": "on", "bus": "usb"}, "'usb' is not a bus"),
        ({"mode": "on", "bus": "vfio-user:"}, "is not a bus"),
        ({"mode": "on", "devices": ["gpu0"]}, "not a PCI address"),
        ({"modes": {"17:00.0": "fast"}}, "'fast' is not a mode"),
        ({"mode": "on", "admin_tools": "/nonexistent"}, "There is no nvidia_gpu_tools.py"),
    ],
)
def test_requests_that_are_refused(run: Run, emulated: Any, arguments: dict[str, Any], words: str) -> None:
    result = run(cc_mode, **arguments)
    assert result["failed"]
    assert words in result["msg"]
    assert emulated.control.state(GPU)["counters"]["reads"] == 0


def test_a_fact_that_cannot_be_kept_is_refused_before_anything_is_touched(
    run: Run, emulated: Any, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    result = run(cc_mode, mode="on", devices=[GPU], fact_file=str(tmp_path / "file" / "x.fact"))
    assert result["failed"]
    assert "fact file" in result["msg"]
    assert emulated.control.state(GPU)["counters"]["writes"] == 0


def test_after_an_error_the_fact_says_what_is_known(run: Run, emulated: Any, tmp_path: Path) -> None:
    fact_file = tmp_path / "x.fact"
    run(cc_mode, mode="on", devices=[GPU], fact_file=str(fact_file))
    emulated.control.fault(device=GPU, event="knob_write", action="power_cut")
    result = run(cc_mode, mode="off", devices=[GPU], fact_file=str(fact_file))
    assert result["failed"]
    assert result["devices"][0]["mode_after"] is None
    assert json.loads(fact_file.read_text())["mode"] is None


# --- cc_mode_info -----------------------------------------------------------------------------------------------------


def test_info(run: Run) -> None:
    result = run(cc_mode_info, devices=["01:00.0"])
    assert not result["changed"]
    assert [device["address"] for device in result["devices"]] == [GPU]
    assert set(result["host"]) == {"tdx", "sev_snp", "iommu", "lockdown"}
    assert "2025.11.21" in result["tool_version"]


def test_info_that_cannot_be_had(run: Run) -> None:
    result = run(cc_mode_info, devices=["x"])
    assert result["failed"]
    assert result["error"]["kind"] == "InvalidRequest"


def test_everything_that_info_returns_is_documented(run: Run) -> None:
    documented = yaml.safe_load(cc_mode_info.RETURN)
    result = run(cc_mode_info)
    assert set(result) - {"changed", "invocation"} == set(documented) - {"error"}
    assert set(result["devices"][0]) == set(documented["devices"]["contains"])
    assert list(amiss(_without_invocation(result), answers.InfoAnswer)) == []


def test_everything_that_a_change_returns_is_documented(run: Run, tmp_path: Path) -> None:
    documented = yaml.safe_load(cc_mode.RETURN)
    result = run(cc_mode, mode="off", devices=[GPU], audit_folder=str(tmp_path))
    assert set(result) - {"changed", "invocation", "diff"} == set(documented) - {"error"}
    assert set(result["devices"][0]) == set(documented["devices"]["contains"])
    assert list(amiss(_without_invocation(result), answers.ChangeAnswer)) == []


@pytest.mark.parametrize("mode", ["on", "off"])
def test_a_change_and_what_is_read_after_it_have_their_forms(run: Run, mode: str) -> None:
    changed, read = run(cc_mode, mode=mode, devices=[GPU]), run(cc_mode_info)
    assert list(amiss(_without_invocation(changed), answers.ChangeAnswer)) == []
    assert list(amiss(_without_invocation(read), answers.InfoAnswer)) == []


def test_the_error_of_a_refusal_has_its_form(run: Run) -> None:
    result = run(cc_mode, mode="on", devices=[GPU, A100])
    assert list(amiss(result["error"], answers.Problem)) == []
    assert list(amiss(result["devices"], list[answers.ChangedDevice])) == []


def _without_invocation(result: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key != "invocation"}


@pytest.mark.parametrize("fragment", ["DOCUMENTATION", "STATE"])
def test_every_shared_option_is_documented_with_its_default(fragment: str) -> None:
    shared = {"DOCUMENTATION": _module.DEVICE_ARGUMENTS, "STATE": _module.STATE_ARGUMENTS}[fragment]
    options = yaml.safe_load(getattr(devices.ModuleDocFragment, fragment))["options"]
    assert set(options) == set(shared)
    for name, argument in shared.items():
        assert options[name]["type"] == argument["type"]
        assert options[name].get("default") == argument.get("default")


# --- as Ansible runs them ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def collections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the collection lies as Ansible's installer puts it."""
    base = tmp_path_factory.mktemp("collections")
    (base / "ansible_collections" / "confidential").mkdir(parents=True)
    (base / "ansible_collections" / "confidential" / "gpu").symlink_to(ROOT)
    return base


def as_a_program(collections: Path, arguments: dict[str, Any], name: str) -> dict[str, Any]:
    """The result of a module in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "ansible_collections.confidential.gpu.plugins.modules.%s" % name],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
        env={**os.environ, "PYTHONPATH": str(collections)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stderr == ""
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("name", ["cc_mode", "cc_mode_info"])
def test_as_a_program(collections: Path, emulated: Any, name: str) -> None:
    arguments = {"bus": "vfio-user:%s" % emulated.sockets, "devices": [GPU]}
    arguments.update({"mode": "devtools"} if name == "cc_mode" else {})
    result = as_a_program(collections, arguments, name)
    assert result["changed"] == (name == "cc_mode")
    assert "warnings" not in result
    assert emulated.control.state(GPU)["mode"] == ("devtools" if name == "cc_mode" else "off")


@pytest.mark.parametrize("name", ["cc_mode", "cc_mode_info"])
def test_a_tool_that_is_newer_than_tested_is_told(
    collections: Path, emulated: Any, newer_tool: Callable[..., str], name: str
) -> None:
    arguments = {"bus": "vfio-user:%s" % emulated.sockets, "devices": [GPU], "admin_tools": newer_tool()}
    arguments.update({"mode": "off"} if name == "cc_mode" else {})
    (warning,) = as_a_program(collections, arguments, name)["warnings"]
    assert "v2031.01.02o is newer than release 2025.11.21, with which this collection is tested" in str(warning)


# --- what the modules share -------------------------------------------------------------------------------------------


def test_buses_by_name(tmp_path: Path) -> None:
    assert isinstance(_buses.bus_named("sysfs"), SysfsBus)
    bus = _buses.bus_named("vfio-user:%s" % tmp_path)
    assert isinstance(bus, VfioUserBus)
    assert bus.folder == str(tmp_path)
    with pytest.raises(InvalidRequest, match="vfio-user: followed by a folder"):
        _buses.bus_named("pci")


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "on"), (False, "off"), ("True", "on"), ("False", "off"), ("on", "on"), ("ppcie", "ppcie")],
)
def test_modes_as_text(value: Any, text: str) -> None:
    assert _module.mode_text(value) == text
