# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What processor, firmware and kernel bring along, read from /proc, /sys and /dev below an injected root.

Kernels: the SEV-SNP host came with 6.11, the TDX host with 6.16. Distributions bring both to older kernels, so a
version counts only where the kernel does not itself say that it is switched on.
What the kernel makes of its command line: ``parameters``.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Mapping, NamedTuple, Optional, Sequence

from .._boot.cmdline import split
from .._gpu import host
from .._pci.kernel import built_in, release
from . import modprobe, parameters, processor
from .parameters import AMD, INTEL
from .requirement import MISSING, OK, UNKNOWN, Requirement

if TYPE_CHECKING:
    from .._core.answers import HostFact, HostFacts

    Technology = tuple[str, Literal["tdx", "sev_snp"], tuple[int, int]]

# By processor: the technology, its name among the facts, the kernel that brought it.
TECHNOLOGY: dict[str, Technology] = {INTEL: ("TDX", "tdx", (6, 16)), AMD: ("SEV-SNP", "sev_snp", (6, 11))}
VIRTUALIZATION = ("vmx", "svm")
# By which the firmware tells the kernel of its IOMMU: Intel, AMD, Arm.
IOMMU_TABLES = ("DMAR", "IVRS", "IORT")
# The modules with vfio's drivers of PCI devices; the second takes Grace's GPUs with their coherent memory, and does not
# need the first (drivers/vfio/pci/nvgrace-gpu).
PCI_MODULES = ("vfio_pci", "nvgrace_gpu_vfio_pci")
NO_CONFIDENTIAL_ARM = (
    "Confidential virtual machines need Intel TDX or AMD SEV-SNP: on an Arm host they are not supported here. Ordinary "
    "virtual machines can have its GPUs (role confidential.gpu.vfio)."
)
# Processor flags that are there only where the firmware has switched the technology on.
FIRMWARE_FLAGS = ("tdx_host_platform", "sev_snp")

_PURPOSES = {INTEL: parameters.TDX, AMD: parameters.SNP}
_STATES = {host.YES: OK, host.NO: MISSING, host.UNKNOWN: UNKNOWN}


class System(NamedTuple):
    """What was read."""

    vendor: str
    flags: frozenset[str]
    is_arm: bool
    release: str
    tokens: Sequence[str]
    hibernation: bool
    kvm: bool
    tables: frozenset[str]
    vfio: Mapping[str, bool]
    rivals: Sequence[modprobe.Rival]
    facts: HostFacts

    @classmethod
    def read(cls, root: str) -> System:
        """Read it all."""
        base = Path(root)
        of_host = processor.read(base)
        modules = ("vfio", "vfio_iommu_type1", "iommufd", *PCI_MODULES)
        return cls(
            of_host.vendor,
            of_host.flags,
            of_host.is_arm,
            release(base),
            split(_text(base / "proc/cmdline")),
            # "[disabled]" where hibernation is impossible, else the ways to do it
            _text(base / "sys/power/disk") not in ("", "[disabled]"),
            (base / "dev/kvm").exists(),
            _names(base / "sys/firmware/acpi/tables"),
            {module: _has(base, module) for module in modules},
            modprobe.rivals(base, "vfio-pci"),
            host.facts(root),
        )

    @property
    def technology(self) -> Optional[Technology]:
        """Name, fact and first kernel of the processor's way to confidential virtual machines."""
        return TECHNOLOGY.get(self.vendor)

    @property
    def is_on(self) -> bool:
        """Whether the kernel says that it can run confidential virtual machines."""
        return self.technology is not None and self.facts[self.technology[1]]["value"] == host.YES


def requirements(system: System) -> list[Requirement]:
    """All of this file."""
    return [
        firmware(system),
        virtualization(system),
        of_fact("iommu", system.facts["iommu"]),
        confidential(system),
        kernel(system),
        command_line(system),
        vfio(system),
        lockdown(system),
    ]


def of_fact(name: str, fact: HostFact) -> Requirement:
    """A fact that should be a yes."""
    seen = ": ".join(filter(None, [fact["seen"], fact["reason"].rstrip(".")]))
    return Requirement(name, _STATES[fact["value"]], seen, fact["remedy"])


def firmware(system: System) -> Requirement:
    """What firmware tells of its IOMMU; its other settings show in what the processor and the kernel offer."""
    name = "firmware"
    found = ["ACPI table %s" % table for table in IOMMU_TABLES if table in system.tables]
    found += ["processor flag %s" % flag for flag in FIRMWARE_FLAGS if flag in system.flags]
    remedy = (
        "In the firmware's set-up enable virtualization, the IOMMU (VT-d, AMD-Vi) and ACS; on Intel TDX, on AMD SMEE "
        "and SEV-SNP with RMP coverage and an SEV-ES ASID limit above 0. Its next self-test may take 20 minutes."
    )
    if system.tables & {*IOMMU_TABLES} or system.facts["iommu"]["value"] == host.YES:
        return Requirement(name, OK, ", ".join(found) or "an IOMMU that needs no ACPI table")
    if system.tables:
        words = ", ".join([*found, "no ACPI table of an IOMMU (%s)" % ", ".join(IOMMU_TABLES)])
        return Requirement(name, MISSING, words, remedy)
    return Requirement(name, UNKNOWN, "no ACPI table can be seen", remedy)


