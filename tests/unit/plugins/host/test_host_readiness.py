# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Requirements, each on a host that has it, lacks it or does not tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from emulator.launch import launch
from fake_pci_kernel import FakeKernel

from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import InvalidRequest
from ansible_collections.confidential.gpu.plugins.module_utils._host.gpus import judged
from ansible_collections.confidential.gpu.plugins.module_utils._host.readiness import check
from ansible_collections.confidential.gpu.plugins.module_utils._pci.sysfs import SysfsBus
from ansible_collections.confidential.gpu.plugins.module_utils._pci.vfio_user import VfioUserBus

ONE, OTHER = "0000:17:00.0", "0000:3d:00.0"
INTEL = "vendor_id\t: GenuineIntel\nflags\t\t: fpu vmx\n"
AMD = "vendor_id\t: AuthenticAMD\nflags\t\t: fpu svm\n"
ARM = "CPU implementer\t: 0x41\n"


class Host(FakeKernel):
    """A ready one, until a test takes something away."""

    def __init__(self, root: Path, cpuinfo: str = AMD) -> None:
        super().__init__(root)
        self.put("proc/cpuinfo", cpuinfo)
        self.put("proc/cmdline", "BOOT_IMAGE=/vmlinuz root=/dev/sda1 quiet")
        self.put("dev/kvm", "")
        self.put("sys/kernel/security/lockdown", "[none] integrity confidentiality")
        self.put("sys/power/disk", "[platform] shutdown reboot")
        self.put("sys/module/kvm_amd/parameters/sev_snp", "Y")
        for module in ("vfio", "vfio_iommu_type1", "vfio_pci"):
            (root / "sys/module" / module).mkdir(parents=True)
        self.driver("vfio-pci")
        self.device(ONE, group=1, driver="vfio-pci")
        self.device(OTHER, group=2, driver="vfio-pci")

    def put(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text + "\n")

    def ask(self, name: str, **options: Any) -> tuple[str, str, str]:
        found = check(SysfsBus(str(self.root)), root=str(self.root), **options)["requirements"]
        return next((one["state"], one["seen"], one["remedy"]) for one in found if one["requirement"] == name)

    def intel(self, tdx: str | None = "Y", release: str = "6.17.0") -> None:
        self.put("proc/cpuinfo", INTEL)
        self.put("proc/sys/kernel/osrelease", release)
        if tdx is not None:
            self.put("sys/module/kvm_intel/parameters/tdx", tdx)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_ready_host_lacks_nothing_but_readable_registers(host):
    found = check(SysfsBus(str(host.root)), root=str(host.root))
    states = {one["requirement"]: one["state"] for one in found["requirements"]}
    assert found["missing"] == []
    assert found["unknown"] == ["modes"]  # the devices of this folder have no config space
    assert not found["ready"]
    assert list(states) == [
        "firmware",
        "virtualization",
        "iommu",
        "sev_snp",
        "kernel",
        "command_line",
        "vfio",
        "lockdown",
        "gpu_admin_tools",
        "devices",
        "host_driver",
        "binding",
        "modes",
    ]
    assert host.writes == []


def test_virtualization(host):
    assert host.ask("virtualization") == ("ok", "/dev/kvm, processor flag svm", "")
    (host.root / "dev/kvm").unlink()
    assert host.ask("virtualization")[0] == "missing"
    assert "modprobe kvm_amd" in host.ask("virtualization")[2]
    host.intel()
    assert "modprobe kvm_intel" in host.ask("virtualization")[2]
    host.put("proc/cpuinfo", "vendor_id : GenuineIntel\nflags : fpu\n")
    assert "firmware" in host.ask("virtualization")[2]
    host.put("proc/cpuinfo", "processor : 0\n")
    assert host.ask("virtualization")[0] == "unknown"
    host.put("dev/kvm", "")
    assert host.ask("virtualization") == ("ok", "/dev/kvm", "")


def test_firmware(host):
    assert host.ask("firmware") == ("ok", "an IOMMU that needs no ACPI table", "")
    host.put("sys/firmware/acpi/tables/DMAR", "")
    host.put("proc/cpuinfo", INTEL.replace("vmx", "vmx tdx_host_platform"))
    assert host.ask("firmware") == ("ok", "ACPI table DMAR, processor flag tdx_host_platform", "")


