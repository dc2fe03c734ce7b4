# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Every interleaving of what can happen to one node, to a depth: a search in breadth over the real controller.

The node here is as small as can be: one device, one component with its pod, one pod of a guest. A state is what the
controller sees, what the cluster holds and what the device is; a state that was met before is not gone on from. After
each event the controller acts until it waits; each of its requests can be refused, lose its answer, or be its last.

Looked at in every state: both laws. From every state, once nothing happens any more: the node comes to rest within a
bounded number of requests, nothing stays paused or cordoned, and the newest request has won.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from cc_manager import settings
from cc_manager.controller import Controller
from cc_manager.desired import Desired
from cc_manager.messages import NodeSeen, PodsSeen, RunEnded, RunPlanned, StopAsked
from cc_manager.metrics import CCManagerMetrics
from cc_manager.node import Node, Patch
from cc_manager.pod import Pod
from cc_manager.reading import Reading
from cc_manager.run import Job
from cc_manager.seen import Seen
from kube.client import ApiError

MODE, STATE, READY = "nvidia.com/cc.mode", "nvidia.com/cc.mode.state", "nvidia.com/cc.ready.state"
CHANGING, DEVICES, RETRY = (f"nvidia.com/cc.mode.{name}" for name in ("changing", "devices", "retry"))
JOURNAL, CORDONED = "nvidia.com/cc.mode.journal", "nvidia.com/cc.mode.cordoned"
COMPONENT, PAUSED = "nvidia.com/gpu.deploy.vfio-manager", "paused-for-cc-mode-change"
OURS = (CHANGING, JOURNAL, CORDONED)
GPU = "0000:17:00.0"
MODES = ("off", "on", "devtools", "ppcie")
NONE, RUNS, ENDS = "none", "runs", "ends"
BOUND, HOLDS = "bound", "holds"
# What can become of a request: refused for a moment or for good, carried out and its answer lost, and the two ends.
BROKEN, FORBIDDEN, LOST, CUT_BEFORE, CUT_AFTER = "broken", "forbidden", "lost", "cut before", "cut after"
REQUESTS_MAX, QUIET_STEPS_MAX, AT_ONCE_MAX = 60, 300, 20
# Moments and ages of the controller, which count from now; what is older than this is simply old.
OLD_S = 2000.0
MOMENTS = {
    *(
        "now",
        "reading_due_at",
        "since",
        "opened_at",
        "abandoned_at",
        "killed_at",
        "paused_at",
        "at",
        "until",
        "retry_at",
    ),
    "stopping_since",
}


class Cut(BaseException):
    """The process is gone at this point."""


@dataclass
class ModuleRun:
    """A run of the module: reading, planning, gate, writing, resetting, verifying; then it has ended."""

    number: int
    job: Job
    phase: str
    since: float
    is_open: bool = False
    closed: bool = False
    killed: bool = False
    hangs: bool = False
    found: str = ""


@dataclass
class World:
    """All but the controller. ``left``: how often what may still happen."""

    left: dict[str, int]
    now: float = 1000.0
    version: int = 1
    labels: dict[str, str] = field(default_factory=lambda: {COMPONENT: "true"})
    annotations: dict[str, str] = field(default_factory=dict)
    cordoned: bool = False
    component: str = RUNS
    guest: str = NONE
    guests: int = 0
    mode: str = "off"
    staged: str = "off"
    run: ModuleRun | None = None
    runs: int = 0
    ready: bool = False
    node_news: bool = True
    pods_news: bool = False
    requests: int = 0
    violations: list[str] = field(default_factory=list)


class Token:
    """A watch of pods."""

    def __init__(self, port: Port, everywhere: bool) -> None:
        self.port, self.everywhere = port, everywhere

    def end(self) -> None:
        self.port.tokens.pop(self.everywhere, None)


class Handle:
    """The controller's side of a run."""

    def __init__(self, port: Port, number: int) -> None:
        self.port, self.number = port, number

    def _run(self) -> ModuleRun | None:
        run = self.port.world.run
        return run if run is not None and run.number == self.number else None

    def open_gate(self) -> None:
        run, world = self._run(), self.port.world
        if run is not None:
            run.is_open = True
        if world.guest != NONE:
            world.violations.append("the gate opens while a guest's pod is on the node")
        if world.labels.get(MODE) != (run and run.job.mode):
            world.violations.append("the gate opens for a request that is not the newest")

    def close_gate(self) -> None:
        run = self._run()
        if run is not None:
            run.closed = True

    def kill(self) -> None:
        run = self._run()
        if run is not None:
            run.closed = run.killed = True


