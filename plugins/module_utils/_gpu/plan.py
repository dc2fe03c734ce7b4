# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Wanted and found in, steps out. Nothing here reaches a device.

The same plan is shown by check mode and diff, and carried out by a real run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Iterator, Mapping, NamedTuple, Optional, Sequence

from .._core.errors import ExplainedError, InvalidRequest, raise_all
from .devices import Found
from .errors import FirmwareTooOld, UnknownDevice, Unsupported
from .families import Family, lacking, staging
from .mode import MODES, NVSWITCH, OFF, ON, PPCIE, UNSEEN_IN_FORCE, Knob

if TYPE_CHECKING:
    from .._core.answers import Diff, PlanStep


class Write(NamedTuple):
    """One knob to store."""

    knob: Knob
    before: int
    after: int


class DevicePlan(NamedTuple):
    """What one device needs to be in its wanted mode."""

    address: str
    found: str
    wanted: str
    writes: tuple[Write, ...]
    reset: bool
    reset_pending: bool = False

    @property
    def stores_unseen(self) -> bool:
        """True when a knob is written whose value in force no register shows."""
        return any(write.knob in UNSEEN_IN_FORCE for write in self.writes)

    @property
    def is_change(self) -> bool:
        """True when the device has to be touched."""
        return bool(self.writes) or self.reset

    def steps(self) -> list[PlanStep]:
        """The steps in order, as plain data."""
        steps: list[PlanStep] = [
            {
                "device": self.address,
                "step": "stage",
                "knob": write.knob.name,
                "before": write.before,
                "after": write.after,
            }
            for write in self.writes
        ]
        if self.reset:
            steps.append({"device": self.address, "step": "reset"})
            steps.append({"device": self.address, "step": "verify", "mode": self.wanted})
        return steps


class Plan(NamedTuple):
    """What a host's devices need."""

    devices: tuple[DevicePlan, ...]

    @property
    def is_change(self) -> bool:
        """True when any device has to be touched."""
        return any(device.is_change for device in self.devices)

    @property
    def moves_ppcie(self) -> bool:
        """True when a device enters or leaves ppcie."""
        return any(
            (device.reset or device.reset_pending) and (device.found == PPCIE) != (device.wanted == PPCIE)
            for device in self.devices
        )

    def steps(self) -> list[PlanStep]:
        """Every step, all staging before the first reset, as plain data."""
        every = [step for device in self.devices for step in device.steps()]
        return [step for name in ("stage", "reset", "verify") for step in every if step["step"] == name]

    def diff(self) -> Diff:
        """The modes and knobs that change, before and after, for Ansible's diff."""
        return {
            "before": "".join(_lines(device, after=False) for device in self.devices),
            "after": "".join(_lines(device, after=True) for device in self.devices),
        }


def _lines(device: DevicePlan, after: bool) -> str:
    mode = device.wanted if after and (device.reset or not device.reset_pending) else device.found
    lines = "%s: %s%s\n" % (device.address, mode, " (reset pending)" if after and device.reset_pending else "")
    for write in device.writes:
        lines += "%s knob %s: %d\n" % (device.address, write.knob.name, write.after if after else write.before)
    return lines


def assign(found: Sequence[Found], mode: Optional[str], modes: Mapping[str, str]) -> dict[str, str]:
    """The wanted mode of each device.

    ``mode`` is for all of them, or ``modes`` maps addresses to modes. NVSwitches know no CC modes: beside GPUs that
    get one they are taken out of ppcie. Raises Unsupported naming every device that cannot do what is asked.
    """
    wanted = dict(modes) if mode is None else {one.address: mode for one in found}
    alone = mode is not None and not any(one.kind != NVSWITCH for one in found)
    if mode is not None and not alone:
        for one in found:
            if one.kind == NVSWITCH and mode != PPCIE:
                wanted[one.address] = OFF
    raise_all([error for one in found for error in _refusals(one, wanted.get(one.address))])
    return {one.address: wanted[one.address] for one in found if one.address in wanted}


