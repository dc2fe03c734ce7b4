# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The access log: one JSON object a line, buffered, so that logging costs little while something is being measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

FLUSH_AT = 4096


class Journal:
    """Collects entries as tuples and writes them out in bulk."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        # Truncated: a log tells of one run.
        self._file = path.open("w", encoding="utf-8")
        self._clock = clock
        self._entries: list[tuple[float, str, int | None, str, dict[str, Any]]] = []

    def add(self, device: str, client: int | None, op: str, **details: object) -> None:
        """Note one access."""
        self._entries.append((self._clock(), device, client, op, details))
        if len(self._entries) >= FLUSH_AT:
            self.flush()

    def flush(self) -> None:
        """Write out what was collected."""
        lines = [
            json.dumps({"t": round(at, 6), "device": device, "client": client, "op": op, **details}) + "\n"
            for at, device, client, op, details in self._entries
        ]
        self._entries = []
        self._file.write("".join(lines))
        self._file.flush()

    def close(self) -> None:
        """Flush and let go of the file."""
        self.flush()
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