def test_firmware_that_has_its_iommu_switched_off(tmp_path):
    host = Host(tmp_path)
    (host.root / "sys/kernel/iommu_groups").rename(host.root / "gone")
    state, seen, remedy = host.ask("firmware")
    assert (state, seen) == ("unknown", "no ACPI table can be seen")
    host.put("sys/firmware/acpi/tables/FACP", "")
    state, seen, remedy = host.ask("firmware")
    assert (state, seen) == ("missing", "no ACPI table of an IOMMU (DMAR, IVRS, IORT)")
    for word in ("VT-d", "ACS", "TDX", "SMEE", "SEV-SNP", "RMP", "20 minutes"):
        assert word in remedy


def test_whatever_is_not_there_is_told_with_what_was_seen_and_what_to_do(tmp_path):
    bare = check(SysfsBus(str(tmp_path)), root=str(tmp_path), tools_path=str(tmp_path))["requirements"]
    for cpuinfo in (INTEL, AMD, ARM):
        host = Host(tmp_path / cpuinfo[-4:].strip(), cpuinfo)
        for path in ("dev/kvm", "proc/cmdline", "sys/kernel/security/lockdown"):
            (host.root / path).unlink()
        (host.root / "sys/kernel/iommu_groups").rename(host.root / "gone")
        bare += check(SysfsBus(str(host.root)), root=str(host.root))["requirements"]
    unmet = [one for one in bare if one["state"] != "ok"]
    assert len(unmet) > 30
    assert [one for one in unmet if not (one["seen"] and one["remedy"])] == []
    assert [one for one in unmet if one["seen"].endswith(".")] == []


def test_iommu(host):
    assert host.ask("iommu") == ("ok", "2 groups", "")
    for group in ("1", "2"):
        folder = host.root / "sys/kernel/iommu_groups" / group
        folder.rename(host.root / group)
    state, seen, remedy = host.ask("iommu")
    assert state == "missing"
    assert seen == "0 groups: The IOMMU is off, so no device can be given to a virtual machine"
    assert "VT-d" in remedy


def test_tdx_or_snp_by_the_processor(host):
    assert host.ask("sev_snp")[0] == "ok"
    host.put("sys/module/kvm_amd/parameters/sev_snp", "N")
    assert host.ask("sev_snp")[0] == "missing"
    host.intel(tdx=None)
    assert host.ask("tdx")[0] == "unknown"
    host.put("proc/cpuinfo", "processor : 0\n")
    assert host.ask("confidential_processor")[0] == "unknown"


@pytest.mark.parametrize(
    ("release", "state"),
    [
        ("6.11.0-9-generic", "ok"),
        ("7.0", "ok"),
        ("6.10.3", "missing"),
        ("5.14.0-503.el9", "missing"),
        ("odd", "unknown"),
    ],
)
def test_kernel_of_snp(host, release, state):
    host.put("sys/module/kvm_amd/parameters/sev_snp", "N")
    host.put("proc/sys/kernel/osrelease", release)
    assert host.ask("kernel")[:2] == (state, release)


def test_kernel_of_tdx(host):
    host.intel(tdx=None, release="6.15.9")
    state, _seen, remedy = host.ask("kernel")
    assert state == "missing"
    assert "TDX needs kernel 6.16" in remedy


def test_an_old_kernel_that_has_it_anyway(host):
    host.put("proc/sys/kernel/osrelease", "5.14.0-503.el9.x86_64")
    assert host.ask("kernel")[0] == "ok"


@pytest.mark.parametrize(
    "token",
    [
        "iommu=pt",
        "iommu=nobounce,pt",
        "iommu.passthrough=1",
        "amd_iommu=off",
        "amd_iommu=pgtbl_v2",
        "iommu=off",
        "kvm-amd.sev_snp=0",
        "kvm_amd.sev=N",
        "sev=debug,nosnp",
        "modprobe.blacklist=nouveau,vfio-pci",
        "module_blacklist=nouveau,vfio_pci",
        "iommu=pt,nobypass",
        "iommu.passthrough=true",
        "kvm_amd.sev_snp=off",
        "kvm_amd.sev_es=0",
        "kvm_amd.npt=no",
        "amd_iommu=force_isolation,pgtbl_v2",
    ],
)
def test_tokens_that_switch_snp_off(host, token):
    host.put("proc/cmdline", 'root=/dev/sda1 dyndbg="file drivers/x.c +p" %s quiet' % token)
    assert host.ask("command_line") == (
        "missing",
        token,
        "Remove %s from the kernel command line and reboot." % token,
    )


