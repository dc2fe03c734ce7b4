# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The file of a recording: JSON, versioned, checked when it is read.

The check walks the recorded words as the recorder walks a device. So a file holds what may be read and nothing else,
whoever wrote it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import registers as reg
from ..config_space import VENDOR_NVIDIA
from ..knobs import IDS, NAMES
from ..models import MIB, Family, Model
from .bar0_words import REACH, family_of, is_bus_error, is_virtual, read_registers, unrest
from .config_words import BARS, CLASS, HEADER_TYPE, SUBSYSTEM, ConfigWords, is_wide, walk
from .config_words import IDS as IDENTITY
from .errors import RecordingError

FORMAT = "confidential.gpu recording"
VERSION = 1
KEYS = frozenset({"format", "version", "bars", "config", "registers", "knobs", "unknown_knobs"})
BAR_KEYS = ("bar0", "bar1")
# No recording comes near: 4 KiB of config space and about 400 registers, 30 bytes of text each.
MOST_BYTES = 1 << 20
MOST_BAR0, MOST_BAR1 = 256 * MIB, (1 << 18) * MIB
OFFSET = re.compile(r"0x(?:0|[1-9a-f][0-9a-f]{0,6})")
WORD = re.compile(r"0x[0-9a-f]{8}")
AGAIN = "record the device again"


@dataclass(frozen=True, slots=True)
class Recording:
    """A device at rest: sizes of BAR0 and BAR1 in bytes, words by offset, knobs by number (None: not known)."""

    bars: tuple[int, int]
    config: ConfigWords
    registers: Mapping[int, int]
    knobs: Mapping[int, int] | None
    unknown_knobs: frozenset[int]
    product: Model

    @property
    def family(self) -> Family:
        """How it answers."""
        return self.product.family

    def text(self) -> str:
        """What the file holds."""
        raw = {
            "format": FORMAT,
            "version": VERSION,
            "bars": dict(zip(BAR_KEYS, self.bars, strict=True)),
            "config": _as_text(self.config.words),
            "registers": _as_text(self.registers),
            "knobs": None if self.knobs is None else {NAMES[knob]: self.knobs[knob] for knob in sorted(self.knobs)},
            "unknown_knobs": [NAMES[knob] for knob in sorted(self.unknown_knobs)],
        }
        return json.dumps(raw, indent=1) + "\n"

    def save(self, path: Path) -> None:
        """Replace the file in one step: a reader sees the old recording, or none, or the new one. Raises OSError."""
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with draft.open("w", encoding="utf-8") as file:
                file.write(self.text())
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)


def make(
    bars: tuple[int, int],
    config: ConfigWords,
    registers: Mapping[int, int],
    knobs: Mapping[int, int] | None = None,
    unknown_knobs: Iterable[int] = (),
) -> Recording:
    """Put the parts together. Raises RecordingError for a device that cannot be replayed."""
    for at, (key, size, least, most) in enumerate(
        (("bar0", bars[0], REACH, MOST_BAR0), ("bar1", bars[1], MIB, MOST_BAR1))
    ):
        if size & (size - 1) or not (least <= size <= most or (at == 1 and size == 0)):
            raise RecordingError(f"bars: {key} has {size} bytes; needed is a power of two from {least} to {most}")
    family = checked_family(config, registers[reg.PMC_BOOT_0])
    if is_virtual(registers):
        raise RecordingError("registers: 0x4 says that it is a virtual function; record its physical function")
    if why := unrest(family, registers):
        raise RecordingError(f"registers: the device is not at rest: {why}; reset it, wait for it, and {AGAIN}")
    lacking = frozenset(unknown_knobs)
    if strange := ({*(knobs or ()), *lacking} - family.knob_ids) | (set(knobs or ()) & lacking):
        names = _list(NAMES[one] for one in strange)
        raise RecordingError(f"knobs: {names} cannot be on this device, as known or as unknown knob; take it out")
    words = config.words
    product = Model(
        family=family,
        device_id=words[IDENTITY] >> 16,
        subsystem_id=words[SUBSYSTEM] >> 16,
        boot_0=registers[reg.PMC_BOOT_0],
        class_code=words[CLASS] >> 8,
        bar0_mib=bars[0] // MIB,
    )
    given = None if knobs is None else dict(knobs)
    return Recording(bars, config, dict(registers), given, lacking, product)


def checked_family(config: ConfigWords, boot_0: int | None = None) -> Family:
    """The family, by config space and, once it is known, `NV_PMC_BOOT_0`. Raises RecordingError."""
    words = config.words
    vendor, device_id, class_code = words[IDENTITY] & 0xFFFF, words[IDENTITY] >> 16, words[CLASS] >> 8
    if vendor != VENDOR_NVIDIA:
        raise RecordingError(f"config: vendor {vendor:04x} is not NVIDIA (10de); name another device")
    if words[HEADER_TYPE] >> 16 & 0x7F:
        raise RecordingError("config: it is a bridge, not an endpoint; name another device")
    family = family_of(device_id, class_code, boot_0)
    if family is None:
        raise RecordingError(
            f"the device {vendor:04x}:{device_id:04x} (class {class_code:06x}) belongs to no family of which it is "
            "known what may be read; Hopper, Blackwell and the NVSwitch LS10 do"
        )
    if boot_0 is not None and (is_bus_error(boot_0) or boot_0 == reg.ALL_ONES):
        raise RecordingError(f"registers: 0x0 reads {boot_0:#010x}, which is an error, no chip; power-cycle the host")
    return family


