# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What can keep a PCI device from being found, reached, reset or bound. The root of the tree is in ``_core``."""

from __future__ import annotations

from .._core.errors import ExplainedError


class NoDevices(ExplainedError):
    """No NVIDIA GPU or NVSwitch was found."""


class DeviceGone(ExplainedError):
    """The device does not answer: fallen off the bus, or its server is gone."""


class Bar0Unreadable(ExplainedError):
    """The device's registers cannot be reached."""


class ResetUnavailable(ExplainedError):
    """There is no way to reset the device."""


class ResetFailed(ExplainedError):
    """The reset was tried and refused."""

    retryable = True


class DeviceBusy(ExplainedError):
    """Somebody uses the device."""

    retryable = True


class DeviceAbsent(ExplainedError):
    """The kernel lists no such PCI device."""


class DriverNotLoaded(ExplainedError):
    """The kernel has no PCI driver of that name."""


class BindRefused(ExplainedError):
    """The kernel or the driver refused to bind or to let go."""


class NoIommuGroup(BindRefused):
    """A vfio driver takes only devices that an IOMMU isolates."""


class GroupShared(ExplainedError):
    """The IOMMU group holds a function that the host needs."""


class HostDriverInUse(DeviceBusy):
    """The host itself uses the device through a GPU driver."""
