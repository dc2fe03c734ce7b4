# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Deployments of libostree: which one boots next, and with what.

libostree writes an entry ``ostree-N.conf`` for each deployment; the one with the highest ``version`` comes first. A
deployment that is staged gets its entry while the host shuts down; until then only /run/ostree knows of it. One whose
finalization is locked does not get it.
"""

from __future__ import annotations

import os
import re
from typing import Optional

from . import bls
from .entry import Entry
from .firmware import by_version
from .host import Host

BOOTED = "/run/ostree-booted"
STAGED = "/run/ostree/staged-deployment"
LOCKED = "/run/ostree/staged-deployment-locked"
# Points to the deployment; every new one has another.
POINTER = "ostree"


def is_booted(host: Host) -> bool:
    """Whether this host was booted from a deployment."""
    return host.exists(BOOTED)


def is_staged(host: Host) -> bool:
    """Whether another deployment becomes the one that boots next while the host shuts down."""
    return host.exists(STAGED) and not host.exists(LOCKED)


def first(host: Host) -> Optional[Entry]:
    """The entry of the boot loader's folder that comes first; None when there is none of a deployment."""
    files = [file for file in bls.files(host) if file.id.startswith("ostree-")]
    if not files:
        return None
    files.sort(key=lambda file: (by_version(file.value("version")), file.id))
    entry = files[-1].entry({})
    return Entry(entry.path, entry.title, own(entry.tokens), entry.line, is_default=True)


def is_pending(host: Host) -> bool:
    """Whether what boots next is not what is running, or that is not known.

    The pointers cannot be compared: with every deployment that comes, those of the others are written again. Where they
    lead to can: to the folder that / is made of.
    """
    entry = first(host)
    if host.exists(STAGED) or entry is None:
        return True
    pointers = re.findall(r"(?<!\S)%s=(/\S+)" % POINTER, host.text(entry.path) or "")
    try:
        folder = os.path.basename(os.readlink(host.path("/sysroot" + pointers[-1])))
    except (IndexError, OSError):
        return True
    mounts = [line.split() for line in (host.text("/proc/self/mountinfo") or "").splitlines()]
    roots = [fields[3] for fields in mounts if len(fields) > 4 and fields[4] == "/"]
    return not roots or roots[-1].rpartition("/")[2] != folder


def own(tokens: tuple[str, ...]) -> tuple[str, ...]:
    """The tokens without the deployment's pointer, which libostree keeps."""
    return tuple(token for token in tokens if token.partition("=")[0] != POINTER)
