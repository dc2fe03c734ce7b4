# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Tokens: split as the kernel splits, compared as it compares; requests as sets; what cannot be written is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.confidential.gpu.plugins.module_utils._boot import cmdline, cmdline_file
from ansible_collections.confidential.gpu.plugins.module_utils._boot.cmdline import (
    Desired,
    Fate,
    pieces,
    rewrite,
    split,
)
from ansible_collections.confidential.gpu.plugins.module_utils._boot.errors import InvalidToken
from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import InvalidRequest

NAMES = st.from_regex(r"[a-z][a-z0-9._-]{0,6}", fullmatch=True)
VALUES = st.from_regex(r"[a-zA-Z0-9.,:/@=_+-]{0,8}", fullmatch=True) | st.from_regex(
    r'"[a-z0-9 =]{0,8}"', fullmatch=True
)
TOKENS = st.builds(lambda name, value: name if value is None else "%s=%s" % (name, value), NAMES, st.none() | VALUES)
GAPS = st.text(" \t\n", min_size=1, max_size=3)
LINES = st.builds(
    lambda start, parts, end: start + "".join(token + gap for token, gap in parts) + end,
    st.text(" \n", max_size=2),
    st.lists(st.tuples(TOKENS, GAPS), max_size=6),
    st.one_of(st.just(""), TOKENS, st.builds(lambda tokens: "-- " + " ".join(tokens), st.lists(TOKENS, max_size=2))),
)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        ("  quiet\tsplash\n", ["quiet", "splash"]),
        ('a="b c" d', ['a="b c"', "d"]),
        ('"a=b c" d', ['"a=b c"', "d"]),
        ("console=tty0 console=ttyS0", ["console=tty0", "console=ttyS0"]),
        ('a="no end', ['a="no end']),
        ("ro -- -s", ["ro", "--", "-s"]),
    ],
)
def test_split(text: str, tokens: list[str]) -> None:
    assert split(text) == tokens


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("kvm-intel.tdx=1", "kvm_intel.tdx=1", True),
        ("a=b-c", "a=b_c", False),
        ('a="b c"', '"a=b c"', True),
        ('a="b"', "a=b", True),
        ("a", "a=", False),
        ("a=b=c", 'a="b=c"', True),
        ("A", "a", False),
        ('"a', "a", True),
        ('a="b', "a=b", True),
    ],
)
def test_tokens_compare_as_in_the_kernel(one: str, other: str, same: bool) -> None:
    assert (cmdline.normal(one) == cmdline.normal(other)) is same


@pytest.mark.parametrize(
    ("token", "words"),
    [
        ("", "empty"),
        ("a b", "one name or name=value"),
        ("a\nb", "character"),
        ("a=\x7f", "character"),
        ("a=ü", "character"),
        ("a=$HOME", r"would expand the character \$"),
        ("a=`id`", "would expand"),
        ("a=b;c", "would expand"),
        ("a='b'", "would expand"),
        ("a=b\\", "would expand"),
        ("iommu*", "wildcards"),
        ("iommu=?", "wildcards"),
        ("--", "starts with -"),
        ("-s", "starts with -"),
        ("=x", "one name"),
        ('a="b', "one name"),
        ('a="b"c', "one name"),
        ('a"b', "one name"),
    ],
)
@pytest.mark.parametrize("where", ["add", "remove", "replace"])
def test_what_cannot_be_written_is_refused(token: str, words: str, where: str) -> None:
    with pytest.raises(InvalidToken, match=words) as caught:
        Desired(**{where: (token,)})
    assert caught.value.as_dict()["state"] == "Nothing was changed."


