# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""A plan carried out: stage everywhere, reset everywhere, wait for boot everywhere, verify each.

Knobs are persistent and a reset reads them, so a run that ends half-way leaves each device either in its old mode or
on the way to the wanted one; the next run reads what is there and plans the rest.
"""

from __future__ import annotations

import contextlib
from typing import Callable, Collection, Mapping, Sequence

from .._core.errors import ExplainedError, VerifyMismatch, raise_all
from .._core.parallel import each
from .._core.wait import SYSTEM_CLOCK, Clock
from .._pci.errors import ResetFailed
from .._pci.sysfs import no_reset_method
from .devices import Device
from .errors import KnobRefused
from .plan import DevicePlan, Plan, Write
from .unproven import Unproven


class Done:
    """What became of one device."""

    def __init__(self, address: str, mode: str) -> None:
        self.address = address
        self.staged = False
        self.was_reset = False
        self.mode = mode
        self.seconds: dict[str, float] = {}
        self.rolled_back: list[str] = []


class Change:
    """One plan and the open devices that it is for.

    ``taken`` tells which devices are no longer free: asked before anything is put back, because these are others'.
    """

    def __init__(
        self,
        plan: Plan,
        devices: Mapping[str, Device],
        unproven: Unproven,
        boot_timeout_s: float,
        clock: Clock = SYSTEM_CLOCK,
        taken: Callable[[], Collection[str]] = tuple,
    ) -> None:
        self._taken = taken
        self._everyone = plan.devices
        self._plans = [device for device in plan.devices if device.is_change]
        self._devices = devices
        self._unproven = unproven
        self._boot_timeout_s = boot_timeout_s
        self._clock = clock
        self._written: dict[str, list[Write]] = {plan.address: [] for plan in self._plans}
        self._newly_unproven: frozenset[str] = frozenset()
        self.done = {device.address: Done(device.address, device.found) for device in plan.devices}

    def check(self) -> None:
        """Raise KnobRefused or ResetUnavailable for every device that would refuse a step; nothing is written."""
        outcomes = each(self._plans, self._refusals)
        raise_all([error for one in outcomes for error in ([one.error] if one.error is not None else one.answer or [])])

    def _refusals(self, plan: DevicePlan) -> list[ExplainedError]:
        device = self._devices[plan.address]
        refusals = [error for write in plan.writes for error in _refused_in_band(device, write)]
        if plan.reset and device.function.reset_method() is None:
            refusals.append(no_reset_method(plan.address))
        return refusals

    def stage(self) -> None:
        """Write the knobs of all devices; when one fails, put back those of every device and raise."""
        noted = self._unproven.modes()
        unseen = {plan.address: plan.found for plan in self._plans if plan.stores_unseen}
        self._newly_unproven = frozenset(address for address, mode in unseen.items() if noted.get(address) != mode)
        self._unproven.add(unseen)
        for done in self.done.values():
            done.mode = ""  # unknown from here on, until it is read back
        outcomes = each(self._plans, lambda plan: self._stage(plan, self._written[plan.address]))
        errors = [outcome.error for outcome in outcomes if outcome.error is not None]
        if errors:
            notes = self.roll_back()
            for error in errors:
                error.state = notes
            raise_all(errors)

    def _stage(self, plan: DevicePlan, written: list[Write]) -> None:
        start = self._clock.now()
        tool = self._devices[plan.address].tool
        done = self.done[plan.address]
        done.staged = bool(plan.writes)  # before the first attempt: an answer can be lost after the knob was stored
        for write in plan.writes:
            written.append(write)
            tool.write_knob(write.knob, write.after)
        done.seconds["stage"] = self._clock.now() - start

    def roll_back(self) -> str:
        """Put every staged knob back, newest first, and say so in a sentence; devices that are taken are left alone."""
        in_use = self._taken()
        touched = [plan for plan in self._plans if self._written[plan.address]]
        outcomes = each([plan for plan in touched if plan.address not in in_use], self._roll_back)
        back = ["%s: %s" % (o.item.address, ", ".join(o.answer)) for o in outcomes if o.answer]
        stuck = ["%s (%s)" % (outcome.item.address, outcome.error.cause) for outcome in outcomes if outcome.error]
        stuck += ["%s (in use)" % plan.address for plan in touched if plan.address in in_use]
        self._unproven.remove(self._newly_unproven & {o.item.address for o in outcomes if o.error is None})
        each([plan for plan in self._everyone if plan not in touched and plan.address not in in_use], self._read_back)
        notes = "Rolled back on %s." % "; ".join(back) if back else "Nothing had been staged."
        if stuck:
            notes = "%sThe staged knobs of %s could not be put back: run again with the mode that is wanted." % (
                notes + " " if back else "",
                "; ".join(stuck),
            )
        return notes

    def _roll_back(self, plan: DevicePlan) -> list[str]:
        tool = self._devices[plan.address].tool
        done = self.done[plan.address]
        for write in reversed(self._written[plan.address]):
            if tool.read_knob(write.knob) != write.before:
                tool.write_knob(write.knob, write.before)
                done.rolled_back.append(write.knob.name)
        done.staged = False
        self._read_back(plan)
        return done.rolled_back

    def reset(self) -> None:
        """Reset, wait for boot and verify all devices that need it, and read the others back.

        Raises the errors of those that fail, when all have ended.
        """
        resets = [plan for plan in self._plans if plan.reset]
        outcomes = [
            *each(resets, self._reset),
            *each([plan for plan in self._everyone if plan not in resets], self._verify),
        ]
        self._unproven.remove(address for address, done in self.done.items() if done.was_reset)
        raise_all([outcome.error for outcome in outcomes if outcome.error is not None])

    def _verify(self, plan: DevicePlan) -> None:
        """A device that was not reset is as it was found: a reset of others may have taken it along."""
        device = self._devices[plan.address]
        device.wait_for_boot(self._boot_timeout_s, self._clock)
        seen = self._read_back(plan)
        if seen != plan.found:
            raise _mismatch(device, plan.found, seen, "without a reset of its own")

    def _read_back(self, plan: DevicePlan) -> str:
        done = self.done[plan.address]
        done.mode = self._devices[plan.address].mode()
        return done.mode

    def _reset(self, plan: DevicePlan) -> None:
        device, done = self._devices[plan.address], self.done[plan.address]
        start = self._clock.now()
        try:
            took_effect = device.tool.reset()
        except ResetFailed:
            with contextlib.suppress(ExplainedError):
                self._read_back(plan)
            raise
        done.was_reset = took_effect is not False
        done.seconds["reset"] = self._clock.now() - start
        start = self._clock.now()
        device.wait_for_boot(self._boot_timeout_s, self._clock)
        done.seconds["boot"] = self._clock.now() - start
        self._read_back(plan)
        if done.mode != plan.wanted:
            raise _mismatch(device, plan.wanted, done.mode, "after the reset")
        if not done.was_reset and plan.found == plan.wanted:
            raise _no_effect(device)
        done.was_reset = True  # the mode changed, whatever the scratch register says


def _refused_in_band(device: Device, write: Write) -> Sequence[ExplainedError]:
    if device.tool.read_knob(write.knob.allow_in_band) != 0:
        return []
    return [
        KnobRefused(
            "%s: the knob %s (%d) may not be changed in band: its permission, knob %d, is 0."
            % (device.address, write.knob.name, write.knob, write.knob.allow_in_band),
            "Allow it out of band, through the board's management controller (BMC).",
            device=device.address,
            knob=write.knob.name,
        )
    ]


def _no_effect(device: Device) -> ExplainedError:
    """For a reset that only the scratch register can prove, because the mode is the same before and after."""
    return ResetFailed(
        "%s: the reset had no effect: a scratch register that every reset clears kept its value." % device.address,
        "Look at reset_method of the device and at the kernel's log; power-cycle the host.",
        device=device.address,
    )


def _mismatch(device: Device, wanted: str, seen: str, when: str) -> ExplainedError:
    register, value = device.tool.mode_register()
    return VerifyMismatch(
        "%s: the mode is %s %s, not %s (register 0x%x = 0x%x)." % (device.address, seen, when, wanted, register, value),
        "Run again; if it stays, power-cycle the host and update the device's firmware.",
        device=device.address,
        register=register,
        value=value,
        wanted=wanted,
        found=seen,
    )
