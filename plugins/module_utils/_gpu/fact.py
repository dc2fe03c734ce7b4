# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What was read back from a host's devices, kept where Ansible finds it as ``ansible_local.confidential_gpu``."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Collection, Literal, Mapping, Optional, Sequence

from .._core.files import ensure_writable, read_json, replace_json

if TYPE_CHECKING:
    from .._core.answers import ChangedDevice, ModeFact

SECTIONS = {"gpu": "gpus", "nvswitch": "nvswitches"}


def fact(devices: Sequence[ChangedDevice], key: Literal["mode_before", "mode_after"]) -> ModeFact:
    """``gpus`` and ``nvswitches`` (address to mode, None where it is not known) and ``mode``, which all GPUs share.

    ``key`` names the entry of each device that holds its mode as read. ``mode`` is 'mixed' when GPUs differ, and None
    when the mode of one is not known.
    """
    modes: dict[str, dict[str, Optional[str]]] = {section: {} for section in SECTIONS.values()}
    for device in devices:
        modes[SECTIONS[device["kind"]]][device["address"]] = device[key]
    return _fact(modes)


def _fact(modes: Mapping[str, dict[str, Optional[str]]]) -> ModeFact:
    return {"gpus": modes["gpus"], "nvswitches": modes["nvswitches"], "mode": _shared(modes["gpus"])}


def _shared(gpus: Mapping[str, Optional[str]]) -> Optional[str]:
    modes = set(gpus.values())
    if not modes or None in modes:
        return None
    return modes.pop() if len(modes) == 1 else "mixed"


def keep(
    path: str, content: ModeFact, present: Collection[str], lost: Mapping[str, str] = MappingProxyType({})
) -> ModeFact:
    """Replace the fact file and return what it holds. Raises NotPermitted.

    Devices that are present but were not part of this run keep what an earlier run read back from them. The mode of
    those that are ``lost`` (address to kind) is not known.
    """
    kept = read_json(path)
    gone: dict[str, dict[str, None]] = {section: {} for section in SECTIONS.values()}
    for address, kind in lost.items():
        gone[SECTIONS[kind]][address] = None
    told = {"gpus": content["gpus"], "nvswitches": content["nvswitches"]}
    merged = {
        section: {**_earlier(kept, section, present), **gone[section], **told[section]} for section in SECTIONS.values()
    }
    whole = _fact(merged)
    replace_json(path, whole, "fact file")
    return whole


def can_be_kept(path: str) -> None:
    """Raise NotPermitted if the fact file cannot be written, before anything is done that it would have to tell."""
    ensure_writable(path, "fact file")


def _earlier(kept: Any, section: str, present: Collection[str]) -> dict[str, Any]:
    devices = kept.get(section) if isinstance(kept, dict) else None
    if not isinstance(devices, dict):
        return {}
    return {address: mode for address, mode in devices.items() if address in present}
