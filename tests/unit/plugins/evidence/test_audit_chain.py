# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The audit trail: what is written survives kills, and whatever is changed in it afterwards is found."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from ansible_collections.confidential.gpu.plugins.module_utils._core import chain
from ansible_collections.confidential.gpu.plugins.module_utils._core.chain import GENESIS, Tail, Trail

AT = 1_800_000_000.0


def trail(folder: Path, **options: Any) -> Trail:
    return Trail(str(folder), "operand", **{"now": lambda: AT, **options})


def checked(folder: Path, *anchors: Tail) -> chain.Checked:
    return chain.check(str(folder), "operand", anchors)


def findings(folder: Path, *anchors: Tail) -> list[str]:
    return [one.what for one in checked(folder, *anchors).findings]


def write(folder: Path, count: int = 3, **options: Any) -> Tail:
    one = trail(folder, **options)
    for number in range(count):
        tail = one.append("change", {"devices": [{"address": "0000:17:00.0", "after": "on"}], "turn": number})
    return tail


def test_each_line_holds_the_hash_of_the_one_before(tmp_path: Path) -> None:
    tail = write(tmp_path)
    lines = (tmp_path / "operand.jsonl").read_bytes().splitlines()
    records = [json.loads(line) for line in lines]
    assert [one["previous"] for one in records] == [GENESIS, *map(chain.sha256, lines[:-1])]
    assert [one["number"] for one in records] == [1, 2, 3]
    assert tail == Tail(3, chain.sha256(lines[-1])) == checked(tmp_path).tail
    assert records[0]["time"] == "2027-01-15T08:00:00Z"
    assert checked(tmp_path).state == "whole"
    assert chain.anchor(tail.text) == tail
    assert chain.names(str(tmp_path)) == ["operand"]


def test_another_process_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    write(tmp_path, 2)
    assert write(tmp_path, 2).number == 4
    assert checked(tmp_path).state == "whole"


# --- rotation ---------------------------------------------------------------------------------------------------------


def test_rotation_keeps_the_chain_and_bounds_the_disk(tmp_path: Path) -> None:
    one = trail(tmp_path, file_max_bytes=2000, files_kept=2)
    for number in range(60):
        one.append("change", {"turn": number})
    files = sorted(path.name for path in tmp_path.glob("*.jsonl"))
    assert len(files) == 3
    assert sum(path.stat().st_size for path in tmp_path.glob("*.jsonl")) < 3 * 2000
    found = checked(tmp_path)
    assert found.state == "whole"
    assert [one["turn"] for one in found.records if "turn" in one][-1] == 59
    assert [note for note in found.notes if "dropped by rotation" in note]
    old, new = ((tmp_path / name).read_bytes().splitlines() for name in files[-2:])
    first = json.loads((tmp_path / "operand.jsonl").read_bytes().splitlines()[0])
    assert first["event"] == chain.CONTINUED
    assert first["previous"] in (chain.sha256(old[-1]), chain.sha256(new[-1]))


@pytest.mark.parametrize("which", [0, 1])
def test_a_whole_file_that_is_taken_away_is_missed(tmp_path: Path, which: int) -> None:
    write(tmp_path, 20, file_max_bytes=2000, files_kept=2)
    assert findings(tmp_path) == []
    sorted(tmp_path.glob("operand.*.jsonl"))[which].unlink()
    assert "removed" in findings(tmp_path)


def test_a_kill_between_the_two_halves_of_a_rotation(tmp_path: Path) -> None:
    write(tmp_path, 3)
    (tmp_path / "operand.jsonl").rename(tmp_path / "operand.000000000001.jsonl")
    assert findings(tmp_path) == []
    write(tmp_path, 1)
    found = checked(tmp_path)
    assert found.findings == []
    assert [one["event"] for one in found.records] == ["change"] * 3 + [chain.CONTINUED, "change"]


# --- kills ------------------------------------------------------------------------------------------------------------


