# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Scenes: one node and its instance each, and what happens to them. All are played at once, step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bmm_emulator.server import Emulator

from tests.cloud.programs import ORG, SHUTDOWN, SITE, TENANT, UNINITIALIZED, kubelet_node, lose, provider_id
from tests.cloud.server import Server

ZONE, BETA_ZONE = "topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"
TYPE = "node.kubernetes.io/instance-type"
SOME = ["10.1.0.1", "fd00:1::1"]
NOBODY = "00000000-0000-4000-8000-000000000000"


@dataclass
class Stage:
    """Where a scene is played."""

    server: Server
    emulator: Emulator
    name: str

    def lose(self) -> None:
        """The kubelet is silent."""
        lose(self.server, self.name)

    def ready(self) -> None:
        """It is back."""
        lose(self.server, self.name, ready=True)

    def remove(self) -> None:
        """The instance is gone without a trace."""
        self.emulator.remove_instance(self.name)

    def status(self, status: str) -> None:
        """Of the instance."""
        self.emulator.alter("instance", self.name, {"status": status})

    def addresses(self, *per_interface: list[str]) -> None:
        """Of the instance's interfaces."""
        known = self.emulator.instance(self.name)["interfaces"]
        made = [{**known[0], "id": f"{known[0]['id'][:-2]}{number:02}", "deviceInstance": number, "ipAddresses": found}
                for number, found in enumerate(per_interface)]  # fmt: skip
        self.emulator.alter("instance", self.name, {"interfaces": made})

    def label(self, **labels: str | None) -> None:
        """Of the node: zone and beta."""
        names = {"zone": ZONE, "beta": BETA_ZONE}
        self.server.patch(self.name, {"metadata": {"labels": {names[key]: value for key, value in labels.items()}}})

    def anew(self) -> None:
        """The node is made once more."""
        self.server.request("DELETE", f"/api/v1/nodes/{self.name}")
        self.server.register(kubelet_node(self.name))


Step = Callable[[Stage], None]


@dataclass(frozen=True)
class Scene:
    """``node``: of kubelet_node; ``id``: of the provider id, {own} is the usual one. ``differs``: why ours is another.

    ``instance``: entry of the emulator's file; None: there is none.
    """

    name: str
    instance: Mapping[str, Any] | None = field(default_factory=lambda: {"addresses": SOME, "type": "gpu.8xh100"})
    node: Mapping[str, Any] = field(default_factory=dict)
    id: str = "{own}"
    steps: tuple[Step, ...] = ()
    differs: str = ""

    def prepare(self, emulator: Emulator) -> None:
        """Make the instance."""
        if self.instance is not None:
            emulator.add_instance({"name": self.name, **self.instance})

    def begin(self, server: Server, emulator: Emulator) -> None:
        """Register the node."""
        own = provider_id(emulator, self.name) if self.instance is not None else ""
        bare = emulator.instance(self.name)["id"] if self.instance is not None else NOBODY
        given = self.id.format(own=own, id=bare, org=ORG, tenant=TENANT, site=SITE)
        server.register(kubelet_node(self.name, provider_id=given, **self.node))


OTHERS = [{"key": "mine", "effect": "NoSchedule"}, {"key": UNINITIALIZED, "value": "true", "effect": "NoSchedule"},
          {"key": "yours", "effect": "NoExecute"}]  # fmt: skip
OFF = [{"key": SHUTDOWN, "effect": "NoSchedule"}]
V6 = {"addresses": ["fd00:2::1"], "type": "a"}

