# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Boot loaders and makers of images that no class here serves, each by what gives it away.

A host of one of these has files of loaders that are served too, such as /etc/kernel/cmdline: to change them would look
like success, and nothing of it would boot. Only files are looked at, and those that tell which program started this
kernel before those that may be left over from another.
"""

from __future__ import annotations

import re
from typing import Callable, Iterable, NamedTuple, Sequence

from .firmware import has_stub, loader, started
from .host import Host

GRUB_CONFIGS = ("/boot/grub/grub.cfg", "/boot/grub2/grub.cfg")
DEFAULTS = "/etc/default/grub"
LAYOUTS = ("/etc/kernel/install.conf", "/usr/lib/kernel/install.conf")
DRACUT = ("/etc/dracut.conf.d", "/usr/lib/dracut/dracut.conf.d")
PRESETS = "/etc/mkinitcpio.d"
MODULES = "/usr/lib/modules"

_BLSCFG = re.compile(r"""^[ \t]*(?:export[ \t]+)?GRUB_ENABLE_BLSCFG=["']?(\w+)""", re.MULTILINE)
_UEFI = re.compile(r"""^[ \t]*uefi=["']?yes""", re.MULTILINE)
_UKI = re.compile(r"^[ \t]*\w+_uki=", re.MULTILINE)
_SETTING = re.compile(r"""^[ \t]*(layout|uki_generator)[ \t]*=[ \t]*["']?([\w-]+)""", re.MULTILINE)


class Refusal(NamedTuple):
    """A program that makes what boots and is not served: how it is seen (in words; empty: it is not), what to do."""

    program: str
    seen: Callable[[Host], str]
    remedy: str


def _boots(*words: str) -> Callable[[Host], str]:
    def seen(host: Host) -> str:
        said = started(host)
        return "the firmware's variables name it as what started this kernel (%s)" % said if _any(words, said) else ""

    return seen


def _any(words: Iterable[str], text: str) -> bool:
    return any(word in text for word in words)


def _left_alone(*names: str) -> Callable[[Host], str]:
    """A file, where neither the firmware nor a grub.cfg says that another loader is the one."""

    def seen(host: Host) -> str:
        if started(host) or any(host.exists(name) for name in GRUB_CONFIGS):
            return ""
        return next(("%s exists, and no grub.cfg" % name for name in names if host.exists(name)), "")

    return seen


def _images_boot(host: Host) -> bool:
    """Whether unified images may be what boots: they were, or systemd-boot did, or no other loader is there."""
    no_other = not started(host) and not any(host.exists(name) for name in GRUB_CONFIGS)
    return has_stub(host) or "systemd-boot" in loader(host) or no_other


def _in_files(folders: Sequence[str], ending: str, pattern: re.Pattern[str]) -> Callable[[Host], str]:
    def seen(host: Host) -> str:
        for folder in folders if _images_boot(host) else ():
            for name in host.names(folder, ending):
                match = pattern.search(host.text(name) or "")
                if match:
                    return "%s has %s" % (name, match.group().strip())
        return ""

    return seen


def _prebuilt(host: Host) -> str:
    """A unified image that came in a package, as kernel-uki-virt of RHEL and Fedora has it."""
    if not has_stub(host):
        return ""
    for folder in host.names(MODULES):
        for name in host.names(folder, ".efi"):
            return "%s came with a package, with its command line inside" % name
    return ""


def _layout(host: Host) -> str:
    path = next((name for name in LAYOUTS if host.exists(name)), "")
    found = dict(_SETTING.findall(host.text(path) or "")) if path else {}
    if found.get("layout") not in (None, "auto", "bls", "uki"):
        return "%s has layout=%s" % (path, found["layout"])
    if found.get("uki_generator") not in (None, "auto", "ukify") and found.get("layout") == "uki":
        return "%s has uki_generator=%s" % (path, found["uki_generator"])
    return ""


def blscfg(host: Host) -> str:
    """The value of GRUB_ENABLE_BLSCFG; empty when it is not set."""
    return next(reversed(_BLSCFG.findall(host.text(DEFAULTS) or "")), "")


def _blscfg_without_grubby(host: Host) -> str:
    if blscfg(host) != "true" or host.commands.has("grubby"):
        return ""
    return (
        "%s has GRUB_ENABLE_BLSCFG=true, so that grub.cfg has no command line, and grubby is not installed" % DEFAULTS
    )


def _systemd_boot(host: Host) -> str:
    said = loader(host)
    return "the firmware's variables name it as what started this kernel (%s)" % said if "systemd-boot" in said else ""


def _either(*ways: Callable[[Host], str]) -> Callable[[Host], str]:
    return lambda host: next((words for words in (way(host) for way in ways) if words), "")


LOADERS = (
    Refusal(
        "Limine",
        _either(_boots("limine"), _left_alone("/boot/limine.conf", "/boot/limine/limine.conf", "/boot/limine.cfg")),
        "Edit cmdline in limine.conf by hand (limine-entry-tool: /etc/default/limine, then limine-mkinitcpio).",
    ),
    Refusal(
        "rEFInd",
        _either(_boots("refind"), _left_alone("/boot/refind_linux.conf")),
        "Edit /boot/refind_linux.conf, or options in refind.conf, by hand.",
    ),
    Refusal(
        "ZFSBootMenu",
        _either(_boots("zfsbootmenu", "\\zbm"), _left_alone("/etc/zfsbootmenu")),
        "Set the property org.zfsbootmenu:commandline of the root file system by hand (zfs set).",
    ),
    Refusal(
        "U-Boot with extlinux.conf",
        _left_alone("/boot/extlinux/extlinux.conf"),
        "Set U_BOOT_PARAMETERS in /etc/default/u-boot and run u-boot-update, or edit append in extlinux.conf.",
    ),
)

IMAGES = (
    Refusal(
        "mkinitcpio (unified images)",
        _in_files([PRESETS], ".preset", _UKI),
        "Edit /etc/kernel/cmdline (or /etc/cmdline.d) by hand and run mkinitcpio -P; or let kernel-install make them"
        " (layout=uki in /etc/kernel/install.conf, no *_uki in the presets).",
    ),
    Refusal(
        "dracut (unified images)",
        _in_files(DRACUT, ".conf", _UEFI),
        "Edit kernel_cmdline in /etc/dracut.conf.d by hand and run dracut --force --regenerate-all; or let"
        " kernel-install make them (layout=uki and uki_generator=ukify in /etc/kernel/install.conf, no uefi=yes).",
    ),
    Refusal(
        "A signed unified image of a package",
        _prebuilt,
        "Put the tokens into an add-on of the image (ukify build --cmdline, NAME.efi.extra.d), or install the plain"
        " kernel package.",
    ),
    Refusal(
        "Another program than kernel-install's own plug-ins",
        _layout,
        "Change what that program reads by hand; or set layout=bls or layout=uki with uki_generator=ukify.",
    ),
)

GRUB = (
    Refusal(
        "systemd-boot",
        _systemd_boot,
        "Install kernel-install (package systemd), which makes its entries; what GRUB has does not boot.",
    ),
    Refusal(
        "GRUB with entries of the Boot Loader Specification",
        _blscfg_without_grubby,
        "Install grubby, or set GRUB_ENABLE_BLSCFG=false and make grub.cfg again.",
    ),
)
