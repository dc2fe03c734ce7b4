# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The form of what crosses a border as plain data: the answers of cc_mode and cc_mode_info, and what they are made of.

For type checkers alone: it is imported where ``TYPE_CHECKING`` is true, and costs a host nothing. The CC manager has
this file, too (container/cc_manager/answers.py is a link to it): it imports nothing of the collection. What each key
means stands in RETURN of the two modules; a test holds one against the other.
"""

from __future__ import annotations

from typing import Any, Optional, TypedDict

# --- errors -----------------------------------------------------------------------------------------------------------


class Problem(TypedDict):
    """An error as data: ``error`` of an answer, ``problem`` of a device."""

    kind: str
    cause: str
    state: str
    remedy: str
    retryable: bool
    seen: dict[str, Any]


# --- the host ---------------------------------------------------------------------------------------------------------


class HostFact(TypedDict):
    """``value``: yes, no or unknown. The other three may be empty."""

    value: str
    seen: str
    reason: str
    remedy: str


class HostFacts(TypedDict):
    """What the host offers to confidential virtual machines."""

    tdx: HostFact
    sev_snp: HostFact
    iommu: HostFact
    lockdown: HostFact


# --- devices ----------------------------------------------------------------------------------------------------------


class HolderEntry(TypedDict):
    """Who uses a device. ``pid`` 0: not visible."""

    address: str
    pid: int
    command: str
    file: str


class DescribedDevice(TypedDict):
    """What a device is. ``kind``: gpu or nvswitch."""

    address: str
    kind: str
    name: str
    chip: str
    supported_modes: list[str]


class BoundDevice(TypedDict):
    """Who can give a device to a virtual machine."""

    driver: Optional[str]
    iommu_group: Optional[int]


class DeviceEntry(DescribedDevice, BoundDevice):
    """A device as cc_mode_info reads it. ``mode`` None: not known. ``use``: free, used or unknown."""

    device_id: str
    module: Optional[str]
    mode: Optional[str]
    pending_mode: Optional[str]
    reset_pending: bool
    knobs: dict[str, int]
    firmware: str
    firmware_too_old_for_ppcie: bool
    unknown_knobs: list[str]
    holders: list[HolderEntry]
    use: str
    in_use: bool
    problem: Optional[Problem]
    settings_unproven: bool


class ChangedDevice(DescribedDevice, BoundDevice):
    """A device as a run of cc_mode leaves it. Modes are None where they are not known; ``seconds`` by phase."""

    mode_before: Optional[str]
    mode_after: Optional[str]
    staged: bool
    reset: bool
    reset_pending: bool
    seconds: dict[str, float]


# --- answers ----------------------------------------------------------------------------------------------------------


class InfoResult(TypedDict):
    """What cc_mode_info has read."""

    host: HostFacts
    tool_version: str
    tool_tested: bool
    devices: list[DeviceEntry]


class InfoAnswer(InfoResult):
    """What it answers when it succeeds."""

    changed: bool
    read_at: str


class RegisteredInfo(TypedDict, total=False):
    """The same as Ansible registers it, also of a host that was not reached, not asked, or has failed."""

    host: HostFacts
    tool_version: str
    tool_tested: bool
    devices: list[DeviceEntry]
    changed: bool
    read_at: str
    failed: bool
    skipped: bool
    unreachable: bool
    msg: str
    module_stderr: str
    error: Problem


class AnyPlanStep(TypedDict):
    """What each step has. ``step``: stage, reset or verify."""

    device: str
    step: str


class PlanStep(AnyPlanStep, total=False):
    """Of a stage: the knob and its values. Of a verify: the mode."""

    knob: str
    before: int
    after: int
    mode: str


class Diff(TypedDict):
    """For Ansible's diff mode."""

    before: str
    after: str


class ChangeResult(TypedDict):
    """What a run of cc_mode has found, planned and done, also after an error."""

    devices: list[ChangedDevice]
    plan: list[PlanStep]
    diff: Diff


class ModeFact(TypedDict):
    """Address to mode as read back, None where it is not known. ``mode``: what all GPUs share, mixed, or None."""

    gpus: dict[str, Optional[str]]
    nvswitches: dict[str, Optional[str]]
    mode: Optional[str]


class AuditTail(TypedDict):
    """The last audit record; ``number`` 0: this run has written none."""

    number: int
    hash: str
    problem: str


class AnyChangeAnswer(TypedDict, total=False):
    """What an answer has when ``audit_folder`` was given."""

    audit: AuditTail


class ChangeAnswer(ChangeResult, AnyChangeAnswer):
    """What cc_mode answers when it succeeds."""

    changed: bool
    fact: ModeFact
