# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The kernel parameters that decide about the IOMMU, SEV-SNP and TDX, by what the kernel makes of them.

Sources (Linux 6.17 unless told otherwise), beside Documentation/admin-guide/kernel-parameters.txt:

- arch/x86/kernel/pci-dma.c, iommu_setup: ``iommu=`` is a comma list whose words are compared by their beginning;
  ``off`` cannot be taken back; ``pt`` and ``nopt`` and ``iommu.passthrough`` (drivers/iommu/iommu.c) set one thing, and
  the last one counts; what follows ``usedac`` is not read.
- drivers/iommu/amd/init.c, parse_amd_iommu_options: ``off`` cannot be taken back, ``on`` is unknown, of ``pgtbl_v1``
  and ``pgtbl_v2`` the last one counts. iommu_snp_enable: no SNP without IOMMU, in pass-through or with v2 page tables
  (newer IOMMUs can, which nothing here can see).
- drivers/iommu/intel/iommu.c, intel_iommu_setup: of ``on`` and ``off`` the last one counts.
- arch/x86/virt/svm/cmdline.c: ``sev=`` is a comma list of whole words; ``nosnp`` cannot be taken back.
- arch/x86/kvm/svm/sev.c, sev_hardware_setup: SNP needs SEV, SEV-ES, nested paging, nrips and, for SEV-ES, mmio_caching.
- arch/x86/kvm/vmx/tdx.c, tdx_bringup: ``kvm_intel.tdx`` is off by default; TDX needs EPT with its A/D bits, the TDP
  MMU, mmio_caching and, in newer kernels, APICv.
- arch/x86/virt/vmx/tdx/tdx.c: no TDX while hibernation is available; kernel/power/hibernate.c: ``nohibernate``, and
  ``hibernate=`` with a word that begins with ``no`` and is neither ``noresume`` nor ``nocompress``.
- kernel/params.c: a module's boolean without a value is on, and a module whose value is no boolean is not loaded.
- kernel/module/main.c: of ``module_blacklist=`` the last one counts, names letter by letter; kmod's
  ``modprobe.blacklist=`` adds up, and takes ``-`` for ``_``.
"""

from __future__ import annotations

from typing import Callable, Mapping, NamedTuple, Optional, Sequence

from .._boot.cmdline import END, Desired, normal

TDX = "tdx"
SNP = "snp"
PASSTHROUGH = "passthrough"
TECHNOLOGIES = (TDX, SNP, PASSTHROUGH)

INTEL = "GenuineIntel"
AMD = "AuthenticAMD"
_OF_VENDOR = {INTEL: TDX, AMD: SNP}

# What one member of a value, the words between commas, says about a setting.
GOOD, BAD, NOTHING = "good", "bad", ""

VFIO_MODULES = ("vfio", "vfio_iommu_type1", "vfio_pci", "vfio_pci_core")

Reader = Callable[[Optional[str]], list[str]]


def boolean(value: str) -> Optional[bool]:
    """As kstrtobool (lib/kstrtox.c) of every kernel with SNP or TDX takes a text; None for what is no boolean."""
    text = value.lower()
    if text[:1] in ("y", "t", "1") or text[:2] == "on":
        return True
    return False if text[:1] in ("n", "f", "0") or text[:2] == "of" else None


def _module_boolean(value: Optional[str]) -> list[str]:
    """A module's boolean that has to be on. What not every kernel understands (enable) is not counted on."""
    return [GOOD if value is None or boolean(value) else BAD]


def _passthrough(value: Optional[str]) -> list[str]:
    """An early parameter: what is no boolean is not heeded; newer kernels take enable for one."""
    told = boolean(value) if value is not None else None
    if told is None:
        return [BAD if (value or "").lower().startswith("e") else NOTHING]
    return [BAD if told else GOOD]


def _words(bad: Sequence[str], good: Sequence[str] = (), whole: bool = False, end: str = "") -> Reader:
    """A comma list. The first word of ``bad`` and ``good`` with which a member begins decides; ``whole``: equals."""

    def says(member: str) -> str:
        for words, verdict in ((bad, BAD), (good, GOOD)):
            if any(member == word if whole else member.startswith(word) for word in words):
                return verdict
        return NOTHING

    def read(value: Optional[str]) -> list[str]:
        members = (value or "").split(",")
        stops = [index for index, member in enumerate(members) if end and member.startswith(end)]
        alive = stops[0] if stops else len(members)
        return [says(member) if index < alive else NOTHING for index, member in enumerate(members)]

    return read


