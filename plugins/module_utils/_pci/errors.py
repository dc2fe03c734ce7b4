# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What can keep a driver from being bound or taken away. The tree is that of ``_gpu.errors``."""

from __future__ import annotations

from .._gpu.errors import DeviceBusy, GpuError


class DeviceAbsent(GpuError):
    """The kernel lists no such PCI device."""


class DriverNotLoaded(GpuError):
    """The kernel has no PCI driver of that name."""


class BindRefused(GpuError):
    """The kernel or the driver refused to bind or to let go."""


class NoIommuGroup(BindRefused):
    """A vfio driver takes only devices that an IOMMU isolates."""


class GroupShared(GpuError):
    """The IOMMU group holds a function that the host needs."""


class HostDriverInUse(DeviceBusy):
    """The host itself uses the device through a GPU driver."""
