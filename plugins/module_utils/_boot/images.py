# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Unified kernel images of the Boot Loader Specification, type 2: files ``EFI/Linux/*.efi`` of a boot partition.

systemd-stub(7) adds the ``.cmdline`` of add-ons behind the image's own: those of all images from ``loader/addons``,
then those of the one image from ``NAME.efi.extra.d``.
"""

from __future__ import annotations

import re

from . import pe
from .cmdline import split
from .entry import Entry
from .firmware import PARTITIONS, is_next
from .host import Host

FOLDERS = tuple("%s/EFI/Linux" % partition for partition in PARTITIONS)

_ADDON = ".addon.efi"


def files(host: Host) -> list[str]:
    """The names of all images; a folder that two names reach counts once."""
    found: list[str] = []
    seen = set()
    for folder in FOLDERS:
        real = host.path(folder).resolve()
        if real not in seen:
            seen.add(real)
            found += host.names(folder, ".efi")
    return found


def identifier(name: str) -> str:
    """What an image is called, without its ending; boot counters (``+3-1``) do not belong to it."""
    return re.sub(r"\+\d+(-\d+)?$", "", name.rpartition("/")[2][: -len(".efi")])


def entries(host: Host, name: str) -> list[Entry]:
    """An image as one entry for each of its profiles. Raises NotUnderstood."""
    added = [token for addon in _addons(host, name) for text in pe.cmdlines(host.path(addon)) for token in split(text)]
    texts = pe.cmdlines(host.path(name)) or [""]
    is_default = is_next(host, identifier(name) + ".efi")
    return [
        Entry(
            name,
            "profile %d" % number if number else "",
            (*split(text), *added),
            is_default=is_default and number == 0,
        )
        for number, text in enumerate(texts)
    ]


def _addons(host: Host, name: str) -> list[str]:
    common = name.partition("/EFI/Linux/")[0] + "/loader/addons"
    return [*host.names(common, _ADDON), *host.names(name + ".extra.d", _ADDON)]
