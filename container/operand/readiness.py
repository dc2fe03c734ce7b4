# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The readiness file, for which the GPU Operator's validator waits: there when the modes are as they should be."""

from __future__ import annotations

import logging
from pathlib import Path

LOG = logging.getLogger(__name__)


class ReadinessFile:
    """One empty file; no path: none."""

    def __init__(self, path: str) -> None:
        self._path = Path(path) if path else None

    def remove(self) -> None:
        """At start, before a change, after a failure: what an earlier process left counts for nothing."""
        if self._path is not None:
            try:
                self._path.unlink(missing_ok=True)
            except OSError as error:
                LOG.warning("The readiness file cannot be removed: %s", error)

    def write(self) -> None:
        """The modes were verified."""
        if self._path is None or self._path.exists():
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.touch(mode=0o644)
        except OSError as error:
            LOG.warning("The readiness file cannot be written: %s", error)
