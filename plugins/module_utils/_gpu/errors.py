# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What can keep a mode from being read or set. The root of the tree is in ``_errors``."""

from __future__ import annotations

import errno
import os
from typing import Sequence

from .._errors import ExplainedError


class GpuError(ExplainedError):
    """Something about a device, the tool or the request keeps a mode from being read or set."""


class InvalidRequest(GpuError):
    """The wish itself cannot be carried out; nothing was touched."""


class NoDevices(GpuError):
    """No NVIDIA GPU or NVSwitch was found."""


class UnknownDevice(GpuError):
    """NVIDIA's tool does not know the device."""


class Unsupported(GpuError):
    """The device cannot do the mode."""


class FirmwareTooOld(Unsupported):
    """The family can do the mode, this device's firmware cannot."""


class NotPermitted(GpuError):
    """The process lacks the rights to reach the device."""


class ToolMissing(GpuError):
    """NVIDIA's gpu-admin-tools is not where it was looked for."""


class ToolUnknown(GpuError):
    """A gpu-admin-tools was found, but not one that this collection knows how to drive."""


class ToolFailed(GpuError):
    """NVIDIA's tool failed in a way that it does not explain."""


class DeviceGone(GpuError):
    """The device does not answer: fallen off the bus, or its server is gone."""


class Bar0Unreadable(GpuError):
    """The device's registers cannot be reached."""


class BootFailed(GpuError):
    """The device's firmware did not boot in time."""


class InRecovery(GpuError):
    """The device's firmware is in recovery mode."""


class RpcFailed(GpuError):
    """The security processor (FSP) refused a request."""


class InvalidKnob(RpcFailed):
    """The firmware does not know the knob (error 0x1e3)."""


class RpcTimeout(GpuError):
    """The security processor did not answer in time."""

    retryable = True


class RpcGarbled(GpuError):
    """The security processor's answer breaks the protocol."""

    retryable = True


class KnobRefused(GpuError):
    """The knob may not be changed in band."""


class ResetUnavailable(GpuError):
    """There is no way to reset the device."""


class ResetFailed(GpuError):
    """The reset was tried and refused."""

    retryable = True


class VerifyMismatch(GpuError):
    """After the change the device is not in the mode that was asked for."""


class DeviceBusy(GpuError):
    """Somebody uses the device."""

    retryable = True


class RunInProgress(GpuError):
    """Another run is changing the devices of this bus."""

    retryable = True


class GateClosed(GpuError):
    """The one who was to allow the first write did not; nothing was written."""

    retryable = True


class PlanOutdated(GpuError):
    """A device changed between the plan and the first write; nothing was written."""

    retryable = True


class Several(GpuError):
    """More than one device has a problem; ``errors`` holds each."""

    def __init__(self, errors: Sequence[GpuError]) -> None:
        super().__init__(
            "%d devices have a problem: %s" % (len(errors), " ".join(error.cause for error in errors)),
            " ".join(dict.fromkeys(error.remedy for error in errors)),
            " ".join(dict.fromkeys(error.state for error in errors if error.state)),
            errors=[error.as_dict() for error in errors],
        )
        self.errors = list(errors)
        self.retryable = all(error.retryable for error in errors)


def raise_all(errors: Sequence[GpuError]) -> None:
    """Raise the one error, or all of them as one; return when there is none."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise Several(errors)


def errno_words(error: OSError) -> str:
    """'EBUSY (Device or resource busy)' of an OSError."""
    code = error.errno or 0
    return "%s (%s)" % (errno.errorcode.get(code, str(code)), os.strerror(code) if code else str(error))
