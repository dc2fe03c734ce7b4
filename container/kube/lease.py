# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Leader election by a Lease: of several processes one works, and the next one goes on when it is gone.

The rules and times are those of client-go's leader election, so that both kinds of process can stand for one Lease. No
clock of another machine is compared with: a Lease has run out when it was seen unchanged for as long as it says. A
leader that could not renew in time stops to lead before anybody else can begin: ``is_leading`` is False from then on,
whatever this process does meanwhile, also when it was frozen and goes on.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .client import NOT_AN_OBJECT, ApiError, Kube, Object

LOG = logging.getLogger(__name__)
GROUP = "coordination.k8s.io/v1"
# What a Lease that was given back says: the next process need not wait.
RELEASED_S = 1


@dataclass(frozen=True)
class Times:
    """Seconds. ``duration_s``: how long a Lease holds; ``deadline_s``: how long its holder leads without renewing it.

    What a leader began at its last moment has until the Lease runs out to be done.
    """

    duration_s: float = 15.0
    deadline_s: float = 10.0
    retry_s: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.retry_s < self.deadline_s < self.duration_s or self.duration_s < 1:
            raise ValueError(f"not retry < deadline < duration, of at least a second: {self}")


class Lost(Exception):
    """This process does not lead, or not any more: nothing may be written."""


class Elector:
    """Stands for a Lease in a thread. ``identity``: this process, as no other; a pod's name and something random.

    ``began`` is called when it leads; ``ended`` when it does no longer, without having been asked to: there is nothing
    to do then but to end the process. Both are called in the thread, and should not wait.
    """

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        name: str,
        identity: str,
        began: Callable[[], None],
        ended: Callable[[], None],
        times: Times = Times(),
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kube = kube
        self._collection = f"/apis/{GROUP}/namespaces/{namespace}/leases"
        self._path = f"{self._collection}/{name}"
        self._metadata = {"namespace": namespace, "name": name}
        self._identity = identity
        self._began = began
        self._ended = ended
        self._times = times
        self._now = now
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"lease {name}", daemon=True)
        self._seen: Object = {}  # the Lease's spec as it was last found, and since when it is that
        self._seen_at = 0.0
        self._led_until = float("-inf")
        self.holder = ""

    def start(self) -> None:
        """Begin to stand."""
        self._thread.start()

    def end(self) -> None:
        """Stand no more, and give the Lease back. First end what only a leader does."""
        self._stopping.set()
        self._thread.join()

    @property
    def is_leading(self) -> bool:
        """True while nobody else can lead."""
        return self._now() < self._led_until

    def check(self) -> float:
        """Seconds that a request may take which only a leader may make. Raises Lost."""
        left_s = self._led_until - self._now()
        if left_s <= 0:
            raise Lost("This process leads no longer.")
        return left_s + self._times.duration_s - self._times.deadline_s

    # --- in the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            if self._acquire():
                LOG.info("Leading, as %s.", self._identity)
                self._began()
                self._keep()
        finally:
            led, self._led_until = self.is_leading, float("-inf")
            if self._stopping.is_set():
                if led:
                    self._release()
            else:
                LOG.error("Leading no longer: the Lease %s could not be renewed.", self._path)
                self._ended()

    def _acquire(self) -> bool:
        """Until it leads; False when it was asked to end."""
        problem = ""
        while not self._stopping.is_set():
            try:
                if self._take(self._times.deadline_s) and self.is_leading:
                    return True
                problem = ""
            except ApiError as error:
                if str(error) != problem:
                    problem = str(error)
                    LOG.warning("The Lease %s cannot be had: %s. It is tried again.", self._path, error)
            # Never longer than the time between two tries, so that a Lease that was given back is taken soon.
            self._stopping.wait(self._times.retry_s * random.uniform(0.5, 1.0))
        return False

    def _keep(self) -> None:
        """Renew it, until it was asked to end or until it leads no longer."""
        while not self._stopping.wait(min(self._times.retry_s, max(0.0, self._led_until - self._now()))):
            if not self.is_leading:
                return
            try:
                if not self._take(self._led_until - self._now()) and self.holder != self._identity:
                    return  # somebody else has it, whatever the clock says
            except ApiError as error:
                LOG.warning("The Lease %s was not renewed: %s", self._path, error)

    def _take(self, timeout_s: float) -> bool:
        """Make, take or renew the Lease; False while another has it, or changed it. Raises ApiError."""
        began = self._now()
        try:
            found = self._kube.request("GET", self._path, timeout_s=timeout_s)
        except ApiError as error:
            if error.status != 404:
                raise
            return self._write("POST", self._collection, {}, {}, began, timeout_s)
        try:
            spec, metadata = dict(found.get("spec") or {}), dict(found["metadata"])
            if not self._is_free(spec):
                return False
        except NOT_AN_OBJECT as error:
            raise ApiError(0, f"GET {self._path}: the answer is no Lease") from error
        return self._write("PUT", self._path, metadata, spec, began, timeout_s)

    def _is_free(self, spec: Object) -> bool:
        self.holder = str(spec.get("holderIdentity") or "")
        if spec != self._seen:
            self._seen, self._seen_at = spec, self._now()
        lasts_s = float(spec.get("leaseDurationSeconds") or 0)
        return self.holder in ("", self._identity) or self._now() >= self._seen_at + lasts_s

    def _write(self, method: str, path: str, metadata: Object, before: Object, began: float, timeout_s: float) -> bool:
        """Whether the Lease is this process'. It leads from the moment at which it began to ask."""
        spec = self._spec(before)
        body = {"apiVersion": GROUP, "kind": "Lease", "metadata": {**self._metadata, **metadata}, "spec": spec}
        try:
            left_s = began + timeout_s - self._now()
            answer = self._kube.request(method, path, None, body, timeout_s=max(0.0, left_s))
            self._seen = dict(answer["spec"])
        except ApiError as error:
            if error.is_conflict:  # another was faster
                return False
            raise
        except NOT_AN_OBJECT as error:
            raise ApiError(0, f"{method} {path}: the answer is no Lease") from error
        self._seen_at = began
        self.holder = self._identity
        self._led_until = began + self._times.deadline_s
        return True

    def _spec(self, before: Object) -> dict[str, Any]:
        moment = _now()
        again = before.get("holderIdentity") == self._identity
        transitions = int(before.get("leaseTransitions") or 0)
        return {
            **before,
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, round(self._times.duration_s)),
            "acquireTime": before.get("acquireTime") if again else moment,
            "renewTime": moment,
            "leaseTransitions": transitions if again or not before else transitions + 1,
        }

    def _release(self) -> None:
        """Give it back; if that fails it runs out by itself."""
        with contextlib.suppress(ApiError, *NOT_AN_OBJECT):
            found = self._kube.request("GET", self._path)
            spec = found["spec"]
            if spec.get("holderIdentity") == self._identity:
                moment = _now()
                spec.update(holderIdentity="", leaseDurationSeconds=RELEASED_S, renewTime=moment, acquireTime=moment)
                self._kube.request("PUT", self._path, None, found)
                LOG.info("The Lease %s is given back.", self._path)


def _now() -> str:
    """A MicroTime."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())
