# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The readiness file, for which the GPU Operator's validator waits: there when the modes are as they should be.

Its folder may be one that others write to: what they put in its place is not followed, and counts for nothing.
"""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

LOG = logging.getLogger(__name__)


class ReadinessFile:
    """One empty file; no path: none."""

    def __init__(self, path: str) -> None:
        self._path = Path(path) if path else None
        self._closed = False

    def remove(self) -> None:
        """At start, before a change, after a failure: what an earlier process left counts for nothing."""
        if self._path is not None:
            try:
                self._path.unlink(missing_ok=True)
            except OSError as error:
                LOG.warning("The readiness file cannot be removed: %s", error)

    def write(self) -> None:
        """The modes were verified."""
        if self._path is None or self._closed or _is_there(self._path):
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.unlink(missing_ok=True)  # a link or a pipe in its place
            os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644))
        except OSError as error:
            LOG.warning("The readiness file cannot be written: %s", error)
        if self._closed:  # a signal came in between
            self.close()

    def close(self) -> None:
        """Remove it for good. From a signal handler, too: it says nothing."""
        self._closed = True
        if self._path is not None:
            try:
                os.unlink(self._path)
            except OSError:
                return


def _is_there(path: Path) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False