class Port:
    """What the controller reaches: always the world that is looked at just now."""

    def __init__(self) -> None:
        self.world = World({})
        self.tokens: dict[bool, Token] = {}
        self.fault: tuple[int, str] | None = None
        self.count = 0

    def now(self) -> float:
        return self.world.now

    # --- requests

    def _ask(self, work: Callable[[], Any]) -> Any:
        self.count += 1
        self.world.requests += 1
        kind = self.fault[1] if self.fault is not None and self.fault[0] == self.count else ""
        if kind == CUT_BEFORE:
            raise Cut
        if kind in (BROKEN, FORBIDDEN):
            raise ApiError(500 if kind == BROKEN else 403, kind)
        answer = work()
        if kind == CUT_AFTER:
            raise Cut
        if kind == LOST:
            raise ApiError(0, "the answer got lost")
        return answer

    def _node(self) -> Node:
        world = self.world
        return Node("n", str(world.version), dict(world.labels), dict(world.annotations), world.cordoned)

    def node(self) -> Node:
        return self._ask(self._node)

    def patch(self, patch: Patch, resource_version: str | None = None) -> Node:
        def work() -> Node:
            if resource_version not in (None, str(self.world.version)):
                raise ApiError(409, "the node has changed")
            write(self.world, patch.labels, patch.annotations, patch.unschedulable)
            return replace(self._node(), unschedulable=False)

        return self._ask(work)

    def pods(self) -> tuple[Pod, ...]:
        return self._ask(lambda: pods_of(self.world))

    def components_pods(self) -> tuple[Pod, ...]:
        return self._ask(lambda: pods_of(self.world)[:1])

    def evict(self, pod: Pod) -> None:
        def work() -> None:
            if pod.uid == f"guest-{self.world.guests}" and self.world.guest in (BOUND, HOLDS):
                self.world.guest = NONE
                self.world.pods_news = True

        self._ask(work)

    def event(self, kind: str, reason: str, message: str) -> None:
        """Events are no part of the state."""

    # --- the rest

    def start(self, job: Job) -> Handle:
        world = self.world
        world.runs += 1
        world.run = ModuleRun(world.runs, job, "plan" if job.is_change else "read", world.now)
        return Handle(self, world.runs)

    def watch(self, everywhere: bool) -> Token:
        self.tokens[everywhere] = Token(self, everywhere)
        self.world.pods_news = True
        return self.tokens[everywhere]

    def write(self) -> None:
        self.world.ready = True

    def remove(self) -> None:
        self.world.ready = False


def pods_of(world: World) -> tuple[Pod, ...]:
    """The pods on the node: the component's first."""
    found = []
    if world.component != NONE:
        found.append(
            Pod(
                "gpu-operator",
                "vfio",
                "component",
                "Running",
                world.component == ENDS,
                daemon_set="nvidia-vfio-manager",
            )
        )
    if world.guest != NONE:
        found.append(Pod("tenant", "vm", f"guest-{world.guests}", "Running", resources=("nvidia.com/pgpu",)))
    return tuple(found)


def write(
    world: World,
    labels: Any,
    annotations: Any,
    cordoned: bool | None = None,
) -> None:
    """A merge patch of the node."""
    before = (dict(world.labels), dict(world.annotations), world.cordoned)
    for found, wanted in ((world.labels, labels), (world.annotations, annotations)):
        for key, value in wanted.items():
            if value is None:
                found.pop(key, None)
            else:
                found[key] = value
    world.cordoned = world.cordoned if cordoned is None else cordoned
    if (world.labels, world.annotations, world.cordoned) != before:
        world.version += 1
        world.node_news = True
    look(world)


def look(world: World) -> None:
    """Law 2: what the node says of modes is so."""
    state, ready = world.labels.get(STATE, ""), world.labels.get(READY, "")
    if state in MODES and state != world.mode:
        world.violations.append(f"the node says {state} and the device is {world.mode}")
    if ready == "true" and world.mode not in ("on", "ppcie"):
        world.violations.append(f"the node is ready and the device is {world.mode}")
    told = told_mode(world)
    if told not in (None, world.mode):
        world.violations.append(f"the annotation says {told} and the device is {world.mode}")


