# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""One run at a time changes a host's kernel command line: two would take each other's files for their own."""

from __future__ import annotations

import contextlib
from typing import Iterator

from .._core import lock
from .._core.errors import NotPermitted, RunInProgress
from .errors import NOTHING_CHANGED
from .host import Host

LOCK = "/run/confidential-gpu-kernel-cmdline.lock"
COMMAND_LINE = lock.Locked("changing the kernel command line of this host", "Wait until it has ended, then run again.")


@contextlib.contextmanager
def held(host: Host) -> Iterator[None]:
    """Hold the host's lock. Raises RunInProgress when another run has it, NotPermitted when it cannot be made."""
    with contextlib.ExitStack() as holding:
        try:
            holding.enter_context(lock.held(str(host.path(LOCK)), 0, what=COMMAND_LINE))
        except (RunInProgress, NotPermitted) as error:
            error.state = NOTHING_CHANGED
            raise
        yield
