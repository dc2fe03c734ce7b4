# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The configuration of TEE devices: everything has a default but the list of resources."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..keys import Keys, read
from .max_pods import MAX_PODS

# Of the seed of all this, and the kubelet's own default for pods of a node.
# The kubelet takes at most 4 MiB; what does not fit is refused with its exact number later.
SLOTS_MOST = 1_000_000
# An extended resource: a domain, a slash, a name.
NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/[A-Za-z]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
MODE = re.compile(r"0?[0-7]{3}")
OTHERS_WRITE = 0o002


@dataclass(frozen=True)
class Kind:
    """A kind of device: its resource's name by default, its paths, newest first, and its names in the kernel."""

    resource: str
    paths: tuple[str, ...]
    kernel_names: tuple[str, ...]


KINDS: Mapping[str, Kind] = {
    "tdx-guest": Kind("tdx.intel.com/tdx-guest", ("/dev/tdx_guest", "/dev/tdx-guest"), ("tdx_guest", "tdx-guest")),
    "sev-guest": Kind("sev.amd.com/sev-guest", ("/dev/sev-guest",), ("sev-guest",)),
}


@dataclass(frozen=True)
class Offered:
    """One resource. The first of its paths that is there is the device."""

    kind: str
    name: str
    paths: tuple[str, ...]
    slots: int


@dataclass(frozen=True)
class Folder:
    """The folder of sockets, which each container gets."""

    path: str
    uid: int
    gid: int
    mode: int
    read_only: bool


@dataclass(frozen=True)
class ReportFolders:
    """configfs-tsm of the host, and where a container sees its own folder of it."""

    path: str
    container_path: str


@dataclass(frozen=True)
class Config:
    """Everything. What is None is off."""

    resources: tuple[Offered, ...]
    folder: Folder | None
    reports: ReportFolders | None
    cdi_folder: str | None


def parse(text: str, file: str, slots: int = MAX_PODS) -> Config:
    """Raises BadConfig with file, key and remedy. ``slots``: of a resource for which the file has no number."""
    keys = read(text, file)
    keys.one_of("version", ("v1",), "v1")
    resources = tuple(_offered(one, slots) for one in keys.each("resources"))
    names = [one.name for one in resources]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise keys.wrong(
                f"resources[{number}].name", f"is {name!r}, as before", "Give each resource a name of its own."
            )
    folder, reports, cdi = keys.within("socketFolder"), keys.within("reports"), keys.within("cdi")
    config = Config(resources, _folder(folder), _reports(reports), _cdi(cdi))
    for one in (keys, folder, reports, cdi):
        one.done()
    return config


def _offered(keys: Keys, default_slots: int) -> Offered:
    kind = keys.one_of("device", tuple(KINDS))
    name = keys.text("name", KINDS[kind].resource)
    if not NAME.fullmatch(name) or name.startswith("requests.") or "kubernetes.io/" in name:
        raise keys.wrong("name", f"is {name!r}", f"Give a domain and a name, such as {KINDS[kind].resource}.")
    paths = tuple(keys.texts("paths", KINDS[kind].paths))
    for number, path in enumerate(paths):
        _check_path(keys, f"paths[{number}]", path, below="/dev/")
    slots = keys.number("slots", 1, SLOTS_MOST, default_slots)
    keys.done()
    return Offered(kind, name, paths, slots)


def slot_id(kind: str, number: int) -> str:
    """As the kubelet knows it."""
    return f"{kind}-{number}"


def _folder(keys: Keys) -> Folder | None:
    enabled = keys.flag("enabled", True)
    path = keys.text("path", "/run/ccnp/uds")
    _check_path(keys, "path", path, below="/run/")
    mode = keys.text("mode", "0755")
    if not MODE.fullmatch(mode):
        raise keys.wrong("mode", f"is {mode!r}", 'Give three octal digits in quotes: "0755", or "0775" for a group.')
    if int(mode, 8) & OTHERS_WRITE:
        raise keys.wrong(
            "mode", f"is {mode!r}, and every pod could plant a socket", 'Give "0775" and the gid of those who may.'
        )
    most = (1 << 32) - 2
    uid, gid = keys.number("uid", 0, most, 0), keys.number("gid", 0, most, 0)
    folder = Folder(path.rstrip("/"), uid, gid, int(mode, 8), keys.flag("readOnly", False))
    return folder if enabled else None


def _reports(keys: Keys) -> ReportFolders | None:
    enabled = keys.flag("enabled", False)
    path = keys.text("path", "/sys/kernel/config/tsm/report")
    inside = keys.text("containerPath", "/run/tsm-report")
    _check_path(keys, "path", path)
    _check_path(keys, "containerPath", inside)
    return ReportFolders(path.rstrip("/"), inside) if enabled else None


def _cdi(keys: Keys) -> str | None:
    enabled = keys.flag("enabled", False)
    folder = keys.text("folder", "/var/run/cdi")
    _check_path(keys, "folder", folder)
    return folder if enabled else None


def _check_path(keys: Keys, key: str, path: str, below: str = "/") -> None:
    if not path.startswith(below) or ".." in path.split("/") or path.rstrip("/") in ("", below.rstrip("/")):
        raise keys.wrong(key, f"is {path!r}", f"Give an absolute path below {below}, without `..`.")
