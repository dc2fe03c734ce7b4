# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Give PCI functions to a driver, take them away from it, or leave them to the kernel's choice; and say what was done.

Everything that can refuse comes before the first write: the request, the devices, the driver, the IOMMU groups, users.
The functions of a group move together, and none of them is bound before all are free: at no moment the host's driver
has one of them and vfio another, and a driver that comes back to a GPU finds the rest of its card back, too.
"""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path
from typing import Any, ContextManager, Mapping, Optional, Sequence

from .._core import lock
from .._core.errors import ExplainedError, NotPermitted, raise_all
from .._core.wait import SYSTEM_CLOCK, Clock, poll
from . import kernel as running
from .bus import parse_address
from .errors import DeviceAbsent, DeviceBusy, DriverNotLoaded, GroupShared, HostDriverInUse, NoIommuGroup
from .functions import PciFunction, choose, find
from .kernel import Kernel
from .moves import DRIVERS, Mover, seen
from .plan import BOUND, DEFAULT, UNBIND, DevicePlan, Plan, make, ordered
from .request import WAIT, Request
from .sharing import Group, companions, host_use, is_main, needs_word
from .sysfs import SysfsBus
from .use import FREE, VFIO_DRIVERS, Claims, Holder, Use, refuse_unless_free

HOLDER_POLL_S = 0.5
HOST_DRIVERS = ("nvidia", "nouveau")
NO_IOMMU = "sys/module/vfio/parameters/enable_unsafe_noiommu_mode"


class Binding:
    """One run. ``result`` can be asked at any time, also after an error."""

    def __init__(
        self, request: Request, root: str = "/", kernel: Optional[Kernel] = None, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        request.check()
        self._request = request
        self.root = Path(root)
        self._kernel = kernel or Kernel()
        self._mover = Mover(self.root, self._kernel, clock, request.driver, request.state, request.timeout_s)
        self._clock = clock
        self._functions: list[PciFunction] = []
        self._group = Group()
        self._chosen: Sequence[PciFunction] = ()
        self._plan = Plan()
        self._loaded = False
        self._only_plan = True

    def run(self, only_plan: bool = False) -> None:
        """Bring the devices to the state, or only find out what that would take. Raises GpuErrors."""
        self._only_plan = only_plan
        present = find(self.root)
        self._chosen = choose(present, self._request.devices, self._request.match)
        if self._request.whole_group:
            self._group = self._companions(present)
        self._functions = sorted([*self._chosen, *self._group.added], key=lambda function: function.address)
        self._plan = self._make_plan()
        self._check_loaded()
        self._check_shared()
        self._check_isolated()
        wait_s = self._request.busy_timeout_s if self._request.busy == WAIT else 0
        with self._lock(only_plan, wait_s):
            self._wait_until_free(wait_s)
            self._plan = self._make_plan()  # waiting may have changed what there is
            self._check_shared()
            if only_plan:
                return
            self._load()
            errors = []
            brought = [(members, self._bring(members)) for members in self._together()]
            for members, found in brought:
                errors += found or [error for function in members for error in self._lost(function)]
        raise_all(errors)

    def _companions(self, present: Sequence[PciFunction]) -> Group:
        group = companions(present, self._chosen, self._named())
        if self._request.state != DEFAULT:
            return group
        # What has a driver of the host's has nothing to be given back, and what has none may be on its way there.
        others = [*group.added, *group.left]
        return Group(tuple(one for one in others if one not in self._unasked(others)), group.bridges)

    def _named(self) -> list[str]:
        return [parse_address(address) for address in self._request.companions]

    def _unasked(self, added: Sequence[PciFunction]) -> list[PciFunction]:
        return [one for one in added if one.address not in self._named() and needs_word(one, self._chosen)]

    def _together(self) -> list[list[PciFunction]]:
        """The functions by IOMMU group, companions first, GPUs and NVSwitches last."""
        groups: dict[object, list[PciFunction]] = {}
        for function in sorted(self._functions, key=lambda one: (is_main(one), one.address)):
            number = function.iommu_group()
            groups.setdefault(function.address if number is None else number, []).append(function)
        return sorted(groups.values(), key=lambda members: min(one.address for one in members))

    def _lock(self, only_plan: bool, wait_s: float) -> ContextManager[None]:
        # Only a run that writes keeps others away: a plan needs no rights.
        path = SysfsBus(str(self.root)).lock_path()
        return contextlib.nullcontext() if only_plan else lock.held(path, wait_s, self._clock)

    # What there is, and what refuses

    def _make_plan(self) -> Plan:
        groups = [tuple(self._plan_of(function) for function in members) for members in self._together()]
        return Plan(tuple(groups), self._to_load())

    def _plan_of(self, function: PciFunction) -> DevicePlan:
        return make(function.address, seen(function), self._request.state, self._request.driver)

    def _to_load(self) -> Optional[str]:
        return self._request.driver if self._request.state == BOUND and not self._has_driver() else None

    def _check_loaded(self) -> None:
        if self._plan.load is not None and not self._request.load:
            raise self._not_loaded("")

    def _has_driver(self) -> bool:
        return (self.root / DRIVERS / self._request.driver).is_dir()

    def _not_loaded(self, words: str) -> DriverNotLoaded:
        driver = self._request.driver
        return DriverNotLoaded(
            "The kernel has no PCI driver %s%s." % (driver, ": %s" % words if words else ""),
            "Load it with modprobe %s, or with load: true; install it if this kernel's modules lack it." % driver,
            driver=driver,
        )

    def _check_shared(self) -> None:
        """Nothing that the host runs from goes along unasked. Raises GroupShared."""
        changing = self._changing()
        needed = [one for one in self._unasked(self._group.added) if one in changing]
        if needed:
            words = "; ".join(
                "%s (%s, driver %s) in group %s"
                % (one.address, host_use(one) or "class %06x" % one.class_code, one.driver(), one.iommu_group())
                for one in needed
            )
            raise GroupShared(
                "An IOMMU group also holds what the host may need: %s." % words,
                "Enable ACS in the firmware's set-up or move the card, so that it gets a group of its own; name the "
                "function in companions (role vfio: vfio_companions) to give it away on purpose; or set "
                "whole_group: false.",
                functions=[one.address for one in needed],
            )

    def _check_isolated(self) -> None:
        if self._request.state != BOUND or self._request.driver not in VFIO_DRIVERS or self._no_iommu_allowed():
            return
        alone = [one.address for one in self._changing() if one.iommu_group() is None]
        if alone:
            raise NoIommuGroup(
                "%s has no IOMMU group: %s would refuse it with EINVAL." % (", ".join(alone), self._request.driver),
                "Enable the IOMMU (VT-d, AMD-Vi) in the firmware's set-up; on Intel boot with intel_iommu=on.",
                devices=alone,
                errno=errno.EINVAL,
            )

    def _no_iommu_allowed(self) -> bool:
        try:
            return (self.root / NO_IOMMU).read_text().strip() in ("Y", "1")
        except OSError:
            return False

    def _changing(self) -> list[PciFunction]:
        return [function for function in self._functions if self._plan_of(function).steps]

    def _wait_until_free(self, wait_s: float) -> None:
        """Return when nobody uses what is to be changed. Raises DeviceBusy after ``wait_s`` seconds."""
        held: list[ExplainedError] = []

        def free() -> bool:
            try:
                self._refuse_held(self._changing())
            except DeviceBusy as error:
                held[:] = [error]
                return False
            return True

        try:
            poll(free, wait_s, HOLDER_POLL_S, self._clock)
        except TimeoutError:
            raise_all(held)

    def _refuse_held(self, functions: Sequence[PciFunction]) -> None:
        with Claims(str(self.root), slot=False) as claims:
            uses = claims.take(functions)
        try:
            refuse_unless_free(uses)
        except (DeviceBusy, NotPermitted) as error:
            drivers = {function.address: function.driver() for function in functions}
            raise _through_host_driver(uses, drivers, error) from None

    # What is done

    def _load(self) -> None:
        if self._plan.load is None:
            return
        words = self._kernel.load(self._plan.load)
        if not self._has_driver():
            raise self._not_loaded(words)
        self._loaded = True

    def _bring(self, members: Sequence[PciFunction]) -> list[ExplainedError]:
        """Carry out the plans of functions that move together, made again: a driver just loaded may have taken some.

        All of them, or none: when one is refused, the others are put back. The errors.
        """
        by_address = {function.address: function for function in members}
        plans = [self._plan_of(function) for function in members]
        touched: list[DevicePlan] = []
        function = members[0]
        try:
            self._refuse_held([by_address[plan.address] for plan in plans if plan.steps])
            for plan, step in ordered(plans):
                function = by_address[plan.address]
                if step.name == UNBIND:
                    self._refuse_held([function])
                touched += [plan] if plan not in touched else []
                self._mover.do(function, step)
        except ExplainedError as error:
            found = error if function.path.exists() else self._gone(function)
            before = [(by_address[plan.address], plan.seen) for plan in touched]
            words = self._mover.put_back(before, lambda one: self._refuse_held([one]))
            found.state = "%s." % words if words else ""
            return [found]
        return []

    def _lost(self, function: PciFunction) -> list[ExplainedError]:
        """What became of a function while the others were brought: it is told as it is at the end."""
        if not function.path.exists():
            return [self._gone(function)]
        if self._request.state == BOUND and function.driver() != self._request.driver:
            return [self._mover.not_bound(function, "was bound, but somebody took it away again")]
        return []

    def _gone(self, function: PciFunction) -> ExplainedError:
        return DeviceAbsent(
            "%s: the device has gone from the bus during this run." % function.address,
            "See the kernel's log for a removal or a dead link; look for it again with echo 1 > /sys/bus/pci/rescan.",
            device=function.address,
        )

    # What is said

    @property
    def is_change(self) -> bool:
        """In a plan: that something would change. After a real run: that something did."""
        return self._plan.is_change if self._only_plan else self.touched()

    def touched(self) -> bool:
        """True when a driver or an override is not what it was before, also after a failed run."""
        before = {device.address: device.seen for device in self._plan.devices}
        return self._loaded or any(seen(one) != before[one.address] for one in self._functions)

    def result(self) -> dict[str, Any]:
        """``devices``, ``added``, ``bridges``, ``left``, ``driver``, ``plan`` and ``diff`` as plain data."""
        added = [function.address for function in self._group.added]
        plans = {device.address: device for device in self._plan.devices}
        return {
            "devices": [self._described(one, plans[one.address], added) for one in self._functions],
            "added": added,
            "bridges": [one.address for one in self._group.bridges],
            "left": [one.address for one in self._group.left],
            "driver": {
                "name": self._request.driver,
                "loaded": self._has_driver(),
                "built_in": running.built_in(self.root, self._request.driver),
            },
            "plan": self._plan.steps(),
            "diff": self._plan.diff(),
        }

    def _described(self, function: PciFunction, plan: DevicePlan, added: Sequence[str]) -> dict[str, Any]:
        after = plan.after() if self._only_plan else seen(function)
        return {
            "address": function.address,
            "id": function.id,
            "class": "%06x" % function.class_code,
            "group": function.iommu_group(),
            "added": function.address in added,
            "driver_before": plan.seen.driver,
            "driver_after": after.driver,
            "override_before": plan.seen.override,
            "override_after": after.override,
        }


def _through_host_driver(
    uses: Mapping[str, Use], drivers: Mapping[str, Optional[str]], error: ExplainedError
) -> ExplainedError:
    """The error; for devices that only the host's own GPU driver has, one that says how to get rid of it."""
    concerned = [use for use in uses.values() if use.state != FREE]
    if not all(drivers[use.address] in HOST_DRIVERS and all(map(_is_driver, use.holders)) for use in concerned):
        return error
    names = sorted({str(drivers[use.address]) for use in concerned})
    return HostDriverInUse(
        "The host may use the devices through %s. %s" % (" and ".join(names), error.cause),
        "Stop its users (nvidia-persistenced, nvidia-fabricmanager, dcgm, a display server) and unload the driver, or "
        "let the role vfio do it with vfio_remove_host_driver: true.",
        **error.seen,
        drivers=names,
    )


def _is_driver(holder: Holder) -> bool:
    return holder.pid == 0 or holder.file.startswith("/dev/nvidia")