@pytest.mark.parametrize(
    "token",
    [
        "iommu=pt",
        "amd_iommu=on",
        "intel_iommu=off",
        "modprobe.blacklist=nouveau",
        "pt",
        "iommu=pt iommu=nopt",
        "amd_iommu=pgtbl_v2,pgtbl_v1",
        "module_blacklist=vfio_pci module_blacklist=nouveau",
        "quiet -- iommu=off",
    ],
)
def test_tokens_that_do_no_harm_here(host, token):
    if token == "iommu=pt":  # the rest is on AMD
        host.intel()
    host.put("proc/cmdline", token)
    assert host.ask("command_line")[0] == "ok"


def test_tdx_and_hibernation(host):
    host.intel(tdx="N")
    host.put("proc/cmdline", "quiet kvm_intel.tdx=1")
    assert host.ask("command_line")[1] == "hibernation is possible"
    host.put("proc/cmdline", "quiet kvm_intel.tdx=1 nohibernate")
    assert host.ask("command_line")[0] == "ok"
    host.put("proc/cmdline", "quiet kvm_intel.tdx=1 hibernate=no")
    assert host.ask("command_line")[0] == "ok"
    host.put("proc/cmdline", "quiet kvm_intel.tdx=1 hibernate=noresume")
    assert host.ask("command_line")[0] == "missing"
    host.put("sys/power/disk", "[disabled]")
    assert host.ask("command_line")[0] == "ok"
    host.put("proc/cmdline", "intel_iommu=off kvm_intel.tdx=0")
    assert host.ask("command_line")[1] == "intel_iommu=off kvm_intel.tdx=0"


def test_a_command_line_that_is_odd_or_unreadable(host):
    host.put("proc/cmdline", 'quiet iommu=pt "half iommu=off')  # one parameter, for the kernel
    assert host.ask("command_line")[1] == "iommu=pt"
    (host.root / "proc/cmdline").unlink()
    assert host.ask("command_line")[0] == "unknown"


def test_vfio(host):
    assert host.ask("vfio") == ("ok", "vfio, vfio_iommu_type1, vfio_pci", "")
    (host.root / "sys/module/vfio_iommu_type1").rmdir()
    assert host.ask("vfio")[:2] == ("missing", "not loaded: vfio_iommu_type1")
    (host.root / "sys/module/iommufd").mkdir()
    assert host.ask("vfio")[0] == "ok"
    (host.root / "sys/module/vfio_pci").rmdir()
    assert host.ask("vfio")[:2] == ("missing", "not loaded: vfio_pci")
    host.put("lib/modules/6.17.0-test/modules.builtin", "kernel/drivers/vfio/pci/vfio-pci.ko")
    assert host.ask("vfio")[0] == "ok"


def test_vfio_that_the_next_boot_does_not_load(host):
    host.put("usr/lib/modprobe.d/local.conf", "options x y=1\n\ninstall vfio-pci /bin/false")
    assert host.ask("vfio") == (
        "missing",
        "/usr/lib/modprobe.d/local.conf, line 3 (install vfio-pci /bin/false): "
        "modprobe runs this in place of loading vfio_pci",
        "Take these lines out, and rebuild the initramfs.",
    )


def test_lockdown(host):
    assert host.ask("lockdown")[0] == "ok"
    host.put("sys/kernel/security/lockdown", "none [integrity] confidentiality")
    assert host.ask("lockdown")[0] == "missing"
    (host.root / "sys/kernel/security/lockdown").unlink()
    assert host.ask("lockdown")[0] == "unknown"


def test_tool(host, tmp_path):
    assert host.ask("gpu_admin_tools")[0] == "ok"
    state, _seen, remedy = host.ask("gpu_admin_tools", tools_path=str(tmp_path))
    assert state == "missing"
    assert remedy
    assert host.ask("modes", tools_path=str(tmp_path))[:2] == ("unknown", "not read: without gpu_admin_tools")


def test_devices(host):
    assert host.ask("devices") == ("ok", "%s, %s" % (ONE, OTHER), "")
    assert host.ask("devices", addresses=[ONE]) == ("ok", ONE, "")
    with pytest.raises(InvalidRequest):
        host.ask("devices", addresses=["0000:99:00.0"])
    for address in (ONE, OTHER):
        (host.pci / "devices" / address).unlink()
    assert host.ask("devices")[0] == "missing"
    assert host.ask("binding")[0] == "unknown"
    assert host.ask("modes")[:2] == ("unknown", "not read: without devices")


