# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""A driver that is wanted and one that is there in, steps out. Nothing here reaches a device.

The order of the steps lets a run that is killed between two of them be finished by the next one: the override is set
before the old driver goes and cleared after, so a device that is on its way can be told from one that was left alone.
The functions of a group take each step together.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Optional, Sequence

BOUND = "bound"
UNBOUND = "unbound"
DEFAULT = "default"
STATES = (BOUND, UNBOUND, DEFAULT)

OVERRIDE = "override"
UNBIND = "unbind"
PROBE = "probe"


class Seen(NamedTuple):
    """What the kernel says about one function's driver."""

    driver: Optional[str]
    override: Optional[str]


class Step(NamedTuple):
    """One write: the override to set (None clears it), the driver to take away, or a probe."""

    name: str
    value: Optional[str] = None


class DevicePlan(NamedTuple):
    """What one function needs."""

    address: str
    seen: Seen
    state: str
    wanted: Optional[str]  # the driver that has to be there after; with DEFAULT the kernel's own choice
    steps: tuple[Step, ...]

    @property
    def is_change(self) -> bool:
        """True when the function's driver or override changes for sure. A probe alone may find nothing."""
        return any(step.name != PROBE for step in self.steps) or (bool(self.steps) and self.state == BOUND)

    def after(self) -> Seen:
        """What is there after; with DEFAULT the driver cannot be known before the kernel has chosen."""
        overrides = [step.value for step in self.steps if step.name == OVERRIDE]
        if self.state == DEFAULT:
            return Seen(None if self.steps else self.seen.driver, overrides[-1] if overrides else self.seen.override)
        return Seen(self.wanted, overrides[-1] if overrides else self.seen.override)

    def as_data(self, step: Step) -> dict[str, Any]:
        """One of the steps as plain data."""
        data: dict[str, Any] = {"device": self.address, "step": step.name}
        if step.name == OVERRIDE:
            data.update(before=self.seen.override, after=step.value)
        elif step.name == UNBIND:
            data.update(driver=step.value)
        return data


def make(address: str, seen: Seen, state: str, driver: str) -> DevicePlan:
    """The steps from what is seen to the state."""
    steps: list[Step] = []
    wanted: Optional[str] = None
    if state == BOUND:
        wanted = driver
        if seen.driver != driver:
            steps += [Step(OVERRIDE, driver)] if seen.override != driver else []
            steps += [Step(UNBIND, seen.driver)] if seen.driver else []
            steps += [Step(PROBE)]
    elif state == UNBOUND:
        steps += [Step(UNBIND, seen.driver)] if seen.driver else []
        steps += [Step(OVERRIDE, None)] if seen.override else []
    elif seen.override:
        steps += [Step(UNBIND, seen.driver)] if seen.driver else []
        steps += [Step(OVERRIDE, None), Step(PROBE)]
    elif seen.driver is None:
        steps += [Step(PROBE)]  # an earlier run may have been killed right before it
    return DevicePlan(address, seen, state, wanted, tuple(steps))


def ordered(plans: Sequence[DevicePlan]) -> list[tuple[DevicePlan, Step]]:
    """The steps of functions that move together, of one state: none is bound before all are free."""
    bound = any(plan.state == BOUND for plan in plans)
    names = (OVERRIDE, UNBIND, PROBE) if bound else (UNBIND, OVERRIDE, PROBE)
    return [(plan, step) for name in names for plan in plans for step in plan.steps if step.name == name]


class Plan(NamedTuple):
    """What all functions need, by what moves together; ``load`` is the driver that has to be loaded first."""

    groups: tuple[tuple[DevicePlan, ...], ...] = ()
    load: Optional[str] = None

    @property
    def devices(self) -> list[DevicePlan]:
        """All of them, by address."""
        return sorted((device for group in self.groups for device in group), key=lambda device: device.address)

    @property
    def is_change(self) -> bool:
        """True when anything changes for sure."""
        return self.load is not None or any(device.is_change for device in self.devices)

    def steps(self) -> list[dict[str, Any]]:
        """Every step in order, as plain data."""
        load: list[dict[str, Any]] = [{"step": "load", "driver": self.load}] if self.load else []
        return load + [step for group in self.groups for step in _as_data(group)]

    def diff(self) -> dict[str, str]:
        """Drivers and overrides before and after, for Ansible's diff."""
        changing = [device for device in self.devices if device.is_change]
        return {
            "before": _lines([(device, device.seen) for device in changing]),
            "after": ("driver %s: loaded\n" % self.load if self.load else "")
            + _lines([(device, device.after()) for device in changing]),
        }


def _as_data(group: Sequence[DevicePlan]) -> list[dict[str, Any]]:
    """The steps of what moves together as plain data, with the reading back that ends them."""
    verified = [plan for plan in group if plan.steps and plan.state != DEFAULT]
    return [plan.as_data(step) for plan, step in ordered(group)] + [
        {"device": plan.address, "step": "verify", "driver": plan.wanted} for plan in verified
    ]


def _lines(devices: Sequence[tuple[DevicePlan, Seen]]) -> str:
    text = ""
    for device, seen in devices:
        chosen = device.state == DEFAULT and seen is not device.seen
        driver = "the kernel's choice" if chosen else seen.driver or "none"
        text += "%s: driver %s, driver_override %s\n" % (device.address, driver, seen.override or "none")
    return text
