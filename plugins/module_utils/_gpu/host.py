# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What the host offers to confidential virtual machines, and for each "no" the reason and the remedy.

Sources: the kernel's module parameters kvm_intel.tdx and kvm_amd.sev_snp, /sys/kernel/iommu_groups and
/sys/kernel/security/lockdown. A module that is not loaded yet means unknown, not no.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .._core.answers import HostFact, HostFacts

YES = "yes"
NO = "no"
UNKNOWN = "unknown"


def facts(root: str = "/") -> HostFacts:
    """tdx, sev_snp, iommu, lockdown: each with value (yes, no, unknown), seen, reason and remedy (both may be '')."""
    base = Path(root)
    return {"tdx": _tdx(base), "sev_snp": _sev_snp(base), "iommu": _iommu(base), "lockdown": _lockdown(base)}


def _fact(value: str, seen: str, reason: str = "", remedy: str = "") -> HostFact:
    return {"value": value, "seen": seen, "reason": reason, "remedy": remedy}


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="backslashreplace").strip()
    except OSError:
        return ""


def _parameter(base: Path, module: str, parameter: str, advice: str) -> HostFact:
    seen = _read(base / "sys/module" / module / "parameters" / parameter)
    name = "%s.%s" % (module, parameter)
    if seen in ("Y", "1"):
        return _fact(YES, "%s=%s" % (name, seen))
    if seen:
        return _fact(NO, "%s=%s" % (name, seen), "The kernel has it switched off.", advice)
    if (base / "sys/module" / module).is_dir():
        return _fact(NO, "%s is absent" % name, "This kernel is too old for it, or built without it.", advice)
    return _fact(
        UNKNOWN, "%s is not loaded" % module, "The module is not loaded.", "modprobe %s; %s" % (module, advice)
    )


def _tdx(base: Path) -> HostFact:
    return _parameter(
        base,
        "kvm_intel",
        "tdx",
        "Enable TDX in the firmware's set-up, use kernel 6.16 or later, boot with kvm_intel.tdx=1 nohibernate.",
    )


def _sev_snp(base: Path) -> HostFact:
    return _parameter(
        base,
        "kvm_amd",
        "sev_snp",
        "Enable SEV-SNP in the firmware's set-up, use kernel 6.11 or later, boot without iommu=pt and amd_iommu=off.",
    )


def _iommu(base: Path) -> HostFact:
    folder = base / "sys/kernel/iommu_groups"
    groups = len(os.listdir(folder)) if folder.is_dir() else 0
    if groups:
        return _fact(YES, "%d groups" % groups)
    return _fact(
        NO,
        "0 groups",
        "The IOMMU is off, so no device can be given to a virtual machine.",
        "Enable VT-d, AMD-Vi or the SMMU in the firmware's set-up; on Intel boot with intel_iommu=on.",
    )


def _lockdown(base: Path) -> HostFact:
    seen = _read(base / "sys/kernel/security/lockdown")
    if not seen:
        return _fact(
            UNKNOWN,
            "",
            "The kernel does not say (securityfs is not mounted, or it has no lockdown).",
            "mount -t securityfs securityfs /sys/kernel/security; where the kernel has no lockdown nothing is locked.",
        )
    if "[none]" in seen:
        return _fact(NO, seen)
    return _fact(
        YES,
        seen,
        "The kernel is locked down (Secure Boot): device registers cannot be reached, modes cannot be read or set.",
        "Boot without lockdown to read or change modes.",
    )
