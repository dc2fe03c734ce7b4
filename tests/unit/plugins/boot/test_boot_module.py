# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The module kernel_cmdline as Ansible runs it; only in check mode, which touches nothing of this machine."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from boot_host import Described

from ansible_collections.confidential.gpu.plugins.module_utils._boot.errors import Interrupted
from ansible_collections.confidential.gpu.plugins.modules import kernel_cmdline


def answer(capsys: pytest.CaptureFixture[str], root: str = "/", **arguments: Any) -> dict[str, Any]:
    before = {number: signal.getsignal(number) for number in kernel_cmdline.STOPS}
    try:
        with patch_module_args({"_ansible_check_mode": True, **arguments}), pytest.raises(SystemExit):
            kernel_cmdline.main(root)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_what_would_be_done(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    Described("flatcar").build(tmp_path)
    (tmp_path / "proc/cmdline").write_text("flatcar.autologin\n")
    result = answer(capsys, str(tmp_path), add=["confidential.gpu=1"], loader="flatcar")
    assert result["changed"] is True
    assert result["loader"] == "flatcar"
    assert result["after"].endswith("confidential.gpu=1")
    assert result["reboot_required"] is True
    assert result["backup_files"] == []
    assert result["diff"][0]["before_header"] == "kernel command line"


CPU = {"tdx": "GenuineIntel", "snp": "AuthenticAMD"}


@pytest.mark.parametrize(
    ("technology", "running", "after", "reboot"),
    [
        ("tdx", "intel_iommu=off quiet", "quiet intel_iommu=on kvm_intel.tdx=1 nohibernate huge=1", True),
        ("tdx", "huge=1 intel_iommu=on,sm_on kvm_intel.tdx=y hibernate=no", None, False),
        ("snp", "huge=1 iommu=pt,nobypass quiet", "huge=1 quiet iommu=nobypass", True),
    ],
)
def test_a_technology_by_what_the_kernel_makes_of_the_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, technology: str, running: str, after: str | None, reboot: bool
) -> None:
    Described("flatcar-bare").build(tmp_path)
    for name, text in {
        "oem/grub.cfg": f'set linux_append="{running}"',
        "proc/cmdline": running,
        "proc/cpuinfo": f"vendor_id : {CPU[technology]}\nflags : fpu\n",
        "sys/module/kvm_intel/parameters/tdx": "Y",
        "sys/kernel/iommu_groups/0/type": "DMA",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    result = answer(capsys, str(tmp_path), technology="auto", add=["huge=1"])
    assert result["technology"] == technology
    assert result["after"] == (after or running)
    assert result["changed"] is (after is not None)
    assert result["reboot_required"] is reboot
    assert result["host"]["iommu"]["value"] == "yes"
    assert result["host"]["sev_snp"]["value"] == "unknown"


def test_a_technology_that_what_is_asked_for_forbids(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    Described("flatcar").build(tmp_path)
    (tmp_path / "proc/cmdline").write_text("quiet\n")
    result = answer(capsys, str(tmp_path), technology="tdx", remove=["intel_iommu"], loader="flatcar")
    assert result["failed"] is True
    assert result["error"]["state"] == "Nothing was changed."
    assert "remove asks for intel_iommu" in result["error"]["cause"]


def test_a_loader_that_is_not_this_hosts(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    result = answer(capsys, str(tmp_path), add=["confidential.gpu=1"], loader="flatcar")
    assert result["failed"] is True
    assert result["error"]["kind"] == "UnknownLoader"
    assert "flatcar does not make what boots on this host" in result["error"]["cause"]


def test_a_refused_token(capsys: pytest.CaptureFixture[str]) -> None:
    result = answer(capsys, add=["a b"])
    assert result["failed"] is True
    assert result["changed"] is False
    assert result["error"]["kind"] == "InvalidToken"
    assert result["error"]["state"] == "Nothing was changed."
    assert "reboot_required" not in result


def test_a_stop_is_an_error_and_the_next_one_is_ignored() -> None:
    before = {number: signal.getsignal(number) for number in kernel_cmdline.STOPS}
    try:
        with pytest.raises(Interrupted, match="stopped by SIGHUP"):
            kernel_cmdline._interrupted(signal.SIGHUP, None)
        assert {signal.getsignal(number) for number in kernel_cmdline.STOPS} == {signal.SIG_IGN}
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