def _hibernate(value: Optional[str]) -> list[str]:
    text = value or ""
    return [GOOD if text.startswith("no") and not text.startswith(("noresume", "nocompress")) else NOTHING]


def _present(_value: Optional[str]) -> list[str]:
    return [GOOD]


def _modules(value: Optional[str]) -> list[str]:
    """kmod's list of modules."""
    return [BAD if member.replace("-", "_") in VFIO_MODULES else NOTHING for member in (value or "").split(",")]


class Setting(NamedTuple):
    """One thing that the kernel decides by parameters.

    ``token``: what switches it on, for what the kernel has not by itself. ``usual``: how it is mostly switched off.
    ``ours``: whether its parameters may be edited; lists of modules hold what the host's owner wrote there.
    """

    readers: Mapping[str, Reader]
    token: str = ""
    usual: tuple[str, ...] = ()
    ours: bool = True

    def verdicts(self, token: str) -> list[str]:
        """What each member of a token says; none for a token of another parameter."""
        name, value = normal(token)
        reader = self.readers.get(name)
        return reader(value) if reader is not None else []

    def state(self, tokens: Sequence[str]) -> str:
        """What the kernel makes of a command line: GOOD, BAD, or NOTHING where it does not say. The last word counts.

        What cannot be taken back has no good word.
        """
        said = [one for token in heeded(tokens) for one in self.verdicts(token) if one]
        return said[-1] if said else NOTHING

    def met(self, tokens: Sequence[str]) -> bool:
        """Whether the command line brings it about."""
        state = self.state(tokens)
        return state == GOOD or (state == NOTHING and not self.token)


def _on(name: str, *usual: str, token: str = "") -> Setting:
    return Setting({name: _module_boolean}, token=token, usual=tuple("%s=%s" % (name, one) for one in usual))


_IOMMU = Setting({"iommu": _words(["off"], end="usedac")}, usual=("iommu=off",))
_INTEL_IOMMU = Setting({"intel_iommu": _words(["off"], ["on"])}, usual=("intel_iommu=off",))
_INTEL_IOMMU_ON = _INTEL_IOMMU._replace(token="intel_iommu=on")
_AMD_IOMMU = Setting({"amd_iommu": _words(["off"])}, usual=("amd_iommu=off",))
HIBERNATION = Setting({"nohibernate": _present, "hibernate": _hibernate}, token="nohibernate")
_VFIO = Setting({"modprobe.blacklist": _modules}, ours=False)
_VFIO_IN_KERNEL = Setting(
    {"module_blacklist": lambda value: [BAD if set((value or "").split(",")) & {*VFIO_MODULES} else GOOD]}, ours=False
)

SETTINGS: Mapping[str, tuple[Setting, ...]] = {
    SNP: (
        _IOMMU,
        _AMD_IOMMU,
        Setting(
            {"iommu": _words(["pt"], ["nopt"], end="usedac"), "iommu.passthrough": _passthrough},
            usual=("iommu=pt", "iommu.passthrough=1"),
        ),
        Setting({"amd_iommu": _words(["pgtbl_v2"], ["pgtbl_v1"])}, usual=("amd_iommu=pgtbl_v2",)),
        Setting({"sev": _words(["nosnp"], whole=True)}, usual=("sev=nosnp",)),
        _on("kvm_amd.sev", "0"),
        _on("kvm_amd.sev_es", "0"),
        _on("kvm_amd.sev_snp", "0"),
        _on("kvm_amd.npt"),
        _on("kvm_amd.nrips"),
        _on("kvm.mmio_caching"),
        _VFIO,
        _VFIO_IN_KERNEL,
    ),
    TDX: (
        _IOMMU,
        _INTEL_IOMMU_ON,
        _on("kvm_intel.tdx", "0", token="kvm_intel.tdx=1"),
        HIBERNATION,
        _on("kvm_intel.ept"),
        _on("kvm_intel.eptad"),
        _on("kvm_intel.enable_apicv"),
        _on("kvm.tdp_mmu"),
        _on("kvm.mmio_caching"),
        _VFIO,
        _VFIO_IN_KERNEL,
    ),
    PASSTHROUGH: (_IOMMU, _INTEL_IOMMU, _AMD_IOMMU, _VFIO, _VFIO_IN_KERNEL),
}


