#!/usr/bin/python
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
---
module: cc_mode
short_description: Set the confidential-computing mode of NVIDIA GPUs and NVSwitches
version_added: 0.1.0
description:
  - Brings every NVIDIA GPU and NVSwitch of a host into a confidential-computing (CC) mode.
  - NVIDIA's gpu-admin-tools does the talking to the devices.
  - All checks of all devices come before the first write. Modes are staged on all devices, then all devices are
    reset at once, and the mode is read back from each.
  - A device that somebody uses is never touched.
  - If staging fails on one device, what was staged is put back on all.
author:
  - confidential.gpu contributors (@confidential-gpu)
options:
  mode:
    description:
      - The mode that the devices shall be in.
      - V(off) is no protection, V(on) is confidential computing, V(devtools) is confidential computing with debugging
        and profiling allowed (not for production).
      - V(ppcie) is protected PCIe for a whole NVLink fabric, all GPUs and NVSwitches.
      - NVSwitches have no CC modes. Beside GPUs that are set to V(off), V(on) or V(devtools) they are taken out of
        V(ppcie).
      - YAML turns a bare C(on) and C(off) into booleans; both spellings work.
      - Exactly one of O(mode) and O(modes) is required.
    type: str
    choices: ["off", "on", devtools, ppcie]
  modes:
    description:
      - Instead of O(mode), a mapping from PCI address to mode, for GPUs that differ.
      - Without O(devices), only the devices named here are acted on.
    type: dict
  busy:
    description:
      - What to do when something uses a device - a process that has its vfio group or a device file open, or a
        driver other than vfio-pci that is in use - or when another run of this module is at work.
      - V(refuse) fails at once, V(wait) waits up to O(busy_timeout).
    type: str
    choices: [refuse, wait]
    default: refuse
  busy_timeout:
    description: Seconds to wait with O(busy=wait).
    type: float
    default: 300
  reset:
    description:
      - Whether to reset the devices, which makes the mode active.
      - With V(false) the mode is only staged; it becomes active at the device's next reset, and the result says so.
    type: bool
    default: true
  gate:
    description:
      - Path of a unix socket. After all checks and before the first write the module connects to it, sends the plan
        as a line of JSON, and waits for the line C(go). Then holders and modes are looked at again.
      - If the connection is closed without the word, or cannot be made, nothing is written and the task fails.
      - For a program that starts the task while it still makes the devices free. In check mode, and when there is
        nothing to write, the gate is not used.
    type: path
  gate_timeout:
    description: Seconds to wait for O(gate) to open.
    type: float
    default: 600
  fact_file:
    description:
      - Where to keep the modes that were read back as a local fact of the host, such as
        V(/etc/ansible/facts.d/confidential_gpu.fact). The default keeps none.
      - After an error it says what is known then; a mode that could not be read back is null. Devices that are not
        part of the run keep what an earlier run read back.
      - It records what was read and does not count as a change. In check mode it is not written.
      - The rest of the play knows what it holds as C(ansible_local.confidential_gpu), without gathering facts again.
    type: path
  audit_folder:
    description:
      - A folder of the host in which each change is recorded, such as V(/var/log/confidential-gpu). The default
        records nothing.
      - The file C(ansible.jsonl) has a record before the first write to a device and one after the run, each with the
        hash of the one before. M(confidential.gpu.audit_trail_info) reads and checks them.
      - A record that cannot be written is a warning, and does not keep the mode from being changed.
      - In check mode nothing is recorded.
    type: path
    version_added: 0.2.0
  asked_by:
    description:
      - Who asks for the change, for O(audit_folder). The default is the user that became root by sudo on the host.
      - It is what the controller says, and is not proven.
    type: str
    default: ""
    version_added: 0.2.0
extends_documentation_fragment:
  - confidential.gpu.devices
  - confidential.gpu.devices.state
attributes:
  action:
    support: full
    description: Its part on the controller only hands on the fact.
  async:
    support: full
    description: A task in the background hands on no fact.
  check_mode:
    support: full
    description: Shows the plan that a real run would carry out. Devices are read, knobs are not written.
  diff_mode:
    support: full
    description: Shows the modes and knobs that change.
  idempotent:
    support: full
    description: A device that is in its mode is neither written nor reset.
  platform:
    support: full
    platforms: linux
    description: Needs root, and a kernel without lockdown.