def virtualization(system: System) -> Requirement:
    """The processor's virtualization, which firmware can switch off, and KVM's device."""
    name = "virtualization"
    flag = next((flag for flag in VIRTUALIZATION if flag in system.flags), None)
    if system.kvm:
        return Requirement(name, OK, "/dev/kvm%s" % (", processor flag %s" % flag if flag else ""))
    if flag is not None:
        module = "kvm_intel" if flag == "vmx" else "kvm_amd"
        return Requirement(
            name,
            MISSING,
            "processor flag %s, no /dev/kvm" % flag,
            "Load KVM: modprobe %s; see the kernel's log." % module,
        )
    if system.is_arm:
        return Requirement(
            name,
            MISSING,
            "Arm processor, no /dev/kvm",
            "The kernel has KVM built in, where the firmware starts it in EL2: see the kernel's log.",
        )
    if system.vendor:
        return Requirement(
            name,
            MISSING,
            "processor %s without vmx or svm" % system.vendor,
            "Enable virtualization (VT-x, SVM) in the firmware's set-up.",
        )
    return Requirement(name, UNKNOWN, "no /dev/kvm, no processor that is known", "Load KVM, and see the kernel's log.")


def confidential(system: System) -> Requirement:
    """TDX or SEV-SNP, by the processor."""
    if system.technology is not None:
        return of_fact(system.technology[1], system.facts[system.technology[1]])
    if system.is_arm:
        return Requirement(
            "confidential_processor", MISSING, "Arm processor, no TDX and no SEV-SNP", NO_CONFIDENTIAL_ARM
        )
    return Requirement(
        "confidential_processor",
        UNKNOWN,
        "processor %s" % (system.vendor or "unknown"),
        "Confidential virtual machines need Intel TDX or AMD SEV-SNP.",
    )


def kernel(system: System) -> Requirement:
    """The kernel's version, where it does not say itself that it has what is needed."""
    match = re.match(r"(\d+)\.(\d+)", system.release)
    seen = system.release or "no release"
    if system.is_on:
        return Requirement("kernel", OK, seen)
    if system.is_arm:
        return Requirement("kernel", MISSING, "%s on an Arm processor" % seen, NO_CONFIDENTIAL_ARM)
    if match is None or system.technology is None:
        return Requirement("kernel", UNKNOWN, seen, "SEV-SNP needs 6.11 or later, TDX 6.16 or later.")
    name, _fact, needed = system.technology
    if (int(match.group(1)), int(match.group(2))) >= needed:
        return Requirement("kernel", OK, seen)
    return Requirement(
        "kernel",
        MISSING,
        seen,
        "%s needs kernel %d.%d or later, or a distribution's kernel that brings it along." % (name, *needed),
    )


def command_line(system: System) -> Requirement:
    """Tokens that switch off what is needed, and nohibernate where TDX waits for it."""
    needed = parameters.settings(_PURPOSES.get(system.vendor, parameters.PASSTHROUGH), system.vendor)
    harmful = parameters.harmful(needed, system.tokens)
    if harmful:
        words = " ".join(harmful)
        return Requirement("command_line", MISSING, words, "Remove %s from the kernel command line and reboot." % words)
    may_hibernate = system.hibernation and not parameters.HIBERNATION.met(system.tokens)
    if system.vendor == INTEL and not system.is_on and may_hibernate:
        return Requirement(
            "command_line",
            MISSING,
            "hibernation is possible",
            "Add nohibernate and kvm_intel.tdx=1 to the kernel command line and reboot: else the kernel refuses TDX.",
        )
    if not system.tokens:
        return Requirement("command_line", UNKNOWN, "/proc/cmdline cannot be read", "Mount /proc and run as root.")
    return Requirement("command_line", OK, "nothing that switches off what is needed")


def vfio(system: System) -> Requirement:
    """What gives a device to a virtual machine: vfio, an IOMMU behind it, and vfio-pci, also at the next boot."""
    absent = [] if system.vfio["vfio"] else ["vfio"]
    if not any(system.vfio[module] for module in PCI_MODULES):
        absent.append("nvgrace_gpu_vfio_pci or vfio_pci" if system.is_arm else "vfio_pci")
    if not (system.vfio["vfio_iommu_type1"] or system.vfio["iommufd"]):
        absent.append("vfio_iommu_type1")
    if absent:
        return Requirement(
            "vfio",
            MISSING,
            "not loaded: %s" % ", ".join(absent),
            "Use the role confidential.gpu.vfio, or modprobe them.",
        )
    if system.rivals:
        return Requirement(
            "vfio",
            MISSING,
            "; ".join(rival.words() for rival in system.rivals),
            "Take these lines out, and rebuild the initramfs.",
        )
    return Requirement("vfio", OK, ", ".join(module for module, there in system.vfio.items() if there))


def lockdown(system: System) -> Requirement:
    """The kernel must let device registers be reached."""
    fact = system.facts["lockdown"]
    states = {host.NO: OK, host.YES: MISSING, host.UNKNOWN: UNKNOWN}
    return of_fact("lockdown", fact)._replace(state=states[fact["value"]])


def _names(folder: Path) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))
    except OSError:
        return frozenset()


def _has(base: Path, module: str) -> bool:
    return (base / "sys/module" / module).is_dir() or built_in(base, module)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="backslashreplace").strip()
    except OSError:
        return ""
