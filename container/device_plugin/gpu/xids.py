# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Which XIDs make a GPU unhealthy: the driver's numbers of errors, https://docs.nvidia.com/deploy/xid-errors.

The list of those that a program on the GPU causes, and the variables, are those of NVIDIA's device plugin.
"""

from __future__ import annotations

from collections.abc import Mapping

from kube.settings import BadSetting

DISABLE, ENABLE = "DP_DISABLE_HEALTHCHECKS", "DP_ENABLE_HEALTHCHECKS"
OF_PROGRAMS = frozenset({13, 31, 43, 45, 68, 109})
EVERY = ("all", "xids")


class Xids:
    """What the variables say. A number that is enabled goes before one that is disabled, both before `all`."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._disabled, self._none = _read(environment, DISABLE)
        self._enabled, self._every = _read(environment, ENABLE)

    def counts(self, xid: int) -> bool:
        """Whether a GPU with this error is given to nobody any more."""
        if xid in self._enabled:
            return True
        if xid in self._disabled:
            return False
        return self._every or not (self._none or xid in OF_PROGRAMS)


def _read(environment: Mapping[str, str], name: str) -> tuple[frozenset[int], bool]:
    words = [one.strip() for one in environment.get(name, "").lower().split(",") if one.strip()]
    numbers = [one for one in words if one not in EVERY]
    for one in numbers:
        if not (one.isascii() and one.isdecimal()):
            raise BadSetting(f"{name} has {one!r}. Give `all`, or numbers with commas between them.")
    return frozenset(map(int, numbers)), len(numbers) < len(words)
