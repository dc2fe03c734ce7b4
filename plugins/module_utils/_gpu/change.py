# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""A mode change from the request to the verified mode, and what is said about it.

Everything that can refuse comes before the first write: the request, the lock, holders, the device's health,
capability, in-band permission and the way to reset, of all devices.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Callable, Mapping, NamedTuple, Optional, Sequence

from .._core import lock
from .._core.errors import ExplainedError, InvalidRequest, raise_all
from .._core.parallel import each
from .._core.wait import SYSTEM_CLOCK, Clock, poll
from .._pci.bus import Bus, Function, parse_address
from .._pci.errors import DeviceBusy
from .._pci.use import FREE, Claims, refuse_unless_free
from . import admin_tools
from .apply import Change
from .devices import Device, Found, opened, read_all
from .errors import PlanOutdated
from .gate import Gate
from .mode import MODES
from .plan import DevicePlan, Plan, assign, check_fabric, make
from .roster import Lost, Roster, check_named, none_found
from .unproven import Unproven

if TYPE_CHECKING:
    from .._core.answers import BoundDevice, ChangedDevice, ChangeResult, DescribedDevice

REFUSE = "refuse"
WAIT = "wait"
HOLDER_POLL_S = 0.5


class Request(NamedTuple):
    """What is wanted. ``mode`` for every device, or ``modes`` from address to mode."""

    mode: Optional[str] = None
    modes: Mapping[str, str] = MappingProxyType({})
    devices: Sequence[str] = ()
    busy: str = REFUSE
    busy_timeout_s: float = 300
    boot_timeout_s: float = 30
    reset: bool = True

    def checked(self) -> Request:
        """The same with full addresses. Raises InvalidRequest."""
        if (self.mode is None) == (not self.modes):
            raise InvalidRequest("Neither or both of mode and modes are given.", "Give one of them.")
        modes: dict[str, str] = {}
        for address, mode in self.modes.items():
            full = parse_address(address)
            if full in modes:
                raise InvalidRequest("modes names %s twice." % full, "Name each device once.", device=full)
            modes[full] = mode
        for mode in [self.mode] if self.mode is not None else modes.values():
            if mode not in MODES:
                raise InvalidRequest("%r is not a mode." % (mode,), "Use one of %s." % ", ".join(MODES), value=mode)
        devices = [parse_address(address) for address in self.devices]
        strangers = sorted(set(modes) - set(devices)) if devices else []
        if strangers:
            raise InvalidRequest(
                "modes names %s, which devices leaves out." % ", ".join(strangers),
                "Leave out devices: modes already says which devices to act on.",
            )
        checked_seconds("busy_timeout", self.busy_timeout_s)
        checked_seconds("boot_timeout", self.boot_timeout_s)
        return Request(
            self.mode,
            modes,
            list(dict.fromkeys(devices)) or list(modes),
            self.busy,
            self.busy_timeout_s,
            self.boot_timeout_s,
            self.reset,
        )