def test_a_line_torn_at_any_byte_is_cut_off_and_that_is_recorded(tmp_path: Path) -> None:
    write(tmp_path, 2)
    file = tmp_path / "operand.jsonl"
    first, second = file.read_bytes().splitlines(keepends=True)
    for length in range(1, len(second)):
        file.write_bytes(first + second[:length])
        assert checked(tmp_path).findings == []
        assert "torn" in checked(tmp_path).notes[-1]
        tail = trail(tmp_path).repair()
        found = checked(tmp_path)
        assert (found.findings, found.tail) == ([], tail)
        assert [one["event"] for one in found.records] == ["change", chain.REPAIRED]
        assert found.records[-1]["cut_bytes"] == length
    trail(tmp_path).repair()
    assert len(checked(tmp_path).records) == 2, "what is whole is not repaired again"


def test_a_torn_line_is_repaired_by_the_next_record_too(tmp_path: Path) -> None:
    write(tmp_path, 1)
    with (tmp_path / "operand.jsonl").open("ab") as file:
        file.write(b'{"torn')
    write(tmp_path, 1)
    assert [one["event"] for one in checked(tmp_path).records] == ["change", chain.REPAIRED, "change"]
    assert findings(tmp_path) == []


class Killed(BaseException):
    """The process ends here."""