def told_mode(world: World) -> str | None:
    entry = json.loads(world.annotations.get(DEVICES, "{}")).get(GPU, {})
    return entry.get("mode")


def touch(world: World, what: str) -> None:
    """Law 1, and what has to stand before a device is touched."""
    if world.guest == HOLDS:
        world.violations.append(f"{what} of a device that a guest holds")
    if world.component != NONE:
        world.violations.append(f"{what} while the component's pod {world.component}")
    if world.labels.get(STATE) or world.labels.get(READY) or told_mode(world) or world.ready:
        world.violations.append(f"{what} while the node still tells a mode")


# --- one world with its controller ------------------------------------------------------------------------------------


class Both:
    """A world and the controller in it; can be copied."""

    def __init__(self, explorer: Explorer, world: World, controller: Controller, tokens: dict[bool, Token]) -> None:
        self.explorer, self.world, self.controller, self.tokens = explorer, world, controller, tokens
        self.wake_s: float | None = None  # when the controller wants to be called without anything new

    def clone(self) -> Both:
        """Another, with which nothing that changes is shared: what is seen is frozen, the port is that of all."""
        controller, world = copy.copy(self.controller), copy.copy(self.world)
        for one in (controller, world):
            for name, value in vars(one).items():
                if isinstance(value, dict | list | ModuleRun):
                    setattr(one, name, copy.copy(value))
        new = Both(self.explorer, world, controller, dict(self.tokens))
        new.wake_s = self.wake_s
        return new

    def enter(self) -> None:
        port = self.explorer.port
        port.world, port.tokens, port.fault, port.count = self.world, self.tokens, None, 0

    def begin(self) -> None:
        """A new process."""
        self.tokens.clear()
        self.enter()
        self.controller = self.explorer.new_controller()
        self.world.node_news = True

    def act(self, fault: tuple[int, str] | None) -> int:
        """Let the controller act; how many requests it made."""
        port = self.explorer.port
        port.fault, port.count = fault, 0
        try:
            self.wake_s = self.controller.act()
            if self.controller.stopped:
                self.world.run = None  # with its pod
        except Cut:
            made = port.count
            self.world.run = None  # its run ends with it
            self.begin()
            return made
        return port.count

    @property
    def rests(self) -> bool:
        """True when the controller waits for nothing but the moment of the next reading."""
        due_at = self.controller.seen.reading_due_at
        return self.wake_s is None or (due_at is not None and abs(self.world.now + self.wake_s - due_at) < 0.01)

    def key(self) -> int:
        """Equal for states that go on equally."""
        now, world, names = self.world.now, self.world, ("_stale", "_api_failures", "stopped", "_elsewhere_denied")
        seen, held = self.controller.seen, vars(self.controller)
        run, its = held["_run"], world.run
        return hash(
            (
                *(flat(getattr(seen, name), now, name) for name in SEEN if name not in ("now", "policy", "boot")),
                *(held[name] for name in names),
                max(0.0, round(held["_blocked_until"] - now, 1)),
                seen.node is not None and seen.node.resource_version == str(world.version),
                *(flat(world.labels, now), flat(world.annotations, now), world.cordoned, world.component),
                *(world.guest, world.mode, world.staged, world.ready, world.node_news, world.pods_news),
                *(flat(world.left, now), tuple(sorted(self.tokens))),
                its and (its.job.is_change, its.job.mode, its.phase, its.is_open, its.closed, its.killed, its.hangs),
                run is not None and its is not None and run.number == its.number,
            )
        )


def flat(value: Any, now: float, name: str = "") -> Any:
    """A value that can be hashed, without what does not matter: moments count from now, and nothing has versions."""
    if isinstance(value, float):
        return round(max(value - now, -OLD_S), 1) if name in MOMENTS else value
    if value is None or isinstance(value, str | bool | int | frozenset):
        return value
    if isinstance(value, dict):
        return tuple([(key, flat(value[key], now)) for key in sorted(value)])
    if isinstance(value, tuple):
        return tuple([flat(one, now) for one in value])
    if isinstance(value, Reading | Desired):  # without moments, and hashable as they are
        return value
    return tuple([flat(getattr(value, one), now, one) for one in fields_of(type(value))])  # type: ignore[arg-type]


@functools.cache
def fields_of(kind: type) -> tuple[str, ...]:
    return tuple(one.name for one in dataclasses.fields(kind) if one.name != "resource_version")