class ModeChange:
    """One run. ``result`` can be asked at any time, also after an error."""

    def __init__(
        self,
        request: Request,
        bus: Bus,
        tools_path: Optional[str] = None,
        root: str = "/",
        clock: Clock = SYSTEM_CLOCK,
        gate: Optional[Gate] = None,
        before_writing: Callable[[], None] = lambda: None,
    ) -> None:
        self._gate = gate
        self._before_writing = before_writing
        self._request = request.checked()
        self._bus = bus
        self._tools_path = tools_path
        self._root = root
        self._clock = clock
        self._found: list[Found] = []
        self._bindings: dict[str, BoundDevice] = {}
        self._unproven = Unproven(bus.lock_path())
        self._lost: list[Lost] = []
        self.untested_tool = ""  # the version of gpu-admin-tools, where it is newer than the tested release
        self.present: list[str] = []
        self._plan: Optional[Plan] = None
        self._change: Optional[Change] = None

    def run(self, only_plan: bool = False) -> None:
        """Bring the devices into the wanted modes, or only find out what that would take. Raises GpuErrors."""
        tools = admin_tools.load(self._tools_path)
        self.untested_tool = "" if tools.is_tested else tools.version
        roster = Roster(self._bus, self._root, self._clock)
        present = roster.present
        self.present = [function.address for function in present]
        chosen = roster.chosen(self._request.devices)
        wait_s = self._request.busy_timeout_s if self._request.busy == WAIT else 0
        deadline = self._clock.now() + wait_s
        with lock.held(self._bus.lock_path(), wait_s, self._clock), Claims(self._root) as claims:
            roster.note()
            self._lost = roster.lost()
            if not self._request.devices:
                raise_all([lost.problem for lost in self._lost])
            try:
                self._wait_until_free(claims, chosen, deadline - self._clock.now())
                self._change_devices(claims, tools, present, chosen, only_plan)
            finally:
                for function in present:
                    function.close()  # some are opened only to see whether they are free

    def _change_devices(
        self,
        claims: Claims,
        tools: admin_tools.AdminTools,
        present: Sequence[Function],
        chosen: Sequence[Function],
        only_plan: bool,
    ) -> None:
        with opened(chosen, tools, claims, self._clock) as devices:
            self._check_kind(devices)
            plan = self._make_plan(devices)
            self._check_fabric(claims, plan, [one for one in present if one not in chosen], tools)
            self._prepare(plan, devices, claims).check()
            if only_plan or not plan.is_change:
                return
            if self._gate is None:
                self._carry_out(claims, chosen)
                return
        self._pass_gate(self._gate, plan, claims, chosen)
        with opened(chosen, tools, claims, self._clock) as devices:
            outcomes = each(devices, lambda device: _unchanged(device, self._found_of(device.address)))
            raise_all([outcome.error for outcome in outcomes if outcome.error is not None])
            self._prepare(plan, devices, claims)
            self._carry_out(claims, chosen)

    def _prepare(self, plan: Plan, devices: Sequence[Device], claims: Claims) -> Change:
        def taken() -> list[str]:
            uses = claims.take([device.function for device in devices])
            return [address for address, use in uses.items() if use.state != FREE]

        by_address = {device.address: device for device in devices}
        self._change = Change(plan, by_address, self._unproven, self._request.boot_timeout_s, self._clock, taken)
        return self._change

    def _carry_out(self, claims: Claims, functions: Sequence[Function]) -> None:
        change = self._change
        if change is None:
            raise RuntimeError("there is nothing to carry out")
        self._before_writing()
        change.stage()
        try:  # a virtual machine may have started while knobs were staged
            refuse_unless_free(claims.take(functions))
        except ExplainedError as error:
            error.state = change.roll_back()
            raise
        change.reset()

    def _wait_until_free(self, claims: Claims, functions: Sequence[Function], wait_s: float) -> None:
        """Return when nobody uses the functions. Raises DeviceBusy after ``wait_s`` seconds; NotPermitted."""
        seen: list[ExplainedError] = []

        def free() -> bool:
            seen[:] = self._busy(claims, functions)
            return not seen

        try:
            poll(free, wait_s, HOLDER_POLL_S, self._clock)
        except TimeoutError:
            raise_all(seen)

    def _busy(self, claims: Claims, functions: Sequence[Function]) -> list[ExplainedError]:
        """Who uses them. Raises NotPermitted where it is not known: waiting would not tell."""
        try:
            refuse_unless_free(claims.take(functions))
        except DeviceBusy as error:
            return [error]
        outcomes = each(functions, lambda function: function.open())
        return [outcome.error for outcome in outcomes if isinstance(outcome.error, DeviceBusy)]

    def _check_kind(self, devices: list[Device]) -> None:
        """What a socket serves is known only now: refuse what was named and is not NVIDIA's."""
        check_named(self._request.devices, [device.address for device in devices])
        if not devices:
            raise none_found(self._bus.name)

    def _make_plan(self, devices: list[Device]) -> Plan:
        self._found = read_all(devices, self._request.boot_timeout_s, self._clock)
        self._bindings = {device.address: binding(device.function) for device in devices}
        wanted = assign(self._found, self._request.mode, self._request.modes)
        self._plan = make(self._found, wanted, self._request.reset, self._unproven.modes())
        return self._plan

    def _check_fabric(
        self, claims: Claims, plan: Plan, others: Sequence[Function], tools: admin_tools.AdminTools
    ) -> None:
        """A change of ppcie concerns the devices that were not chosen, too: they are read, if nobody uses them."""
        if not plan.moves_ppcie:
            return
        raise_all(self._busy(claims, others))
        with opened(others, tools, claims, self._clock) as devices:
            found = read_all(devices, self._request.boot_timeout_s, self._clock)
            lost = [Found(one.address, one.kind, 0, problem=one.problem) for one in self._lost]
            check_fabric(plan, [*self._found, *found, *lost])

    def _pass_gate(self, gate: Gate, plan: Plan, claims: Claims, functions: Sequence[Function]) -> None:
        """Wait until the first write is allowed, then ask again who uses the devices: time has passed.

        Nothing is open or claimed meanwhile: whoever is asked to let go of the devices may have to unbind them, and a
        group that was taken apart and made again is another one.
        """
        claims.release()
        gate.wait({"devices": [described(found) for found in self._found], "plan": plan.steps()})
        refuse_unless_free(claims.take(functions))

    def _found_of(self, address: str) -> Optional[str]:
        return next((found.mode for found in self._found if found.address == address), None)

    @property
    def lost(self) -> dict[str, str]:
        """Address to kind of the devices that were there earlier in this boot of the host, and no longer are."""
        return {one.address: one.kind for one in self._lost}

    @property
    def desired(self) -> dict[str, str]:
        """Address to mode, of the devices that the plan is about."""
        return {plan.address: plan.wanted for plan in self._plan.devices} if self._plan else {}

    @property
    def is_change(self) -> bool:
        """True when the plan has a step."""
        return self._plan is not None and self._plan.is_change

    def touched(self) -> bool:
        """True when a device was reset, or has settings that were stored and not put back."""
        done = self._change.done.values() if self._change else []
        return any(one.staged or one.was_reset for one in done)

    def result(self, only_plan: bool = False) -> ChangeResult:
        """``devices``, ``plan`` and ``diff`` as plain data; what has not been read is None."""
        plans = {plan.address: plan for plan in self._plan.devices} if self._plan else {}
        return {
            "devices": [self._device_result(found, plans.get(found.address), only_plan) for found in self._found],
            "plan": self._plan.steps() if self._plan else [],
            "diff": self._plan.diff() if self._plan else {"before": "", "after": ""},
        }

    def _device_result(self, found: Found, plan: Optional[DevicePlan], only_plan: bool) -> ChangedDevice:
        done = self._change.done.get(found.address) if self._change else None
        after = found.mode
        if plan is not None and only_plan and plan.reset:
            after = plan.wanted
        elif done is not None and not only_plan:
            after = done.mode or None
        return {
            **described(found),
            **self._bindings[found.address],
            "mode_before": found.mode,
            "mode_after": after,
            "staged": bool(plan.writes) if only_plan and plan else bool(done and done.staged),
            "reset": bool(plan.reset) if only_plan and plan else bool(done and done.was_reset),
            "reset_pending": bool((plan and plan.reset_pending) or (done and done.staged and not done.was_reset)),
            "seconds": {name: round(value, 3) for name, value in (done.seconds if done else {}).items()},
        }


def _unchanged(device: Device, mode: Optional[str]) -> None:
    if device.problem is not None:
        raise device.problem
    now = device.mode()
    if now != mode:
        raise PlanOutdated(
            "%s: the mode was %s when the plan was made, and now it is %s." % (device.address, mode, now),
            "Nothing was written. Run again.",
            device=device.address,
            before=mode,
            now=now,
        )


def described(found: Found) -> DescribedDevice:
    """What a device is, as plain data."""
    return {
        "address": found.address,
        "kind": found.kind,
        "name": found.name,
        "chip": found.chip,
        "supported_modes": list(found.supported),
    }


def binding(function: Function) -> BoundDevice:
    """Who can give the function to a virtual machine, as plain data: its driver and its IOMMU group."""
    return {"driver": function.driver(), "iommu_group": function.iommu_group()}


def checked_seconds(name: str, seconds: float) -> float:
    """The same seconds. Raises InvalidRequest for what is not a number, negative or endless."""
    if not 0 <= seconds < float("inf"):
        raise InvalidRequest("%s is %r." % (name, seconds), "Give seconds, 0 or more.")
    return seconds
