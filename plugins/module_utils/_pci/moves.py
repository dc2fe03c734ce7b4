# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The writes that give a PCI function to a driver and take it away, each seen to have its effect.

The kernel's interface (Documentation/ABI/testing/sysfs-bus-pci): ``driver_override`` names the only driver that may
bind; ``drivers/NAME/unbind`` takes a driver away; ``drivers_probe`` asks for a driver and does not say when none wanted
the device; ``drivers/NAME/bind`` says it, with the errno of the driver's probe.
"""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path
from typing import Callable, NamedTuple, Optional, Sequence

from .._core.errors import ExplainedError, NotPermitted, errno_words
from .._core.wait import Clock, poll
from .errors import BindRefused
from .functions import PciFunction
from .kernel import Kernel
from .plan import BOUND, OVERRIDE, UNBIND, Seen, Step

LINK_POLL_S = 0.02
DRIVERS = "sys/bus/pci/drivers"


def seen(function: PciFunction) -> Seen:
    """The driver and the override, as the kernel says now."""
    return Seen(function.driver(), function.driver_override())


class Mover(NamedTuple):
    """Carries out steps towards one driver and state."""

    root: Path
    kernel: Kernel
    clock: Clock
    driver: str
    state: str
    timeout_s: float

    def do(self, function: PciFunction, step: Step) -> None:
        """One step. Raises BindRefused, NotPermitted."""
        if step.name == OVERRIDE:
            self._override(function, step.value)
        elif step.name == UNBIND:
            self._unbind(function, str(step.value))
        elif self.state == BOUND:
            self._bind(function, self.driver)
        else:
            self._probe(function)

    def not_bound(self, function: PciFunction, why: str) -> BindRefused:
        """The error for a function that another driver has, or none."""
        return BindRefused(
            "%s: bound to %s, not to %s: %s." % (function.address, function.driver() or "no driver", self.driver, why),
            "See the kernel's log for the reason; raise timeout if the driver needs longer.",
            device=function.address,
            driver=function.driver(),
        )

    def put_back(self, touched: Sequence[tuple[PciFunction, Seen]], refuse_held: Callable[[PciFunction], None]) -> str:
        """Give functions that were on their way together their overrides and drivers back, as far as the kernel lets.

        As on the way there, none is bound before all are free. Where somebody has taken one of them meanwhile, none of
        the host's drivers gets another, and the next run goes on. Returns what each of them has now, in words.
        """
        mine = [(function, before) for function, before in touched if function.path.exists()]
        if self._free(mine, refuse_held):
            for function, before in mine:
                if function.driver_override() != before.override:
                    with contextlib.suppress(ExplainedError):
                        self._override(function, before.override)
            for function, before in mine:
                if before.driver is not None and function.driver() is None:
                    with contextlib.suppress(ExplainedError):
                        self._bind(function, before.driver)
        return "; ".join(_has_now(function) for function, _before in touched if function.path.exists())

    def _free(self, touched: Sequence[tuple[PciFunction, Seen]], refuse_held: Callable[[PciFunction], None]) -> bool:
        """Take away the drivers that this run has given; False where that must not or cannot be."""
        given = [one for one, before in touched if one.driver() not in (None, before.driver)]
        try:
            for function in given:
                refuse_held(function)
            for function in given:
                self._unbind(function, str(function.driver()))
        except ExplainedError:
            return False
        return True

    def _override(self, function: PciFunction, driver: Optional[str]) -> None:
        self._write(function, function.path / "driver_override", "%s\n" % (driver or ""))

    def _probe(self, function: PciFunction) -> None:
        self._write(function, self.root / "sys/bus/pci/drivers_probe", function.address)

    def _unbind(self, function: PciFunction, driver: str) -> None:
        try:
            self._write(function, self.root / DRIVERS / driver / "unbind", function.address)
        except BindRefused:
            if function.driver() is not None:
                raise
        try:
            poll(lambda: function.driver() is None, self.timeout_s, LINK_POLL_S, self.clock)
        except TimeoutError as error:
            raise BindRefused(
                "%s: still bound to %s %g s after it was unbound."
                % (function.address, function.driver(), self.timeout_s),
                "See the kernel's log; stop what uses the device, or raise timeout.",
                device=function.address,
                driver=function.driver(),
            ) from error

    def _bind(self, function: PciFunction, driver: str) -> None:
        self._probe(function)
        if function.driver() is None:
            try:
                self._write(function, self.root / DRIVERS / driver / "bind", function.address)
            except BindRefused:
                if function.driver() != driver:
                    raise
        try:
            poll(lambda: function.driver() == driver, self.timeout_s, LINK_POLL_S, self.clock)
        except TimeoutError as error:
            raise self.not_bound(function, "after %g s it had not changed" % self.timeout_s) from error

    def _write(self, function: PciFunction, path: Path, text: str) -> None:
        try:
            self.kernel.write(path, text)
        except OSError as error:
            raise self._refused(function, path, error) from error

    def _refused(self, function: PciFunction, path: Path, error: OSError) -> ExplainedError:
        words = errno_words(error)
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return NotPermitted(
                "%s: %s cannot be written: %s." % (function.address, path, words),
                "Run as root (become: true), in a container with /sys writable.",
                device=function.address,
                errno=error.errno,
            )
        remedies = {
            errno.EINVAL: "The driver does not take the device: for vfio it needs an IOMMU group (IOMMU on in firmware "
            "and kernel) and must not be a bridge.",
            errno.ENODEV: "The driver does not know the device, or the device has gone: see the kernel's log.",
            errno.EBUSY: "Somebody else holds the device or its memory; see the kernel's log.",
        }
        return BindRefused(
            "%s: writing %s was refused with %s." % (function.address, path, words),
            remedies.get(error.errno or 0, "See the kernel's log for the reason."),
            device=function.address,
            errno=error.errno,
            driver=self.driver,
        )


def _has_now(function: PciFunction) -> str:
    now = seen(function)
    return "%s now has driver %s and driver_override %s" % (
        function.address,
        now.driver or "none",
        now.override or "none",
    )
