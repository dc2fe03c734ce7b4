# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""A cluster in memory, an emulated bare-metal manager, and the controllers between them, one step at a time."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

from bmm_emulator.launch import launch
from bmm_emulator.server import Emulator
from bmm_emulator.shapes import made_id
from ccm import config as configs
from ccm.addresses import Addresses
from ccm.cap import Cap
from ccm.cloud import Cloud
from ccm.cluster import Cluster
from ccm.initialise import Context, Initialiser
from ccm.known import Nodes
from ccm.lifecycle import Lifecycle
from ccm.metrics import Metrics
from ccm.node import Node
from ccm.problems import Problems
from ccm.recorder import WARNING, Recorder
from fake_api.clients import used
from fake_api.nodes import NODES, UNINITIALIZED, registered, rules
from fake_api.server import ApiServer, serving
from fake_api.store import Object, Store
from kube.client import Kube
from kube.connection import Connection
from kube.events import Subject

ORG, SITE, TENANT = "acme", made_id("site", "site-1"), made_id("tenant", "acme")
FOUR = {"name": "gpu-{n}", "count": 4, "type": "gpu.8xh100", "addresses": ["10.0.0.0/24", "fd00::/64"]}
EVENTS = "/api/v1/namespaces/default/events"
PERIOD_S, UPDATE_S = 5.0, 300.0
# How long the bare-metal manager is waited for: when it should answer, and when it should not.
PATIENT_S, HASTY_S = 30.0, 0.15


def cloud_config(url: str, **more: Any) -> str:
    """The file's text; JSON is YAML."""
    found = {"endpoint": url, "orgName": ORG, "token": "emulated", "siteId": SITE, "tenantId": TENANT, **more}
    return json.dumps({key: value for key, value in found.items() if value is not None})