SCENES = (
    # New nodes.
    Scene("preset-id"),
    Scene("no-id", id=""),
    Scene("short-id", id="nvidia-bmm://{org}/{site}/{id}"),
    Scene("nico-id", id="nico://{org}/{tenant}/{site}/{id}"),
    Scene("nico-uuid", id="nico://{id}"),
    Scene("user-labels", node={"labels": {ZONE: "mine", TYPE: "mine", "example.org/x": "y"}}),
    Scene("user-beta-labels", node={"labels": {BETA_ZONE: "mine"}}),
    Scene("node-ip-v4", node={"node_ip": "10.1.0.1"}),
    Scene("node-ip-v6", node={"node_ip": "fd00:1::1"}),
    Scene("node-ip-both", node={"node_ip": "fd00:1::1,10.1.0.1"}),
    Scene("node-ip-wrong", node={"node_ip": "10.9.9.9"}),
    Scene("node-ip-half-wrong", node={"node_ip": "10.1.0.1,fd00:9::9"}),
    Scene("kubelet-address", node={"addresses": [{"type": "InternalIP", "address": "10.8.8.8"},
                                                 {"type": "Hostname", "address": "kubelet-address"}]}),
    Scene("no-hostname", node={"addresses": []}),
    Scene("other-taints", node={"taints": OTHERS}),
    Scene("never-tainted", node={"taints": []}),
    Scene("ipv6-only", instance=V6),
    Scene("no-type", instance={"addresses": ["10.1.0.2"]}),
    Scene("not-ready-and-new", node={"ready": False}),
    Scene("unknown-id", instance=None, id="nvidia-bmm://{org}/{tenant}/{site}/" + NOBODY),
    Scene("unknown-name", instance=None, id=""),
    Scene("foreign-id", instance=None, id="aws:///zone/i-0123"),
    Scene("foreign-not-ready", instance=None, id="kind://docker/kind/node", node={"taints": [], "ready": False}),
    # Later.
    Scene("made-again", steps=(Stage.anew,)),
    Scene("address-changed", steps=(lambda at: at.addresses(["10.1.7.7"], ["fd00:1::1"]),)),
    Scene("address-added", steps=(lambda at: at.addresses(["10.1.0.1"], ["fd00:1::1"], ["10.1.7.8"]),)),
    Scene("address-gone", steps=(lambda at: at.addresses(["10.1.0.1"]),)),
    Scene("no-addresses-any-more", steps=(lambda at: at.addresses([]),)),
    Scene("stable-label-changed", steps=(lambda at: at.label(zone="mine"),)),
    Scene("beta-label-changed", steps=(lambda at: at.label(beta="mine"),)),
    Scene("both-labels-changed", steps=(lambda at: at.label(zone="mine", beta=None),)),
    Scene("stable-label-gone", steps=(lambda at: at.label(zone=None),)),
    # Not ready.
    Scene("gone-and-not-ready", steps=(Stage.lose, Stage.remove)),
    Scene("gone-and-ready", steps=(Stage.remove,)),
    Scene("gone-and-new", node={"ready": False, "node_ip": "10.9.9.9"}, steps=(Stage.remove,)),
    Scene("terminated", steps=(Stage.lose, lambda at: at.status("Terminated"))),
    Scene("terminating", steps=(Stage.lose, lambda at: at.status("Terminating"))),
    Scene("error", steps=(lambda at: at.status("Error"), Stage.lose)),
    Scene("error-and-ready", steps=(lambda at: at.status("Error"),)),
    Scene("repairing", steps=(Stage.lose, lambda at: at.status("Repairing"))),
    Scene("back-again", steps=(Stage.lose, lambda at: at.status("Error"), Stage.ready)),
    Scene("shutdown-taint-and-ready", node={"taints": OFF}),
    # Not alike, on purpose.
    Scene("foreign-shutdown-taint", instance=None, id="aws:///zone/i-0124", node={"taints": OFF},
          differs="nodes of other providers are not changed"),
    Scene("terminated-and-new", instance={"addresses": ["10.1.0.3"], "status": "Terminated"},
          differs="an instance that is terminated initialises no node"),
    Scene("without-addresses", instance={"type": "a"},
          differs="while the API's database fails no interface is told: a node without any address keeps its taint"),
    Scene("odd-type", instance={"addresses": ["10.1.0.4"], "type": "8x H100 / 80 GB"},
          differs="a name that is no label value is made one, instead of a node that is never initialised"),
    Scene("useless-address", instance={"addresses": ["fe80::1", "10.1.0.5", "127.0.0.1"], "type": "a"},
          differs="addresses of a link and of loopback are left out"),
    Scene("updating", steps=(lambda at: at.status("Updating"), lambda at: at.addresses(["10.1.0.1"])),
          differs="while an instance is not Ready its node loses no address"),
)  # fmt: skip
