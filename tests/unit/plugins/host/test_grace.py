# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Grace hosts: no confidential virtual machines, which is said as it is; and their GPUs go to vfio as anywhere else.

A tree in trees/ has a line for each thing: ``file PATH [TEXT]``, ``folder PATH``, ``driver NAME [USERS]``, and
``device ADDRESS VENDOR:DEVICE CLASS group=NUMBER [driver=NAME]``.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from emulator.launch import launch
from fake_pci_kernel import FakeKernel

from ansible_collections.confidential.gpu.plugins.module_utils._boot.cmdline import Desired, split
from ansible_collections.confidential.gpu.plugins.module_utils._gpu import report
from ansible_collections.confidential.gpu.plugins.module_utils._host import parameters, processor, system
from ansible_collections.confidential.gpu.plugins.module_utils._host.readiness import check
from ansible_collections.confidential.gpu.plugins.module_utils._pci.binding import Binding
from ansible_collections.confidential.gpu.plugins.module_utils._pci.request import Request
from ansible_collections.confidential.gpu.plugins.module_utils._pci.sysfs import SysfsBus
from ansible_collections.confidential.gpu.plugins.module_utils._pci.vfio_user import VfioUserBus

TREES = Path(__file__).resolve().parent / "trees"
GRACE = "nvgrace_gpu_vfio_pci"
GPUS = {
    "gh200": ["0009:01:00.0"],
    "gb200": ["0008:01:00.0", "0009:01:00.0", "0018:01:00.0", "0019:01:00.0"],
}


class Grace(FakeKernel):
    """The host of a tree."""

    def __init__(self, root: Path, name: str) -> None:
        super().__init__(root)
        for line in (TREES / f"{name}.txt").read_text().splitlines():
            kind, _space, rest = line.partition(" ")
            if kind == "file":
                path, _space, text = rest.partition(" ")
                self.put(path, text.encode().decode("unicode_escape"))
            elif kind == "folder":
                (root / rest).mkdir(parents=True)
            elif kind == "driver":
                driver, *users = rest.split()
                self.driver(driver, refcnt=int(users[0]) if users else None)
            elif kind == "device":
                address, identity, class_code, *more = rest.split()
                given = dict(one.split("=") for one in more)
                self.device(address, identity, int(class_code, 16), int(given["group"]), given.get("driver"))

    def put(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text + "\n")

    def ready(self) -> dict[str, tuple[str, str, str]]:
        """Requirement to state, what was seen, and remedy."""
        found = check(SysfsBus(str(self.root)), root=str(self.root))["requirements"]
        return {one["requirement"]: (one["state"], one["seen"], one["remedy"]) for one in found}

    def bind(self, *addresses: str) -> None:
        """Give devices to vfio's driver of Grace's GPUs."""
        Binding(Request(devices=addresses, driver=GRACE), str(self.root), self).run()


@pytest.fixture(params=sorted(GPUS))
def name(request: pytest.FixtureRequest) -> str:
    """Which tree."""
    return str(request.param)


@pytest.fixture
def host(tmp_path: Path, name: str) -> Grace:
    """Its host."""
    return Grace(tmp_path, name)


def test_an_arm_processor_is_known_by_its_implementer(host: Grace) -> None:
    assert processor.read(host.root) == processor.Processor("", frozenset(), is_arm=True)


def test_it_is_said_that_there_are_no_confidential_virtual_machines(host: Grace) -> None:
    ready = host.ready()
    assert ready["confidential_processor"] == (
        "missing",
        "Arm processor, no TDX and no SEV-SNP",
        system.NO_CONFIDENTIAL_ARM,
    )
    assert ready["kernel"][0] == "missing"  # no release brings them
    assert "not supported" in ready["kernel"][2]
    assert not {"tdx", "sev_snp"} & set(ready)


def test_what_ordinary_virtual_machines_need_is_there(host: Grace, name: str) -> None:
    ready = host.ready()
    for requirement in ("firmware", "virtualization", "iommu", "command_line", "vfio", "lockdown", "devices"):
        assert ready[requirement][0] == "ok", requirement
    assert ready["firmware"][1] == "ACPI table IORT"
    assert ready["devices"][1] == ", ".join(GPUS[name])


def test_vfio_of_grace_needs_no_vfio_pci(host: Grace) -> None:
    assert host.ready()["vfio"] == ("ok", f"vfio, vfio_iommu_type1, iommufd, {GRACE}", "")
    (host.root / "sys/module" / GRACE).rmdir()
    assert host.ready()["vfio"][:2] == ("missing", f"not loaded: {GRACE} or vfio_pci")
    (host.root / "sys/module/vfio_pci").mkdir()
    assert host.ready()["vfio"][0] == "ok"


def test_a_host_without_kvm_is_not_sent_to_vt_x(host: Grace) -> None:
    (host.root / "dev/kvm").unlink()
    state, seen, remedy = host.ready()["virtualization"]
    assert (state, seen) == ("missing", "Arm processor, no /dev/kvm")
    assert "EL2" in remedy


def test_without_groups_the_smmu_is_named(host: Grace) -> None:
    (host.root / "sys/kernel/iommu_groups").rename(host.root / "gone")
    state, _seen, remedy = host.ready()["iommu"]
    assert state == "missing"
    assert "SMMU" in remedy


def test_no_parameter_of_another_makers_iommu_is_asked_for(host: Grace) -> None:
    vendor = processor.read(host.root).vendor
    running = split((host.root / "proc/cmdline").read_text().strip())
    assert parameters.technology_of(vendor) == parameters.PASSTHROUGH
    asked = parameters.desired(Desired(), parameters.PASSTHROUGH, vendor, running, running)
    assert asked.add == ()
    assert asked.applied(running) == list(running)


def test_the_gpus_go_to_vfio_and_nothing_else_does(host: Grace, name: str) -> None:
    host.bind(*GPUS[name])
    assert {host.driver_of(address) for address in GPUS[name]} == {GRACE}
    assert host.driver_of("0000:01:00.0") == "nvme"
    ready = host.ready()
    assert ready["binding"] == ("ok", f"{GRACE}: {', '.join(GPUS[name])}", "")
    assert ready["host_driver"][0] == "ok"


# --- their families: Grace's GPUs have the registers of their chips, whatever their ids -------------------------------


@pytest.mark.parametrize(
    ("model", "modes", "mode", "problem"),
    [
        ({"model": "h100-sxm", "device_id": 0x2342}, ["off", "on", "devtools", "ppcie"], "off", None),
        ({"model": "b200", "device_id": 0x2941}, ["off", "on", "devtools"], "off", None),
        ({"model": "a100"}, [], "unsupported", None),
        ({"model": "unknown"}, [], None, "UnknownDevice"),
    ],
    ids=["GH200", "GB200", "an older architecture", "one that nobody knows"],
)
def test_a_gpu_has_the_modes_of_its_chips_family_and_an_unknown_one_has_none(
    model: dict[str, object], modes: list[str], mode: str | None, problem: str | None
) -> None:
    device = {"address": "0009:01:00.0", **model}
    with launch({"name": "grace", "devices": [device]}, boot_s=0.02, flr_s=0.02) as running:
        (entry,) = report.read(VfioUserBus(str(running.sockets)))["devices"]
    assert sorted(entry["supported_modes"]) == sorted(modes)
    assert entry["mode"] == mode
    found = entry["problem"]
    assert (found["kind"] if found else None) == problem