def technology_of(vendor: str) -> str:
    """What a processor offers; ``vendor`` is its name in /proc/cpuinfo, '' for unknown."""
    return _OF_VENDOR.get(vendor, PASSTHROUGH)


def settings(technology: str, vendor: str = "") -> tuple[Setting, ...]:
    """What a host of that technology needs; ``vendor`` is the processor's name in /proc/cpuinfo, '' for unknown."""
    found = SETTINGS[technology]
    if technology == PASSTHROUGH and vendor == INTEL:
        return tuple(_INTEL_IOMMU_ON if one is _INTEL_IOMMU else one for one in found)
    return found


def heeded(tokens: Sequence[str]) -> Sequence[str]:
    """The tokens that are the kernel's: those before the arguments of init."""
    return tokens[: tokens.index(END)] if END in tokens else tokens


def harmful(needed: Sequence[Setting], tokens: Sequence[str]) -> list[str]:
    """The tokens by which the kernel switches off what is needed, as they stand there."""
    off = [setting for setting in needed if setting.state(tokens) == BAD]
    return [token for token in heeded(tokens) if any(BAD in setting.verdicts(token) for setting in off)]


def desired(asked: Desired, technology: str, vendor: str, configured: Sequence[str], running: Sequence[str]) -> Desired:
    """What is asked for, and with it what brings the technology about.

    Raises InvalidRequest where what is asked for takes away what the technology needs.
    """
    found = edits(settings(technology, vendor), asked.applied(configured), running)
    return Desired(
        tuple(dict.fromkeys([*found.add, *asked.add])),
        tuple(dict.fromkeys([*found.remove, *asked.remove])),
        asked.replace,
    )


class Edits(NamedTuple):
    """Tokens to have and tokens not to have, as ``Desired`` takes them."""

    add: tuple[str, ...]
    remove: tuple[str, ...]


def edits(needed: Sequence[Setting], configured: Sequence[str], running: Sequence[str]) -> Edits:
    """What brings the settings about: on the boot loader's command line, and by it on the running one.

    What is brought about already is left as it is spelled, so that the edits change nothing and ask for no reboot. What
    only the running kernel lacks is asked for in the boot loader's spelling, so that the reboot alone brings it.
    """
    ours = [setting for setting in needed if setting.ours]
    add: list[str] = []
    remove: list[str] = []
    for token in harmful(ours, configured):
        remove.append(token)
        add += _without_harm(ours, token)
    after = Desired(tuple(add), tuple(remove)).applied(configured)
    for token in harmful(ours, running):
        remove.append(token)
        add += _without_harm(ours, token) if _has(after, token) else []
    after = Desired(tuple(add), tuple(remove)).applied(configured)
    for setting in ours:
        brings = [token for token in heeded(after) if GOOD in setting.verdicts(token)]
        if not setting.met(after):
            add.append(setting.token)
        elif setting.token:
            add.append(brings[-1])
    # Other entries of the boot loader may have what the one that was read has not.
    present = [*configured, *running]
    remove += [one for setting in ours for one in setting.usual if not _has(present, one)]
    return Edits(tuple(dict.fromkeys(add)), tuple(dict.fromkeys(remove)))


def _without_harm(needed: Sequence[Setting], token: str) -> list[str]:
    """The token without the members that do harm by themselves, also those that a later one takes back."""
    name, equals, value = token.strip('"').partition("=")
    members = value.strip('"').split(",")
    harm = [said for said in (setting.verdicts(token) for setting in needed) if BAD in said]
    if any(len(said) != len(members) for said in harm):
        return []  # no list, but one value with a comma in it
    text = ",".join(member for index, member in enumerate(members) if not any(said[index] == BAD for said in harm))
    if not text.strip(","):
        return []
    return ["%s%s%s" % (name, equals, '"%s"' % text if " " in text else text)]


def _has(tokens: Sequence[str], wanted: str) -> bool:
    return any(normal(token) == normal(wanted) for token in heeded(tokens))
