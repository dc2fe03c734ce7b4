# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The CC manager cut everywhere: kill -9 before and after each request to the API, and at each write to a device.

    python tests/cuts/run_cc_manager.py
    python tests/cuts/run_cc_manager.py --from off --to on --cut write --at 17

The CC manager's own process does the change here, with the collection's code on an emulated device and an API server on
loopback; only Ansible is left out between the two, so that the kill takes all at once, as the end of a pod does.
A change is run once to count, then once more for each cut. After each a second CC manager must bring the node there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import conftest  # noqa: F401  (makes the collection, the emulator and the CC manager importable)
from cc_manager import settings
from cc_manager.messages import Message, RunEnded, RunPlanned
from cc_manager.process import Process
from cc_manager.run import Job, ListeningGate
from emulator.launch import launch
from fake_api.daemon_sets import NODES, PODS, PREFIX, DaemonSets
from fake_api.daemon_sets import node as new_node
from fake_api.server import ApiServer, serving
from fake_api.store import Store
from kube.client import Kube
from kube.connection import Connection
from nodes import FABRIC, OFF, ON, ONE, PPCIE, Node
from subject import TIMING, ShortClock

from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import ExplainedError
from ansible_collections.confidential.gpu.plugins.module_utils._gpu import report
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.change import ModeChange, Request
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.gate import Gate
from ansible_collections.confidential.gpu.plugins.module_utils._pci.vfio_user import VfioUserBus

NODE_NAME = "node-1"
COMPONENTS = {PREFIX + "vfio-manager": "true", PREFIX + "sandbox-validator": "true"}
BEFORE, AFTER, WRITE = "before", "after", "write"
# What a device makes of a cut at each of its writes is the matter of run.py; here one change is enough.
ALL, REQUESTS = (BEFORE, AFTER, WRITE), (BEFORE, AFTER)
CHANGES = ((ONE, OFF, ON, ALL), (ONE, ON, OFF, REQUESTS), (FABRIC, OFF, PPCIE, REQUESTS), (FABRIC, PPCIE, ON, REQUESTS))
TIMEOUT_S = 40.0
# From a request that the server has noted to its answer.
ANSWERED_S = 0.05
EVENTS = "/api/v1/namespaces/default/events"
LABEL, STATE, READY = "nvidia.com/cc.mode", "nvidia.com/cc.mode.state", "nvidia.com/cc.ready.state"
OURS = ("nvidia.com/cc.mode.journal", "nvidia.com/cc.mode.changing", "nvidia.com/cc.mode.reason")


# --- the CC manager's process -----------------------------------------------------------------------------------------


class ThreadRunner:
    """Runs of the collection's code in a thread of the CC manager, so that one kill ends both."""

    def __init__(self, folder: str, tell: Callable[[Message], None]) -> None:
        self._folder, self._tell, self.number = folder, tell, 0

    def start(self, job: Job) -> ThreadRun:
        self.number += 1
        return ThreadRun(self._folder, self.number, job, self._tell)


class ThreadRun:
    """One of them."""

    def __init__(self, folder: str, number: int, job: Job, tell: Callable[[Message], None]) -> None:
        self.number, self._job, self._tell = number, job, tell
        self._bus = VfioUserBus(folder, ShortClock())
        path = os.path.join(tempfile.mkdtemp(prefix="gate-", dir=folder), "gate")
        self._gate = ListeningGate(path, lambda: tell(RunPlanned(number)))
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        if not self._job.is_change:
            self._tell(RunEnded(self.number, report.read(self._bus, clock=ShortClock())))
            return
        request = Request(mode=self._job.mode, modes=self._job.modes or {})
        change = ModeChange(request, self._bus, clock=ShortClock(), gate=Gate(self._gate.path, TIMEOUT_S))
        try:
            change.run()
            self._tell(RunEnded(self.number, change.result()))
        except ExplainedError as error:
            self._tell(RunEnded(self.number, {"msg": str(error), "error": error.as_dict(), **change.result()}, True))

    def open_gate(self) -> None:
        self._gate.open()

    def close_gate(self) -> None:
        self._gate.close()

    def kill(self) -> None:
        self._gate.close()


