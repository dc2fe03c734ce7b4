# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The base of a process: log lines, signals, delays, health."""

from __future__ import annotations

import json
import logging
import queue
import signal
import threading
from collections.abc import Iterator

import pytest
from kube import signals
from kube.delay import Delay
from kube.health import Health
from kube.log import JsonLines, TextLines, configure


@pytest.fixture(autouse=True)
def _log() -> Iterator[None]:
    """What a test configures of the log is gone after it."""
    loggers = [logging.getLogger(name) for name in ("program", "kube", "library")]
    before = [(one, one.handlers, one.propagate, one.level) for one in loggers]
    yield
    for one, handlers, propagate, level in before:
        one.handlers, one.propagate = handlers, propagate
        one.setLevel(level)


def test_json_lines() -> None:
    try:
        raise ValueError("x")
    except ValueError as error:
        record = logging.LogRecord("program", logging.ERROR, "", 0, "words %s", ("more",), (ValueError, error, None))
    entry = json.loads(JsonLines().format(record))
    assert (entry["level"], entry["message"], entry["trace"]) == ("error", "words more", "ValueError: x")
    assert entry["time"].endswith("Z")


def test_log_lines_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    configure("program", as_json=True, debug=False, errors_of=["library"])
    logging.getLogger("program.x").info("seen")
    configure("program", as_json=False, debug=True, errors_of=["library"])
    logging.getLogger("program.x").debug("too")
    logging.getLogger("library").warning("not seen")
    first, second = capsys.readouterr().err.splitlines()
    assert json.loads(first)["message"] == "seen"
    assert second.endswith("DEBUG too")


def format_text(message: str, *arguments: object) -> str:
    return TextLines().format(logging.LogRecord("program", logging.INFO, "", 0, message, arguments, None))


@pytest.mark.parametrize("text", ["a\nb", "a\rb", "a\x1b[31mb", "a\x85b", "a\u2028b", "a\0b"])
def test_what_was_said_elsewhere_makes_no_line_of_its_own(text: str) -> None:
    line = format_text("The reason: %s", text)
    assert len(line.splitlines()) == 1
    assert line.isprintable()
    record = logging.LogRecord("program", logging.INFO, "", 0, "%s", (text,), None)
    assert len(JsonLines().format(record).splitlines()) == 1


JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzZWNyZXQifQ.c2lnbmF0dXJl"


KEY = "-----BEGIN RSA PRIVATE KEY-----\nc2VjcmV0\n-----END RSA PRIVATE KEY-----"


@pytest.mark.parametrize(
    "text",
    ["Authorization: Bearer c2VjcmV0", "b'Bearer c2VjcmV0'", f"token {JWT} expired", KEY, KEY.replace("\n", " ")],
)
def test_no_line_holds_a_secret(text: str) -> None:
    try:
        raise ValueError(text)
    except ValueError as error:
        information = (ValueError, error, error.__traceback__)
    record = logging.LogRecord("program", logging.ERROR, "", 0, "said: %s", (text,), information)
    for formatter in (JsonLines(), TextLines()):
        line = formatter.format(record)
        assert "said: " in line
        assert not any(secret in line for secret in ("c2VjcmV0", "eyJzdWIi", "c2lnbmF0dXJl"))


def test_a_signal_that_interrupts_no_wait_is_heard_all_the_same() -> None:
    """One that another thread gets is like one that comes right before the main thread begins to wait."""
    said: queue.SimpleQueue[str] = queue.SimpleQueue()
    waits = threading.Event()

    def another() -> None:
        waits.wait(10)
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

    before = signal.getsignal(signal.SIGUSR1)
    with signals.heard((signal.SIGUSR1,), lambda: said.put("stop")):
        thread = threading.Thread(target=another)
        thread.start()
        waits.set()
        assert said.get(timeout=20) == "stop"  # without more, the handler runs when this time is over
        thread.join(10)
    assert signal.getsignal(signal.SIGUSR1) == before
    assert signal.set_wakeup_fd(-1) == -1


def test_the_delay_grows_with_jitter_and_ends_with_a_success() -> None:
    delay = Delay(1.0, 30.0)
    waits = [delay.next() for _number in range(40)]
    assert 0.5 <= waits[0] <= 1.0
    assert all(15 <= wait <= 30 for wait in waits[8:])
    assert len(set(waits)) == 40
    delay.reset()
    assert delay.next() <= 1.0


def test_a_stuck_process_is_not_healthy() -> None:
    now = [0.0]
    health = Health(now=lambda: now[0])
    health.busy()
    now[0] = 100.0
    assert health.is_alive
    now[0] = 200.0
    assert not health.is_alive
    health.idle()
    assert health.is_alive


def test_a_delay_of_other_lengths_and_without_chance() -> None:
    delay = Delay(0.05, 5.0, lambda: 1.0)
    waits = [delay.next() for _time in range(12)]
    assert waits[:3] == [0.05, 0.1, 0.2]
    assert waits[-1] == max(waits) == 5.0
    assert Delay(0.05, 5.0, lambda: 0.0).next() == 0.025
