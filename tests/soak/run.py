# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The CC manager's own process on a node of emulated GPUs, as long as asked: trouble, rest, a sample, again."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from emulator.launch import Emulator, launch

from tests.cloud.server import Child, Server
from tests.skew.objects import NAMESPACE, installed, rendered, token
from tools.cache import ROOT

from . import measure, trouble
from .node import CHANGING, NAME, Node, notes_of
from .relay import Relay
from .trouble import Trouble
from .watchman import Broken, Watchman, unrest

DEVICES = ["0000:17:00.0", "0000:3b:00.0"]
NODE = {
    "name": "soak",
    "timing": {"boot_s": 0.2, "flr_s": 0.02, "rpc_s": 0.0005},
    "devices": [{"address": one, "model": "h100-sxm"} for one in DEVICES],
}
# Short waits: what matters is how often something happens.
SETTINGS = {
    "CC_MANAGER_BUSY": "drain",
    "CC_MANAGER_BUSY_TIMEOUT": "5",
    "CC_MANAGER_EVICTION_TIMEOUT": "20",
    "CC_MANAGER_BOOT_TIMEOUT": "3",
    "CC_MANAGER_DRIFT_INTERVAL": "15",
    "CC_MANAGER_DRIFT_REPAIR": "true",
    "CC_MANAGER_RETRY_DELAY": "1",
    "CC_MANAGER_METRICS_PORT": "0",
}
TICK_S = 0.1
# The CC manager gets it once: longer than any run.
TOKEN_S = 7 * 24 * 3600
# From the end of all trouble to a node as it was asked for. A watch that hears nothing is given up after 90 s, a
# request that failed often is made again after 30 s, a run that hangs is ended after two minutes. On a busy machine a
# run takes half a minute.
REST_S = 300.0
# Between the mark of a change and the last look for users is 1 s: who has come by then is seen.
NOTICED_S = 0.8
Words = Callable[[str], None]


