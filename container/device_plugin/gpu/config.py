# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The configuration of NVIDIA's device plugin, version v1, without what only that one can do.

NVIDIA's takes no notice of a key that it does not know; here it is refused. Beside NVIDIA's keys there is
``confidential``; and ``devices`` and ``rename`` of a shared resource, which NVIDIA's reads and does not honour, work.

Facts: k8s-device-plugin 0.20.0, api/config/v1 and internal/plugin/server.go.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..keys import Keys, read
from ..source import SEPARATOR

GPU = "nvidia.com/gpu"
SHARED = ".shared"
ENVIRONMENT, CDI = "envvar", "cdi-cri"
MOUNTS, ANNOTATIONS = "volume-mounts", "cdi-annotations"
STRATEGIES = (ENVIRONMENT, MOUNTS, ANNOTATIONS, CDI)
ANNOTATION_PREFIX = "cdi.k8s.io/"
UUID, INDEX = "uuid", "index"
DISTRIBUTED, PACKED = "distributed", "packed"
REPLICAS_MOST = 1_000_000
PREFIX = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/")
NAME = re.compile(r"nvidia\.com/[A-Za-z]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
THEIRS = "Use NVIDIA's device plugin for it"


@dataclass(frozen=True)
class Sharing:
    """GPUs in time slices. ``devices``: UUIDs and indices; empty: all that no other names. ``name``: as offered."""

    name: str
    replicas: int
    devices: frozenset[str]


@dataclass(frozen=True)
class Config:
    """Everything. GPUs that no sharing is about are offered whole."""

    driver_root: str
    strategies: tuple[str, ...]
    annotation_prefix: str
    ids: str
    pass_nodes: bool
    shared: tuple[Sharing, ...]
    fail_above_one: bool
    policy: str
    share_confidential: bool

    @property
    def names_cdi(self) -> bool:
        """Whether containers get names that a specification has to have."""
        return CDI in self.strategies or ANNOTATIONS in self.strategies

    @property
    def is_cdi_alone(self) -> bool:
        """Nothing but names: the specification brings all nodes."""
        return not {ENVIRONMENT, MOUNTS} & set(self.strategies)


def share_id(uuid: str, number: int) -> str:
    """Of one share of a GPU, as NVIDIA's plugin names it."""
    return f"{uuid}{SEPARATOR}{number}"


def parse(text: str, file: str) -> Config:
    """Raises BadConfig with file, key and remedy."""
    keys = read(text, file)
    keys.one_of("version", ("v1",))
    flags, sharing, confidential = keys.within("flags"), keys.within("sharing"), keys.within("confidential")
    plugin, slices = flags.within("plugin"), sharing.within("timeSlicing")
    _refuse_theirs(keys, flags, sharing, plugin)
    root = flags.text("nvidiaDriverRoot", "/")
    if not root.startswith("/") or ".." in root.split("/"):
        raise flags.wrong("nvidiaDriverRoot", f"is {root!r}", "Give an absolute path, without `..`.")
    config = Config(
        driver_root=root,
        strategies=_strategies(plugin),
        annotation_prefix=_prefix(plugin),
        ids=plugin.one_of("deviceIDStrategy", (UUID, INDEX), UUID),
        pass_nodes=plugin.flag("passDeviceSpecs", False),
        shared=_shared(slices),
        fail_above_one=slices.flag("failRequestsGreaterThanOne", False),
        policy=plugin.one_of("sharedDevicesAllocationPolicy", (DISTRIBUTED, PACKED), DISTRIBUTED),
        share_confidential=confidential.flag("allowSharing", False),
    )
    for one in (keys, flags, plugin, sharing, slices, confidential):
        one.done()
    return config


def _refuse_theirs(keys: Keys, flags: Keys, sharing: Keys, plugin: Keys) -> None:
    """What NVIDIA's plugin does and this one does not. Of no effect here, and taken: what is for its other programs."""
    if flags.one_of("migStrategy", ("none", "single", "mixed"), "none") != "none":
        raise flags.wrong("migStrategy", "is not none, and GPUs are not split here", f"Give none. {THEIRS}.")
    for key in ("mps", "imex"):
        for place in (keys, sharing, flags):
            if key in place:
                raise place.wrong(key, f"is not done here: {key.upper()}", f"Remove it. {THEIRS}.")
    for key in ("gdrcopyEnabled", "gdsEnabled", "mofedEnabled"):
        if flags.flag(key, False):
            raise flags.wrong(key, "is not done here", f"Give false. {THEIRS}.")
    flags.flag("failOnInitError", True)  # here a GPU that does not answer is never the end, and never ready
    flags.flag("useNodeFeatureAPI", False)
    flags.one_of("deviceDiscoveryStrategy", ("auto", "nvml"), "auto")
    flags.within("gfd")
    for key in ("nvidiaCTKPath", "containerDriverRoot"):
        if key in plugin:
            plugin.text(key)
    for key in ("mpsRoot", "nvidiaDevRoot"):
        if key in flags:
            flags.text(key)


def _strategies(plugin: Keys) -> tuple[str, ...]:
    remedy = f"Give one of {', '.join(STRATEGIES)}, or a list of them."
    words = plugin.words("deviceListStrategy", [ENVIRONMENT])
    words = [word for one in words for word in one.split(",")]
    for one in words:
        if one not in STRATEGIES:
            raise plugin.wrong("deviceListStrategy", f"is {one!r}", remedy)
    return tuple(dict.fromkeys(words))


def _prefix(plugin: Keys) -> str:
    prefix = plugin.text("cdiAnnotationPrefix", ANNOTATION_PREFIX)
    if not PREFIX.fullmatch(prefix):
        remedy = f"Give a domain and a slash, as the container runtime has it: {ANNOTATION_PREFIX}."
        raise plugin.wrong("cdiAnnotationPrefix", f"is {prefix!r}", remedy)
    return prefix


def _shared(slices: Keys) -> tuple[Sharing, ...]:
    rename = slices.flag("renameByDefault", False)
    if "resources" not in slices:
        return ()
    found: list[Sharing] = []
    for keys in slices.each("resources"):
        one = _sharing(keys, rename)
        for other in found:
            if not one.devices or not other.devices:
                raise keys.wrong("name", f"is {GPU!r}, as before", "Name the `devices` of each, or give one of them.")
            if both := one.devices & other.devices:
                raise keys.wrong("devices", f"has {min(both)!r}, as before", "Share each GPU in one way.")
        found.append(one)
    return tuple(found)


def _sharing(keys: Keys, rename: bool) -> Sharing:
    name = _qualified(keys.text("name"))
    if name != GPU:
        raise keys.wrong("name", f"is {name!r}, which is not shared here", f"Give {GPU}. {THEIRS}.")
    new = _qualified(keys.text("rename", GPU + SHARED if rename else GPU))
    if not NAME.fullmatch(new):
        raise keys.wrong("rename", f"is {new!r}", f"Give a name such as {GPU}{SHARED}.")
    replicas = keys.number("replicas", 2, REPLICAS_MOST)
    devices = frozenset[str]()
    if "devices" in keys:
        devices = _devices(keys)
    keys.done()
    return Sharing(new, replicas, devices)


def _devices(keys: Keys) -> frozenset[str]:
    """UUIDs and indices; empty for `all`."""
    words = keys.words("devices")
    if words == ["all"]:
        return frozenset()
    for number, one in enumerate(words):
        if not (one.isdecimal() or one.startswith("GPU-")):
            raise keys.wrong(f"devices[{number}]", f"is {one!r}", "Give an index or a UUID, or `devices: all`.")
        if one in words[:number]:
            raise keys.wrong(f"devices[{number}]", f"is {one!r}, as before", "Name each GPU once.")
    return frozenset(words)


def _qualified(name: str) -> str:
    """NVIDIA's takes names with and without its domain."""
    return name if "/" in name else f"nvidia.com/{name}"