SEEN = tuple(one.name for one in dataclasses.fields(Seen))


# --- what can happen --------------------------------------------------------------------------------------------------

Event = tuple[str, Callable[[Both], None]]


def inner_events(both: Both) -> Iterator[Event]:
    """What goes on by itself: threads, the module, the kubelet."""
    world = both.world
    if world.node_news:
        yield "the node is told", tell_node
    if world.pods_news and both.tokens:
        yield "pods are told", tell_pods
    run = world.run
    if run is not None and (run.killed or (not run.hangs and (run.phase != "gate" or run.is_open or run.closed))):
        yield f"the run goes on ({run.phase})", go_on
    wanted = world.labels.get(COMPONENT) == "true"
    if (wanted and world.component == NONE) or (not wanted and world.component == RUNS) or world.component == ENDS:
        yield "the component's pod follows", pod_follows


def outer_events(both: Both) -> Iterator[Event]:
    """What comes from outside."""
    world = both.world
    if world.left["request"]:
        for mode in ("on", "off"):
            if world.labels.get(MODE) != mode:
                yield f"a request for {mode}", lambda one, mode=mode: request(one, mode)  # type: ignore[misc]
    if world.left["retry"] and RETRY not in world.annotations:
        yield "a retry is asked for", ask_again
    if world.left["guest"] and world.guest == NONE and not world.cordoned:
        yield "a guest's pod comes", guest_comes
    if world.guest == BOUND:
        yield "the guest takes the device", guest_takes
    if world.guest != NONE:
        yield "the guest goes", guest_goes
    if world.left["kill"]:
        yield "a kill", kill
    if world.left["stop"] and not both.controller.stopped and both.controller.seen.stopping_since is None:
        yield "a stop", stop
    if both.controller.stopped:
        yield "a start", kill_free
    run = world.run
    if run is not None and not run.hangs and world.left["device"]:
        yield "the run hangs", hang
        if run.phase == "verify":
            yield "the device does not boot", no_boot
    if both.wake_s is not None:
        yield "time passes", time_passes


def tell_node(both: Both) -> None:
    world = both.world
    world.node_news = False
    both.controller.handle(NodeSeen(Node("n", str(world.version), dict(world.labels), dict(world.annotations))))


def tell_pods(both: Both) -> None:
    both.world.pods_news = False
    every = pods_of(both.world)
    for everywhere, token in list(both.tokens.items()):
        pods = every if everywhere else tuple(pod for pod in every if pod.namespace == "gpu-operator")
        both.controller.handle(PodsSeen(token, everywhere, pods))


def entry(**more: Any) -> dict[str, Any]:
    return {"address": GPU, "kind": "gpu", "name": "H100", "supported_modes": list(MODES), **more}


def ended(both: Both, result: dict[str, Any], failed: bool) -> None:
    run, both.world.run = both.world.run, None
    assert run is not None
    both.controller.handle(RunEnded(run.number, result, failed))


def fail(both: Both, kind: str, entries: list[dict[str, Any]] | None = None) -> None:
    ended(both, {"msg": kind, "error": {"kind": kind, "seen": {}}, "devices": entries or []}, True)


def go_on(both: Both) -> None:
    """The module's next phase."""
    world = both.world
    run = world.run
    assert run is not None
    if run.killed:
        fail(both, "Run")
    elif run.phase == "read":
        held = world.guest == HOLDS
        problem = {"cause": "In use.", "remedy": "Stop it."} if held else None
        modes = {"mode": None if held else world.mode, "pending_mode": None if held else world.staged}
        more = {"in_use": held, "use": "used" if held else "free", "settings_unproven": False, "problem": problem}
        host = {"tdx": {"value": "yes"}, "sev_snp": {"value": "unknown"}}
        ended(both, {"devices": [entry(**modes, **more)], "host": host}, False)
    elif run.closed and not run.is_open:
        fail(both, "GateClosed")
    elif run.phase == "plan":
        run.found = world.mode
        if world.guest == HOLDS:
            fail(both, "DeviceBusy")
        elif world.mode == world.staged == run.job.mode:
            ended(both, {"devices": answer(world, run, world.mode, False)}, False)
        else:
            run.phase = "gate"
            both.controller.handle(RunPlanned(run.number))
    elif run.phase == "gate":
        if run.is_open:
            write_knobs(both, run)
    elif run.phase == "reset":
        touch(world, "a reset")
        world.mode = world.staged
        run.phase = "verify"
        look(world)
    else:
        ended(both, {"devices": answer(world, run, world.mode, True)}, False)