def test_a_kill_at_any_call_leaves_a_trail_that_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an ordinary record, of a rotation that drops a file, and of a repair."""
    ordinary, rotating, torn = {"file_max_bytes": 5000}, {"file_max_bytes": 700, "files_kept": 2}, b'{"torn'
    seen = 0
    for case, (options, rest) in enumerate([(ordinary, b""), (rotating, b""), (ordinary, torn)]):
        for count in range(1, 30):
            folder = tmp_path / f"{case}-{count}"
            before = write(folder, 9, **options).number
            with (folder / "operand.jsonl").open("ab") as file:
                file.write(rest)
            calls = iter(range(1, 1000))

            def dying(real: Any, calls: Any = calls, count: int = count) -> Any:
                def call(*arguments: Any, **named: Any) -> Any:
                    if next(calls) == count:
                        raise Killed
                    return real(*arguments, **named)

                return call

            with monkeypatch.context() as patch:
                for name in ("rename", "replace", "unlink", "fsync", "pwrite", "open"):
                    patch.setattr(os, name, dying(getattr(os, name)))
                try:
                    trail(folder, **options).append("change", {"turn": "last"})
                except Killed:
                    seen += 1
                else:
                    break
            assert findings(folder) == [], (case, count)
            assert write(folder, 1, **options).number > before
            assert findings(folder) == [], (case, count)
    assert seen > 20


def test_a_disk_that_is_full_leaves_the_trail_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 2)
    one, whole = trail(tmp_path), (tmp_path / "operand.jsonl").read_bytes()
    monkeypatch.setattr(os, "pwrite", lambda descriptor, line, at, write=os.pwrite: write(descriptor, line[:9], at))
    with pytest.raises(OSError, match="not written whole"):
        one.append("change", {})
    monkeypatch.undo()
    assert (tmp_path / "operand.jsonl").read_bytes() == whole
    assert one.append("change", {}).number == 3


def test_a_record_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="longer than"):
        trail(tmp_path).append("change", {"reason": "x" * chain.LINE_MAX_BYTES})


def test_a_folder_that_cannot_be_written_is_an_error_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        trail(tmp_path / "file").append("change", {})
    os.mkfifo(tmp_path / "operand.jsonl")
    with pytest.raises(ValueError, match="no file"):
        trail(tmp_path).append("change", {})


# --- tampering --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, bytes]]:
    """The files of a trail that was rotated and repaired."""
    folder = tmp_path_factory.mktemp("trail")
    write(folder, 6, file_max_bytes=900, files_kept=3)
    with (folder / "operand.jsonl").open("ab") as file:
        file.write(b'{"torn')
    write(folder, 2, file_max_bytes=900, files_kept=3)
    names = [*sorted(path.name for path in folder.glob("operand.*.jsonl")), "operand.jsonl"]
    assert len(names) > 2
    files = [(name, (folder / name).read_bytes()) for name in names]
    assert chain.checked("operand", files).findings == []
    return files


@settings(max_examples=400)
@given(some.data())
def test_any_byte_that_is_changed_is_found(written: list[tuple[str, bytes]], data: some.DataObject) -> None:
    which = data.draw(some.integers(0, len(written) - 1))
    name, content = written[which]
    at = data.draw(some.integers(0, len(content) - 1))
    value = data.draw(some.integers(0, 255).filter(lambda one: one != content[at]))
    changed = [*written]
    changed[which] = (name, content[:at] + bytes([value]) + content[at + 1 :])
    found = chain.checked("operand", changed)
    is_end = which == len(written) - 1 and at == len(content) - 1
    assert found.findings or (is_end and "torn" in found.notes[-1])


def test_any_record_that_is_removed_is_found_but_the_last(written: list[tuple[str, bytes]]) -> None:
    total = 0
    for which, (name, content) in enumerate(written):
        lines = content.splitlines(keepends=True)
        for place in range(len(lines)):
            changed = [*written]
            changed[which] = (name, b"".join(lines[:place] + lines[place + 1 :]))
            found = chain.checked("operand", changed)
            is_tail = which == len(written) - 1 and place == len(lines) - 1
            assert bool(found.findings) != is_tail, (name, place)
            total += 1
    assert total > 8


def test_records_that_change_places_or_come_twice_are_found(written: list[tuple[str, bytes]]) -> None:
    name, content = written[0]
    first, second, *rest = content.splitlines(keepends=True)
    for lines in ([second, first, *rest], [first, first, second, *rest], [first, second, second, *rest]):
        assert chain.checked("operand", [(name, b"".join(lines)), *written[1:]]).findings


def test_a_record_that_was_forged_with_its_digest_is_found_by_the_next_one(tmp_path: Path) -> None:
    write(tmp_path, 4)
    file = tmp_path / "operand.jsonl"
    lines = file.read_bytes().splitlines()
    for place in range(3):
        forged = chain.line_of({**chain.record_of(lines[place]), "asked": {"by": "nobody"}})
        file.write_bytes(b"".join(line + b"\n" for line in [*lines[:place], forged, *lines[place + 1 :]]))
        (found,) = checked(tmp_path).findings
        assert (found.what, found.number) == ("modified", place + 2)
        assert "does not follow on the one before" in found.text


def test_a_tail_that_was_cut_off_is_found_by_an_anchor_only(tmp_path: Path) -> None:
    last = write(tmp_path, 4)
    file = tmp_path / "operand.jsonl"
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-1]))
    assert findings(tmp_path) == []
    assert findings(tmp_path, last) == ["truncated"]
    write(tmp_path, 1)
    assert findings(tmp_path) == []
    assert findings(tmp_path, last) == ["modified"]


def test_a_chain_made_anew_from_a_changed_record_on_is_found_by_an_anchor_only(tmp_path: Path) -> None:
    last = write(tmp_path / "true", 4)
    forged = trail(tmp_path / "forged")
    for number in range(4):
        forged.append("change", {"devices": [{"address": "0000:17:00.0", "after": "off"}], "turn": number})
    assert findings(tmp_path / "forged") == []
    assert findings(tmp_path / "forged", last) == ["modified"]


def test_a_writer_that_runs_on_records_that_its_trail_was_cut(tmp_path: Path) -> None:
    one = trail(tmp_path)
    for _turn in range(3):
        one.append("change", {})
    file = tmp_path / "operand.jsonl"
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-1]))
    one.append("change", {})
    (found,) = checked(tmp_path).findings
    assert (found.what, found.text) == (
        "truncated",
        "The writer had left the trail at number 3 and found it at number 2.",
    )
    file.unlink()
    one.append("change", {})
    assert "truncated" in findings(tmp_path)
