# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""Faults on demand: which event of which device goes wrong, the how-manieth time, and how.

A rule counts the events that match it; it strikes on the `nth` and on the `times - 1` that follow, or on all that
follow with `times: forever`. Rules come from a file or live through the control socket.
"""

from __future__ import annotations

import errno as errno_module
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from .knobs import NAMES, number_of

EVERY_EVENT = frozenset(
    {"write", "read", "reset", "boot", "rpc", "knob_read", "knob_write", "connect"},
)
RPC_EVENTS = frozenset({"rpc", "knob_read", "knob_write"})
BOOT_EVENTS = frozenset({"reset", "boot"})
# Actions that are done to the connection or to the whole node, before the access is applied. After these but for the
# last two it is not applied.
HOST_ACTIONS = frozenset({"kill_client", "power_cut", "power_cut_all", "disconnect", "hang", "drip", "babble"})
# Which action can answer which event; a rule that could never strike is a mistake in the test.
ACTIONS: dict[str, frozenset[str]] = {
    **dict.fromkeys(HOST_ACTIONS, EVERY_EVENT),
    # A device whose power is cut boots again, which must not cut its power.
    "power_cut": EVERY_EVENT - {"boot"},
    "power_cut_all": EVERY_EVENT - {"boot"},
    "fall_off": EVERY_EVENT,
    "sec_fault": EVERY_EVENT,
    "recovery": EVERY_EVENT,
    "no_boot": BOOT_EVENTS,
    "mode_stuck": BOOT_EVENTS,
    "bar0_error": EVERY_EVENT,
    "config_error": EVERY_EVENT,
    "reset_error": frozenset({"reset"}),
    "rpc_error": RPC_EVENTS,
    "rpc_timeout": RPC_EVENTS,
    "rpc_garble": RPC_EVENTS,
    "rpc_short": RPC_EVENTS,
    "rpc_late": RPC_EVENTS,
    "rpc_drip": RPC_EVENTS,
    # A claim made before a reset would be lost in it.
    "rpc_huge": RPC_EVENTS | {"connect", "boot"},
    "stick": frozenset({"knob_write"}),
}
ERRNO_ACTIONS = frozenset({"bar0_error", "config_error", "reset_error"})
KEYS = frozenset(
    {"device", "event", "nth", "times", "action", "knob", "region", "offset", "errno", "code", "seconds", "words"}
)
REGIONS = frozenset({"config", "bar0", "bar1"})
SECONDS_ACTIONS = frozenset({"rpc_late", "drip", "babble"})
# Between two bytes or two stray answers, unless the rule says it; rpc_late has to say it.
DEFAULT_SECONDS = {"drip": 0.05, "babble": 0.05}
ACCESS_EVENTS = frozenset({"read", "write"})
# A queue's length is the difference of two 32-bit addresses.
MOST_WORDS = 1_000_000_000
DEFAULT_ERRNO = {"bar0_error": errno_module.EPERM, "config_error": errno_module.EIO, "reset_error": errno_module.EBUSY}
EVERY_DEVICE = "*"


class FaultError(ValueError):
    """A rule that cannot be understood; the message names the key and what it may be."""


class Access(NamedTuple):
    """Which bytes a read or a write is about."""

    region: str
    offset: int
    size: int


@dataclass(slots=True)
class Fault:
    """One rule and how often its event has been seen."""

    device: str
    event: str
    action: str
    nth: int = 1
    times: int | None = 1
    knob: str | None = None
    errno: int = 0
    code: int = 0
    seconds: float = 0.0
    region: str | None = None
    offset: int | None = None
    words: int = 0
    seen: int = 0

    @property
    def spent(self) -> bool:
        """Has struck for the last time."""
        return self.times is not None and self.seen >= self.nth + self.times - 1

    def counts(self, device: str, event: str, knob: str | None, access: Access | None) -> bool:
        """Whether an event is one of those the rule counts.

        A rule that makes accesses to BAR0 or config space fail counts those accesses only.
        """
        if event != self.event or self.device not in (device, EVERY_DEVICE):
            return False
        if self.knob is not None and knob != self.knob:
            return False
        if access is None:
            return True
        wanted = self.region or {"bar0_error": "bar0", "config_error": "config"}.get(self.action)
        if wanted is not None and access.region != wanted:
            return False
        return self.offset is None or access.offset <= self.offset < access.offset + access.size

    def strikes(self) -> bool:
        """Count one event."""
        self.seen += 1
        return self.seen >= self.nth and (self.times is None or self.seen < self.nth + self.times)


class FaultSet:
    """The rules in force."""

    def __init__(self, rules: Iterable[Fault] = ()) -> None:
        self._rules: list[Fault] = []
        self.watched: frozenset[str] = frozenset()
        for rule in rules:
            self.add(rule)

    def add(self, rule: Fault) -> None:
        """Put a rule in force."""
        self._rules.append(rule)
        self._watch()

    def clear(self) -> None:
        """Drop every rule."""
        self._rules = []
        self._watch()

    def _watch(self) -> None:
        self.watched = frozenset(rule.event for rule in self._rules)

    def fire(self, event: str, device: str, knob: str | None = None, access: Access | None = None) -> list[Fault]:
        """Count an event with every rule and return those that strike."""
        if event not in self.watched:
            return []
        matching = [rule for rule in self._rules if rule.counts(device, event, knob, access)]
        struck = [rule for rule in matching if rule.strikes()]
        if any(rule.spent for rule in matching):
            self._rules = [rule for rule in self._rules if not rule.spent]
            self._watch()
        return struck


def parse_fault(raw: object, addresses: Iterable[str]) -> Fault:
    """One rule from YAML or JSON, checked."""
    if not isinstance(raw, Mapping):
        raise FaultError(f"a fault is a mapping with the keys {_list(KEYS)}, not {raw!r}")
    if unknown := set(raw) - KEYS:
        raise FaultError(f"fault: unknown key {_list(unknown)}; use {_list(KEYS)}")
    device, event, action = raw.get("device", EVERY_DEVICE), raw.get("event"), raw.get("action")
    known = list(addresses)
    if device != EVERY_DEVICE and device not in known:
        raise FaultError(f'fault: device {device!r} is not in this node; use "*" or one of {_list(known)}')
    if not isinstance(event, str) or event not in EVERY_EVENT:
        raise FaultError(f"fault: event {event!r} is unknown; use one of {_list(EVERY_EVENT)}")
    if not isinstance(action, str) or action not in ACTIONS:
        raise FaultError(f"fault: action {action!r} is unknown; use one of {_list(ACTIONS)}")
    if event not in ACTIONS[action]:
        raise FaultError(f"fault: action {action} cannot answer event {event}; use {_list(ACTIONS[action])}")
    return Fault(
        device=str(device),
        event=event,
        action=action,
        nth=_count(raw.get("nth", 1), "nth"),
        times=None if raw.get("times") == "forever" else _count(raw.get("times", 1), "times"),
        knob=_knob(raw.get("knob"), event),
        errno=_errno(raw.get("errno"), action),
        code=_code(raw.get("code"), action),
        seconds=_seconds(raw.get("seconds"), action),
        region=_region(raw.get("region"), event),
        offset=_offset(raw.get("offset"), raw.get("region")),
        words=_words(raw.get("words"), action),
    )


def parse_faults(raw: object, addresses: Iterable[str]) -> list[Fault]:
    """A file's rules, checked."""
    if not isinstance(raw, list):
        raise FaultError("the fault file must hold a list of mappings")
    known = list(addresses)
    return [parse_fault(entry, known) for entry in raw]


