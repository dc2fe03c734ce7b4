# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The modules of the bare-metal manager, run inside this process against an emulated API."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from bmm_emulator.launch import launch
from bmm_emulator.server import Emulator

from ansible_collections.confidential.gpu.plugins.module_utils import _bmm_module
from ansible_collections.confidential.gpu.plugins.module_utils._bmm import change
from ansible_collections.confidential.gpu.plugins.module_utils._bmm.credentials import ENVIRONMENT
from ansible_collections.confidential.gpu.plugins.modules import (
    bmm_instance,
    bmm_instance_info,
    bmm_machine_info,
    bmm_site_info,
)

MODULES = (bmm_instance, bmm_instance_info, bmm_machine_info, bmm_site_info)
FLEET = {
    "timing": {"reboot_s": 0.05},
    "sites": [{"name": "sjc4", "location": {"city": "San Jose", "state": "CA", "country": "USA"}}, {"name": "rno1"}],
    "instances": [
        {"name": "gpu-{n}", "count": 2, "addresses": ["10.0.0.0/24"], "labels": {"env": "prod"}},
        {"name": "ill", "status": "Repairing", "fields": {"userData": "passw0rd"}},
        {"name": "old", "status": "Terminated"},
    ],
}
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with launch(FLEET) as running:
        yield running


