# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What happens to a node by chance: users, pods, the API's weather, devices that fail. The seed tells the whole row."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

from .relay import AWAY, HELD, LOST, REFUSALS
from .watchman import MODES

LABEL, FLAP, WEATHER, CUT, MUTE = "label", "flap", "weather", "cut", "mute"
USER, POD, CRASH, SLOW = "gpu pod", "pod", "component crash", "slow pods"
FAULT, DRIFT, POWER, HOLD = "fault", "drift", "power", "hold"
# How often each comes, beside the others. To find out that a watch is mute takes more than a minute.
WEIGHTS = {
    LABEL: 6.0,
    FLAP: 1.0,
    WEATHER: 4.0,
    CUT: 2.0,
    MUTE: 0.2,
    USER: 3.0,
    POD: 1.0,
    CRASH: 1.0,
    SLOW: 1.0,
    FAULT: 4.0,
    DRIFT: 1.0,
    POWER: 1.0,
    HOLD: 1.0,
}
MOST_IN_A_ROUND = 4
# Rules of docs/emulator.md. The device is chosen, and so is which of the first writes or reads is struck.
FAULTS = (
    {"event": "boot", "action": "no_boot"},
    {"event": "boot", "action": "mode_stuck"},
    {"event": "reset", "action": "reset_error"},
    {"event": "reset", "action": "no_boot"},
    {"event": "knob_write", "action": "rpc_error", "code": 0x2A},
    {"event": "knob_write", "action": "rpc_timeout"},
    {"event": "knob_write", "action": "rpc_late", "seconds": 1.0},
    {"event": "knob_write", "action": "rpc_garble"},
    {"event": "knob_write", "action": "stick"},
    {"event": "knob_read", "action": "rpc_error", "code": 0x202},
    {"event": "connect", "action": "disconnect"},
    {"event": "connect", "action": "hang"},
    {"event": "write", "action": "power_cut"},
    {"event": "write", "action": "disconnect"},
    {"event": "write", "action": "kill_client"},
    {"event": "write", "action": "fall_off"},
    {"event": "write", "action": "recovery"},
    {"event": "read", "action": "fall_off"},
    {"event": "read", "action": "sec_fault"},
)


class Trouble(NamedTuple):
    """One thing that happens: its kind, what about it, and the seconds until the next."""

    kind: str
    about: dict[str, object]
    then_s: float


def rounds(seed: int, devices: list[str]) -> Iterator[list[Trouble]]:
    """The row of rounds, without end."""
    chance = random.Random(seed)
    while True:
        count = chance.randint(1, MOST_IN_A_ROUND)
        kinds = chance.choices(list(WEIGHTS), list(WEIGHTS.values()), k=count)
        yield [Trouble(kind, about(kind, chance, devices), chance.uniform(0.1, 4.0)) for kind in kinds]


def about(kind: str, chance: random.Random, devices: list[str]) -> dict[str, object]:
    """What is chosen beside the kind."""
    if kind == LABEL:
        return {"modes": [chance.choice([*MODES, "nonsense", None])]}
    if kind == FLAP:
        return {"modes": [chance.choice(MODES) for _number in range(chance.randint(3, 8))]}
    if kind == WEATHER:
        way = chance.choice([LOST, HELD, AWAY, *map(str, REFUSALS)])
        return {"way": way, "share": round(chance.uniform(0.2, 1.0), 2)}
    if kind == FAULT:
        rule: dict[str, object] = {**chance.choice(FAULTS), "device": chance.choice(devices)}
        if rule["event"] in ("write", "read"):
            rule["nth"] = chance.randint(1, 60)
        return rule
    if kind == DRIFT:
        return {"device": chance.choice(devices), "mode": chance.choice(MODES)}
    if kind in (POWER, HOLD):
        return {"device": chance.choice(devices)}
    return {}
