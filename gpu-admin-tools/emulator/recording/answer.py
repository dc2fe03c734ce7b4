# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""Knobs for a recording. Asking the security processor for one takes writes, so the recorder does not.

They come from the JSON answer of the module `cc_mode_info`, which asks in its own way, and must be of this device.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..knobs import IDS
from ..mode import ActiveMode
from .bar0_words import MODE
from .errors import RecordingError
from .form import Recording, make

HOW = "ansible localhost -m confidential.gpu.cc_mode_info, its JSON alone"
# The module's names of the knobs that have a number only.
NUMBERED = "OPTION_"


def with_knobs(recording: Recording, path: Path, address: str) -> Recording:
    """The recording with the knobs of the device of that address. Raises RecordingError with file, key and remedy."""
    try:
        return _with_knobs(recording, _entry(path, address))
    except RecordingError as error:
        raise RecordingError(f"knobs {path}: {error}") from None


def _entry(path: Path, address: str) -> Mapping[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RecordingError(f"the file cannot be read as JSON ({error}); make it with {HOW}") from None
    devices = raw.get("devices") if isinstance(raw, Mapping) else None
    if not isinstance(devices, list) or not all(isinstance(entry, Mapping) for entry in devices):
        raise RecordingError(f"devices must be a list of devices; make the file with {HOW}")
    found = [entry for entry in devices if entry.get("address") == address]
    if len(found) != 1:
        raise RecordingError(f"devices: {len(found)} have the address {address}, and one must; make it on this host")
    return found[0]


def _with_knobs(recording: Recording, entry: Mapping[str, Any]) -> Recording:
    """The answer must be about the same device in the same state: it was read at another time."""
    product = recording.product
    seen = f"{product.device_id:#06x}"
    if entry.get("device_id") != seen:
        raise RecordingError(f"device_id is {entry.get('device_id')!r} and the device is {seen}; make it on this host")
    mode = ActiveMode.shown(product.family, recording.registers[MODE[product.family]]).name
    if entry.get("mode") != mode:
        raise RecordingError(f"mode is {entry.get('mode')!r} and the device is in {mode}; make it again")
    values, unknown = entry.get("knobs"), entry.get("unknown_knobs")
    if not isinstance(values, Mapping) or not values or not isinstance(unknown, list):
        problem = entry.get("problem")
        raise RecordingError(
            f"knobs and unknown_knobs are not known (problem: {problem}); end its cause, make it again"
        )
    knobs: dict[int, int] = {}
    for name, value in values.items():
        if type(value) is not int or not 0 <= value <= 0xFFFF:
            raise RecordingError(f"knobs: {name} must be a whole number from 0 to 65535, not {value!r}; make it again")
        knobs[_number(name)] = value
    return make(
        recording.bars, recording.config, recording.registers, knobs, frozenset(_number(name) for name in unknown)
    )


def _number(name: object) -> int:
    number = IDS.get(str(name).removeprefix(NUMBERED))
    if number is None:
        raise RecordingError(f"knobs: {name!r} is unknown; use a newer release of the emulator")
    return number
