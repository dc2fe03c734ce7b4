# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""One thing that a host needs: whether it is there, what was seen, and what to do where it is not."""

from __future__ import annotations

from typing import NamedTuple

OK = "ok"
MISSING = "missing"
UNKNOWN = "unknown"


class Requirement(NamedTuple):
    """The remedy is empty where nothing has to be done."""

    requirement: str
    state: str
    seen: str
    remedy: str = ""
