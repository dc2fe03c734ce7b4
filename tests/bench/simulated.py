# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The API traffic of many CC managers in one process: python -m tests.bench.simulated JOB, in a cluster's namespaces.

Each CC manager has connections of its own, lists and watches its own node, and answers a new request as the real
CC manager does; tests/bench/crowd.py counts both in the API server's log and compares. The time of a change is
slept. Bounded: the job says how many nodes and how many seconds.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

MODE, STATE, READY = (f"nvidia.com/cc.{name}" for name in ("mode", "mode.state", "ready.state"))
JOURNAL, CHANGING, DEVICES = (f"nvidia.com/cc.mode.{name}" for name in ("journal", "changing", "devices"))
COMPONENTS = [
    f"nvidia.com/gpu.deploy.{name}" for name in ("vfio-manager", "sandbox-validator", "kata-sandbox-device-plugin")
]
PAUSED = "paused-for-cc-mode-change"
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
JSON = "application/json"
MERGE = "application/merge-patch+json"
# What the real CC manager tells of eight GPUs and four switches has this size.
DEVICES_TEXT = json.dumps(
    {f"0000:{number:02x}:00.0": {"kind": "gpu", "mode": "on", "name": "H100"} for number in range(12)}
)


@dataclass
class Job:
    """What to do; written by tests/bench/crowd.py."""

    host: str
    port: int
    ca_file: str
    token: str
    nodes: list[str]
    components_namespace: str
    change_s: float  # eviction, reset and boot
    seconds: float  # when to end at the latest
    started_file: str  # made when every watch stands
    answer_file: str


@dataclass
class Answer:
    """What came about."""

    settled_at: dict[str, float] = field(default_factory=dict)  # node to seconds since the epoch
    errors: list[str] = field(default_factory=list)


class Connection:
    """HTTP/1.1 over one TLS connection, which is opened again when the server closed it."""

    def __init__(self, job: Job, context: ssl.SSLContext) -> None:
        self._job = job
        self._context = context
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def request(
        self, method: str, path: str, body: object = None, accept: str = JSON, kind: str = JSON
    ) -> dict[str, Any]:
        """One request; its answer. Raises RuntimeError when it is refused."""
        status, headers, reader = await self._send(method, path, body, accept, kind)
        if headers.get("transfer-encoding") == "chunked":
            data = b"".join([chunk async for chunk in _chunks(reader)])
        else:
            data = await reader.readexactly(int(headers.get("content-length", "0")))
        if status >= 300:
            raise RuntimeError(f"{method} {path}: {status} {data[:200]!r}")
        found: dict[str, Any] = json.loads(data)
        return found

    async def watch(self, path: str, accept: str) -> AsyncIterator[dict[str, Any]]:
        """The events of a watch."""
        status, _headers, reader = await self._send("GET", path, None, accept, JSON)
        if status >= 300:
            raise RuntimeError(f"watch {path}: {status}")
        rest = b""
        async for chunk in _chunks(reader):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield json.loads(line)

    async def _send(
        self, method: str, path: str, body: object, accept: str, kind: str
    ) -> tuple[int, dict[str, str], asyncio.StreamReader]:
        data = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._job.host}", f"Authorization: Bearer {self._job.token}"]
        lines += [f"Accept: {accept}", "User-Agent: k8s-cc-manager", f"Content-Length: {len(data)}"]
        lines += [f"Content-Type: {kind}"] if data else []
        first = b""
        while not first:  # a server that closed an idle connection answers nothing: the next one is new
            if self._streams is None or self._streams[0].at_eof():
                self._streams = await asyncio.open_connection(self._job.host, self._job.port, ssl=self._context)
            reader, writer = self._streams
            writer.write("\r\n".join([*lines, "", ""]).encode() + data)
            await writer.drain()
            first = await reader.readline()
            self._streams = self._streams if first else None
        status = int(first.split()[1])
        headers = {}
        while (line := (await reader.readline()).decode().strip()) != "":
            name, _colon, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return status, headers, reader


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while size := int((await reader.readline()).strip() or b"0", 16):
        yield await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readline()


