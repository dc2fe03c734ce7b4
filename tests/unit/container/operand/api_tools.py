# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What tests of the operand's side of the API share."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

SOON_S = 10.0


def eventually(condition: Callable[[], Any], timeout_s: float = SOON_S) -> None:
    """Wait for what other threads do."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)