@pytest.mark.parametrize(
    ("add", "remove", "replace", "words"),
    [
        ("a=1", "a=1", "", "asks for a=1 to go"),
        ("a=1", "a", "", "asks for a to go"),
        ("", "a-b", "a_b=1", "asks for a-b to go"),
        ("a=2", "", "a=1", "another value"),
        ("", "", "a=1 a=2", "another value"),
        ("", "", "a", "no value"),
    ],
)
def test_contradictions_are_refused(add: str, remove: str, replace: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        Desired(tuple(add.split()), tuple(remove.split()), tuple(replace.split()))


@pytest.mark.parametrize(
    ("before", "desired", "after"),
    [
        ("quiet", Desired(add=("a=1",)), "quiet a=1"),
        ("quiet a=1", Desired(add=("a=1",)), "quiet a=1"),
        ("a=0", Desired(add=("a=1",)), "a=0 a=1"),
        ("quiet -- -s", Desired(add=("a",)), "quiet a -- -s"),
        ("-- a", Desired(add=("a",)), "a -- a"),
        ("a=1 b a=2", Desired(remove=("a",)), "b"),
        ("a=1 b a=2 a", Desired(remove=("a=1",)), "b a=2 a"),
        ("a-b=1 a_b=2", Desired(remove=("a_b",)), ""),
        ("a=1 b -- a=1", Desired(remove=("a",)), "b -- a=1"),
        ("x a=1 b a=2", Desired(replace=("a=3",)), "x a=3 b"),
        ("x a=1 b a=1", Desired(replace=("a=1",)), "x a=1 b"),
        ("x", Desired(replace=("a=1", "a=1"), add=("a=1",)), "x a=1"),
        ('a="b c"', Desired(remove=('a="b c"',)), ""),
    ],
)
def test_requests(before: str, desired: Desired, after: str) -> None:
    assert cmdline.join(desired.applied(split(before))) == after
    assert desired.unmet(split(after)) == []
    assert bool(desired.unmet(split(before))) is (before != after)


def test_unmet_in_words() -> None:
    desired = Desired(add=("a=1",), remove=("b",), replace=("c=1",))
    assert desired.unmet(["b=2", "c=2"]) == ["c=1 is missing", "a=1 is missing", "b=2 is present", "c=2 is present"]


def test_a_line_that_the_kernel_would_cut_off_is_refused() -> None:
    long = ["x" * 2040]
    Desired(add=("a=1",)).check_length(long)
    with pytest.raises(InvalidRequest, match="2050 characters"):
        Desired(add=("a=1234567",)).check_length(long)
    Desired(remove=("a",)).check_length(["y" * 3000])


@given(LINES)
def test_pieces_lose_nothing(text: str) -> None:
    assert "".join(piece.raw for piece in pieces(text)) == text


@given(LINES, st.lists(TOKENS, max_size=3))
def test_adding_twice_is_adding_once(text: str, tokens: list[str]) -> None:
    desired = Desired(add=tuple(tokens))
    once = desired.applied(split(text))
    assert desired.applied(once) == once
    assert desired.unmet(once) == []


@given(LINES, st.lists(TOKENS, max_size=3, unique=True))
def test_adding_and_removing_restores_the_text(text: str, tokens: list[str]) -> None:
    present = {cmdline.normal(token) for token in split(text)}
    bare = {cmdline.normal(token)[0] for token in tokens if "=" not in token}
    new = [token for token in tokens if cmdline.normal(token) not in present]
    if bare & {name for name, _value in present}:
        return  # removing a bare name removes its values too
    added = cmdline_file.edited(text, Desired(add=tuple(new)))
    gone = cmdline_file.edited(added, Desired(remove=tuple(new)))
    assert split(gone) == split(text)
    assert gone == text


@given(LINES, st.lists(TOKENS, max_size=3))
def test_removing_leaves_the_others_in_order(text: str, names: list[str]) -> None:
    desired = Desired(remove=tuple(names))
    before, after = split(text), split(cmdline_file.edited(text, desired))
    rest = iter(before)
    assert all(token in rest for token in after)
    assert desired.unmet(after) == []


@pytest.mark.parametrize(
    ("text", "desired", "after"),
    [
        ("", Desired(add=("a",)), "a"),
        ("\n", Desired(add=("a",)), "a\n"),
        ("# why\n", Desired(add=("a",)), "# why\na"),
        ("root=x ro\n# why\nquiet\n", Desired(add=("a",), remove=("quiet",)), "root=x ro a\n# why\n\n"),
        ("# why\nquiet splash\n", Desired(remove=("quiet",)), "# why\nsplash\n"),
        ("quiet\n", Desired(remove=("quiet",)), "\n"),
        ("quiet splash x", Desired(remove=("quiet", "splash")), "x"),
        ("# quiet\nquiet", Desired(remove=("quiet",)), "# quiet\n"),
        ("-- s", Desired(add=("a", "b")), "a b -- s"),
    ],
)
def test_file_of_tokens(text: str, desired: Desired, after: str) -> None:
    assert cmdline_file.edited(text, desired) == after


def test_what_only_the_spelling_has_stays() -> None:
    found = cmdline.group([("", "\\\n"), ("a", "a"), ("", "\\\n"), (" ", " ")])
    assert [piece.raw for piece in found] == ["\\\n", "a\\\n", " "]
    assert [piece.raw for piece in rewrite(found, Fate(("a",), ()))] == ["\\\n", "a\\\n", " "]