def operate(order: Mapping[str, str]) -> None:
    """Be a CC manager."""
    environment = {
        "NODE_NAME": NODE_NAME,
        "OPERATOR_NAMESPACE": "gpu-operator",
        "CC_READINESS_FILE": "",
        "CC_MANAGER_METRICS_PORT": "0",
        "CC_MANAGER_RETRY_DELAY": "0.2",
    }
    kube = Kube(Connection(order["server"]))
    Process(settings.parse([], environment), kube, lambda tell: ThreadRunner(order["sockets"], tell)).run()


class Nursery:
    """A process without threads that forks CC managers, each in milliseconds, with everything imported."""

    def __init__(self) -> None:
        here, there = os.pipe()
        back, answer = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(there)
            os.close(back)
            _serve_forks(here, answer)
        os.close(here)
        os.close(answer)
        self._orders, self._answers = os.fdopen(there, "w"), os.fdopen(back)

    def start(self, **order: str) -> int:
        """The process id of a new CC manager."""
        self._orders.write(json.dumps(order) + "\n")
        self._orders.flush()
        return int(self._answers.readline())

    def close(self) -> None:
        """No more of them."""
        self._orders.close()
        self._answers.close()
        os.waitpid(self._pid, 0)


def _serve_forks(orders: int, answers: int) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    with os.fdopen(orders) as lines, os.fdopen(answers, "w") as out:
        for line in lines:
            pid = os.fork()
            if pid == 0:
                with contextlib.suppress(BaseException):
                    operate(json.loads(line))
                os._exit(0)
            out.write("%d\n" % pid)
            out.flush()
    os._exit(0)


class CCManager:
    """A running one."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._handle = os.pidfd_open(pid)

    def kill(self) -> None:
        """As the kernel does it; returns when it is gone."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)

    def is_gone(self, within_s: float = 0) -> bool:
        """True when it has ended."""
        return bool(select.select([self._handle], [], [], within_s)[0])

    def close(self) -> None:
        """End it, if it has not."""
        self.kill()
        self.is_gone(TIMEOUT_S)
        os.close(self._handle)


# --- the node ---------------------------------------------------------------------------------------------------------


class Bench:
    """An emulated node with an API server of its own."""

    def __init__(self, node: Node, emulator: Any, nursery: Nursery, store: Store, server: ApiServer) -> None:
        self._node, self._control, self._sockets = node, emulator.control, emulator.sockets
        self._nursery, self._store, self._server = nursery, store, server
        self.store_events = threading.Event()

    def count(self, start: str, desired: str) -> dict[str, list[Any]]:
        """A change undisturbed: how many requests and writes it makes, from the label on."""
        manager = self._begun(start)
        try:
            answers: list[int] = []
            before = len(self._store.requests)
            self._store.after = lambda: answers.append(1)
            self._label(desired)
            self._rest(desired, manager)
            requests = len(self._store.requests) - before
            writes = {one: state["counters"]["writes"] for one, state in self._control.state().items()}
        finally:
            self._store.after = lambda: None
            manager.close()
        at_devices = [(device, number) for device, count in writes.items() for number in range(1, count + 1)]
        return {
            BEFORE: [(None, number) for number in range(1, requests + 1)],
            AFTER: [(None, number) for number in range(1, len(answers) + 1)],  # a watch has no end to cut at
            WRITE: at_devices,
        }

    def run(self, start: str, desired: str, how: str, device: str | None, at: int) -> str:
        """Cut, look, start another; what is wrong, or nothing."""
        manager = self._begun(start)
        try:
            self._arm(how, device, at, manager)
            self._label(desired)
            if not manager.is_gone(TIMEOUT_S):
                return "the cut did not come"
        finally:
            self._store.before = lambda request: None
            self._store.after = lambda: None
            self._control.clear_faults()
            manager.close()
        manager = CCManager(self._nursery.start(server=self._server.url, sockets=str(self._sockets)))
        try:
            self._until(lambda: self._is_well(desired), manager)
        except AssertionError as error:
            return str(error)
        finally:
            manager.close()
        return ""

    def _begun(self, start: str) -> CCManager:
        self._control.restore()
        for path in self._sockets.iterdir():
            if path.name.endswith((".lock", ".unproven")):
                path.unlink()
        for address, wanted in self._node.expected(start).items():
            self._control.set(address, mode=wanted)
        with contextlib.suppress(Exception):
            self._store.delete(NODES, NODE_NAME)
        for event in self._store.list(EVENTS, {})[0]:  # one that was told before is counted up, and not made
            self._store.delete(EVENTS, event["metadata"]["name"])
        self._store.create(NODES, new_node(NODE_NAME, **{LABEL: start}, **COMPONENTS))
        manager = CCManager(self._nursery.start(server=self._server.url, sockets=str(self._sockets)))
        self._rest(start, manager)
        self._control.reset_counters()
        return manager

    def _rest(self, mode: str, manager: CCManager) -> None:
        """Wait for the end of a change: the Event that tells of it is its last request."""
        self._until(lambda: self._is_well(mode) and EVENTS in self._store.requests[-1].path, manager)
        manager.is_gone(ANSWERED_S)

    def _arm(self, how: str, device: str | None, at: int, manager: CCManager) -> None:
        if how == WRITE:
            self._control.fault(device=device, event="write", nth=at, action="kill_client")
            return
        count = iter(range(1, at + 1))

        def kill(*_request: Any) -> None:
            if next(count, 0) == at:
                manager.kill()

        if how == BEFORE:
            self._store.before = kill
        else:
            self._store.after = kill

    def _label(self, mode: str) -> None:
        self._store.patch(NODES, NODE_NAME, {"metadata": {"labels": {LABEL: mode}}})

    def _until(self, condition: Callable[[], bool], manager: CCManager) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            if time.monotonic() > deadline or manager.is_gone(0.01):
                raise AssertionError("it does not end well: %s" % json.dumps(self._metadata()))

    def _metadata(self) -> dict[str, Any]:
        found: dict[str, Any] = self._store.get(NODES, NODE_NAME)["metadata"]
        return found

    def _is_well(self, mode: str) -> bool:
        """Told, restored, and true."""
        metadata = self._metadata()
        labels, annotations = metadata["labels"], metadata.get("annotations") or {}
        if labels.get(STATE) != mode or any(key in annotations for key in OURS):
            return False
        if any(labels.get(key) != value for key, value in COMPONENTS.items()):
            return False
        if not self._store.list(PODS, {})[0]:  # the DaemonSet's pod is back
            return False
        return all(
            state["mode"] == self._node.expected(mode)[address] for address, state in self._control.state().items()
        )


