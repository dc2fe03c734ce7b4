# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The whole process in threads of this one: it begins when it leads, ends when asked to, and tells what is wrong."""

from __future__ import annotations

import contextlib
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bmm_emulator.launch import launch
from bmm_emulator.server import Emulator
from ccm import flags
from ccm.cluster import Pace
from ccm.config import Call, Client, Config
from ccm.loops import Loop
from ccm.process import Process, reader
from ccm_bed import FOUR, NODES, UNINITIALIZED, cloud_config
from fake_api.certificate import write
from fake_api.clients import used
from fake_api.nodes import registered, rules
from fake_api.server import ApiServer, serving
from fake_api.store import Store
from fake_api.waiting import eventually
from kube.client import Kube
from kube.connection import Connection
from kube.lease import GROUP, Lost

LEASES = f"/apis/{GROUP}/namespaces/kube-system/leases"
QUICK = [
    "--leader-elect-lease-duration=1200ms",
    "--leader-elect-renew-deadline=800ms",
    "--leader-elect-retry-period=100ms",
    "--node-monitor-period=200ms",
    "--node-status-update-frequency=300ms",
]


def connect(config: Config, observe: Callable[[Call], None]) -> Client:
    return config.client(observe, 5.0)


class Place:
    """Where processes run."""

    def __init__(self, store: Store, server: ApiServer, emulator: Emulator, folder: Path) -> None:
        self.store, self.server, self.emulator, self.folder = store, server, emulator, folder
        self.config = folder / "cloud-config"
        self.config.write_text(cloud_config(emulator.url))
        self.certificate, self.key = write(folder)

    @contextlib.contextmanager
    def running(self, *more: str, port: bool = False) -> Iterator[Process]:
        """A process, until it is asked to end; ``ended`` says how it ended."""
        tls = ["--secure-port=1", f"--tls-cert-file={self.certificate}", f"--tls-private-key-file={self.key}"]
        chosen = flags.parse([*QUICK, *(tls if port else ["--secure-port=0"]), *more])
        chosen = replace(chosen, port=0 if not port else free_port())
        with used(Kube(Connection(self.server.url))) as kube:
            process = Process(chosen, kube, reader(str(self.config), {}), connect, look_after_s=0.05)
            ended: list[bool] = []
            thread = threading.Thread(target=lambda: ended.append(process.run()))
            thread.start()
            process.ended = ended  # type: ignore[attr-defined]
            try:
                yield process
            finally:
                process.stop()
                thread.join(20)
                assert not thread.is_alive()

    def add(self, name: str, **how: Any) -> None:
        self.store.create(NODES, registered(name, **how))

    def taints(self, name: str) -> list[str]:
        return [one["key"] for one in self.store.get(NODES, name)["spec"].get("taints") or []]

    def reasons(self) -> list[str]:
        """Of Events."""
        with self.store.lock:
            return [one["reason"] for (where, _name), one in self.store.objects.items() if where.endswith("/events")]

    def names(self) -> list[str]:
        return [one["metadata"]["name"] for one in self.store.list(NODES, {})[0]]

    def holder(self) -> str:
        found = self.store.list(LEASES, {})[0]
        return str(found[0]["spec"].get("holderIdentity") or "") if found else ""


def free_port() -> int:
    import socket  # noqa: PLC0415

    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    store = Store()
    store.rules.append(rules)
    with launch({"instances": [FOUR]}) as emulator, serving(store) as server:
        yield Place(store, server, emulator, tmp_path)


