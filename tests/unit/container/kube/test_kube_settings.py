# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Settings: a flag for each variable, and what cannot be is refused with what can."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kube import settings
from kube.settings import BadSetting, Option

OPTIONS = (
    Option("X_PORT", "port", "80", settings.port, "a port", prefix="X_"),
    Option("X_LOG_FORMAT", "log_json", "text", settings.is_json, "how", ("-l",), prefix="X_"),
)


def parse(*arguments: str, **environment: str) -> dict[str, Any]:
    return settings.parse("program", "Does nothing.", OPTIONS, arguments, environment)


def test_the_flag_goes_before_the_variable_and_that_before_the_default() -> None:
    assert parse() == {"port": 80, "log_json": False, "debug": False}
    assert parse(X_PORT="81", X_LOG_FORMAT="json") == {"port": 81, "log_json": True, "debug": False}
    assert parse("--port", "82", "-l", "text", "--debug", X_PORT="81", X_LOG_FORMAT="json") == {
        "port": 82,
        "log_json": False,
        "debug": True,
    }


@pytest.mark.parametrize("flag", ["--prt=1", "--por=1", "--x-port=1", "--deb"])
def test_a_flag_that_is_none_ends_it(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(flag)
    assert caught.value.code == 2
    assert flag in capsys.readouterr().err


def test_what_cannot_be_is_named() -> None:
    with pytest.raises(BadSetting, match=r"^X_PORT is 'http'\. Give a port, or 0 for none\.$"):
        parse(X_PORT="http")


@pytest.mark.parametrize(
    ("how", "good", "bad"),
    [
        (settings.flag, {"true": True, "1": True, "no": False, "": False}, ["maybe"]),
        (settings.seconds, {"0": 0.0, "1.5": 1.5}, ["-1", "nan", "inf", "x"]),
        (settings.count, {"1": 1}, ["0", "-1", "x", ""]),
        (settings.port, {"0": 0, "65535": 65535}, ["65536", "-1", "x"]),
        (settings.path, {"/a": Path("/a")}, ["a", ""]),
        (settings.one_of("a", "b"), {" a ": "a"}, ["c", ""]),
    ],
)
def test_how_texts_are_read(how: Callable[[str], Any], good: dict[str, Any], bad: list[str]) -> None:
    assert {one: how(one) for one in good} == good
    for one in bad:
        with pytest.raises(ValueError, match="."):
            how(one)