def write_knobs(both: Both, run: ModuleRun) -> None:
    world = both.world
    if world.guest == HOLDS:
        fail(both, "DeviceBusy", answer(world, run, world.mode, False))
        return
    touch(world, "a write")
    world.staged = str(run.job.mode)
    run.phase = "reset"


def answer(world: World, run: ModuleRun, mode: str | None, touched: bool) -> list[dict[str, Any]]:
    changed = {"staged": touched, "reset": touched, "seconds": {}}
    return [entry(mode_before=run.found, mode_after=mode, **changed)]


def pod_follows(both: Both) -> None:
    world = both.world
    if world.component == ENDS:
        world.component = NONE
    else:
        world.component = ENDS if world.component == RUNS else RUNS
    world.pods_news = True


def request(both: Both, mode: str) -> None:
    both.world.left["request"] -= 1
    write(both.world, {MODE: mode}, {})


def ask_again(both: Both) -> None:
    both.world.left["retry"] -= 1
    write(both.world, {}, {RETRY: "again"})


def guest_comes(both: Both) -> None:
    both.world.left["guest"] -= 1
    both.world.guests += 1
    both.world.guest, both.world.pods_news = BOUND, True


def guest_takes(both: Both) -> None:
    """Not while the module writes, which holds the device's group then."""
    run = both.world.run
    if run is None or run.phase not in ("reset", "verify"):
        both.world.guest = HOLDS


def guest_goes(both: Both) -> None:
    both.world.guest, both.world.pods_news = NONE, True


def kill_free(both: Both) -> None:
    both.world.run = None
    both.begin()


def kill(both: Both) -> None:
    both.world.left["kill"] -= 1
    kill_free(both)


def stop(both: Both) -> None:
    both.world.left["stop"] -= 1
    both.controller.handle(StopAsked(both.world.now))


def hang(both: Both) -> None:
    both.world.left["device"] -= 1
    assert both.world.run is not None
    both.world.run.hangs = True


def no_boot(both: Both) -> None:
    both.world.left["device"] -= 1
    run = both.world.run
    assert run is not None
    fail(both, "BootFailed", answer(both.world, run, None, True))


def time_passes(both: Both) -> None:
    assert both.wake_s is not None
    both.world.now += max(both.wake_s, 0.001)


# --- the search -------------------------------------------------------------------------------------------------------


@dataclass
class Found:
    """What a search has seen."""

    roots: int = 0
    states: int = 0
    transitions: int = 0
    depth: int = 0
    complete: bool = False
    wrong: list[str] = field(default_factory=list)


