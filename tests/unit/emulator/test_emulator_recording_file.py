# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The file of a recording: what is refused, and that whatever is taken can be replayed word for word."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from emulator import registers as reg
from emulator.models import Family
from emulator.recording import RecordingError, load
from emulator.recording.bar0_words import CONDITION, DEVICE_IDS, IDENTITY, MODE
from emulator.recording.form import parse
from emulator.recording.take import take
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import Direct, device_of, recording_of

# The same examples each time, no database: what fails, fails for who changed the code.
PLAIN = settings(deadline=None, database=None, derandomize=True, max_examples=40)
FILES = {model: recording_of({"model": model}).text() for model in ("h100-sxm", "b200", "nvswitch-ls10")}


def replayed(text: str, folder: Path) -> str:
    """The text of the recording of the replay."""
    (folder / "one.json").write_text(text, encoding="utf-8")
    return take(Direct(device_of({"recording": "one.json"}, folder))).text()


def put(*keys: str, value: object) -> Callable[[Any], None]:
    def change(raw: Any) -> None:
        for key in keys[:-1]:
            raw = raw[key]
        raw[keys[-1]] = value

    return change


def drop(*keys: str) -> Callable[[Any], None]:
    def change(raw: Any) -> None:
        for key in keys[:-1]:
            raw = raw[key]
        del raw[keys[-1]]

    return change


BAD: dict[str, tuple[Callable[[Any], None], str]] = {
    "another format": (put("format", value="x"), "format must be 'confidential.gpu recording'"),
    "a later version": (put("version", value=2), "version must be 1, not 2"),
    "no whole version": (put("version", value=True), "version must be 1, not True"),
    "an unknown key": (put("serial", value="0324"), "unknown key serial; take it out"),
    "a key is missing": (drop("knobs"), "the key knobs is missing"),
    "config is no object": (put("config", value=[]), "config must be an object"),
    "an odd offset": (put("config", "0x2", value="0x00000000"), "config: '0x2' must be the offset of a word"),
    "an offset in another writing": (put("config", "0x00", value="0x233010de"), "config: '0x00' must be the offset"),
    "a number for a word": (put("config", "0x0", value=0), "config: 0x0 must be eight digits"),
    "a short word": (put("registers", "0x0", value="0x1"), "registers: 0x0 must be eight digits"),
    "a word is missing": (drop("config", "0x2c"), "config: 0x2c is missing; record the device again"),
    "a register is missing": (drop("registers", "0x1182cc"), "registers: 0x1182cc is missing"),
    "a serial number": (put("config", "0x104", value="0x00000001"), "config: 0x104 may not be in a recording; take"),
    "the unique id": (put("registers", "0x820344", value="0x00000001"), "registers: 0x820344 may not be in a"),
    "what the host chose": (put("config", "0x4", value="0x00100006"), "0x4 is 0x00100006, of which only 0x00100000"),
    "an address": (put("config", "0x10", value="0x9000000c"), "config: 0x10 is 0x9000000c, of which only 0x0000000c"),
    "another maker": (put("config", "0x0", value="0x23301002"), "vendor 1002 is not NVIDIA"),
    "a chain in circles": (put("config", "0x60", value="0x00036001"), "a capability at 0x60 is not possible"),
    "no chip": (put("registers", "0x0", value="0xffffffff"), "registers: 0x0 reads 0xffffffff, which is an error"),
    "not booted": (put("registers", "0x200bc", value="0x00000000"), "the device is not at rest: its firmware has not"),
    "in recovery": (put("registers", "0x20120", value="0x40000000"), "bit 30 of register 0x20120 is 1"),
    "virtual": (put("registers", "0x4", value="0x00020000"), "it is a virtual function"),
    "bars are none": (put("bars", value={"bar0": 1 << 24}), "bars must be an object with the keys bar0, bar1"),
    "a BAR of words": (put("bars", "bar0", value="16 MiB"), "bars: bar0 must be a number of bytes, not '16 MiB'"),
    "an odd BAR": (put("bars", "bar1", value=3 << 20), "bars: bar1 has 3145728 bytes"),
    "a small BAR0": (put("bars", "bar0", value=1 << 20), "bars: bar0 has 1048576 bytes"),
    "no BAR0": (put("bars", "bar0", value=0), "bars: bar0 has 0 bytes"),
    "knobs are a list": (put("knobs", value=[]), "knobs must be null or an object"),
    "a new knob": (put("knobs", value={"NEW": 1}), "knobs: 'NEW' is unknown"),
    "a large value": (put("knobs", value={"CCM": 65536}), "knobs: CCM must be a whole number from 0 to 65535"),
    "a knob known and not": (put("knobs", value={"PPCIE": 1}), "PPCIE cannot be on this device"),
    "no list": (put("unknown_knobs", value="CCM"), "unknown_knobs must be a list of knobs"),
    "twice": (put("unknown_knobs", value=["PPCIE", "PPCIE"]), "unknown_knobs names a knob twice"),
}


