# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""GRUB's environment block: 1024 bytes of ``name=value`` lines behind a header, filled up with ``#``.

Rules of GRUB (grub-core/lib/envblk.c): a backslash takes the next character as it is, so a value may hold a line
break; lines that start with ``#`` are no variables.
"""

from __future__ import annotations

import re
from typing import Optional, Sequence

from .errors import NoSpace
from .host import Host

SIZE = 1024
# The command line that the entries of RHEL 8 have together.
KERNELOPTS = "kernelopts"
HEADER = "# GRUB Environment Block\n"
# Where the distributions keep it; the first that is there is the one that grub.cfg loads.
PLACES = ("/boot/grub2/grubenv", "/boot/grub/grubenv")

_VARIABLE = re.compile(r"([^=\n\\#][^=\n\\]*)=((?:[^\\\n]|\\.)*)(?:\n|\Z)", re.DOTALL)
_OTHER = re.compile(r"[^\n]*\n?")


def parse(text: str) -> dict[str, str]:
    """The variables of such a block."""
    found = {}
    at = 0
    while at < len(text):
        match = _VARIABLE.match(text, at)
        if match:
            found[match.group(1)] = re.sub(r"\\(.)", r"\1", match.group(2), flags=re.DOTALL)
        else:
            match = _OTHER.match(text, at)
        at = match.end() if match and match.end() > at else len(text)
    return found


def place(host: Host, places: Sequence[str] = PLACES) -> Optional[str]:
    """Where this host has it; None when it has none."""
    return next((path for path in places if host.exists(path)), None)


def variables(host: Host, places: Sequence[str] = PLACES) -> dict[str, str]:
    """The variables that GRUB starts with; none when there is no block."""
    path = place(host, places)
    return parse(host.text(path) or "") if path else {}


def changed(text: str, name: str, value: str, path: str) -> str:
    """A block in which a variable has another value, with the size that it had.

    Raises NoSpace when it does not fit: GRUB reads no larger block.
    """
    size = max(SIZE, len(_bytes(text)))
    spelled = "%s=%s\n" % (name, re.sub(r"([\\\n])", r"\\\1", value))
    body = text.rstrip("#")
    match = next((match for match in _VARIABLE.finditer(body) if match.group(1) == name), None)
    body = body[: match.start()] + spelled + body[match.end() :] if match else body + spelled
    lacking = len(_bytes(body)) - size
    if lacking > 0:
        raise NoSpace(
            "%s holds %d bytes, and %d more are needed for %s." % (path, size, lacking, name),
            "Remove tokens or other variables that are not needed (grub2-editenv - list); or write the tokens into the "
            "options of the files in /boot/loader/entries, behind $%s." % name,
            path=path,
            lacking=lacking,
        )
    return body + "#" * -lacking


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
