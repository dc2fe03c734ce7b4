# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The device plugin killed everywhere: before each thing that it changes outside itself, and at each word to a kubelet.

    python tests/cuts/run_plugin.py [tee] [gpu]

Its own program runs beside a kubelet of the tests. What it changes is told by Python's audit events: files that are
written, renamed and removed, folders, sockets. A life without a cut counts them; then there is one life for each. After
each cut another plugin must bring the node to what it should be, and leave nothing of the first one.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import signal
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import conftest  # noqa: F401  (makes the device plugin importable)
from device_plugin.api import deviceplugin_pb2 as api
from fake_kubelet.kubelet import FakeKubelet
from fake_kubelet.node import CONFIG, TDX, Node
from fake_nvml.driver import Driver, build, uuid

GPU = "nvidia.com/gpu"
SHARES = {"version": "v1", "sharing": {"timeSlicing": {"resources": [{"name": GPU, "replicas": 4}]}}}
STATE = "run/device-plugin-gpu"
XID = 79
# In the order of a life: the kubelet is asked to register it, has registered it, and asks it for a device.
ASKED, REGISTERED, ALLOCATING = "asked", "registered", "allocating"
MOMENTS = (ASKED, REGISTERED, ALLOCATING)
LIFE_S = 30.0
# The program, which ends before its nth step. Each step's name goes to a file that was open before.
PROGRAM = """
import os, signal, sys

at, steps, seen = int(sys.argv[1]), os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 0
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.chown", "socket.bind", "socket.connect"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def step(event, arguments):
    global seen
    if event in CHANGES or (event == "open" and arguments[2] & WRITES):
        seen += 1
        if seen == at:
            os.kill(os.getpid(), signal.SIGKILL)
        os.write(steps, f"{event} {arguments[0]}\\n".encode())


from device_plugin.__main__ import main

sys.addaudithook(step)
sys.exit(main([], os.environ))
"""


class Wrong(Exception):
    """Something is not mended; the text says what."""


class Watchful(FakeKubelet):
    """Kills the plugin at a moment."""

    moment = ""
    victim: subprocess.Popen[bytes] | None = None

    def _may_kill(self, moment: str) -> None:
        if moment == self.moment and self.victim is not None:
            self.victim.kill()

    async def register(self, request: api.RegisterRequest) -> None:
        """Raises GRPCError."""
        self._may_kill(ASKED)
        await super().register(request)
        self._may_kill(REGISTERED)

    async def allocate(self, name: str, count: int, pod: str) -> api.ContainerAllocateResponse:
        """As of the other one."""
        asked = asyncio.ensure_future(super().allocate(name, count, pod))
        await asyncio.sleep(0)  # so far that it waits for the answer
        self._may_kill(ALLOCATING)
        return await asked