@pytest.mark.parametrize("name", BAD)
def test_refused(name: str, tmp_path: Path) -> None:
    change, words = BAD[name]
    raw = json.loads(FILES["h100-sxm"]) | {"unknown_knobs": ["PPCIE"]}
    parse(raw)
    change(raw)
    (tmp_path / "one.json").write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(RecordingError) as refusal:
        load(tmp_path / "one.json")
    assert str(refusal.value).startswith(f"recording {tmp_path}/one.json: ")
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the file is not JSON"),
        (b"\xff", "the file is not JSON"),
        (b"[" * 100_000, "the file is not JSON"),
        (b'{"version": 1, "version": 1}', "the key 'version' is there twice"),
        (b" " * ((1 << 20) + 1), "more than 1048576 bytes"),
        (b"null", "format must be"),
    ],
)
def test_no_recording_at_all(data: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "one.json").write_bytes(data)
    with pytest.raises(RecordingError, match=words):
        load(tmp_path / "one.json")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="Is a directory; give the path of a file"):
        load(tmp_path)


def test_knobs_of_another_family() -> None:
    raw = json.loads(FILES["b200"]) | {"knobs": {"PPCIE": 0}}
    with pytest.raises(RecordingError, match="PPCIE cannot be on this device"):
        parse(raw)


# --- whatever a file holds --------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
WORDS = st.integers(0, 0xFFFFFFFF).map(lambda word: f"{word:#010x}")


@st.composite
def altered(draw: st.DrawFn) -> Any:
    """A good file of which one place is something else."""
    raw = json.loads(FILES[draw(st.sampled_from(sorted(FILES)))])
    place, key = raw, draw(st.sampled_from(sorted(raw)))
    if isinstance(raw[key], dict) and draw(st.booleans()):
        place = raw[key]
        key = draw(st.sampled_from(sorted(place)) | st.integers(0, 0xFFF).map(hex))
    place[key] = draw(JSON | WORDS | WORDS)
    return raw


@PLAIN
@given(altered())
def test_an_altered_file_is_refused_or_replayed_as_it_is(tmp_path_factory: pytest.TempPathFactory, raw: Any) -> None:
    try:
        recording = parse(raw)
    except RecordingError:
        return
    assert parse(json.loads(recording.text())) == recording
    if recording.knobs is None and not recording.unknown_knobs:
        assert replayed(recording.text(), tmp_path_factory.getbasetemp()) == recording.text()


# The second word of NVIDIA's capabilities of health: VSEC id 1, revision 1; DVSEC of vendor 10de.
HEALTH = {0x0B: 0x10001, 0x23: 0x10DE}


# Ids of capabilities, each with a number of words between it and the next one.
Chain = list[tuple[int, int]]


