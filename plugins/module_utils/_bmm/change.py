# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""A change of one instance: what it takes, and waiting until it has taken effect."""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple, Optional

from .._core.errors import InvalidRequest
from .._core.wait import SYSTEM_CLOCK, Clock, poll
from .client import Client
from .errors import NotReady, RebootFailed
from .pages import Record
from .records import READY, REPAIRING, newest

# What the API takes.
MOST_LABELS = 10
POLL_S = 5.0
# From these a reboot leads nowhere.
LOST = (REPAIRING, "Terminating", "Terminated", "Error")


class Labels(NamedTuple):
    """Labels as they are and as they shall be."""

    before: dict[str, str]
    after: dict[str, str]


def wanted_labels(instance: Record, desired: Optional[Mapping[str, Any]], replace: bool) -> Labels:
    """The whole map that the API wants to have; a request of None takes a label away. Raises InvalidRequest."""
    before = {str(key): str(value) for key, value in (instance.get("labels") or {}).items()}
    if desired is None:
        return Labels(before, before)
    merged: dict[str, Any] = dict(desired) if replace else {**before, **desired}
    after = {str(key): str(value) for key, value in sorted(merged.items()) if value is not None}
    if len(after) > MOST_LABELS:
        raise InvalidRequest(
            "The instance would have %d labels: %s." % (len(after), ", ".join(after)),
            "Keep %d at most; null as a value takes one away." % MOST_LABELS,
        )
    return Labels(before, after)


def check_reboot(instance: Record) -> None:
    """Raise NotReady unless the instance can be rebooted."""
    status = instance.get("status")
    if status != READY:
        raise NotReady(
            "The instance %s is %s: %s." % (instance["id"], status, _reason(instance)),
            "Wait until it is %s, then reboot it." % READY,
            status=status,
        )


def reboot(client: Client, before: Record, timeout_s: Optional[float], clock: Clock = SYSTEM_CLOCK) -> Record:
    """Power-cycle the instance's machine and wait until it is Ready again; without a timeout do not wait.

    Raises RebootFailed, ApiError.
    """
    asked = client.reboot(before["id"])
    if timeout_s is None:
        return asked
    # The API may show Ready for a while before it begins: only an entry that was not there before tells.
    old = newest(before)

    def back() -> Optional[Record]:
        now = client.instance(before["id"])
        status = now.get("status")
        if status in LOST:
            raise RebootFailed(
                "The instance %s turned %s in its reboot: %s." % (now["id"], status, _reason(now)),
                "Look at the instance's history; a machine that is being repaired comes back by itself or not at all.",
                status=status,
            )
        return now if status == READY and newest(now) != old else None

    try:
        return poll(back, timeout_s, POLL_S, clock)
    except TimeoutError:
        raise RebootFailed(
            "The instance %s was not %s again within %g s of its reboot." % (before["id"], READY, timeout_s),
            "Look at its serial console; give a longer wait_timeout where machines take longer.",
        ) from None


def _reason(instance: Record) -> str:
    return str(newest(instance).get("message") or "the API gives no reason")
