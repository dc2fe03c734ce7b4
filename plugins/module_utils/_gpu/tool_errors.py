# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What NVIDIA's tool raises, turned into errors of ours by the names of its exceptions and the words in them.

By name, because only one file imports the tool. Names and words: gpu-admin-tools, release 2025.11.21.
"""

from __future__ import annotations

import contextlib
from typing import Iterator

from .._core.errors import ExplainedError
from .._pci.errors import Bar0Unreadable
from .errors import InvalidKnob, RpcFailed, RpcGarbled, RpcTimeout, ToolFailed, UnknownDevice
from .mode import Knob

INVALID_KNOB = 0x1E3
NV_PMC_BOOT_0 = 0x0
# What the tool's GpuError says when an answer of the FSP does not fit its request.
GARBLED = ("response", "nvdm_type", "request type", "mbox error", "receive error")


@contextlib.contextmanager
def translated(address: str, doing: str = "") -> Iterator[None]:
    """Turn what the tool raises into errors of ours."""
    try:
        yield
    except ExplainedError:
        raise
    except AssertionError as error:
        raise ToolFailed(
            "%s: gpu-admin-tools asserts: %s." % (address, str(error) or "no reason given"),
            "Report this with the output of cc_mode_info.",
            device=address,
        ) from error
    except (Exception, SystemExit) as error:
        raise _ours("%s, %s" % (address, doing) if doing else address, address, error) from error


def knob_words(number: int) -> str:
    """'CCM (8)' or 'CCM_ALLOW_INB (7)' of a knob's number."""
    for knob in Knob:
        if number == knob:
            return "%s (%d)" % (knob.name, number)
        if number == knob.allow_in_band:
            return "%s_ALLOW_INB (%d)" % (knob.name, number)
    return str(number)


def _ours(where: str, address: str, error: BaseException) -> ExplainedError:
    kind = type(error).__name__
    text = str(error)
    if kind == "FspRpcError":
        code = int(getattr(error, "error", 0))
        words = [hex(word) for word in getattr(error, "data", [])]
        if code == INVALID_KNOB:
            return InvalidKnob(
                "%s: the firmware does not know the knob (FSP error 0x1e3, invalid knob)." % where,
                "Update the device's firmware.",
                device=address,
                rpc_code=code,
                words=words,
            )
        return RpcFailed(
            "%s: the security processor refused a request (FSP error 0x%x)." % (where, code),
            "Update the device's firmware; power-cycle the device if it stays.",
            device=address,
            rpc_code=code,
            words=words,
        )
    if kind == "GpuRpcTimeout" or (kind == "GpuPollTimeout" and "MNOC" in text):
        return RpcTimeout(
            "%s: the security processor (FSP) did not answer: %s." % (where, text.rstrip(".") or "time-out"),
            "Run again; power-cycle the device if it stays.",
            device=address,
        )
    if kind == "UnknownGpuError":
        return UnknownDevice(
            "%s: gpu-admin-tools does not know this device: %s." % (where, text),
            "Leave it out with the option devices, or use a newer gpu-admin-tools.",
            device=address,
        )
    if kind == "BrokenGpuErrorSecFault":
        boot, fault = int(getattr(error, "boot", 0)), int(getattr(error, "sec_fault", 0))
        return Bar0Unreadable(
            "%s: the device is in a security fault: NV_PMC_BOOT_0 (0x0) = 0x%x, fault code 0x%x."
            % (where, boot, fault),
            "Power-cycle the host; if it stays, have the device replaced.",
            device=address,
            register=NV_PMC_BOOT_0,
            value=boot,
            fault=fault,
        )
    if kind in ("BrokenGpuError", "BrokenGpuErrorWithInfo"):
        return Bar0Unreadable(
            "%s: BAR0 does not answer (NV_PMC_BOOT_0, 0x0, reads all ones or a bus error)%s."
            % (where, ": %s" % getattr(error, "err_info", "") if hasattr(error, "err_info") else ""),
            "Check kernel lockdown (Secure Boot) and that the device is still on the bus; power-cycle it.",
            device=address,
            register=NV_PMC_BOOT_0,
        )
    if kind == "GpuError" and any(word in text for word in GARBLED):
        return RpcGarbled(
            "%s: the security processor's answer breaks the protocol: %s." % (where, text.rstrip(".")),
            "Run again; update the device's firmware if it stays.",
            device=address,
        )
    if kind in ("GpuError", "GpuPollTimeout"):
        return Bar0Unreadable(
            "%s: a register cannot be read: %s." % (where, text.rstrip(".")),
            "Run again; power-cycle the device if it stays.",
            device=address,
        )
    return ToolFailed(
        "%s: gpu-admin-tools failed with %s: %s." % (where, kind, text.rstrip(".")),
        "Report this with the output of cc_mode_info.",
        device=address,
    )