class Made:
    """A device that nobody has built: capabilities anywhere, registers with any value that one at rest can have."""

    def __init__(self, family: Family, chain: Chain, extended: Chain, noise: random.Random) -> None:
        self._noise = noise
        self._family = family
        device_id = next(first for first, _last, one in DEVICE_IDS if one is family)
        self.words = {at: noise.getrandbits(32) for at in range(0, 4096, 4)}
        self.words |= {0x0: device_id << 16 | 0x10DE, 0x04: 0x00100006, 0x08: 0x030200A1, 0x0C: 0, 0x10: 0xC, 0x18: 0xC}
        self.words[0x34] = _lay(self.words, chain, 0x40, 8, 0xFF)
        self.words[0x100] = 0
        _lay(self.words, extended, 0x100, 20, 0xFFFF)
        self.registers: dict[int, int] = {}

    def config(self, offset: int) -> int:
        return self.words[offset]

    def bar_bytes(self, number: int) -> int:
        return {0: 16 << 20, 2: 1 << 30}.get(number, 0)

    def register(self, offset: int) -> int:
        if offset not in self.registers:
            fixed = {
                CONDITION[self._family][0]: 0xFF,
                reg.BOOT_FLAGS: 0,
                reg.BLACKWELL_RECOVERY: 0x77777701,
                reg.PMC_BOOT_0: 0x1B2000A1,
                reg.PMC_BOOT_1: 0,
                reg.PTOP_DEVICE_INFO_CFG: 0x00500002,
            }
            self.registers[offset] = fixed.get(offset, self._noise.getrandbits(32))
        return self.registers[offset]

    def close(self) -> None:
        pass


def _lay(words: dict[int, int], chain: Chain, at: int, shift: int, mask: int) -> int:
    """Put capabilities (id, empty words after it) one after another, all that is in them as it happens to be."""
    first, end = at if chain else 0, 0x100 if mask == 0xFF else 0x1000
    for index, (capability, gap) in enumerate(chain):
        size = 0x40 + 4 * gap if mask != 0xFF or capability == 0x10 else 0x18 + 4 * gap
        following = at + size if index + 1 < len(chain) and at + size + 0x40 <= end else 0
        kept = words[at] & ~mask & ~(0xFF00 if mask == 0xFF else 0xFFF00000)
        words[at] = kept | capability | following << shift
        if mask == 0xFF and capability == 0x01:
            words[at + 4] &= ~0x3
        elif mask != 0xFF and capability in (0x0B, 0x23):
            ours = at & 4  # NVIDIA's own, with the firewall down
            words[at + 4] = (HEALTH[capability] if ours else words[at + 4] & 0xFFFFF) | 0x18 << 20
            words[at + 8] &= ~(1 << 20 | 0xFFFF * bool(ours))
            words[at + 0x14] &= ~(1 << 24)
        if not following:
            break
        at = following
    return first


def _once(chain: Chain) -> Chain:
    seen: set[int] = set()
    kept = []
    for capability, gap in chain:
        if capability in (0x0B, 0x23) or capability not in seen:
            kept.append((capability, gap))
        seen.add(capability)
    return kept


CHAIN = st.lists(st.tuples(st.sampled_from([0x01, 0x03, 0x05, 0x09, 0x10, 0x11, 0x12]), st.integers(0, 3)), max_size=5)
EXTENDED = st.lists(
    st.tuples(st.sampled_from([0x01, 0x03, 0x0B, 0x0E, 0x10, 0x15, 0x19, 0x23, 0x2E]), st.integers(0, 9)), max_size=9
)


@PLAIN
@given(st.sampled_from(sorted(MODE.keys() - {Family.LS10}, key=str)), CHAIN, EXTENDED, st.integers(0, 1 << 32))
def test_any_device_is_replayed_word_for_word(
    tmp_path_factory: pytest.TempPathFactory, family: Family, chain: Any, extended: Any, seed: int
) -> None:
    """Whatever its capabilities and wherever they are. Also: what is not recorded is not asked for afterwards."""
    made = Made(family, _once(chain), _once(extended), random.Random(seed))
    text = take(made).text()
    assert replayed(text, tmp_path_factory.getbasetemp()) == text
    kept = json.loads(text)
    assert {int(at, 16) for at in kept["registers"]} == set(made.registers)
    assert set(made.registers) >= {*IDENTITY[family], *CONDITION[family], MODE[family]}