def _list(words: Iterable[object]) -> str:
    return ", ".join(sorted(str(word) for word in words))


def _count(value: object, key: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        also = ' or "forever"' if key == "times" else ""
        raise FaultError(f"fault: {key} must be a whole number from 1 up{also}, not {value!r}")
    return value


def _knob(value: object, event: str) -> str | None:
    if value is None:
        return None
    if event not in ("knob_read", "knob_write"):
        raise FaultError(f"fault: knob only goes with the events knob_read and knob_write, not with {event}")
    number = number_of(value)
    if number is None:
        raise FaultError(f"fault: knob {value!r} is unknown; use one of {_list(NAMES.values())}")
    return NAMES[number]


def _errno(value: object, action: str) -> int:
    if action not in ERRNO_ACTIONS:
        if value is not None:
            raise FaultError(f"fault: errno only goes with {_list(ERRNO_ACTIONS)}, not with {action}")
        return 0
    if value is None:
        return DEFAULT_ERRNO[action]
    number = getattr(errno_module, value, None) if isinstance(value, str) else value
    if not isinstance(number, int) or isinstance(number, bool) or not 0 < number < 4096:
        raise FaultError(f"fault: errno must be a name such as EPERM or its number, not {value!r}")
    return number


def _code(value: object, action: str) -> int:
    if action != "rpc_error":
        if value is not None:
            raise FaultError(f"fault: code only goes with rpc_error, not with {action}")
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= 0xFFFFFFFF:
        raise FaultError(f"fault: rpc_error needs a code from 1 to 0xffffffff, not {value!r}")
    return value


def _seconds(value: object, action: str) -> float:
    if action not in SECONDS_ACTIONS:
        if value is not None:
            raise FaultError(f"fault: seconds only goes with {_list(SECONDS_ACTIONS)}, not with {action}")
        return 0.0
    chosen = DEFAULT_SECONDS.get(action) if value is None else value
    if not isinstance(chosen, (int, float)) or isinstance(chosen, bool) or not chosen >= 0:
        raise FaultError(f"fault: {action} needs seconds, a number from 0 up, not {value!r}")
    return float(chosen)


def _region(value: object, event: str) -> str | None:
    if value is None:
        return None
    if event not in ACCESS_EVENTS:
        raise FaultError(f"fault: region only goes with the events {_list(ACCESS_EVENTS)}, not with {event}")
    if not isinstance(value, str) or value not in REGIONS:
        raise FaultError(f"fault: region must be one of {_list(REGIONS)}, not {value!r}")
    return value


def _offset(value: object, region: object) -> int | None:
    if value is None:
        return None
    if region is None:
        raise FaultError("fault: offset only goes with a region; say which")
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise FaultError(f"fault: offset must be a whole number from 0 up, not {value!r}")
    return value


def _words(value: object, action: str) -> int:
    if action != "rpc_huge":
        if value is not None:
            raise FaultError(f"fault: words only goes with rpc_huge, not with {action}")
        return 0
    if value is None:
        return MOST_WORDS
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= MOST_WORDS:
        raise FaultError(f"fault: words must be a whole number from 1 to {MOST_WORDS}, not {value!r}")
    return value
