# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The tree of errors."""

from __future__ import annotations

import errno

import pytest

from ansible_collections.confidential.gpu.plugins.module_utils._core import errors as core
from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import (
    ExplainedError,
    Several,
    errno_words,
    raise_all,
)
from ansible_collections.confidential.gpu.plugins.module_utils._gpu import errors as gpu
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.errors import BootFailed, InRecovery, Unsupported
from ansible_collections.confidential.gpu.plugins.module_utils._pci import errors as pci
from ansible_collections.confidential.gpu.plugins.module_utils._pci.errors import DeviceBusy


def test_an_error_says_cause_and_remedy_and_keeps_what_was_seen() -> None:
    error = BootFailed("It did not boot.", "Power-cycle it.", device="0000:17:00.0", register=0x200BC, value=1)
    assert str(error) == "It did not boot. Power-cycle it."
    assert error.as_dict() == {
        "kind": "BootFailed",
        "cause": "It did not boot.",
        "state": "",
        "remedy": "Power-cycle it.",
        "retryable": False,
        "seen": {"device": "0000:17:00.0", "register": 0x200BC, "value": 1},
    }


def test_what_may_pass_by_itself_is_retryable() -> None:
    named = [one for tree in (core, pci, gpu) for one in vars(tree).values()]
    kinds = {one for one in named if isinstance(one, type) and issubclass(one, ExplainedError)}
    retryable = {kind.__name__ for kind in kinds if kind.retryable}
    waiting = {"DeviceBusy", "RunInProgress", "GateClosed", "PlanOutdated"}
    assert retryable == {"RpcTimeout", "RpcGarbled", "ResetFailed", "HostDriverInUse", *waiting}


def test_several_hold_each_and_do_not_repeat_remedies() -> None:
    both = [
        DeviceBusy("A is busy.", "Stop it.", device="a"),
        DeviceBusy("B is busy.", "Stop it.", device="b"),
    ]
    with pytest.raises(Several) as caught:
        raise_all(both)
    assert str(caught.value) == "2 devices have a problem: A is busy. B is busy. Stop it."
    assert caught.value.errors == both
    assert caught.value.retryable
    assert [error["seen"]["device"] for error in caught.value.as_dict()["seen"]["errors"]] == ["a", "b"]


def test_several_are_retryable_only_if_all_are() -> None:
    mixed = Several([DeviceBusy("A.", "B."), InRecovery("C.", "D.")])
    assert not mixed.retryable


def test_one_error_is_raised_as_it_is_and_none_not_at_all() -> None:
    raise_all([])
    one = Unsupported("A.", "B.")
    with pytest.raises(Unsupported) as caught:
        raise_all([one])
    assert caught.value is one


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EBUSY, "x"), "EBUSY (Device or resource busy)"),
        (OSError(4095, "x"), "4095 (Unknown error 4095)"),
        (OSError("no number"), "0 (no number)"),
    ],
)
def test_errno_words(error: OSError, words: str) -> None:
    assert errno_words(error) == words