seealso:
  - module: confidential.gpu.cc_mode_info
"""

EXAMPLES = r"""
- name: Confidential computing on every GPU of the host
  confidential.gpu.cc_mode:
    mode: "on"

- name: Wait up to ten minutes for virtual machines to let go of the GPUs
  confidential.gpu.cc_mode:
    mode: "off"
    busy: wait
    busy_timeout: 600

- name: Protected PCIe on all eight GPUs and four NVSwitches of an HGX board
  confidential.gpu.cc_mode:
    mode: ppcie

- name: One GPU for debugging, the other for production
  confidential.gpu.cc_mode:
    modes:
      "0000:17:00.0": devtools
      "0000:3d:00.0": "on"

- name: Stage the mode for the next reset
  confidential.gpu.cc_mode:
    mode: "on"
    reset: false
"""

RETURN = r"""
devices:
  description: What was found and done, device by device. After an error, as far as it got.
  returned: always, except when the request itself is refused
  type: list
  elements: dict
  contains:
    address:
      description: PCI address.
      type: str
      sample: "0000:17:00.0"
    kind:
      description: V(gpu) or V(nvswitch).
      type: str
      sample: gpu
    name:
      description: Product name.
      type: str
      sample: H100-SXM
    chip:
      description: Chip name.
      type: str
      sample: GH100
    supported_modes:
      description: Modes that the device and its firmware can do.
      type: list
      elements: str
      sample: ["off", "on", devtools, ppcie]
    driver:
      description: The driver that the device was bound to when it was read; null if none.
      type: str
      sample: vfio-pci
    iommu_group:
      description: Number of the IOMMU group; null if there is none.
      type: int
      sample: 27
    mode_before:
      description: Active mode before the run; V(invalid) and V(unsupported) are possible findings.
      type: str
      sample: "off"
    mode_after:
      description:
        - Active mode as read back after the run, null if it could not be read. What was read before the first write
          is not told as the mode after it.
        - In check mode, the mode that a real run would bring about.
      type: str
      sample: "on"
    staged:
      description: Whether knobs were written.
      type: bool
      sample: true
    reset:
      description: Whether the device was reset.
      type: bool
      sample: true
    reset_pending:
      description: Whether the wanted mode only becomes active at the next reset.
      type: bool
      sample: false
    seconds:
      description: Seconds for staging, reset and boot.
      type: dict
      sample: {stage: 0.031, reset: 0.104, boot: 2.001}
plan:
  description: The steps in order. Every staging comes before the first reset.
  returned: always, except when the request itself is refused
  type: list
  elements: dict
  sample:
    - {device: "0000:17:00.0", step: stage, knob: CCM, before: 0, after: 1}
    - {device: "0000:17:00.0", step: reset}
    - {device: "0000:17:00.0", step: verify, mode: "on"}
fact:
  description:
    - The modes that were read back, as they are kept in O(fact_file).
    - C(mode) is the one that all GPUs share, V(mixed), or null when one is not known.
  returned: success
  type: dict
  sample: {mode: "on", gpus: {"0000:17:00.0": "on"}, nvswitches: {}}
audit:
  description:
    - The last record in O(audit_folder) - its number, the SHA-256 of its line, and why it could not be written.
    - The number is 0 when this run has written no record.
  returned: with O(audit_folder)
  type: dict
  sample: {number: 12, hash: 5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef, problem: ""}
error:
  description:
    - The error as data - kind, cause, state (what was put back, where something had been changed), remedy, retryable,
      and what was seen (device, register and value, RPC code, errno).
  returned: on failure
  type: dict
  sample:
    {kind: DeviceBusy, cause: "In use.", state: "", remedy: "Stop it.", retryable: true, seen: {device: "0000:17:00.0"}}
