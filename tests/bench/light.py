# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The CC managers of many nodes in one process, with one watch: python -m tests.bench.light KUBECONFIG CHANGE_S STARTED

For machines on which a thousand connections would be what is measured: each change has the four patches of the node
that the real CC manager makes, and nothing else. The time of a change is waited for. Ends with its parent's signal.
"""

from __future__ import annotations

import contextlib
import heapq
import queue
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "container"))

from kube.client import MERGE_PATCH, METADATA, METADATA_LIST, ApiError, Kube
from kube.connection import of_file
from kube.watch import Resource, Watch

from tests.bench.simulated import CHANGING, COMPONENTS, DEVICES, DEVICES_TEXT, JOURNAL, MODE, PAUSED, READY, STATE


class CCManagers:
    """``due``: moments at which nodes have booted."""

    def __init__(self, kube: Kube, change_s: float, started: Path) -> None:
        self._kube, self._change_s, self._started = kube, change_s, started
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._due: list[tuple[float, str, str]] = []
        self._busy: set[str] = set()

    def run(self) -> None:
        """Without an end."""
        resource = Resource("/api/v1/nodes", {"labelSelector": STATE}, METADATA_LIST, METADATA, page=500)
        watch = Watch(
            self._kube, resource, self._listed, lambda error: None, each=lambda _kind, found: self._inbox.put(found)
        )
        watch.start()
        while True:
            left_s = self._due[0][0] - time.monotonic() if self._due else 10.0
            with contextlib.suppress(queue.Empty):
                self._see(self._inbox.get(timeout=max(0.001, left_s)))
            while self._due and self._due[0][0] <= time.monotonic():
                self._end(*heapq.heappop(self._due)[1:])

    def _listed(self, found: list[Any], _fresh: bool) -> None:
        for one in found:
            self._inbox.put(one)
        self._started.touch()

    def _see(self, found: Any) -> None:
        name, labels = found["metadata"]["name"], found["metadata"].get("labels") or {}
        changing = CHANGING in (found["metadata"].get("annotations") or {})
        if name in self._busy or changing or labels.get(MODE) in (None, labels.get(STATE)):
            return
        self._busy.add(name)
        mode = labels[MODE]
        self._patch(name, {STATE: "", READY: ""}, {CHANGING: mode, JOURNAL: "{}"})
        self._patch(name, dict.fromkeys(COMPONENTS, PAUSED), {})
        heapq.heappush(self._due, (time.monotonic() + self._change_s, name, mode))

    def _end(self, name: str, mode: str) -> None:
        self._patch(name, dict.fromkeys(COMPONENTS, "true"), {JOURNAL: None})
        ready = "false" if mode == "off" else "true"
        self._patch(name, {STATE: mode, READY: ready}, {CHANGING: None, DEVICES: DEVICES_TEXT})
        self._busy.discard(name)

    def _patch(self, name: str, labels: dict[str, Any], annotations: dict[str, Any]) -> None:
        body = {"metadata": {"labels": labels, "annotations": annotations}}
        while True:
            try:
                self._kube.request("PATCH", f"/api/v1/nodes/{name}", None, body, METADATA, MERGE_PATCH)
                return
            except ApiError as error:
                if error.status == 404:
                    return
                time.sleep(0.2)


if __name__ == "__main__":
    CCManagers(Kube(of_file(sys.argv[1]), agent="k8s-cc-manager"), float(sys.argv[2]), Path(sys.argv[3])).run()