class Bed:
    """``step``, ``look`` and ``update`` are what the threads of the process do."""

    def __init__(self, store: Store, server: ApiServer, kube: Kube, emulator: Emulator, how: dict[str, Any]) -> None:
        self.store, self.server, self.emulator = store, server, emulator
        self.now = 1000.0
        self.leads: Callable[[], float] = lambda: 10.0
        self.metrics = Metrics()
        self.problems = Problems(self._tell, lambda key, reason: self.metrics.problems.labels(key, reason).inc())
        self.cluster = Cluster(kube, "test", self._leads, self.problems, lambda: None)
        self.recorder = Recorder(self.cluster.tell, self.metrics.events_lost.inc)
        self._deadline_s = PATIENT_S
        config = configs.read(cloud_config(emulator.url, **how), {})
        self.cloud = Cloud(config, lambda one: one.client(deadline_s=self._deadline_s), self._clock)
        self.nodes = Nodes(self._clock)
        context = Context(self.nodes, self.cloud, self.cluster, self.recorder, self.problems, self.metrics)
        self.initialiser = Initialiser(context, 4)
        self.lifecycle = Lifecycle(context, Cap(0.1, 600.0, self._clock), PERIOD_S, self._clock)
        self.addresses = Addresses(context, UPDATE_S, self._clock)

    def _clock(self) -> float:
        return self.now

    def _leads(self) -> float:
        return self.leads()

    def _tell(self, reason: str, message: str) -> None:
        self.recorder.event(
            Subject("Lease", "ccm", "", "kube-system", "coordination.k8s.io/v1"), WARNING, reason, message
        )

    def close(self) -> None:
        self.initialiser.close()
        self.recorder.close(5.0)
        self.cloud.close()

    # --- what the threads do ------------------------------------------------------------------------------------------

    def told(self) -> None:
        """What the watch does."""
        self.nodes.told(map(Node.of, self.store.list(NODES, {})[0]))

    def step(self, seconds: float = 0.0) -> None:
        """New nodes, after so long."""
        self.now += seconds
        self.told()
        self.initialiser.step(self.nodes.take())

    def look(self, seconds: float = PERIOD_S) -> None:
        """A round of the lifecycle, after so long."""
        self.now += seconds
        self.told()
        self.lifecycle.round()

    def update(self, seconds: float = UPDATE_S) -> None:
        """A round over the addresses, after so long."""
        self.now += seconds
        self.told()
        self.addresses.round()

    def everything(self, rounds: int = 3) -> None:
        """All controllers, some rounds."""
        for _round in range(rounds):
            if self.store.list(NODES, {})[0]:
                self.step(61.0)
            self.look(61.0)
            self.update()

    def spoil(self, *rules: Any) -> None:
        """From now on this goes wrong, for ever; and nobody waits for long."""
        self._deadline_s = HASTY_S
        self.cloud.use(self.cloud.config)
        self.emulator.add_faults([{"path": "*", "times": "forever", **one} for one in rules])

    def mend(self) -> None:
        """All is well."""
        self._deadline_s = PATIENT_S
        self.cloud.use(self.cloud.config)
        self.emulator.clear_faults()

    # --- what there is ------------------------------------------------------------------------------------------------

    def add(self, name: str = "gpu-0", **how: Any) -> Object:
        """A node, as its kubelet makes it, by default with the id of the instance of its name."""
        if "provider_id" not in how:
            how["provider_id"] = self.provider_id(name)
        return self.store.create(NODES, registered(name, **how))

    def provider_id(self, name: str) -> str:
        return f"nvidia-bmm://{ORG}/{TENANT}/{SITE}/{self.emulator.instance(name)['id']}"

    def settled(self, *names: str, ready: bool = True) -> None:
        """Nodes that are initialised."""
        for name in names:
            self.add(name)
        self.step()
        for name in names:
            assert not self.taints(name), self.events()
            if not ready:
                self.lose(name)

    def lose(self, name: str) -> None:
        """Its kubelet says nothing any more."""
        self.store.patch(NODES, name, {"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}})

    def node(self, name: str = "gpu-0") -> Object:
        return self.store.get(NODES, name)

    def names(self) -> list[str]:
        return sorted(one["metadata"]["name"] for one in self.store.list(NODES, {})[0])

    def taints(self, name: str = "gpu-0") -> list[str]:
        return [one["key"] for one in self.node(name)["spec"].get("taints") or []]

    def ips(self, name: str = "gpu-0") -> list[str]:
        return [one["address"] for one in self.node(name)["status"]["addresses"] if one["type"] == "InternalIP"]

    def labels(self, name: str = "gpu-0") -> dict[str, str]:
        found: dict[str, str] = self.node(name)["metadata"]["labels"]
        return found

    def events(self) -> list[Object]:
        """Those that were told by now."""
        with self.recorder._changed:
            self.recorder._changed.wait_for(lambda: not self.recorder._waiting and not self.recorder._busy, 5.0)
        with self.store.lock:
            return [one for (where, _name), one in self.store.objects.items() if where.endswith("/events")]

    def reasons(self) -> list[str]:
        return [one["reason"] for one in self.events()]

    def writes(self) -> list[tuple[str, str]]:
        """Verb and path of what was written, but for Events."""
        kinds = ("patch", "update", "delete", "create")
        return [(one.verb, one.path) for one in self.store.requests if one.verb in kinds and "/events" not in one.path]

    def asked(self) -> list[str]:
        """Paths below the API's name that the bare-metal manager was asked for."""
        return [str(one["path"]) for one in self.emulator.requests]


@contextlib.contextmanager
def bed(data: Any = None, **how: Any) -> Iterator[Bed]:
    """One, of the emulator's data; ``how``: more keys of the cloud config."""
    store = Store()
    store.rules.append(rules)
    with contextlib.ExitStack() as stack:
        emulator = stack.enter_context(launch(data or {"instances": [FOUR]}))
        server = stack.enter_context(serving(store))
        made = Bed(store, server, stack.enter_context(used(Kube(Connection(server.url)))), emulator, how)
        try:
            yield made
        finally:
            made.close()


__all__ = ["EVENTS", "FOUR", "NODES", "ORG", "SITE", "TENANT", "UNINITIALIZED", "Bed", "bed", "cloud_config"]
