# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What the node says of its GPUs: whether their mode of confidential computing is being changed, or is not known.

Who changes it (docs/cc-manager.md) says so on the node before it touches a device, and takes that back when it has read
every mode. Until then GPUs are reset, and may come up in another mode than the one that pods were placed for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

CHANGING = "nvidia.com/cc.mode.changing"
DEVICES = "nvidia.com/cc.mode.devices"
STATE = "nvidia.com/cc.mode.state"
FAILED = "failed"


def withheld(labels: Mapping[str, str], annotations: Mapping[str, str]) -> str:
    """Why no GPU is to be given to anybody; empty: nothing speaks against it."""
    if CHANGING in annotations:
        return f"their mode is being changed ({CHANGING}: {annotations[CHANGING]!r})"
    state = labels.get(STATE)
    if state in ("", FAILED) and not _every_mode_is_known(annotations):
        return f"their mode is not known ({STATE} is {state!r}); it is when it has been read back"
    return ""


def _every_mode_is_known(annotations: Mapping[str, str]) -> bool:
    """A request that cannot be, or a change that failed, may have been told with the modes as they were read."""
    try:
        found = json.loads(annotations.get(DEVICES, ""))
        there = [one for one in found.values() if not one.get("gone")]
        return bool(there) and all(isinstance(one.get("mode"), str) for one in there)
    except (ValueError, AttributeError, RecursionError):
        return False
