# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""A node on which everything but the CC manager's controller is simulated, in a time of its own.

The API is the store of ``fake_api`` with its resource versions; DaemonSets make and end pods; the run reads, waits at
its gate, stages, resets and verifies simulated devices. Nothing sleeps: time goes from one planned moment to the next.
What must never happen is noted in ``violations`` at the moment at which it happens.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cc_manager import settings
from cc_manager.audit import Audit
from cc_manager.controller import Controller
from cc_manager.messages import Message, NodeSeen, PodsSeen, RunEnded, RunPlanned, StopAsked
from cc_manager.metrics import CCManagerMetrics
from cc_manager.node import Node, Patch
from cc_manager.pod import Pod
from cc_manager.reconcile import NOTICED_S
from cc_manager.run import Job
from fake_api.daemon_sets import DAEMON_SETS, NODES, PREFIX, DaemonSets
from fake_api.daemon_sets import node as new_node
from fake_api.store import Change, Refusal, Request, Store
from kube.client import ApiError

NODE = "node-1"
MODE, STATE, READY = "nvidia.com/cc.mode", "nvidia.com/cc.mode.state", "nvidia.com/cc.ready.state"
WANTED, REASON, JOURNAL = (f"nvidia.com/cc.mode.{name}" for name in ("devices-wanted", "reason", "journal"))
RETRY, RETRIED, CORDONED = (f"nvidia.com/cc.mode.{name}" for name in ("retry", "retried", "cordoned"))
CHANGING, DEVICES = "nvidia.com/cc.mode.changing", "nvidia.com/cc.mode.devices"
PAUSED = "paused-for-cc-mode-change"
COMPONENTS = ("vfio-manager", "sandbox-validator", "kata-sandbox-device-plugin")
GPUS = ("0000:17:00.0", "0000:3b:00.0")
ALL_MODES = ("off", "on", "devtools", "ppcie")
READ_S, PLAN_S, STAGE_S, BOOT_S, LATENCY_S = 1.0, 1.5, 0.1, 2.1, 0.01


class Killed(BaseException):
    """The process is gone at this point."""