def get(port: int, path: str, token: str = "") -> tuple[int, str]:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(f"https://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10, context=context) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_a_life(place: Place) -> None:
    with place.running() as process:
        place.add("gpu-0")
        place.add("gpu-1")
        eventually(lambda: not place.taints("gpu-0") and not place.taints("gpu-1"))
        assert not process.problems()
        place.store.patch(NODES, "gpu-0", {"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}})
        place.emulator.remove_instance("gpu-0")
        eventually(lambda: place.names() == ["gpu-1"])
        interfaces = place.emulator.instance("gpu-1")["interfaces"]
        changed = [{**interfaces[0], "ipAddresses": ["10.7.7.7"]}]
        place.emulator.alter("instance", "gpu-1", {"interfaces": changed})
        eventually(lambda: place.store.get(NODES, "gpu-1")["status"]["addresses"][0]["address"] == "10.7.7.7")
        place.store.delete(NODES, "gpu-1")
        assert place.holder()
    assert process.ended == [True]  # type: ignore[attr-defined]
    assert place.holder() == ""


def test_without_an_election(place: Place) -> None:
    with place.running("--leader-elect=false", "--controllers=cloud-node"):
        place.add("gpu-0")
        eventually(lambda: not place.taints("gpu-0"))
    assert not place.store.list(LEASES, {})[0]


def test_another_leads(place: Place) -> None:
    with place.running() as first:
        eventually(place.holder)
        with place.running() as second:
            place.add("gpu-0")
            eventually(lambda: not place.taints("gpu-0"))
            assert not second.problems()
            first.stop()
            eventually(lambda: first.ended)  # type: ignore[attr-defined]
            place.add("gpu-1")
            eventually(lambda: not place.taints("gpu-1"))


def test_a_lease_that_is_lost_ends_the_process(place: Place) -> None:
    with place.running() as process:
        eventually(place.holder)
        place.store.faults.refuse("update", "leases", 500)
        eventually(lambda: process.ended)  # type: ignore[attr-defined]
    assert process.ended == [False]  # type: ignore[attr-defined]


def test_a_lease_that_may_not_be_had_is_told(place: Place) -> None:
    place.store.faults.refuse("create", "leases")
    place.add("gpu-0")
    with place.running() as process:
        eventually(lambda: any("leases" in one for one in process.problems()))
        eventually(lambda: place.reasons() == ["MayNotGetCreateAndUpdateLeases"])
        assert place.taints("gpu-0") == [UNINITIALIZED]
        place.store.faults.clear()
        eventually(lambda: not place.taints("gpu-0"))
        eventually(lambda: not process.problems())


def test_the_cloud_config_is_read_again(place: Place) -> None:
    good = place.config.read_text()
    with place.running() as process:
        eventually(place.holder)
        place.config.write_text("{")
        eventually(lambda: any("CloudConfigRefused" in one for one in process.problems()))
        place.add("gpu-0")
        eventually(lambda: not place.taints("gpu-0"))
        place.config.write_text(good.replace("emulated", "unknown"))
        eventually(lambda: any("NotAuthenticated" in one for one in process.problems()))
        place.config.write_text(good)
        eventually(lambda: not process.problems())


def test_the_port(place: Place) -> None:
    place.store.people.update({"reader-token": "reader", "other-token": "other"})
    place.store.readers.add("reader")
    with place.running(port=True) as process:
        eventually(lambda: process.port)
        eventually(lambda: get(process.port, "/readyz") == (200, "ok\n"))
        assert get(process.port, "/healthz") == (200, "ok\n")
        assert get(process.port, "/metrics")[0] == 403
        assert get(process.port, "/metrics", "nobody")[0] == 401
        assert get(process.port, "/metrics", "other-token")[0] == 403
        assert get(process.port, "/other", "reader-token")[0] == 404
        status, text = get(process.port, "/metrics", "reader-token")
        assert status == 200
        assert "leader_election_master_status" in text
        reviews = [one for one in place.store.requests if "reviews" in one.path]
        assert get(process.port, "/metrics", "reader-token")[0] == 200
        assert len([one for one in place.store.requests if "reviews" in one.path]) == len(reviews)
        place.store.faults.refuse("create", "tokenreviews")
        assert get(process.port, "/metrics", "new-token")[0] == 503
        assert "tokenreviews" in get(process.port, "/readyz")[1]
        other = place.folder / "other"
        other.mkdir()
        for new, old in zip(write(other), (place.certificate, place.key), strict=True):
            new.replace(old)
        assert get(process.port, "/healthz")[0] == 200


@pytest.mark.parametrize("missing", ["list", "watch"])
def test_nodes_that_may_not_be_read_are_told(place: Place, missing: str) -> None:
    place.store.faults.refuse(missing, "nodes")
    with place.running() as process:
        eventually(lambda: any("may not list and watch nodes" in one for one in process.problems()))
        # It was seen before this process led, and makes an Event all the same.
        eventually(lambda: "MayNotListAndWatchNodes" in place.reasons())


def test_a_loop_survives_a_fault_and_ends_when_it_leads_no_longer(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[int] = []
    done = threading.Event()

    def step() -> None:
        seen.append(1)
        done.set()
        raise Lost("not any more")

    loop = Loop("test", step, 0.01)
    loop.start()
    assert done.wait(5)
    eventually(lambda: not loop.is_alive)
    assert seen == [1]


def test_a_pace_is_kept() -> None:
    import time  # noqa: PLC0415

    pace = Pace(100.0, 2)
    began = time.monotonic()
    for _request in range(12):
        pace()
    assert time.monotonic() - began >= 0.08
    Pace(0.0, 1)()