def replayable(recording: Recording) -> str:
    """Why the emulator cannot be this device, '' if it can."""
    words, sizes = recording.config.words, recording.bars
    if not is_wide(words[BARS]):
        return "BAR0 is not a memory BAR of 64 bits, and the emulator has no other"
    if sizes[1] and not is_wide(words[BARS + 8]):
        return "BAR1 is not a memory BAR of 64 bits, and the emulator has no other"
    return ""


def load(path: Path) -> Recording:
    """Read a file. Raises RecordingError with file, key and remedy."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise RecordingError(f"recording {path} cannot be read: {error.strerror}; give the path of a file") from None
    try:
        if len(data) > MOST_BYTES:
            raise RecordingError(f"the file has more than {MOST_BYTES} bytes; {AGAIN}")
        return parse(_json(data))
    except RecordingError as error:
        raise RecordingError(f"recording {path}: {error}") from None


def _json(data: bytes) -> object:
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        if isinstance(error, RecordingError):
            raise
        raise RecordingError(f"the file is not JSON ({error}); {AGAIN}") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are there once: readers disagree about which of two counts."""
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for at, (key, _value) in enumerate(pairs) if key in dict(pairs[:at]))
        raise RecordingError(f"the key {twice!r} is there twice; {AGAIN}")
    return found


def parse(raw: object) -> Recording:
    """What the file holds, checked. Raises RecordingError."""
    if not isinstance(raw, Mapping) or raw.get("format") != FORMAT:
        raise RecordingError(f"format must be {FORMAT!r}; make the file with `python -m emulator record`")
    version = raw.get("version")
    if type(version) is not int or version != VERSION:
        raise RecordingError(f"version must be {VERSION}, not {version!r}; {AGAIN}, or use a newer release")
    if unknown := set(raw) - KEYS:
        raise RecordingError(f"unknown key {_list(unknown)}; take it out")
    if missing := KEYS - set(raw):
        raise RecordingError(f"the key {_list(missing)} is missing; {AGAIN}")
    config_file, register_file = _words(raw, "config"), _words(raw, "registers")
    config = walk(_reader(config_file, "config"))
    _same("config", config_file, config.words)
    boot_0 = _reader(register_file, "registers")(reg.PMC_BOOT_0)
    registers = read_registers(checked_family(config, boot_0), _reader(register_file, "registers"))
    _same("registers", register_file, registers)
    return make(_sizes(raw["bars"]), config, registers, _knobs(raw["knobs"]), _unknown_knobs(raw["unknown_knobs"]))


def _words(raw: Mapping[str, Any], key: str) -> dict[int, int]:
    given = raw[key]
    if not isinstance(given, Mapping):
        raise RecordingError(f"{key} must be an object of offsets and words; {AGAIN}")
    for offset, word in given.items():
        if not isinstance(offset, str) or not OFFSET.fullmatch(offset) or int(offset, 16) & 3:
            raise RecordingError(f'{key}: {offset!r} must be the offset of a word such as "0x590"; {AGAIN}')
        if not isinstance(word, str) or not WORD.fullmatch(word):
            raise RecordingError(f'{key}: {offset} must be eight digits such as "0x180000a1", not {word!r}; {AGAIN}')
    return {int(offset, 16): int(word, 16) for offset, word in given.items()}


def _reader(words: Mapping[int, int], key: str) -> Callable[[int], int]:
    def read(offset: int) -> int:
        if offset not in words:
            raise RecordingError(f"{key}: {offset:#x} is missing; {AGAIN}")
        return words[offset]

    return read


def _same(key: str, given: Mapping[int, int], kept: Mapping[int, int]) -> None:
    """Nothing is in the file that a recorder would not have kept: it might be a serial number."""
    for offset, word in given.items():
        if offset not in kept:
            raise RecordingError(f"{key}: {offset:#x} may not be in a recording; take it out")
        if kept[offset] != word:
            raise RecordingError(
                f"{key}: {offset:#x} is {word:#010x}, of which only {kept[offset]:#010x} may be in a recording; {AGAIN}"
            )


def _sizes(raw: object) -> tuple[int, int]:
    if not isinstance(raw, Mapping) or set(raw) != set(BAR_KEYS):
        raise RecordingError(f"bars must be an object with the keys {_list(BAR_KEYS)}; {AGAIN}")
    for key in BAR_KEYS:
        if type(raw[key]) is not int or raw[key] < 0:
            raise RecordingError(f"bars: {key} must be a number of bytes, not {raw[key]!r}; {AGAIN}")
    return raw["bar0"], raw["bar1"]


def _knobs(raw: object) -> dict[int, int] | None:
    if raw is None:
        return None
    if not isinstance(raw, Mapping):
        raise RecordingError('knobs must be null or an object such as {"CCM": 1}; ' + AGAIN)
    found: dict[int, int] = {}
    for name, value in raw.items():
        if name not in IDS:
            raise RecordingError(f"knobs: {name!r} is unknown; use {_list(IDS)}")
        if type(value) is not int or not 0 <= value <= 0xFFFF:
            raise RecordingError(f"knobs: {name} must be a whole number from 0 to 65535, not {value!r}")
        found[IDS[name]] = value
    return found


def _unknown_knobs(raw: object) -> list[int]:
    if not isinstance(raw, list) or not all(isinstance(name, str) and name in IDS for name in raw):
        raise RecordingError(f"unknown_knobs must be a list of knobs, some of {_list(IDS)}; {AGAIN}")
    if len(set(raw)) != len(raw):
        raise RecordingError("unknown_knobs names a knob twice; take one out")
    return [IDS[name] for name in raw]


def _as_text(words: Mapping[int, int]) -> dict[str, str]:
    return {f"{offset:#x}": f"{words[offset]:#010x}" for offset in sorted(words)}


def _list(names: Iterable[object]) -> str:
    return ", ".join(sorted(str(name) for name in names))