class Time:
    """Moments in order; what is planned for one happens when it is reached."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self._planned: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()

    def now(self) -> float:
        return self.now_s

    def later(self, delay_s: float, work: Callable[[], object]) -> None:
        heapq.heappush(self._planned, (self.now_s + delay_s, next(self._numbers), work))

    @property
    def next_moment(self) -> float | None:
        return self._planned[0][0] if self._planned else None

    def go_to(self, moment: float) -> None:
        """Let what is planned until then happen, in its order."""
        while self._planned and self._planned[0][0] <= moment:
            when, _number, work = heapq.heappop(self._planned)
            self.now_s = max(self.now_s, when)
            work()
        self.now_s = max(self.now_s, moment)


@dataclass
class SimDevice:
    """A device with its active mode and the one that the next reset makes active."""

    address: str
    mode: str = "off"
    staged: str = "off"
    supported: tuple[str, ...] = ALL_MODES
    kind: str = "gpu"
    held_by: str = ""
    use_unknown: str = ""
    broken: str = ""
    resets: int = 0

    @property
    def name(self) -> str:
        return "H100-SXM" if self.kind == "gpu" else "NVSwitch_gen3"


@dataclass
class Devices:
    """All devices of the node, and what goes wrong with them."""

    every: dict[str, SimDevice] = field(default_factory=lambda: {one: SimDevice(one) for one in GPUS})
    host: str = "yes"
    fail: dict[str, str] = field(default_factory=dict)  # step (read, plan, stage, boot) to kind of error

    def modes(self) -> list[str]:
        return [device.mode for device in self.every.values() if device.kind == "gpu"]

    def put(self, mode: str) -> None:
        for device in self.every.values():
            device.mode = device.staged = mode


class SimRun:
    """A run of the module."""

    def __init__(self, site: Site, number: int, job: Job) -> None:
        self.site, self.number, self.job = site, number, job
        self.open_asked = self.closed = self.dead = self.over = False
        self.is_writing = False
        self.found: dict[str, str] = {}
        site.time.later(PLAN_S if job.is_change else READ_S, self._plan if job.is_change else self._read)

    # what the controller does

    def open_gate(self) -> None:
        self.open_asked = True
        self.site.time.later(LATENCY_S, self._stage)

    def close_gate(self) -> None:
        self.closed = True
        self.site.time.later(LATENCY_S, self._gate_closed)

    def kill(self) -> None:
        """By the CC manager: the processes end soon, and that is told."""
        self.closed = True
        if not self.stuck:
            self.site.time.later(LATENCY_S, self._killed)

    def die(self) -> None:
        """With the pod: nothing is told, and nothing is held any more."""
        self.dead = True
        self.is_writing = False

    # what the module does

    def _killed(self) -> None:
        self.dead = False  # what hung is told of all the same
        self._end({"msg": "The playbook gave no answer: canceled"}, failed=True)
        self.die()

    def _end(self, result: dict[str, Any], failed: bool = False) -> None:
        if not self.dead and not self.over:
            self.over = True
            self.is_writing = False
            if not failed:
                self.site.read_since = self.site.run_began[self.number]
            self.site.put(RunEnded(self.number, result, failed))

    def _fail(self, kind: str, text: str = "") -> None:
        words = text or f"{kind} happened."
        error = {"kind": kind, "cause": words, "remedy": "Mend it.", "seen": {}}
        self._end({"msg": f"{words} Mend it.", "error": error, "devices": self._entries()}, failed=True)

    def _read(self) -> None:
        devices = self.site.devices
        if "read" in devices.fail:
            return self._fail(devices.fail["read"])
        entries = []
        for one in devices.every.values():
            hidden = bool(one.held_by or one.broken or one.use_unknown)
            cause = one.broken or one.use_unknown or f"In use: {one.held_by}."
            problem = {"kind": "", "cause": cause, "remedy": "See to it."} if hidden else None
            entries.append(
                {
                    "address": one.address,
                    "kind": one.kind,
                    "name": one.name,
                    "supported_modes": [] if hidden else list(one.supported),
                    "mode": None if hidden else one.mode if one.supported else "unsupported",
                    "pending_mode": None if hidden else one.staged,
                    "in_use": bool(one.held_by),
                    "use": "unknown" if one.use_unknown else "used" if one.held_by else "free",
                    "settings_unproven": False,
                    "problem": problem,
                }
            )
        host = {"tdx": {"value": devices.host}, "sev_snp": {"value": "unknown"}}
        return self._end({"devices": entries, "host": host})

    def _wanted(self) -> dict[str, str]:
        """As the module: a mode for all, or for those named."""
        if self.job.modes:
            return dict(self.job.modes)
        mode = str(self.job.mode)
        every = self.site.devices.every.values()
        return {one.address: mode if one.kind == "gpu" or mode == "ppcie" else "off" for one in every}

    def _plan(self) -> None:
        if self.closed or self.dead:
            return None
        devices, wanted = self.site.devices, self._wanted()
        chosen = [devices.every[address] for address in wanted]
        unknown = [one for one in chosen if one.use_unknown]
        if unknown:
            return self._fail("NotPermitted", unknown[0].use_unknown)
        held = [one for one in chosen if one.held_by]
        if held and self.site.time.now() < self.site.run_began[self.number] + self.job.busy_timeout_s:
            return self.site.time.later(0.5, self._plan)
        if held:
            return self._fail("DeviceBusy", f"In use: {held[0].held_by}.")
        self.found = {one.address: one.mode for one in chosen}  # a device in use is not read
        if "plan" in devices.fail:
            return self._fail(devices.fail["plan"])
        if any(one.broken for one in chosen):
            return self._fail("DeviceGone", next(one.broken for one in chosen if one.broken))
        if all(one.mode == one.staged == wanted[one.address] for one in chosen):
            return self._end({"devices": self._entries()})
        return self.site.put(RunPlanned(self.number))

    def _gate_closed(self) -> None:
        if not self.open_asked:
            self._fail("GateClosed", "The gate did not open.")

    def _stage(self) -> None:
        if self.dead or self.over:
            return None
        wanted = self._wanted()
        chosen = [self.site.devices.every[address] for address in wanted]
        held = [one for one in chosen if one.held_by]
        if held:
            return self._fail("DeviceBusy", f"In use: {held[0].held_by}.")
        self.is_writing = True
        self.site.check_write("stage", self)
        if "stage" in self.site.devices.fail:
            return self._fail(self.site.devices.fail["stage"])
        for device in chosen:
            self.site.cut_point(f"stage {device.address}")
            self.wrote = True
            device.staged = wanted[device.address]
        return self.site.time.later(STAGE_S, self._reset)

    def _reset(self) -> None:
        if self.dead or self.over:
            return
        self.site.check_write("reset", self)
        wanted = self._wanted()
        for address in wanted:
            device = self.site.devices.every[address]
            if device.mode != device.staged:
                self.site.cut_point(f"reset {address}")
                device.mode = device.staged
                device.resets += 1
        self.site.time.later(self.site.boot_s, self._verify)

    def _verify(self) -> None:
        if self.dead or self.over:
            return
        self.site.cut_point("verify")
        if "boot" in self.site.devices.fail:
            self.unread = True
            self._fail(self.site.devices.fail["boot"])
            return
        self._end({"devices": self.answers(self._entries())})

    unread = wrote = stuck = False
    answers: Callable[[list[dict[str, Any]]], Any] = staticmethod(lambda entries: entries)  # what is told instead
    tampered = False  # somebody unpaused a component himself after the gate had opened

    def _entries(self) -> list[dict[str, Any]]:
        every = self.site.devices.every
        return [
            {
                "address": address,
                "kind": every[address].kind,
                "name": every[address].name,
                "supported_modes": list(every[address].supported),
                "mode_before": None if every[address].broken else self.found.get(address, "off"),
                "mode_after": None if self.unread or every[address].broken else every[address].mode,
                "staged": self.wrote,
                "reset": self.wrote,
                "seconds": {"stage": 0.1, "reset": 0.1, "boot": 2.0} if self.wrote else {},
            }
            for address in self._wanted()
            if address in every and self.found  # a run that refused before it read anything has nothing to tell
        ]


class SimWatch:
    """A watch of pods."""

    def __init__(self, site: Site, everywhere: bool) -> None:
        self._site, self._everywhere, self._ended = site, everywhere, False
        self.deaf = False  # no change is heard any more
        site.store.listeners.append(self._changed)
        self._list()

    def _list(self) -> None:
        path = "/api/v1/pods" if self._everywhere else f"/api/v1/namespaces/{self._site.watched_namespace}/pods"
        try:
            self._site.store.asked("list", path)
        except Refusal as refusal:
            if refusal.status == 403:
                self._site.put(PodsSeen(self, self._everywhere, denied=refusal.message))
            else:
                self._site.time.later(1.0, self._list)
            return
        self._path = path
        self._tell()

    def _tell(self) -> None:
        if not self._ended and not self.deaf:
            found, _version = self._site.store.list(self._path, {"spec.nodeName": NODE})
            self._site.put(PodsSeen(self, self._everywhere, tuple(Pod.of(one) for one in found)))

    def _changed(self, change: Change) -> None:
        if change.collection.endswith("/pods") and hasattr(self, "_path"):
            self._site.time.later(LATENCY_S, self._tell)

    def end(self) -> None:
        self._ended = True


class SimCluster:
    """The requests, on the store. An answer can get lost after the request was carried out."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def _ask(self, verb: str, path: str, body: Any, work: Callable[[], Any]) -> Any:
        site = self._site
        site.cut_point(f"before {verb} {path}")
        try:
            site.store.asked(verb, path, body)
            answer = work()
        except Refusal as refusal:
            raise ApiError(refusal.status, refusal.message, refusal.retry_after_s) from refusal
        site.cut_point(f"after {verb} {path}")
        if site.lose_answers:
            site.lose_answers -= 1
            raise ApiError(0, "the answer got lost")
        return answer

    def _list(self, path: str) -> tuple[Pod, ...]:
        listed, _version = self._ask("list", path, None, lambda: self._site.store.list(path, {"spec.nodeName": NODE}))
        return tuple(Pod.of(one) for one in listed)

    def pods(self) -> tuple[Pod, ...]:
        return self._list("/api/v1/pods")

    def components_pods(self) -> tuple[Pod, ...]:
        return self._list(f"/api/v1/namespaces/{self._site.watched_namespace}/pods")

    def node(self) -> Node:
        return Node.of(self._ask("get", f"{NODES}/{NODE}", None, lambda: self._site.store.get(NODES, NODE)))

    def patch(self, patch: Patch, resource_version: str | None = None) -> Node:
        body = patch.body(resource_version)
        made = self._ask("patch", f"{NODES}/{NODE}", body, lambda: self._site.store.patch(NODES, NODE, body))
        return Node.of({"metadata": made["metadata"]})  # the answer is of metadata only

    def evict(self, pod: Pod) -> None:
        collection = f"/api/v1/namespaces/{pod.namespace}/pods"

        def ends() -> None:
            self._site.store.patch(collection, pod.name, {"metadata": {"deletionTimestamp": "now"}})
            self._site.time.later(1.0, gone)

        def gone() -> None:
            with contextlib.suppress(Refusal):  # somebody may have been quicker
                self._site.store.delete(collection, pod.name)

        self._ask("create", f"{collection}/{pod.name}/eviction", None, ends)

    def event(self, kind: str, reason: str, message: str) -> None:
        self._ask(
            "create",
            "/api/v1/namespaces/default/events",
            {"type": kind, "reason": reason, "message": message},
            lambda: None,
        )


