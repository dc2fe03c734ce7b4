# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What can keep a mode from being read or set, as far as it is NVIDIA's. The root of the tree is in ``_core``."""

from __future__ import annotations

from .._core.errors import ExplainedError


class UnknownDevice(ExplainedError):
    """NVIDIA's tool does not know the device."""


class Unsupported(ExplainedError):
    """The device cannot do the mode."""


class FirmwareTooOld(Unsupported):
    """The family can do the mode, this device's firmware cannot."""


class VirtualFunction(Unsupported):
    """The device is a part of another one (SR-IOV)."""


class ToolMissing(ExplainedError):
    """NVIDIA's gpu-admin-tools is not where it was looked for."""


class ToolUnknown(ExplainedError):
    """A gpu-admin-tools was found, but not one that this collection knows how to drive."""


class ToolFailed(ExplainedError):
    """NVIDIA's tool failed in a way that it does not explain."""


class BootFailed(ExplainedError):
    """The device's firmware did not boot in time."""


class InRecovery(ExplainedError):
    """The device's firmware is in recovery mode."""


class RpcFailed(ExplainedError):
    """The security processor (FSP) refused a request."""


class InvalidKnob(RpcFailed):
    """The firmware does not know the knob (error 0x1e3)."""


class RpcTimeout(ExplainedError):
    """The security processor did not answer in time."""

    retryable = True


class RpcGarbled(ExplainedError):
    """The security processor's answer breaks the protocol."""

    retryable = True


class KnobRefused(ExplainedError):
    """The knob may not be changed in band."""


class GateClosed(ExplainedError):
    """The one who was to allow the first write did not; nothing was written."""

    retryable = True


class PlanOutdated(ExplainedError):
    """A device changed between the plan and the first write; nothing was written."""

    retryable = True