@contextlib.contextmanager
def bench(node: Node, nursery: Nursery) -> Iterator[Bench]:
    """The node, for as long as it is used."""
    store = Store()
    store.create(NODES, new_node(NODE_NAME))
    with launch(node.description(), **TIMING) as emulator, serving(store) as server:
        DaemonSets(store, NODE_NAME, grace_s=0.02)
        yield Bench(node, emulator, nursery, store, server)


# --- all of them ------------------------------------------------------------------------------------------------------


def main() -> int:
    """Run what was asked for; 0 if every cut was recovered from."""
    parser = argparse.ArgumentParser(description="Cut the CC manager at every request and every write to a device.")
    parser.add_argument("--from", dest="start")
    parser.add_argument("--to", dest="desired")
    parser.add_argument("--cut", choices=(BEFORE, AFTER, WRITE))
    parser.add_argument("--device")
    parser.add_argument("--at", type=int)
    options = parser.parse_args()
    began, done, failed = time.monotonic(), 0, 0
    nursery = Nursery()
    for node, start, desired, kinds in CHANGES:
        if options.start not in (None, start) or options.desired not in (None, desired):
            continue
        with bench(node, nursery) as one:
            for how, places in one.count(start, desired).items():
                if options.cut not in (None, how) or how not in kinds:
                    continue
                wrong = 0
                chosen = [(d, n) for d, n in places if options.device in (None, d) and options.at in (None, n)]
                for device, at in chosen:
                    why = one.run(start, desired, how, device, at)
                    if why:
                        wrong += 1
                        command = (
                            f"python tests/cuts/run_cc_manager.py --from {start} --to {desired} --cut {how} --at {at}"
                        )
                        print(f"FAILED: {why}\n    {command}{f' --device {device}' if device else ''}", flush=True)
                done, failed = done + len(chosen), failed + wrong
                line = f"{node.name:20} {start:9} -> {desired:9} {how:6}"
                print(f"{line} {len(chosen) - wrong:4d}/{len(chosen)}", flush=True)
    nursery.close()
    print("CC manager: %d/%d cuts recovered, %.0f s" % (done - failed, done, time.monotonic() - began))
    return 1 if failed or not done else 0


if __name__ == "__main__":
    sys.exit(main())