class CCManager:
    """One node's CC manager."""

    def __init__(self, job: Job, context: ssl.SSLContext, node: str, answer: Answer) -> None:
        self._job = job
        self._context = context
        self._node = node
        self._path = f"/api/v1/nodes/{node}"
        self._answer = answer
        self._requests = Connection(job, context)
        self._watched: set[asyncio.Task[None]] = set()
        self.watching = asyncio.Event()

    async def run(self) -> None:
        """List, watch, and carry out the first request that differs from the state."""
        selector = f"fieldSelector=metadata.name%3D{self._node}"
        found = await self._requests.request("GET", f"/api/v1/nodes?{selector}", accept=METADATA_LIST)
        version = found["metadata"]["resourceVersion"]
        query = f"{selector}&watch=1&allowWatchBookmarks=true&resourceVersion={version}&timeoutSeconds=3000"
        events = Connection(self._job, self._context).watch(f"/api/v1/nodes?{query}", METADATA)
        self.watching.set()
        async for event in events:
            labels = event["object"]["metadata"].get("labels", {})
            desired = labels.get(MODE)
            if event["type"] != "BOOKMARK" and desired and desired != labels.get(STATE):
                await self._change(desired)
                self._answer.settled_at[self._node] = time.time()
                return

    async def _change(self, desired: str) -> None:
        """The requests of one change, in the real CC manager's order."""
        for path in ("/api/v1/pods", f"/api/v1/namespaces/{self._job.components_namespace}/pods"):
            await self._see_pods(path)
        journal = json.dumps(dict.fromkeys(COMPONENTS, "true"))
        await self._patch({STATE: "", READY: ""}, {CHANGING: desired, JOURNAL: journal})
        await self._patch(dict.fromkeys(COMPONENTS, PAUSED), {})
        await self._look_before_the_gate()
        await asyncio.sleep(self._job.change_s)
        await self._patch(dict.fromkeys(COMPONENTS, "true"), {JOURNAL: None})
        await self._patch({STATE: desired, READY: "true"}, {CHANGING: None, DEVICES: DEVICES_TEXT})
        for task in self._watched:
            task.cancel()
        await self._event(f"The devices are in mode {desired}.")

    async def _look_before_the_gate(self) -> None:
        """A fresh list of the node's pods, and the node: what is watched decides nothing that is written."""
        await self._requests.request("GET", f"/api/v1/pods?fieldSelector=spec.nodeName%3D{self._node}")
        await self._requests.request("GET", self._path, accept=METADATA)

    async def _see_pods(self, path: str) -> None:
        """List, and watch until the change is over."""
        query = f"fieldSelector=spec.nodeName%3D{self._node}"
        found = await self._requests.request("GET", f"{path}?{query}")
        query += f"&watch=1&allowWatchBookmarks=true&resourceVersion={found['metadata']['resourceVersion']}"

        async def follow() -> None:
            async for _event in Connection(self._job, self._context).watch(f"{path}?{query}", JSON):
                pass

        self._watched.add(asyncio.create_task(follow()))

    async def _patch(self, labels: dict[str, Any], annotations: dict[str, Any]) -> None:
        body = {"metadata": {"labels": labels, "annotations": annotations}}
        await self._requests.request("PATCH", self._path, body, METADATA, MERGE)

    async def _event(self, message: str) -> None:
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{self._node}.", "namespace": "default"},
            "involvedObject": {"apiVersion": "v1", "kind": "Node", "name": self._node, "uid": self._node},
            "type": "Normal",
            "reason": "ModeChanged",
            "message": message,
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "count": 1,
        }
        await self._requests.request("POST", "/api/v1/namespaces/default/events", body)


async def main(job: Job) -> None:
    """All of them, until each has settled or the time is over."""
    answer = Answer()
    context = ssl.create_default_context(cafile=job.ca_file)
    managers = [CCManager(job, context, node, answer) for node in job.nodes]
    gate = asyncio.Semaphore(50)  # pods of a DaemonSet do not start at the same moment

    async def begin(manager: CCManager) -> asyncio.Task[None]:
        async with gate:
            task = asyncio.create_task(manager.run())
            await manager.watching.wait()
        return task

    try:
        async with asyncio.timeout(job.seconds):
            tasks = await asyncio.gather(*map(begin, managers))
            Path(job.started_file).touch()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(result, BaseException):
                    answer.errors.append(repr(result))
    except TimeoutError:
        answer.errors.append(f"not over after {job.seconds:.0f} s")
    Path(job.answer_file).write_text(json.dumps(asdict(answer)))


if __name__ == "__main__":
    asyncio.run(main(Job(**json.loads(Path(sys.argv[1]).read_text()))))