"""

import contextlib
from typing import TYPE_CHECKING, Any, Mapping, Optional

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.confidential.gpu.plugins.module_utils import _module
from ansible_collections.confidential.gpu.plugins.module_utils._buses import bus_named
from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import ExplainedError
from ansible_collections.confidential.gpu.plugins.module_utils._gpu import fact
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.admin_tools import untested
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.change import ModeChange, Request, checked_seconds
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.gate import Gate

if TYPE_CHECKING:
    from ansible_collections.confidential.gpu.plugins.module_utils._core.answers import (
        AnyChangeAnswer,
        ChangeAnswer,
        ModeFact,
    )
    from ansible_collections.confidential.gpu.plugins.module_utils._gpu.audit import Audit


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "mode": {"type": "str", "choices": ["off", "on", "devtools", "ppcie"]},
            "modes": {"type": "dict"},
            "busy": {"type": "str", "choices": ["refuse", "wait"], "default": "refuse"},
            "busy_timeout": {"type": "float", "default": 300},
            "reset": {"type": "bool", "default": True},
            "fact_file": {"type": "path"},
            "gate": {"type": "path"},
            "gate_timeout": {"type": "float", "default": 600},
            "audit_folder": {"type": "path"},
            "asked_by": {"type": "str", "default": ""},
            **_module.STATE_ARGUMENTS,
            **_module.DEVICE_ARGUMENTS,
        },
        mutually_exclusive=[("mode", "modes")],
        required_one_of=[("mode", "modes")],
        supports_check_mode=True,
    )
    given = module.params
    fact_file = None if module.check_mode else given["fact_file"]
    audit = _audit(given) if given["audit_folder"] and not module.check_mode else None

    def before_writing() -> None:
        if audit:
            audit.began(change)

    try:
        gate = Gate(given["gate"], checked_seconds("gate_timeout", given["gate_timeout"])) if given["gate"] else None
        bus = bus_named(given["bus"], given["state_folder"])
        change = ModeChange(_request(given), bus, given["admin_tools"], gate=gate, before_writing=before_writing)
        if fact_file:
            fact.can_be_kept(fact_file)
    except ExplainedError as error:
        _module.fail(module, error)
    try:
        change.run(only_plan=module.check_mode)
        known = _keep_fact(change, fact_file)
    except ExplainedError as error:
        with contextlib.suppress(ExplainedError):  # the first error is the one to tell
            _keep_fact(change, fact_file)
        recorded = _record_end(module, audit, change, error)
        _module.fail(module, error, changed=change.touched(), **recorded, **change.result())
    recorded = _record_end(module, audit, change)
    if change.untested_tool:
        module.warn(untested(change.untested_tool))
    result = change.result(only_plan=module.check_mode)
    answer: ChangeAnswer = {"changed": change.is_change, "fact": known, **recorded, **result}
    module.exit_json(**answer)


def _audit(given: Mapping[str, Any]) -> Audit:
    # Only who asks for records pays for the compiling of what writes them.
    from ansible_collections.confidential.gpu.plugins.module_utils._gpu.audit import Audit  # noqa: PLC0415

    return Audit(given["audit_folder"], given["asked_by"])


def _record_end(
    module: AnsibleModule, audit: Optional[Audit], change: ModeChange, error: Optional[ExplainedError] = None
) -> AnyChangeAnswer:
    if audit is None:
        return {}
    audit.ended(change, error)
    if audit.problem:
        module.warn("The audit record could not be written: %s. The change itself is not concerned." % audit.problem)
    return {"audit": audit.result()}


def _keep_fact(change: ModeChange, path: Optional[str]) -> ModeFact:
    """What has been read back so far, also after an error, kept in the fact file if there is one."""
    devices = change.result()["devices"]
    known = fact.fact(devices, "mode_after")
    return fact.keep(path, known, change.present, change.lost) if path and devices else known


def _request(given: dict[str, Any]) -> Request:
    return Request(
        mode=given["mode"],
        modes={address: _module.mode_text(mode) for address, mode in (given["modes"] or {}).items()},
        devices=given["devices"],
        busy=given["busy"],
        busy_timeout_s=given["busy_timeout"],
        boot_timeout_s=given["boot_timeout"],
        reset=given["reset"],
    )


if __name__ == "__main__":
    main()
