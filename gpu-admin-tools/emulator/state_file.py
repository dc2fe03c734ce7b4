# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The persistent part of a node on disk, so that knobs outlive the emulator as they outlive a power cycle."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path


class StateError(ValueError):
    """A state file that is not one."""


class StateFile:
    """Knob values by device address and knob name."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> dict[str, dict[str, int]]:
        """What was saved; nothing if there is no file yet."""
        try:
            raw = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise StateError(f"state file {self._path} cannot be read ({error}); remove it to start afresh") from None
        if not isinstance(raw, dict) or not all(_is_knobs(knobs) for knobs in raw.values()):
            raise StateError(f"state file {self._path} does not hold knobs by device; remove it to start afresh")
        return raw

    def save(self, knobs: Mapping[str, Mapping[str, int]]) -> None:
        """Replace the file in one step: a reader sees the old state or the new one."""
        draft = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        draft.write_text(json.dumps(knobs, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        draft.replace(self._path)


def _is_knobs(raw: object) -> bool:
    return isinstance(raw, dict) and all(isinstance(value, int) for value in raw.values())
