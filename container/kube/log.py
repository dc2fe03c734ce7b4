# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Log lines: text for people, or one JSON object each. What was said elsewhere stays in its line."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Sequence

OURS = __name__.partition(".")[0]
# What ends a line, or steers a terminal.
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# As it stands in a header, a file or an environment; whoever repeats it does not mean to.
SECRETS = (
    re.compile(r"(?i)(bearer\s+)[^\s'\"\\,]+"),
    re.compile(r"()eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)?"),
    re.compile(r"(-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(?:-----END [A-Z ]*-----|$)", re.DOTALL),
)


class JsonLines(logging.Formatter):
    """time, level, logger, message and, after an exception, its trace."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        entry = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": without_secrets(record.getMessage()),
        }
        if record.exc_info:
            entry["trace"] = without_secrets(self.formatException(record.exc_info))
        return json.dumps(entry)


class TextLines(logging.Formatter):
    """Time, level and message. Only a trace has more than one line."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """The first line."""
        record.message = UNPRINTABLE.sub(_escaped, without_secrets(record.message))
        return super().formatMessage(record)

    def formatException(self, ei: object) -> str:  # noqa: N802
        """The trace."""
        return without_secrets(super().formatException(ei))  # type: ignore[arg-type]


def without_secrets(text: str) -> str:
    """The text without what looks like a token or a private key."""
    for pattern in SECRETS:
        text = pattern.sub(r"\1[secret]", text)
    return text


def _escaped(found: re.Match[str]) -> str:
    return found.group().encode("unicode_escape").decode()


def configure(program: str, as_json: bool, debug: bool, errors_of: Sequence[str] = ()) -> None:
    """Send the lines of a program's package to standard error; of libraries only what they say about errors."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if as_json else TextLines())
    level = logging.DEBUG if debug else logging.INFO
    for name, least in [(program, level), (OURS, level), *((one, logging.ERROR) for one in errors_of)]:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(least)