class Subject(ABC):
    """A node with devices of one source, on which lives of the plugin are cut."""

    source: str
    resource: str
    every: int

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.node = Node(folder)
        self.node.kubelet = Watchful(self.node.plugins, self.node.pod_resources)

    @abstractmethod
    async def trouble(self, reached: Callable[[Callable[[], bool]], Awaitable[bool]]) -> bool:
        """What happens in a life after the first allocation; whether all of it did."""

    @abstractmethod
    def possible(self) -> set[int]:
        """How many may be healthy in the next life, after all that the kubelet was told in this one."""

    @abstractmethod
    def must_be_whole(self) -> None:
        """Of what only this source has. Raises Wrong."""

    @abstractmethod
    def forget(self) -> None:
        """Nothing happened yet."""

    @abstractmethod
    def close(self) -> None:
        """At the end."""

    # --- one life -----------------------------------------------------------------------------------------------------

    async def live(self, at: int, moment: str = "") -> list[str]:
        """One life of the program, cut before step ``at``; 0: to its end. The steps that it made."""
        kubelet = self.node.kubelet
        assert isinstance(kubelet, Watchful)
        steps = self.folder / "steps"
        steps.unlink(missing_ok=True)
        kubelet.held.clear()  # so that the same slot is given in each life
        process = self._started(at, steps)
        kubelet.moment, kubelet.victim = moment, process
        whole = False
        death = asyncio.create_task(asyncio.to_thread(process.wait))

        async def reached(what: Callable[[], bool]) -> bool:
            """Whether it came to that, and not to the end before."""
            seen = asyncio.create_task(kubelet.until(what, LIFE_S))
            await asyncio.wait({seen, death}, return_when=asyncio.FIRST_COMPLETED)
            came = seen.done() and seen.exception() is None
            seen.cancel()
            await asyncio.gather(seen, return_exceptions=True)
            return came

        try:
            if await reached(lambda: kubelet.allocatable(self.resource) == self.every):
                with contextlib.suppress(Exception):  # of a plugin that ends meanwhile
                    async with asyncio.timeout(LIFE_S):
                        await kubelet.allocate(self.resource, 1, "pod")
                if not death.done():
                    whole = await self.trouble(reached)
        finally:
            kubelet.moment = ""
            process.send_signal(signal.SIGTERM)
            await death
        cut = bool(at or moment)
        if process.returncode not in ({0, -signal.SIGKILL} if cut else {0}) or not (whole or cut):
            raise Wrong(f"it ended with status {process.returncode}: {(self.folder / 'log').read_text()[-2000:]}")
        return steps.read_text().splitlines() if steps.exists() else []

    def _started(self, at: int, steps: Path) -> subprocess.Popen[bytes]:
        environment = {**self.node.environment(), "DEVICE_PLUGIN_SOURCE": self.source, "PYTHONDONTWRITEBYTECODE": "1"}
        with (self.folder / "log").open("wb") as log:
            command = [sys.executable, "-c", PROGRAM, str(at), str(steps)]
            return subprocess.Popen(command, env=environment, stderr=log)

    async def mend(self) -> None:
        """The next plugin's life, in which all must be well. Raises Wrong."""
        node, kubelet = self.node, self.node.kubelet
        await kubelet.until(lambda: kubelet.allocatable(self.resource) == 0)
        kubelet.held.clear()
        process = self._started(0, self.folder / "mended")
        try:
            try:
                await kubelet.until(lambda: kubelet.allocatable(self.resource) > 0, LIFE_S)
                first = kubelet.allocatable(self.resource), kubelet.capacity(self.resource)
                await kubelet.allocate(self.resource, 1, "pod")
            except Exception as error:
                raise Wrong(f"{kubelet.allocatable(self.resource)} healthy, and then {error!r}") from error
            if first[0] not in self.possible() or first[1] != self.every:
                raise Wrong(f"the first that the kubelet heard was {first[0]} healthy of {first[1]}")
            if len(node.sockets()) != 1:
                raise Wrong(f"sockets: {node.sockets()}")
            if left := [one.name for one in node.root.rglob("*.tmp")]:
                raise Wrong(f"half-written files: {left}")
            self.must_be_whole()
        finally:
            process.terminate()
            await asyncio.to_thread(process.wait)
        if node.sockets():
            raise Wrong(f"sockets after the end: {node.sockets()}")
        self.forget()


class Guest(Subject):
    """A TDX guest, with all that the source writes."""

    source, resource, every = "tee", TDX, 3

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.node.add_device()
        (self.node.root / "tsm").mkdir()
        self.node.configure({**CONFIG, "cdi": {"enabled": True}, "reports": {"enabled": True, "path": "/tsm"}})

    async def trouble(self, reached: Callable[[Callable[[], bool]], Awaitable[bool]]) -> bool:
        """The device goes and comes back."""
        self.node.remove_device()
        await reached(lambda: self.node.kubelet.allocatable(TDX) == 0)
        self.node.add_device()
        return await reached(lambda: self.node.kubelet.allocatable(TDX) == self.every)

    def possible(self) -> set[int]:
        return {self.every}

    def must_be_whole(self) -> None:
        (spec,) = (self.node.root / "var/run/cdi").iterdir()
        if json.loads(spec.read_text())["kind"] != f"k8s.device-plugin.{TDX}":
            raise Wrong(f"{spec.name} is another's")
        folder = self.node.root / "run/ccnp/uds"
        if folder.stat().st_mode & 0o777 != 0o755:
            raise Wrong(f"{folder} has mode {folder.stat().st_mode:o}")
        if len(reports := [one.name for one in (self.node.root / "tsm").iterdir()]) != 1:
            raise Wrong(f"report folders: {reports}")

    def forget(self) -> None:
        (spec,) = (self.node.root / "var/run/cdi").iterdir()
        spec.unlink()
        (self.node.root / "run/ccnp/uds").rmdir()

    def close(self) -> None:
        return


