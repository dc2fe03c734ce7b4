# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The claim of a rollout on a node: an annotation that says whose change it is, and what was done to the node for it.

It is written in the same patch as the label and the cordon, so that no kill comes between, and stays on the node as a
note of the last rollout when its stage is ``done``.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from . import moment

HOLD, SET, OVER = "hold", "set", "done"
STAGES = (HOLD, SET, OVER)


@dataclass(frozen=True)
class Claim:
    """``id``: of the rollout. ``mode``: what is asked of the node. ``at``: since when, in seconds since the epoch.

    ``stage``: ``hold``, cordoned until its pods have ended; ``set``, the label is set; ``done``. ``cordoned``: by the
    rollout, which uncordons it. ``attempt``: of the rollout, counted up by each ``resume``. ``grace_s``: for so long a
    state that is no success may be one from before.
    """

    id: str
    mode: str
    at: float
    stage: str = SET
    cordoned: bool = False
    attempt: int = 0
    grace_s: float = 0.0
    undo: bool = False

    @property
    def is_open(self) -> bool:
        """True until the node is let go."""
        return self.stage != OVER

    def text(self) -> str:
        """The annotation's value."""
        return json.dumps({**asdict(self), "at": moment.text(self.at)}, sort_keys=True)


def read(text: str | None) -> Claim | None:
    """The claim of an annotation; None for none, and for what is not ours: it may have been edited."""
    if not text:
        return None
    try:
        found = json.loads(text)
        claim = Claim(
            str(found["id"]),
            str(found["mode"]),
            moment.seconds(str(found["at"])),
            str(found["stage"]),
            bool(found.get("cordoned", False)),
            int(found.get("attempt", 0)),
            float(found.get("grace_s", 0.0)),
            bool(found.get("undo", False)),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return claim if claim.stage in STAGES else None