class SimReadiness:
    """The readiness file. It outlives the process."""

    def __init__(self) -> None:
        self.there = True  # a stale one

    def write(self) -> None:
        self.there = True

    def remove(self) -> None:
        self.there = False


class Site:
    """The node with its CC manager."""

    def __init__(self, *arguments: str, labels: dict[str, str] | None = None, grace_s: float = 1.0) -> None:
        self.time = Time()
        self.store = Store()
        self.devices = Devices()
        self.readiness = SimReadiness()
        self.violations: list[str] = []
        self.lose_answers = 0
        self.boot_s = BOOT_S
        self.deaf = False  # the watch of the node tells nothing
        self.read_since: float | None = None  # when the last run began that has brought each device's answer
        self.retry, self.retry_since = "", 0.0  # the retry annotation, and since when it stands
        self.marked_at: float | None = None  # the node says since then that a change is under way
        self.watched_namespace = "gpu-operator"
        self.cut_at: int | None = None
        self.cut_points: list[str] = []
        self.numbers = itertools.count(1)
        self.run_began: dict[int, float] = {}
        self.runs: list[SimRun] = []
        self.watches: list[SimWatch] = []
        every = {PREFIX + name: "true" for name in COMPONENTS} if labels is None else labels
        self.store.create(NODES, new_node(NODE, **every))
        self.daemon_sets = DaemonSets(self.store, NODE, grace_s, self.time.later)
        self.store.listeners.append(self._changed)
        self.settings = settings.parse(
            ["--node-name", NODE, "--cc-manager-retry-delay", "10", *arguments], {"OPERATOR_NAMESPACE": "gpu-operator"}
        )
        self.inbox: list[Message] = []
        self.controller: Controller | None = None
        self.boot = "first"
        self.begin()

    # --- the process --------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start a CC manager."""
        self.inbox.clear()
        self.metrics = CCManagerMetrics()
        audit_folder = self.settings.audit_folder
        self.controller = Controller(
            self.settings,
            SimCluster(self),
            self,
            self.watch,
            self.readiness,
            self.metrics,
            self.time.now,
            self.boot,
            audit=Audit(audit_folder, NODE, self.boot) if audit_folder else None,
        )
        self._tell_node(fresh=True)

    def start(self, job: Job) -> SimRun:
        """The runner."""
        number = next(self.numbers)
        self.run_began[number] = self.time.now()
        self.runs.append(SimRun(self, number, job))
        return self.runs[-1]

    def watch(self, everywhere: bool) -> SimWatch:
        """Start a watch of pods."""
        self.watches.append(SimWatch(self, everywhere))
        return self.watches[-1]

    def kill(self) -> None:
        """kill -9 of the pod: the controller and its run are gone."""
        self.controller = None
        for run in self.runs:
            run.die()

    def cut_point(self, name: str) -> None:
        """A place at which the process may die."""
        self.cut_points.append(name)
        if self.cut_at == len(self.cut_points):
            raise Killed(name)

    # --- time ---------------------------------------------------------------------------------------------------------

    def put(self, message: Message) -> None:
        self.inbox.append(message)

    def _changed(self, change: Change) -> None:
        if change.collection == NODES:
            marked = CHANGING in change.found["metadata"].get("annotations", {})
            self.marked_at = (self.time.now() if self.marked_at is None else self.marked_at) if marked else None
            self.check_state()
            self.check_retried()
            self.time.later(LATENCY_S, self._tell_node)

    def _tell_node(self, fresh: bool = False) -> None:
        if self.deaf:
            return
        self.put(NodeSeen(Node.of({"metadata": self.store.get(NODES, NODE)["metadata"]}), fresh))

    def tell_fresh(self) -> None:
        """The watch of the node begins again, with a list."""
        self._tell_node(fresh=True)

    def tell_gone(self) -> None:
        """The watch does not find the node."""
        self.put(NodeSeen(None, fresh=True))

    def tell_pods(self, watch: SimWatch, everywhere: bool, pods: tuple[Pod, ...]) -> None:
        """A watch of pods tells what may be old."""
        self.put(PodsSeen(watch, everywhere, pods))

    def run(self, seconds: float) -> None:
        """Let that much time pass."""
        end = self.time.now() + seconds
        while True:
            try:
                delay = self._work()
                moments = [end, self.time.next_moment, None if delay is None else self.time.now() + delay]
                moment = min(one for one in moments if one is not None)
                self.time.go_to(moment)
            except Killed:
                self.cut_at = None
                self.kill()
                self.begin()
                continue
            if moment >= end and not self.inbox:
                self._work()
                return

    def _work(self) -> float | None:
        if self.controller is None or self.controller.stopped:
            self.inbox.clear()
            return None
        while True:
            delay = self.controller.act()
            if not self.inbox:
                return delay
            self.controller.handle(self.inbox.pop(0))

    def until(self, condition: Callable[[], bool], timeout_s: float = 60) -> float:
        """Run until something holds; the seconds it took."""
        began = self.time.now()
        while not condition():
            if self.time.now() - began > timeout_s:
                raise AssertionError(f"not within {timeout_s} s: {self.labels} {self.annotations}")
            self.run(0.05 if self.time.now() - began < 10 else 0.5)
        return self.time.now() - began

    # --- what tests do and see ----------------------------------------------------------------------------------------

    @property
    def metadata(self) -> dict[str, Any]:
        return dict(self.store.get(NODES, NODE)["metadata"])

    @property
    def labels(self) -> dict[str, str]:
        return dict(self.metadata["labels"])

    @property
    def annotations(self) -> dict[str, str]:
        return dict(self.metadata.get("annotations") or {})

    @property
    def state(self) -> str | None:
        return self.labels.get(STATE)

    @property
    def reason(self) -> str:
        return self.annotations.get(REASON, "")

    def label(self, **values: str | None) -> None:
        """Set labels: mode= for the request, a component's name with underscores for its label."""
        names = {"mode": MODE}
        patch = {names.get(key, PREFIX + key.replace("_", "-")): value for key, value in values.items()}
        self.store.patch(NODES, NODE, {"metadata": {"labels": patch}})

    def annotate(self, **values: str | None) -> None:
        """Set annotations of the user: wanted= for single devices, retry= for another attempt."""
        names = {"wanted": WANTED, "retry": RETRY}
        patch = {names[key]: value for key, value in values.items()}
        self.store.patch(NODES, NODE, {"metadata": {"annotations": patch}})

    def request(self, mode: str, timeout_s: float = 60) -> float:
        """Set the label and wait for the state."""
        self.label(mode=mode)
        return self.until(lambda: self.state == mode, timeout_s)

    def stop(self) -> None:
        """SIGTERM."""
        self.put(StopAsked(self.time.now()))

    def components(self) -> dict[str, str]:
        """The labels of the components."""
        return {key[len(PREFIX) :]: value for key, value in self.labels.items() if key.startswith(PREFIX)}

    def component_pods(self) -> list[str]:
        return [pod["metadata"]["name"] for name in DAEMON_SETS for pod in self.daemon_sets.pods(name)]

    def asked(self, verb: str, part: str = "") -> list[Request]:
        """The requests of a kind."""
        return [one for one in self.store.requests if one.verb == verb and part in one.path]

    def events(self) -> list[dict[str, str]]:
        return [one.body for one in self.asked("create", "/events")]

    def deny(self, verb: str, part: str, status: int = 403, retry_after_s: float = 0.0) -> None:
        """Let such requests be refused from now on."""

        def before(request: Request) -> None:
            if request.verb == verb and part in request.path:
                raise Refusal(status, f"{verb} {request.path} is forbidden", retry_after_s)

        self.store.before = before

    def allow(self) -> None:
        self.store.before = lambda request: None

    def component(self, name: str, value: str | None) -> None:
        """A user sets the label of a component."""
        for run in self.runs:
            run.tampered = run.tampered or (run.open_asked and not run.over)
        self.label(**{name.replace("-", "_"): value})

    def check_state(self) -> None:
        """Whenever the node changes: a mode that it names is the devices'."""
        labels = self.labels
        _state, _found, others = self.reason.partition("The state is not that of")  # those are named
        gpus = (device for device in self.devices.every.values() if device.kind == "gpu")
        modes = {device.mode for device in gpus if device.address not in others}
        if labels.get(STATE) in ALL_MODES and modes != {labels[STATE]}:
            self.violations.append(f"the node says {labels[STATE]} and the devices are {modes}")
        if labels.get(READY) == "true" and not modes <= {"on", "ppcie"}:
            self.violations.append(f"the node says ready and the devices are {modes}")
        for address, mode in self.told_modes().items():
            device = self.devices.every.get(address)
            actual = None if device is None else device.mode if device.supported else "unsupported"
            if mode is not None and mode != actual:
                self.violations.append(f"the node says that {address} is {mode}, and it is {actual}")

    def check_retried(self) -> None:
        """Whenever the node changes: a retry is not called answered by what was read before it."""
        asked = self.annotations.get(RETRY, "")
        if asked != self.retry:
            self.retry, self.retry_since = asked, self.time.now()
        elif asked and self.annotations.get(RETRIED) == asked and (self.read_since or 0.0) < self.retry_since:
            self.violations.append(f"the node says that {asked!r} is answered, and the devices were read before it")

    def told_modes(self) -> dict[str, str | None]:
        """The modes in the annotation, those that a process wrote."""
        try:
            entries = json.loads(self.annotations.get(DEVICES, "{}"))
            return {address: entry["mode"] for address, entry in entries.items() if entry.get("boot") == self.boot}
        except (ValueError, AttributeError, KeyError):
            return {}

    def check_write(self, step: str, run: SimRun) -> None:
        """At each write to devices."""
        pods = self.component_pods()
        evicts = self.settings.evict_operator_components
        if pods and evicts and not run.tampered:
            self.violations.append(f"{step} while {pods} run")
        for device in (self.devices.every[address] for address in run.found):
            if device.held_by:
                self.violations.append(f"{step} while {device.address} is held by {device.held_by}")
        if self.labels.get(READY) not in ("", None) or self.labels.get(STATE) not in ("", None):
            self.violations.append(f"{step} while the node says {self.state}, ready {self.labels.get(READY)!r}")
        if any(self.told_modes().values()):
            self.violations.append(f"{step} while the node says {self.told_modes()}")
        if self.marked_at is None or self.time.now() < self.marked_at + NOTICED_S:
            self.violations.append(f"{step} before those who offer GPUs can have taken notice")
        if self.readiness.there:
            self.violations.append(f"{step} while the readiness file is there")
