# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The module: arguments in, plain data out, errors as failures."""

from __future__ import annotations

import functools
import json

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args

from ansible_collections.confidential.gpu.plugins.module_utils._pci.binding import Binding
from ansible_collections.confidential.gpu.plugins.modules import pci_driver


@pytest.fixture
def run(kernel, clock, capsys, monkeypatch):
    """Run the module on the test's kernel; its answer."""
    here = functools.partial(Binding, root=str(kernel.root), kernel=kernel, clock=clock)
    monkeypatch.setattr(pci_driver, "Binding", here)

    def run(**arguments):
        with patch_module_args(arguments), pytest.raises(SystemExit):
            pci_driver.main()
        return json.loads(capsys.readouterr().out)

    return run


def test_binds_and_then_has_nothing_to_do(run, kernel):
    planned = run(devices=["17:00.0"], _ansible_check_mode=True, _ansible_diff=True)
    assert planned["changed"]
    assert planned["diff"]["before"]
    assert kernel.writes == []
    made = run(devices=["17:00.0"])
    assert (made["changed"], made["plan"], made["devices"]) == (True, planned["plan"], planned["devices"])
    assert run(match={"devices": ["2331"]})["changed"]
    assert not run(match={"devices": ["2331"]})["changed"]


def test_a_failure_says_how_far_it_got(run, kernel):
    kernel.hold(4711, "/sys/devices/pci0000:00/0000:17:00.0/resource0")
    answer = run(devices=["17:00.0"])
    assert (answer["failed"], answer["changed"], answer["error"]["kind"]) == (True, False, "DeviceBusy")
    assert answer["devices"][0]["driver_after"] == "nvidia"


def test_what_wins_over_the_roles_files_is_a_warning_with_its_line(run, kernel, monkeypatch):
    folder = kernel.root / "etc/modprobe.d"
    folder.mkdir(parents=True)
    (folder / "local.conf").write_text("# mine\nblacklist vfio-pci\n")
    why = "vfio_pci is not loaded at boot"
    rival = {"file": "/etc/modprobe.d/local.conf", "line": 2, "text": "blacklist vfio-pci", "why": why}
    told: list[str] = []  # Ansible keeps warnings for all of a process, which is here that of many tests
    monkeypatch.setattr(AnsibleModule, "warn", lambda _module, text: told.append(text))
    for address in ("17:00.0", "99:00.0"):
        assert run(devices=[address])["rivals"] == [rival]
        assert told.pop() == (
            "/etc/modprobe.d/local.conf, line 2 (blacklist vfio-pci): vfio_pci is not loaded at boot. "
            "Take that line out: the next boot may give devices to another driver."
        )
    assert run(devices=["17:00.0"], state="default")["rivals"] == []
    assert told == []


def test_a_request_that_cannot_be_meant(run):
    assert run(devices=["17:00.0"], timeout=-1)["error"]["kind"] == "InvalidRequest"
    assert run()["error"]["kind"] == "InvalidRequest"