def _refusals(one: Found, wanted: Optional[str]) -> list[ExplainedError]:
    if one.problem is not None:
        return [one.problem]
    if wanted is None or wanted in one.supported:
        return []
    if wanted not in MODES:
        return [
            InvalidRequest(
                "%s: %r is not a mode." % (one.address, wanted), "Use one of %s." % ", ".join(MODES), device=one.address
            )
        ]
    missing = lacking(one.family, wanted, one.unknown_knobs) if one.family and wanted in one.family.modes else ()
    if missing:
        return [
            FirmwareTooOld(
                "%s (%s): the firmware is too old for %s: it answers %s with FSP error 0x1e3, invalid knob."
                % (one.address, one.name, wanted, " and ".join("the knob %s (%d)" % (k.name, k) for k in missing)),
                "Update the firmware of this device, or choose another mode.",
                device=one.address,
                rpc_code=0x1E3,
                knobs=[knob.name for knob in missing],
            )
        ]
    return [
        Unsupported(
            "%s (%s): the device cannot do the mode %s; it supports %s."
            % (one.address, one.name or "unknown", wanted, ", ".join(one.supported) or "no mode"),
            "Leave it out with the option devices, or choose a mode that every device supports.",
            device=one.address,
            supported=list(one.supported),
        )
    ]


def make(
    found: Sequence[Found],
    wanted: Mapping[str, str],
    reset: bool = True,
    unproven: Optional[Mapping[str, str]] = None,
) -> Plan:
    """The plan that takes each found device to its wanted mode; ``reset`` false only stages.

    ``unproven`` are the devices on which settings were stored that no register shows, with their modes at that time:
    one that is still in that mode may not have been reset since.
    """
    noted = unproven or {}
    chosen = [one for one in found if one.address in wanted]
    return Plan(tuple(_plan(one, wanted[one.address], reset, noted.get(one.address) == one.mode) for one in chosen))


def _plan(one: Found, wanted: str, reset: bool, unproven: bool) -> DevicePlan:
    if one.family is None or one.mode is None:
        raise ValueError("%s has not been read" % one.address)
    writes = tuple(_writes(one, one.family, wanted))
    in_doubt = unproven or any(write.knob in UNSEEN_IN_FORCE for write in writes)
    needed = one.mode != wanted or (in_doubt and wanted in (ON, PPCIE))
    return DevicePlan(one.address, one.mode, wanted, writes, needed and reset, needed and not reset)


def _writes(one: Found, family: Family, wanted: str) -> Iterator[Write]:
    for knob, value in staging(family, wanted):
        before = one.knobs.get(knob)
        if before is None and (value or knob not in family.optional):
            raise ValueError("%s: the knob %s is needed and has not been read" % (one.address, knob.name))
        if before is not None and before != value:
            yield Write(knob, before, value)


def check_fabric(plan: Plan, fabric: Sequence[Found]) -> None:
    """Raise InvalidRequest when the plan leaves an NVLink fabric partly in ppcie.

    ``fabric`` is every device of the host. Only NVSwitches make devices one fabric; without them each GPU stands alone.
    """
    members = [one for one in fabric if PPCIE in one.supported]
    unread = [one for one in fabric if one.problem and not isinstance(one.problem, UnknownDevice)]
    if not unread and not any(one.kind == NVSWITCH for one in members):
        return  # what cannot be read may be a switch
    wanted = {device.address: device.wanted for device in plan.devices}
    after = {one.address: wanted.get(one.address, one.mode) for one in members}
    inside = sorted(address for address, mode in after.items() if mode == PPCIE)
    outside = sorted(set(after) - set(inside))
    if inside:  # a device that cannot be read cannot be shown to follow; leaving ppcie needs no such proof
        raise_all([one.problem for one in unread if one.problem])
    if inside and outside:
        raise InvalidRequest(
            "ppcie is a mode of the whole NVLink fabric, but %s would be in it and %s would not."
            % (", ".join(inside), ", ".join(outside)),
            "Ask for the same of every GPU and NVSwitch of this host: leave devices out, or name all of them.",
            inside=inside,
            outside=outside,
        )
