# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What a host's devices are and in which mode, without changing anything.

A device that somebody uses is not touched, so its mode is not known; who holds it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Mapping, Optional, Sequence

from .._core import lock
from .._core.wait import SYSTEM_CLOCK, Clock
from .._pci.bus import Bus, Function
from .._pci.errors import DeviceBusy, NoDevices
from .._pci.use import FREE, UNKNOWN, USED, Claims, Use
from . import admin_tools, host
from .change import binding, checked_seconds, described
from .devices import Found, opened, read_all
from .kind import is_nvswitch
from .mode import GPU, NVSWITCH
from .roster import Lost, Roster, check_named
from .unproven import Unproven

if TYPE_CHECKING:
    from .._core.answers import DeviceEntry, InfoResult


def read(
    bus: Bus,
    addresses: Sequence[str] = (),
    tools_path: Optional[str] = None,
    root: str = "/",
    boot_timeout_s: float = 30,
    lock_timeout_s: float = 30,
    clock: Clock = SYSTEM_CLOCK,
) -> InfoResult:
    """``devices``, ``host`` and ``tool_version`` as plain data. A host without devices has an empty list.

    Raises GpuErrors for what concerns the whole run; a device's own problem stands in its entry.
    """
    checked_seconds("boot_timeout", boot_timeout_s)
    tools = admin_tools.load(tools_path)
    answer: InfoResult = {
        "host": host.facts(root),
        "tool_version": tools.version,
        "tool_tested": tools.is_tested,
        "devices": [],
    }
    roster = Roster(bus, root, clock)
    try:
        functions = roster.chosen(addresses)
    except NoDevices:
        return answer
    with lock.held(bus.lock_path(), lock_timeout_s, clock):
        roster.note()
        unproven = Unproven(bus.lock_path()).modes()
        answer["devices"] = devices = _read(functions, tools, root, boot_timeout_s, clock, unproven)
        check_named(addresses, [device["address"] for device in devices])
        if not addresses:
            devices += [_lost(one, unproven) for one in roster.lost()]
    return answer


def _read(
    functions: Sequence[Function],
    tools: admin_tools.AdminTools,
    root: str,
    boot_timeout_s: float,
    clock: Clock,
    unproven: Mapping[str, str],
) -> list[DeviceEntry]:
    with Claims(root) as claims:
        uses = claims.take(functions)
        free = [function for function in functions if uses[function.address].state == FREE]
        with opened(free, tools, claims, clock) as devices:
            found = {device.address: one for device, one in zip(devices, read_all(devices, boot_timeout_s, clock))}
            entries = []
            for function in functions:
                use = uses[function.address]
                one = found.get(function.address)
                problem = use.error()
                if one is None and problem is not None:
                    kind = NVSWITCH if is_nvswitch(function) else GPU
                    one = Found(function.address, kind, function.device_id, problem=problem)
                if one is not None:
                    entries.append(_entry(function, one, use, unproven))
            return entries


def _lost(lost: Lost, unproven: Mapping[str, str]) -> DeviceEntry:
    function = Function()
    function.address = lost.address
    found = Found(lost.address, lost.kind, 0, problem=lost.problem)
    return {**_entry(function, found, Use(lost.address), unproven), "use": UNKNOWN}


def _entry(function: Function, found: Found, use: Use, unproven: Mapping[str, str]) -> DeviceEntry:
    problem, noted = found.problem, unproven.get(found.address)
    state = USED if isinstance(problem, DeviceBusy) else use.state
    return {
        **described(found),
        "device_id": "0x%04x" % found.device_id,
        "module": found.module_id,
        "mode": found.mode,
        "pending_mode": found.pending,
        "reset_pending": found.pending is not None and found.pending != found.mode,
        "knobs": {knob.name: value for knob, value in found.knobs.items()},
        "firmware": found.firmware,
        "firmware_too_old_for_ppcie": found.firmware_too_old,
        "unknown_knobs": [knob.name for knob in found.unknown_knobs],
        **binding(function),
        "holders": [
            {"address": one.address, "pid": one.pid, "command": one.command, "file": one.file} for one in use.holders
        ],
        "use": state,
        "in_use": state == USED,
        "problem": problem.as_dict() if problem is not None else None,
        "settings_unproven": noted is not None and noted == found.mode,
    }