class Soak:
    """Everything that takes part. ``say``: takes a line."""

    def __init__(self, server: Server, emulator: Emulator, relay: Relay, folder: Path, seed: int, say: Words) -> None:
        self._control, self._sockets = emulator.control, emulator.sockets
        self._relay, self._folder, self._seed, self._say = relay, folder, seed, say
        objects = rendered(folder, "cc-manager", "namespace.create=true", "settings.busy=drain")
        installed(server, objects)
        self.node = Node(server, random.Random(f"pods {seed}"))
        self.watchman = Watchman()
        self.asked = 0  # for a mode
        self.done = 0  # troubles
        self.times: list[float] = []
        self.samples: list[dict[str, float]] = []
        self._held: list[socket.socket] = []
        self.manager = self._start(server, objects)

    def _start(self, server: Server, objects: list[dict[str, Any]]) -> Child:
        server.tokens["cc-manager"] = token(server, objects, NAME, TOKEN_S)
        config = json.loads(server.kubeconfig("cc-manager").read_text())
        config["clusters"][0]["cluster"] = {"server": self._relay.url}
        kubeconfig = self._folder / "kubeconfig"
        kubeconfig.write_text(json.dumps(config))
        for name in ("tmp", "state", "audit"):
            (self._folder / name).mkdir()
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self._folder),
            "TMPDIR": str(self._folder / "tmp"),
            "PYTHONPATH": str(ROOT / "container"),
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache/collections"),
            "NODE_NAME": NAME,
            "KUBECONFIG": str(kubeconfig),
            "OPERATOR_NAMESPACE": NAMESPACE,
            "CC_READINESS_FILE": str(self._folder / "ready"),
            "CC_MANAGER_BUS": f"vfio-user:{self._sockets}",
            "CC_MANAGER_STATE_FOLDER": str(self._folder / "state"),
            "CC_MANAGER_AUDIT_FOLDER": str(self._folder / "audit"),
            **SETTINGS,
        }
        return server.run("cc-manager", sys.executable, "-m", "cc_manager", environment=environment)

    @property
    def attempts(self) -> int:
        """At changes, so far."""
        return self.manager.log.read_text(errors="replace").count("To do: ")

    # --- the whole ----------------------------------------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        """Rounds for that long. Raises Broken, and what the API and the emulator raise."""
        began = time.monotonic()
        self._calm("off")
        for number, row in enumerate(trouble.rounds(self._seed, DEVICES), 1):
            for one in row:
                self._say(f"round {number}: {one.kind} {one.about or ''}")
                self._do(one)
                self.done += 1
                self._wait(one.then_s)
            rested_s = self._calm("off")
            sample = self._probe()
            self.times.append(time.monotonic() - began)
            self.samples.append(sample)
            told = ", ".join(f"{key} {value:g}" for key, value in sample.items())
            self._say(f"round {number}: at rest after {rested_s:.1f} s; {told}")
            if self.times[-1] >= seconds:
                return

    def _probe(self) -> dict[str, float]:
        """A change that nothing disturbs, and what is there after it."""
        before = self._relay.counted()
        self._want("on")
        self._until_rest("on")
        asked = (self._relay.counted() - before).total()
        pid = self.manager.process.pid
        folders = [self._folder / "tmp", self._folder / "state", self._sockets]
        return {
            **measure.of_process(pid),
            measure.FILES: measure.disk_kib(folders),
            measure.TRAIL: measure.disk_kib([self._folder / "audit"]),
            measure.EVENTS: float(self.node.events()),
            measure.REQUESTS: float(asked),
        }

    # --- looking ------------------------------------------------------------------------------------------------------

    def _tick(self) -> tuple[Any, list[Any], Any]:
        """Look once, and let the kubelet work: the node, its pods, the devices."""
        began = time.monotonic()
        self.manager.check()
        pods = self.node.pods()
        there = {one["metadata"]["name"] for one in pods}
        for name in self.watchman.users:
            if name not in there:
                self.watchman.free(name)
        before = self.node.look()
        devices = self._control.state()
        after = self.node.look()
        self.watchman.look(time.monotonic(), before, devices, after)
        self.node.sync(after, pods)
        time.sleep(max(0.0, began + TICK_S - time.monotonic()))
        return after, pods, devices

    def _wait(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            self._tick()

    def _until_rest(self, mode: str) -> float:
        """Until all is as it must be in this mode, and no run is at work; the seconds. Raises Broken."""
        began = time.monotonic()
        while True:
            node, pods, devices = self._tick()
            wrong = unrest(node, pods, devices, mode)
            busy = measure.children(self.manager.process.pid)
            if not wrong and not busy and (self._folder / "ready").exists():
                return time.monotonic() - began
            if time.monotonic() > began + REST_S:
                wrong += [f"processes are left: {busy}"] if busy else []
                wrong += [] if (self._folder / "ready").exists() else ["the readiness file is not there"]
                metadata = node["metadata"]
                metadata.pop("managedFields", None)
                raise Broken(f"no rest after {REST_S:g} s: {'; '.join(wrong)}\n{json.dumps(metadata, indent=1)}")

    # --- what happens -------------------------------------------------------------------------------------------------

    def _want(self, mode: str | None, retry: bool = False) -> None:
        self.asked += 1
        self.node.want(mode, f"{time.time()}" if retry else "")

    def _calm(self, mode: str) -> float:
        """Nothing is wrong any more, and this mode is asked for: the seconds until the node rests."""
        self._relay.clear()
        self._control.clear_faults()
        for one in self._held:
            one.close()
        self._held.clear()
        self.node.grace_s = (0.1, 1.0)
        for pod in self.node.pods():
            if pod["metadata"]["namespace"] == "default":
                self.node.end_pod(pod)
        while self.watchman.users:
            self._tick()
        broken = ("off_bus", "recovery", "sec_fault", "hung")
        for address, state in self._control.state().items():
            if any(state[key] for key in broken) or not (state["booted"] and state["answers"]):
                self.watchman.harmed(time.monotonic())  # it boots, with whatever knobs it has now
                self._control.repair(address)
        self.watchman.weather_fine(time.monotonic())
        self._want(mode, retry=True)
        return self._until_rest(mode)

    def _do(self, one: Trouble) -> None:
        about: dict[str, Any] = dict(one.about)
        if one.kind in (trouble.LABEL, trouble.FLAP):
            for mode in about["modes"]:
                self._want(mode)
                self._tick()
        elif one.kind == trouble.WEATHER:
            self._relay.spoil(about["way"], about["share"])
        elif one.kind == trouble.CUT:
            self._relay.cut()
        elif one.kind == trouble.MUTE:
            self._relay.mute()
        elif one.kind == trouble.USER:
            self._use()
        elif one.kind == trouble.POD:
            self.node.run_pod(gpu=False)
        elif one.kind == trouble.CRASH:
            for pod in self.node.pods():
                if pod["metadata"]["namespace"] == NAMESPACE and pod["metadata"].get("ownerReferences"):
                    self.node.end_pod(pod)
        elif one.kind == trouble.SLOW:
            self.node.grace_s = (2.0, 5.0)
        else:
            self._harm(one.kind, about)

    def _use(self) -> None:
        """A pod gets the GPUs, as a device plugin gives them: on a node that is marked nobody gets any."""
        began = time.monotonic()
        if CHANGING in notes_of(self.node.look()):
            return
        pod = self.node.run_pod(gpu=True)
        devices = self._control.state()
        if time.monotonic() < began + NOTICED_S:
            self.watchman.in_use(pod["metadata"]["name"], devices)

    def _harm(self, kind: str, about: dict[str, Any]) -> None:
        """Something at a device."""
        if kind == trouble.FAULT:
            self._control.fault(**about)
        elif kind == trouble.HOLD:
            self._hold(about["device"])
        elif not self.watchman.users:  # what the soak itself does is no write of the CC manager's
            if kind == trouble.DRIFT:
                self.watchman.harmed(time.monotonic())
                self._control.set(about["device"], mode=about["mode"])
            else:
                self._control.power_cycle(about["device"])

    def _hold(self, device: str) -> None:
        """Somebody who is no pod has the device open, as soon as nobody else has."""
        one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        one.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            one.connect(str(self._sockets / f"{device}.sock"))
        self._held.append(one)

    def end(self) -> int:
        """Stop the CC manager; its exit status."""
        for one in self._held:
            one.close()
        return self.manager.end(signal.SIGTERM, 40.0)


@contextlib.contextmanager
def soaking(server: Server, folder: Path, seed: int, say: Words) -> Iterator[Soak]:
    """One, for as long as it is used."""
    with launch(NODE, sockets=folder / "gpus") as emulator:
        relay = Relay(server.port, server.folder / "certificates/apiserver.crt", seed)
        try:
            made = Soak(server, emulator, relay, folder, seed, say)
            try:
                yield made
            finally:
                made.end()
        finally:
            relay.end()


__all__ = ["Soak", "soaking"]