def test_drivers_in_the_way(host):
    assert host.ask("host_driver") == ("ok", "none loaded", "")
    host.driver("nvidia", refcnt=0)
    assert host.ask("host_driver") == ("ok", "nvidia: has no device", "")
    host.device("0000:5d:00.0", group=3, driver="nvidia")
    state, seen, remedy = host.ask("host_driver")
    assert (state, seen) == ("missing", "nvidia: 0000:5d:00.0")
    assert "vfio_remove_host_driver" in remedy


def test_a_boot_console_on_a_gpu(host):
    host.put("sys/bus/platform/drivers/simple-framebuffer/simple-framebuffer.0/uevent", "")
    assert host.ask("host_driver")[0] == "ok"
    (host.pci / "devices" / ONE / "boot_vga").write_text("1\n")
    assert host.ask("host_driver")[:2] == ("missing", "boot console: %s" % ONE)


def test_binding(host):
    assert host.ask("binding") == ("ok", "vfio-pci: %s, %s" % (ONE, OTHER), "")
    host.device("0000:5d:00.0", group=3)
    assert host.ask("binding")[:2] == ("missing", "no driver: 0000:5d:00.0")


def test_modes_of_devices_that_are_held_are_unknown(host):
    host.hold(4711, "/dev/vfio/1")
    host.hold(4712, "/dev/vfio/2")
    state, seen, remedy = host.ask("modes")
    assert (state, seen) == ("unknown", "not read: %s, %s" % (ONE, OTHER))
    assert "Stop what uses the device" in remedy


def test_modes_without_rights(host):
    (host.root / "run/nvidia/cc-manager/confidential-gpu.lock").mkdir(parents=True)
    assert host.ask("modes")[0] == "unknown"


def entry(address: str = ONE, mode: str | None = "on", **rest: object) -> dict[str, object]:
    return {
        "address": address,
        "kind": "gpu",
        "mode": mode,
        "pending_mode": mode,
        "reset_pending": False,
        "supported_modes": ["off", "on", "devtools"],
        "problem": None,
        **rest,
    }


SWITCH: dict[str, Any] = {"kind": "nvswitch", "supported_modes": ["off", "ppcie"]}


@pytest.mark.parametrize(
    ("entries", "wanted", "state", "seen"),
    [
        ([entry(), entry(OTHER, "off")], None, "ok", "off: %s; on: %s" % (OTHER, ONE)),
        ([entry(), entry(OTHER, "off")], "on", "missing", "off: %s; on: %s" % (OTHER, ONE)),
        ([entry(), entry(OTHER, "off", **SWITCH)], "on", "ok", "off: %s; on: %s" % (OTHER, ONE)),
        ([entry(mode="off", **SWITCH)], "ppcie", "missing", "off: %s" % ONE),
        ([entry(mode="invalid")], None, "missing", "invalid: %s" % ONE),
        ([entry(mode="unsupported", supported_modes=[])], None, "missing", "unsupported: %s" % ONE),
        ([entry(pending_mode="off", reset_pending=True)], "on", "missing", "on (off after a reset): %s" % ONE),
        ([entry(), entry(OTHER, None)], "on", "unknown", "not read: %s; on: %s" % (OTHER, ONE)),
        ([entry(mode="off"), entry(OTHER, None)], "on", "missing", "not read: %s; off: %s" % (OTHER, ONE)),
    ],
)
def test_modes_beside_the_wanted_one(entries, wanted, state, seen):
    found = judged(entries, wanted)
    assert (found.state, found.seen) == (state, seen)
    assert bool(found.remedy) == (state != "ok")


def test_emulated_devices_are_read_but_have_no_driver(tmp_path):
    node = {
        "name": "one",
        "timing": {"flr_s": 0.02, "boot_s": 0.02},
        "devices": [{"address": ONE, "model": "h100-sxm"}],
    }
    with launch(node) as running:
        found = check(VfioUserBus(str(running.sockets)), mode="on", root=str(tmp_path))["requirements"]
    states = {one["requirement"]: (one["state"], one["seen"]) for one in found}
    assert states["modes"] == ("missing", "off: %s" % ONE)
    assert states["devices"] == ("ok", ONE)
    assert states["binding"][0] == "unknown"
