# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What the GPUs of a machine are, from one thread that waits for NVML, told in the thread of the event loop.

The thread outlives a change of the configuration: no GPU vanishes while another source takes over.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from . import nvml
from .seen import NOTHING, RESET, Gpu, Seen
from .verdicts import EVERY, Verdicts
from .xids import Xids

LOG = logging.getLogger(__name__)
# An error ends the wait at once. What has no event is looked at this often: whether GPUs take work.
WAIT_MS = 1000
AGAIN_S = 1.0


class Monitor:
    """``root``: of the driver; ``numa``: the kernel's folder of PCI devices. Begins with the first that joins."""

    def __init__(self, root: Path, numa: Path, verdicts: Verdicts, xids: Xids) -> None:
        self._root = root
        self._numa = numa
        self._verdicts = verdicts
        self._xids = xids
        self._told: list[Callable[[], None]] = []
        self._stopping = threading.Event()
        self._known: dict[str, Gpu] = {}
        self._there: frozenset[str] = frozenset()
        self._reasons: Mapping[str, str] = {}
        self._recovery: Mapping[str, str] = {}
        self.confidential = False
        self._ready = True
        self.problem = "the GPUs were not looked at yet"

    def join(self, told: Callable[[], None]) -> None:
        """Call this after each change."""
        self._told.append(told)
        if len(self._told) == 1:
            self.judge()
            self._stopping = threading.Event()
            work = (asyncio.get_running_loop(), self._stopping)
            threading.Thread(target=self._work, args=work, name="nvml", daemon=True).start()

    def leave(self, told: Callable[[], None]) -> None:
        """Call it no more. With the last one the thread ends, as soon as its wait does."""
        self._told.remove(told)
        if not self._told:
            self._stopping.set()

    # --- what is known ------------------------------------------------------------------------------------------------

    @property
    def gpus(self) -> list[Gpu]:
        """All that there were since the start."""
        return sorted(self._known.values(), key=lambda one: (one.index, one.uuid))

    def why_not(self, gpu: Gpu) -> str:
        """Why it is unhealthy; empty: it is healthy."""
        if self.problem:
            return self.problem
        if gpu.uuid not in self._there:
            return "the driver does not have it any more"
        if reason := self._reasons.get(gpu.uuid) or self._reasons.get(EVERY):
            return reason
        if (needed := self._recovery.get(gpu.uuid, NOTHING)) != NOTHING:
            return f"the driver says that it needs {needed}"
        return "" if self._ready else "confidential computing is on, and the GPUs are not ready (GpusReadyState is 0)"

    def judge(self) -> None:
        """Read the verdicts, which somebody may have cleared."""
        reasons = self._verdicts.all()
        for uuid in self._reasons.keys() - reasons.keys():
            LOG.info("GPU %s: its verdict was cleared.", uuid)
        for uuid in reasons.keys() - self._reasons.keys():
            LOG.error(
                "GPU %s is unhealthy: %s. Reset it, then remove %s.",
                uuid,
                reasons[uuid],
                self._verdicts.folder / f"{uuid}.json",
            )
        self._reasons = dict(reasons)

    # --- in the thread of the event loop ------------------------------------------------------------------------------

    def _change(self) -> None:
        for one in list(self._told):
            one()

    def _seen(self, seen: Seen) -> None:
        self._known.update({one.uuid: one for one in seen.gpus})
        self._there = frozenset(one.uuid for one in seen.gpus)
        self.confidential, self._ready, self._recovery = seen.confidential, seen.ready, seen.recovery
        self._recover()
        self.problem = "" if seen.gpus or self._known else "the driver has no GPU"
        LOG.info(
            "%d GPUs; confidential computing is %s%s.",
            len(seen.gpus),
            "on" if seen.confidential else "off",
            "" if seen.ready else ", and they are not ready",
        )
        self._change()

    def _recover(self) -> None:
        """A GPU of which the driver said that it needs a reset, and says so no longer, was reset."""
        try:
            for uuid in self._reasons:
                needed, awaits = self._recovery.get(uuid), self._verdicts.awaits_reset(uuid)
                if needed == RESET and not awaits:
                    self._verdicts.await_reset(uuid)
                elif needed == NOTHING and awaits:
                    LOG.info("GPU %s: the driver says no longer that it needs a reset.", uuid)
                    self._verdicts.clear(uuid)
        except OSError as error:
            LOG.error("What the driver says of a GPU cannot be kept: %s.", error)
        self.judge()

    def _lost(self, problem: str) -> None:
        if problem != self.problem:
            self.problem = problem
            LOG.error("GPUs: %s. It is tried again.", problem)
            self._change()

    def _failed(self, xid: nvml.Xid) -> None:
        if not self._xids.counts(xid.number):
            LOG.warning("GPU %s: XID %d, of which no notice is taken.", xid.uuid or "unknown", xid.number)
            return
        try:
            self._verdicts.add(xid.uuid or EVERY, f"XID {xid.number}")
        except OSError as error:
            LOG.error("The verdict on %s is lost with this process: %s.", xid.uuid or "all GPUs", error)
        self.judge()
        self._change()

    # --- in the thread ------------------------------------------------------------------------------------------------

    def _work(self, loop: asyncio.AbstractEventLoop, stopping: threading.Event) -> None:
        def tell(what: Callable[[], None]) -> None:
            if not stopping.is_set():
                with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
                    loop.call_soon_threadsafe(what)

        while not stopping.is_set():
            try:
                with nvml.session(self._root, self._numa) as session:
                    self._follow(session, tell, stopping)
            except nvml.Changed as changed:
                LOG.info("GPUs: %s.", changed)
            except nvml.Lost as lost:
                text = str(lost)
                tell(lambda text=text: self._lost(text))  # type: ignore[misc]
                stopping.wait(AGAIN_S)
            except Exception as error:  # nobody would look at the GPUs any more, and all would seem well
                LOG.exception("GPUs: nobody has thought of this. It is tried again.")
                text = f"they cannot be looked at: {error!r}"
                tell(lambda text=text: self._lost(text))  # type: ignore[misc]
                stopping.wait(AGAIN_S)

    def _follow(
        self, session: nvml.Session, tell: Callable[[Callable[[], None]], None], stopping: threading.Event
    ) -> None:
        """Until something is lost, or the end."""
        seen: Seen | None = None
        while not stopping.is_set():
            now = session.look() if seen is None else session.again(seen, tuple(self._reasons))
            if now != seen:
                tell(lambda now=now: self._seen(now))  # type: ignore[misc]
                seen = now
            xid = session.wait(WAIT_MS)
            if xid is not None:
                tell(lambda xid=xid: self._failed(xid))  # type: ignore[misc]
