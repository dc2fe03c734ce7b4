# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Our client in tests."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from kube.client import Kube

from .waiting import eventually

# Short, so that a test need not wait for long; a client without such a bound would wait for ever.
TIMEOUT_S, SILENCE_S = 0.5, 0.6


@contextlib.contextmanager
def used(kube: Kube) -> Iterator[Kube]:
    """A client, whose watches have ended when it is no longer used."""
    try:
        yield kube
    finally:
        kube.close()
        eventually(lambda: not any(thread.name.startswith("watch ") for thread in threading.enumerate()))