class Explorer:
    """Search in breadth, until a depth or a time is reached or something is wrong."""

    def __init__(self, *arguments: str, **left: int) -> None:
        options = ("--cc-manager-eviction-timeout", "60")
        self.settings = settings.parse(
            ["--node-name", "n", *options, *arguments], {"OPERATOR_NAMESPACE": "gpu-operator"}
        )
        self.port = Port()
        self.metrics = CCManagerMetrics()
        self.left = {"request": 2, "retry": 1, "guest": 1, "kill": 1, "stop": 1, "device": 1, "fault": 1, **left}
        self.quiet: dict[int, int] = {}

    def new_controller(self) -> Controller:
        port = self.port
        return Controller(*(self.settings, port, port, port.watch, port, self.metrics, port.now, "boot"), lambda: 1.0)

    def search(self, depth_max: int, seconds: float = 1e9) -> Found:
        """Every sequence of so many events from each state of a change that nothing disturbs."""
        logger = logging.getLogger("cc_manager")
        level = logger.level
        logger.setLevel(logging.CRITICAL + 1)  # each of the states would say something
        try:
            return self._search(depth_max, seconds)
        finally:
            logger.setLevel(level)

    def _search(self, depth_max: int, seconds: float) -> Found:
        ends, found = time.monotonic() + seconds, Found()
        frontier: list[tuple[Both, tuple[str, ...]]] = [(one, (name,)) for name, one in self.roots()]
        known = {one.key() for one, _path in frontier}
        found.roots = len(frontier)
        while frontier and found.depth < depth_max and not found.wrong:
            after: list[tuple[Both, tuple[str, ...]]] = []
            for both, path in frontier:
                if time.monotonic() > ends:
                    found.states = len(known)
                    return found
                for name, new in self.after(both):
                    found.transitions += 1
                    key = new.key()
                    if key in known and not new.world.violations:  # the way to a known state can be wrong
                        continue
                    known.add(key)
                    why = "; ".join(new.world.violations) or self.ends_badly(new)
                    if why:
                        found.wrong.append(f"{why}: {' > '.join((*path, name))}")
                        break
                    after.append((new, (*path, name)))
                if found.wrong:
                    break
            found.depth += not found.wrong
            frontier = after
        found.states, found.complete = len(known), not frontier
        return found

    def roots(self) -> Iterator[tuple[str, Both]]:
        """The states of a start, a change from off to on, and its end: with a quick module, and with a slow one."""
        for is_slow in (False, True):
            both = Both(self, World(dict(self.left)), None, {})  # type: ignore[arg-type]
            both.begin()
            both.act(None)
            yield "a start", both
            asked = False
            while True:
                both = both.clone()
                both.enter()
                events = sorted(inner_events(both), key=lambda event: is_slow and event[0].startswith("the run"))
                if events:
                    name, happen = events[0]
                    happen(both)
                elif not asked:
                    name, asked = "a request for on", True
                    write(both.world, {MODE: "on"}, {})
                else:
                    break
                both.act(None)
                yield f"a change, {name}", both

    def after(self, both: Both) -> Iterator[tuple[str, Both]]:
        """Each event, and with each the requests that follow it failing in each way."""
        for events in (inner_events, outer_events):
            for name, happen in events(both):
                new = self._step(both, happen, None)
                made = self.port.count
                yield name, new
                if not both.world.left["fault"]:
                    continue
                for number in range(1, made + 1):
                    for kind in (BROKEN, FORBIDDEN, LOST, CUT_BEFORE, CUT_AFTER):
                        yield f"{name}, request {number} {kind}", self._step(both, happen, (number, kind))

    def _step(self, both: Both, happen: Callable[[Both], None], fault: tuple[int, str] | None) -> Both:
        new = both.clone()
        new.enter()
        new.world.requests = 0
        happen(new)
        if fault is not None:
            new.world.left["fault"] -= 1
        made = new.act(fault) if not new.controller.stopped else 0
        if fault is not None and fault[1] in (CUT_BEFORE, CUT_AFTER):
            new.act(None)
        if made > AT_ONCE_MAX:
            new.world.violations.append(f"{made} requests without a pause")
        self.port.count = made
        return new

    def ends_badly(self, both: Both) -> str:
        """What is wrong once nothing comes from outside any more; empty: it comes to rest as it should."""
        one = both.clone()
        keys: list[Any] = []
        one.world.requests = 0
        for _number in range(QUIET_STEPS_MAX):
            key = one.key()
            known = self.quiet.get(key)
            if known is not None:
                return self._rested(keys, known, one.world.requests)
            keys.append((key, one.world.requests))
            one.enter()
            if one.world.guest != NONE:
                guest_goes(one)
            elif one.controller.stopped:
                kill_free(one)
            else:
                events = list(inner_events(one))
                if events:
                    events[0][1](one)
                else:
                    wrong = self._wrong_at_rest(one)
                    if one.rests and not wrong:
                        return self._rested(keys, 0, one.world.requests)
                    if one.wake_s is None:
                        return wrong
                    time_passes(one)
            one.act(None)
            if one.world.violations:
                return f"in quiet: {one.world.violations}"
        return "it does not come to rest"

    def _rested(self, keys: list[tuple[int, int]], more: int, requests: int) -> str:
        whole = requests + more
        for key, before in keys:
            self.quiet[key] = whole - before
        return "" if whole <= REQUESTS_MAX else f"{whole} requests until it rests"

    def _wrong_at_rest(self, both: Both) -> str:
        world = both.world
        facts = {
            "paused": (world.labels[COMPONENT], "true"),
            "cordoned": (world.cordoned, False),
            "left over": ([key for key in OURS if key in world.annotations], []),
            "state": (world.labels.get(STATE), world.labels.get(MODE, world.mode)),
            "mode": (world.mode, world.labels.get(MODE, world.mode)),
        }
        return "; ".join(f"{name}: {seen}, not {wanted}" for name, (seen, wanted) in facts.items() if seen != wanted)
