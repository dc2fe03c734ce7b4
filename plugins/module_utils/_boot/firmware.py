# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What the EFI firmware's variables say of the boot: which program started this kernel, which entry comes next.

A file in efivarfs is four bytes of attributes, then the value. systemd's Boot Loader Interface has its texts in UTF-16;
an option ``Boot0001`` holds its title and the path of the program in UTF-16 too. Only ASCII counts here.
"""

from __future__ import annotations

import fnmatch
import re
from typing import Any, Optional

from .host import Host

FOLDER = "/sys/firmware/efi/efivars"
# The vendors of the Boot Loader Interface, and of the UEFI specification's own variables.
INTERFACE = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
GLOBAL = "8be4df61-93ca-11d2-aa0d-00e098032b8c"

# Where a boot partition is mounted, in the order in which bootctl looks.
PARTITIONS = ("/efi", "/boot", "/boot/efi")


def is_efi(host: Host) -> bool:
    """Whether EFI firmware started this host, and not a BIOS."""
    return host.exists("/sys/firmware/efi")


def loader(host: Host) -> str:
    """The boot loader that started this kernel, by its own word, such as ``systemd-boot 257``; empty if none spoke."""
    return _text(host, "LoaderInfo", INTERFACE)


def has_stub(host: Host) -> bool:
    """Whether this kernel was started out of a unified kernel image."""
    return host.exists("%s/StubInfo-%s" % (FOLDER, INTERFACE))


def started(host: Host) -> str:
    """In lower case: who says to have started this kernel, else title and path of the firmware's option; else empty."""
    said = loader(host)
    if said:
        return said.lower()
    number = _value(host, "BootCurrent", GLOBAL)
    if number is None or len(number) < 2:
        return ""
    return _text(host, "Boot%04X" % int.from_bytes(number[:2], "little"), GLOBAL).lower()


def is_next(host: Host, name: str) -> bool:
    """Whether systemd-boot starts the entry of that file name next, by its variables or its ``loader.conf``.

    False for every entry when neither names one: then it is the first of its menu, which is sorted by version.
    """
    pattern = _wanted(host)
    return bool(pattern) and fnmatch.fnmatchcase(name.lower(), pattern.lower())


def by_version(name: str) -> list[Any]:
    """The key that sorts names of entries as versions; sorted in reverse, the first is that of the newest kernel."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _wanted(host: Host) -> str:
    for variable in ("LoaderEntryOneShot", "LoaderEntryDefault"):
        name = _text(host, variable, INTERFACE)
        if name:
            return name
    for partition in PARTITIONS:
        for line in (host.text(partition + "/loader/loader.conf") or "").splitlines():
            words = line.split()
            if len(words) == 2 and words[0] == "default" and not words[1].startswith("@"):
                return words[1]
    return ""


def _value(host: Host, name: str, vendor: str) -> Optional[bytes]:
    content = host.disk.read(host.path("%s/%s-%s" % (FOLDER, name, vendor)))
    return None if content is None else content[4:]


def _text(host: Host, name: str, vendor: str) -> str:
    value = _value(host, name, vendor) or b""
    return "".join(chr(byte) for byte in value if 32 <= byte < 127)
