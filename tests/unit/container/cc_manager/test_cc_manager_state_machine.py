# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Random interleavings of requests, users' changes, API faults, kills and device faults.

Checked all the time by the simulation: no write to a device while a paused component's pod runs or somebody holds a
device; the node never names a mode that the devices do not have. Checked at the end, when all is mended: the newest
request has won, and every component label is what the user made it.
"""

from __future__ import annotations

from fake_api.daemon_sets import NODES
from fake_api.store import Refusal
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from simulation import CHANGING, COMPONENTS, DEVICES, GPUS, JOURNAL, NODE, PAUSED, REASON, Request, Site

MODES = st.sampled_from(["off", "on", "devtools", "ppcie"])
PODS = "/api/v1/namespaces/tenant/pods"


EDITED = [
    None,
    "",
    "{",
    "[]",
    '{"nvidia.com/gpu.deploy.vfio-manager": "no label!"}',
    '{"0000:17:00.0": {"mode": "banana"}}',
]


class CCManager(RuleBasedStateMachine):
    """One node and all that happens to it."""

    @initialize(policy=st.sampled_from(["refuse", "wait", "drain"]), repair=st.booleans(), grace_s=st.floats(0.1, 8))
    def begin(self, policy: str, repair: bool, grace_s: float) -> None:
        self.site = Site(
            *("--cc-manager-busy", policy, "--cc-manager-drift-repair", str(repair).lower()),
            *("--cc-manager-retry-limit", "1000", "--cc-manager-eviction-timeout", "20"),
            grace_s=grace_s,
        )
        self.components: dict[str, str | None] = dict.fromkeys(COMPONENTS, "true")
        self.mode: str | None = None
        self.faults = 0
        self.status = 500
        self.site.store.before = self.fault

    def fault(self, request: Request) -> None:
        if self.faults and request.verb in ("get", "list", "patch", "create"):
            self.faults -= 1
            raise Refusal(self.status, "broken")

    @rule(seconds=st.sampled_from([0.02, 0.3, 1.0, 2.5, 10.0]))
    def time_passes(self, seconds: float) -> None:
        self.site.run(seconds)

    @rule(mode=MODES)
    def request(self, mode: str) -> None:
        self.mode = mode
        self.site.label(mode=mode)

    @rule()
    def bogus_desired(self) -> None:
        self.mode = "bogus"
        self.site.label(mode="bogus")

    @rule(mode=MODES, address=st.sampled_from(GPUS))
    def desired_for_one(self, mode: str, address: str) -> None:
        self.site.annotate(wanted='{"%s": "%s"}' % (address, mode))

    @rule()
    def no_desired_for_one(self) -> None:
        self.site.annotate(wanted=None)

    @rule(name=st.sampled_from(COMPONENTS), value=st.sampled_from(["true", "false", "", "mine", None]))
    def user_sets_component(self, name: str, value: str | None) -> None:
        self.components[name] = value
        self.site.component(name, value)

    @rule(name=st.sampled_from([JOURNAL, DEVICES, CHANGING, REASON]), text=st.sampled_from(EDITED))
    def somebody_edits_an_annotation(self, name: str, text: str | None) -> None:
        self.site.store.patch(NODES, NODE, {"metadata": {"annotations": {name: text}}})

    @rule(count=st.integers(1, 3), status=st.sampled_from([409, 429, 500, 503]))
    def requests_fail(self, count: int, status: int) -> None:
        self.faults, self.status = count, status

    @rule(count=st.integers(1, 2))
    def answers_get_lost(self, count: int) -> None:
        self.site.lose_answers = count

    @rule()
    def kill(self) -> None:
        self.site.kill()
        self.site.begin()

    @rule(within=st.integers(1, 20))
    def kill_at_a_point(self, within: int) -> None:
        self.site.cut_at = len(self.site.cut_points) + within

    @rule()
    def stop_and_start(self) -> None:
        site = self.site
        site.cut_at = None
        site.stop()
        site.run(26)
        assert site.controller is None or site.controller.stopped
        site.kill()
        site.begin()

    @rule(address=st.sampled_from(GPUS))
    def guest_takes_device(self, address: str) -> None:
        if not any(run.is_writing for run in self.site.runs):  # the module holds the group while it writes, if it lives
            self.site.devices.every[address].held_by = "process 1 (qemu)"

    @rule(address=st.sampled_from(GPUS))
    def guest_leaves_device(self, address: str) -> None:
        self.site.devices.every[address].held_by = ""

    @rule()
    def pod_takes_gpu(self) -> None:
        spec = {"nodeName": NODE, "containers": [{"resources": {"limits": {"nvidia.com/pgpu": 1}}}]}
        if not self.site.store.list(PODS, {})[0]:
            self.site.store.create(
                PODS, {"metadata": {"name": "vm", "namespace": "tenant"}, "spec": spec, "status": {"phase": "Running"}}
            )

    @rule()
    def pod_ends(self) -> None:
        if self.site.store.list(PODS, {})[0]:
            self.site.store.delete(PODS, "vm")

    @rule(step=st.sampled_from(["read", "plan", "stage", "boot"]))
    def devices_fail(self, step: str) -> None:
        self.site.devices.fail[step] = "RpcFailed"

    @precondition(lambda self: self.site.devices.fail)
    @rule()
    def devices_mend(self) -> None:
        self.site.devices.fail.clear()

    @invariant()
    def nothing_that_must_not_happen(self) -> None:
        if hasattr(self, "site"):
            assert self.site.violations == []

    def teardown(self) -> None:
        if not hasattr(self, "site"):
            return
        site = self.site
        site.cut_at = None
        site.lose_answers = self.faults = 0
        site.devices.fail.clear()
        self.pod_ends()
        for device in site.devices.every.values():
            device.held_by = ""
        site.annotate(wanted=None)
        if self.mode == "bogus":
            self.request("on")
        site.run(1000)
        assert site.violations == []
        assert site.components() == {name: value for name, value in self.components.items() if value is not None}
        assert PAUSED not in site.components().values()
        assert not {JOURNAL, CHANGING} & site.annotations.keys()
        if self.mode is not None:
            assert site.state == self.mode, (site.labels, site.annotations)
            assert set(site.devices.modes()) == {self.mode}


CCManager.TestCase.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
TestCCManager = CCManager.TestCase