class Gpus(Subject):
    """Two GPUs in shares, of which one fails."""

    source, resource, every = "gpu", GPU, 8

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.node.configure(SHARES)
        self._library = tempfile.TemporaryDirectory(prefix="nvml")
        self._driver = Driver(self.node.root, self.node.sys, build(Path(self._library.name)))
        self._failed = self._told = False

    async def trouble(self, reached: Callable[[Callable[[], bool]], Awaitable[bool]]) -> bool:
        """An error of the second one."""
        self._failed = True
        self._driver.xid(uuid(1), XID)
        self._told = await reached(lambda: self.node.kubelet.allocatable(GPU) == 4)
        return self._told

    def possible(self) -> set[int]:
        """Once the kubelet was told that it is sick, nobody may call it healthy. What nobody heard is not known."""
        return {4} if self._told else {4, 8} if self._failed else {8}

    def must_be_whole(self) -> None:
        healthy = self.node.kubelet.allocatable(GPU)
        verdicts = [one.name for one in (self.node.root / STATE).iterdir()]
        if verdicts != ([f"{uuid(1)}.json"] if healthy == 4 else []):
            raise Wrong(f"{healthy} healthy with the verdicts {verdicts}")

    def forget(self) -> None:
        self._failed = self._told = False
        for one in (self.node.root / STATE).iterdir():
            one.unlink()
        self._driver.flush()

    def close(self) -> None:
        self._driver.close()
        self._library.cleanup()


SUBJECTS: dict[str, type[Subject]] = {one.source: one for one in (Guest, Gpus)}


@contextlib.contextmanager
def subject(name: str) -> Iterator[Subject]:
    """On a node of its own."""
    with tempfile.TemporaryDirectory(prefix="dp") as folder:
        made = SUBJECTS[name](Path(folder))
        try:
            yield made
        finally:
            made.close()


async def cut_everywhere(one: Subject) -> tuple[int, list[str]]:
    """How many cuts there were, and what was wrong after which."""
    await one.node.kubelet.start()
    try:
        await one.mend()  # what is compiled or made only once
        wrong = []
        try:
            steps = await one.live(0)
            await one.mend()
        except Wrong as error:
            return 1, [f"no cut at all: {error}"]
        cuts: list[tuple[int, str, str]] = [(0, moment, f"kubelet: {moment}") for moment in MOMENTS]
        cuts += [(at, "", f"step {at}: {step}") for at, step in enumerate(steps, start=1)]
        for at, moment, what in cuts:
            try:
                await one.live(at, moment)
                await one.mend()
            except Wrong as error:
                wrong.append(f"{what}: {error}")
    finally:
        await one.node.kubelet.kill()
    return len(cuts), wrong


def main() -> int:
    """All sources, or those that are named; 1 if a cut was not mended."""
    parser = argparse.ArgumentParser(description="Kill the device plugin at each of its steps.")
    parser.add_argument("sources", nargs="*", choices=[[], *SUBJECTS])
    chosen: Any = parser.parse_args().sources or SUBJECTS
    logging.disable()  # gRPC tells of each connection that is cut, the mending plugin of each GPU
    status = 0
    for name in chosen:
        with subject(name) as one:
            count, wrong = asyncio.run(cut_everywhere(one))
        print(f"device plugin, source {name}: {count - len(wrong)} of {count} cuts mended", flush=True)
        for line in wrong:
            print(f"  {line}")
        status |= bool(wrong) or count < 10
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