@pytest.fixture
def run(emulator: Emulator, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    for name in ENVIRONMENT.values():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(change, "POLL_S", 0.01)

    def run_module(module: Any, **arguments: Any) -> dict[str, Any]:
        given = {"endpoint": emulator.url, "org": "acme", "token": "emulated", "deadline": 1, **arguments}
        given = {name: value for name, value in given.items() if value is not None}
        with patch_module_args(given), pytest.raises(SystemExit) as ended:
            module.main()
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert bool(ended.value.code) == bool(result.get("failed"))
        return result

    return run_module


def patches(emulator: Emulator) -> int:
    return sum(request["method"] == "PATCH" for request in emulator.requests)


# --- information -----------------------------------------------------------------------------------------------------


def test_instances(run: Run, emulator: Emulator) -> None:
    result = run(bmm_instance_info)
    assert not result["changed"]
    assert [one["name"] for one in result["instances"]] == ["gpu-0", "gpu-1", "ill"]
    assert result["instances"][0]["location"]["city"] == "San Jose"
    assert "passw0rd" not in json.dumps(result)
    chosen = run(bmm_instance_info, ids=[emulator.instance("ill")["id"]])
    assert [one["status"] for one in chosen["instances"]] == ["Repairing"]
    assert run(bmm_instance_info, include_filters=[{"name": "nobody"}])["instances"] == []


def test_instances_document_what_they_return(run: Run) -> None:
    for module, key in ((bmm_instance_info, "instances"), (bmm_site_info, "sites")):
        documented = yaml.safe_load(module.RETURN)[key]["contains"]
        assert set(run(module)[key][0]) == set(documented)


def test_machines(run: Run, emulator: Emulator) -> None:
    machine_id = emulator.instance("gpu-0")["machineId"]
    result = run(bmm_machine_info, ids=[machine_id])
    assert [one["id"] for one in result["machines"]] == [machine_id]
    assert set(result["machines"][0]) == set(yaml.safe_load(bmm_machine_info.RETURN)["machines"]["contains"])
    refused = run(bmm_machine_info)
    assert refused["error"]["kind"] == "NotAllowed"
    assert "Give ids" in refused["msg"]


def test_a_provider_lists_machines(run: Run) -> None:
    with launch({**FLEET, "provider": True}) as provider:
        found = run(bmm_machine_info, endpoint=provider.url)["machines"]
        assert len(found) == 4
        site_id = found[0]["site_id"]
        assert len(run(bmm_machine_info, endpoint=provider.url, site_id=site_id)["machines"]) == 4
        assert run(bmm_machine_info, endpoint=provider.url, site_id="none")["machines"] == []


def test_sites(run: Run) -> None:
    assert [one["name"] for one in run(bmm_site_info)["sites"]] == ["rno1", "sjc4"]
    assert [one["name"] for one in run(bmm_site_info, names=["sjc4"])["sites"]] == ["sjc4"]
    assert "There are: rno1, sjc4" in run(bmm_site_info, names=["nowhere"])["msg"]


# --- labels and reboots ----------------------------------------------------------------------------------------------


def test_labels(run: Run, emulator: Emulator) -> None:
    its_id = emulator.instance("gpu-0")["id"]
    desired = {"id": its_id, "labels": {"mode": "on"}}
    diff = {"before": {"labels": {"env": "prod"}}, "after": {"labels": {"env": "prod", "mode": "on"}}}
    planned = run(bmm_instance, **desired, _ansible_check_mode=True)
    assert (planned["changed"], planned["diff"]) == (True, diff)
    assert patches(emulator) == 0
    done = run(bmm_instance, **desired)
    assert (done["changed"], done["diff"], done["labels"]) == (True, diff, diff["after"]["labels"])
    assert emulator.instance("gpu-0")["labels"] == {"env": "prod", "mode": "on"}
    for check in (False, True):
        assert not run(bmm_instance, **desired, _ansible_check_mode=check)["changed"]
    assert patches(emulator) == 1
    assert run(bmm_instance, id=its_id, labels={"env": None})["labels"] == {"mode": "on"}
    assert run(bmm_instance, id=its_id, labels={"a": "b"}, replace_labels=True)["labels"] == {"a": "b"}


def test_too_many_labels_are_refused_before_anything_is_changed(run: Run, emulator: Emulator) -> None:
    labels = {str(number): "x" for number in range(10)}
    result = run(bmm_instance, id=emulator.instance("gpu-0")["id"], labels=labels, reboot=True)
    assert "would have 11 labels" in result["msg"]
    assert patches(emulator) == 0


def test_a_reboot_is_waited_for(run: Run, emulator: Emulator) -> None:
    its_id = emulator.instance("gpu-0")["id"]
    planned = run(bmm_instance, id=its_id, reboot=True, _ansible_check_mode=True)
    assert (planned["changed"], planned["rebooted"], patches(emulator)) == (True, True, 0)
    result = run(bmm_instance, id=its_id, reboot=True)
    assert (result["changed"], result["rebooted"], result["status"]) == (True, True, "Ready")
    assert [one["status"] for one in emulator.instance("gpu-0")["statusHistory"]] == ["Ready", "Rebooting", "Ready"]
    assert run(bmm_instance, id=its_id, reboot=True, wait=False)["status"] == "Rebooting"


def test_an_instance_that_is_still_ready_has_not_rebooted_yet(run: Run, emulator: Emulator) -> None:
    emulator.world.timing = {"reboot_begins_s": 0.3, "reboot_s": 0.1}
    run(bmm_instance, id=emulator.instance("gpu-0")["id"], reboot=True)
    assert [one["status"] for one in emulator.instance("gpu-0")["statusHistory"]] == ["Ready", "Rebooting", "Ready"]


def test_an_instance_that_is_not_ready_is_not_rebooted(run: Run, emulator: Emulator) -> None:
    result = run(bmm_instance, id=emulator.instance("ill")["id"], reboot=True, labels={"a": "b"})
    assert result["error"]["kind"] == "NotReady"
    assert result["error"]["retryable"]
    assert patches(emulator) == 0


def test_a_reboot_that_leads_nowhere(run: Run, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    emulator.world.timing = {"reboot_begins_s": 0.0, "reboot_s": 60.0}
    its_id = emulator.instance("gpu-0")["id"]
    late = run(bmm_instance, id=its_id, reboot=True, wait_timeout=0.1)
    assert "was not Ready again within 0.1 s" in late["msg"]
    real = emulator.alter

    def ill(client: Any, instance: Any) -> Any:
        real("instance", instance, {"status": "Repairing", "message": "a GPU fell off the bus"})
        return {}

    monkeypatch.setattr("ansible_collections.confidential.gpu.plugins.module_utils._bmm.client.Client.reboot", ill)
    emulator.alter("instance", "gpu-0", {"status": "Ready"})
    result = run(bmm_instance, id=its_id, reboot=True)
    assert result["error"]["kind"] == "RebootFailed"
    assert "turned Repairing in its reboot: a GPU fell off the bus" in result["msg"]


# --- all of them -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.rsplit(".")[-1])
def test_an_error_is_data_and_tells_no_secret(run: Run, emulator: Emulator, module: Any) -> None:
    emulator.add_faults([{"action": "status", "status": 401, "times": "forever"}])
    more = {"id": "1"} if module is bmm_instance else {}
    result = run(module, token="s3cr3t-t0ken", **more)
    assert result["error"]["kind"] == "NotAuthenticated"
    assert "Give a token that has not expired" in result["msg"]
    assert "s3cr3t-t0ken" not in json.dumps(result)


def test_settings_come_from_the_environment_too(run: Run, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVIDIA_BMM_TOKEN", "emulated")
    assert len(run(bmm_site_info, token=None)["sites"]) == 2
    monkeypatch.delenv("NVIDIA_BMM_TOKEN")
    assert "No way to a token" in run(bmm_site_info, token=None)["msg"]


def test_the_options_are_those_of_the_fragment() -> None:
    from ansible_collections.confidential.gpu.plugins.doc_fragments.bmm import ModuleDocFragment  # noqa: PLC0415

    assert set(yaml.safe_load(ModuleDocFragment.DOCUMENTATION)["options"]) == set(_bmm_module.ARGUMENTS)
