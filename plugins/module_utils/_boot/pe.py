# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The command line inside of a unified kernel image: section ``.cmdline`` of a file in Microsoft's PE format.

Images are as large as a kernel with its initrd; only the headers and that section are read. Layout as in Microsoft's
"PE Format" and in systemd-stub(7): the text is UTF-8, and what follows a zero byte does not count.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from .errors import NotUnderstood

SECTION = ".cmdline"

# A PE header has at most this many sections; what says more is no image.
_MOST_SECTIONS = 96
_LONGEST = 1 << 20


def cmdlines(path: Path) -> list[str]:
    """The text of each ``.cmdline`` section in their order; several mean profiles. Raises NotUnderstood, OSError."""
    with open(path, "rb") as file:
        try:
            return [_text(file, size, at) for name, size, at in _sections(file) if name == SECTION]
        except (struct.error, ValueError) as error:
            raise NotUnderstood(
                "%s is not a unified kernel image: %s." % (path, error),
                "Let the program that makes it write it again, or remove it.",
                path=str(path),
            ) from error


def _sections(file: BinaryIO) -> list[tuple[str, int, int]]:
    """Name, size in bytes and place in the file of every section."""
    if file.read(2) != b"MZ":
        raise ValueError("it does not start with MZ")
    file.seek(0x3C)
    (header,) = struct.unpack("<I", file.read(4))
    file.seek(header)
    if file.read(4) != b"PE\0\0":
        raise ValueError("it has no PE header")
    _machine, count, _time, _symbols, _symbol_count, optional, _flags = struct.unpack("<HHIIIHH", file.read(20))
    if count > _MOST_SECTIONS:
        raise ValueError("it has %d sections" % count)
    file.seek(optional, 1)
    found = []
    for _number in range(count):
        name, virtual, _address, raw, at = struct.unpack("<8sIIII16x", file.read(40))
        # The raw size is rounded up to the alignment of the file.
        found.append((name.rstrip(b"\0").decode("ascii", "replace"), min(virtual, raw) or raw, at))
    return found


def _text(file: BinaryIO, size: int, at: int) -> str:
    if size > _LONGEST:
        raise ValueError("its section %s has %d bytes" % (SECTION, size))
    file.seek(at)
    content = file.read(size)
    if len(content) < size:
        raise ValueError("it ends inside of its section %s" % SECTION)
    return content.partition(b"\0")[0].decode("utf-8", "surrogateescape")
