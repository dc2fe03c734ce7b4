# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""What clients made of one device, in order: writes, commands to the security processor, resets.

Noted at every write, so it costs one tuple; words are made of it when somebody asks.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from .protocol import REGION_NAMES

# A change of mode is about a hundred writes.
LIMIT = 8192
# What is traced besides writes; a boot is the device's own doing.
EVENTS = frozenset({"knob_read", "knob_write", "rpc", "reset", "reset_refused"})


class Trace:
    """The newest entries of one device: time, client, then a write's region, offset and data or an event's details."""

    def __init__(self) -> None:
        self._entries: deque[tuple[float, int | None, int, int, bytes] | tuple[float, int | None, dict[str, Any]]]
        self._entries = deque(maxlen=LIMIT)
        # Bound once: the hot path of a write calls it.
        self.append = self._entries.append

    def clear(self) -> None:
        """Begin again."""
        self._entries.clear()

    @property
    def complete(self) -> bool:
        """Whether every entry since the last `clear` is still here."""
        return len(self._entries) < LIMIT

    def entries(self) -> list[dict[str, Any]]:
        """In words."""
        return [_event(*entry) if len(entry) == 3 else _write(*entry) for entry in self._entries]


def _event(at: float, client: int | None, details: dict[str, Any]) -> dict[str, Any]:
    return {"t": round(at, 6), "client": client, **details}


def _write(at: float, client: int | None, region: int, offset: int, data: bytes) -> dict[str, Any]:
    value = int.from_bytes(data, "little")
    where = {"region": REGION_NAMES[region], "offset": offset, "size": len(data), "value": value}
    return {"t": round(at, 6), "client": client, "op": "write", **where}
