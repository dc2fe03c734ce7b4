# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""An emulator in this process, for tests."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from .server import Emulator
from .world import world_of


@contextlib.contextmanager
def launch(data: object, host: str = "127.0.0.1") -> Iterator[Emulator]:
    """Run an emulator of this data (what the YAML file holds) meanwhile. Raises DataError."""
    emulator = Emulator(world_of(data), host)
    thread = threading.Thread(target=emulator.run, daemon=True)
    thread.start()
    try:
        yield emulator
    finally:
        emulator.stop()
        thread.join()
