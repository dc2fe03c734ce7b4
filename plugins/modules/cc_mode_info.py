#!/usr/bin/python
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
---
module: cc_mode_info
short_description: Read the confidential-computing modes of NVIDIA GPUs and NVSwitches, and what the host supports
version_added: 0.1.0
description:
  - Reads modes, pending settings, support and health of every NVIDIA GPU and NVSwitch, without changing anything.
  - A device that somebody uses is not touched; it is listed with its holders and without a mode.
  - Says whether the host can run confidential virtual machines, and for each "no" the reason and the remedy.
author:
  - confidential.gpu contributors (@confidential-gpu)
extends_documentation_fragment:
  - confidential.gpu.devices
  - confidential.gpu.devices.state
  - confidential.gpu.attributes.reads_only
attributes:
  platform:
    support: full
    platforms: linux
    description: Needs root, and a kernel without lockdown.
seealso:
  - module: confidential.gpu.cc_mode
"""

EXAMPLES = r"""
- name: Read the modes
  confidential.gpu.cc_mode_info:
  register: gpus

- name: Refuse to go on with a GPU that is not protected
  ansible.builtin.assert:
    that: gpus.devices | rejectattr('mode', 'eq', 'on') | length == 0
"""

RETURN = r"""
devices:
  description:
    - One entry for each device, also for one that was there since the host's boot and has left the bus since
      (its C(problem) is a C(DeviceGone)). Virtual functions (SR-IOV) have no entry.
  returned: success
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
    device_id:
      description: PCI device id.
      type: str
      sample: "0x2330"
    module:
      description: Physical position on the board, where registers tell it.
      type: str
      sample: SXM_3
    supported_modes:
      description:
        - Modes that the device and its firmware can do; empty when the firmware could not be asked.
        - A mode for which the firmware lacks a setting is none of them (see C(unknown_knobs)).
      type: list
      elements: str
      sample: ["off", "on", devtools, ppcie]
    mode:
      description:
        - Active mode as read from the device, V(invalid) or V(unsupported); null when it could not be read.
      type: str
      sample: "on"
    pending_mode:
      description: The mode that the next reset makes active.
      type: str
      sample: "on"
    reset_pending:
      description: Whether the pending mode differs from the active one.
      type: bool
      sample: false
    settings_unproven:
      description:
        - Whether settings that no register shows, such as the BAR0 filter, were stored and the device has not been
          reset since. The next run that sets V(on) or V(ppcie) resets it.
      type: bool
      sample: false
    knobs:
      description: The stored settings behind the pending mode.
      type: dict
      sample: {CCM: 1, CCD: 0, BAR0_DECOUPLER: 2, PPCIE: 0}
    firmware:
      description: V(booted), V(booting), V(recovery), V(none) (no firmware that can be asked) or V(unknown).
      type: str
      sample: booted
    firmware_too_old_for_ppcie:
      description: Whether the family supports ppcie but this firmware does not.
      type: bool
      sample: false
    unknown_knobs:
      description: Settings that the family's modes depend on and that this firmware does not know.
      type: list
      elements: str
      sample: [PPCIE]
    driver:
      description: Bound kernel driver.
      type: str
      sample: vfio-pci
    iommu_group:
      description: Number of the IOMMU group.
      type: int
      sample: 27
    holders:
      description: Who uses the device.
      type: list
      elements: dict
      sample: [{address: "0000:17:00.0", pid: 4711, command: qemu-system-x86, file: /dev/vfio/27}]
    use:
      description:
        - V(free), V(used), or V(unknown) when it cannot be told from here whether somebody uses the device; then it is
          not touched either, and RV(devices[].problem) says what would tell.
      type: str
      sample: free
    in_use:
      description: Whether somebody is known to use the device.
      type: bool
      sample: false
    problem:
      description:
        - Why the mode could not be read, null if everything could.
        - When only the settings could not be read, the mode stands beside the problem, and C(pending_mode) is null.
      type: dict
      sample: null
host:
  description:
    - For TDX, SEV-SNP, IOMMU and kernel lockdown whether the host has it (V(yes), V(no), V(unknown)), what was seen,
      why not and what to do.
  returned: success
  type: dict
  contains:
    tdx: &fact
      description: The finding.
      type: dict
      sample: {value: "no", seen: kvm_intel.tdx=N, reason: The kernel has it switched off., remedy: Enable TDX.}
    sev_snp: *fact
    iommu: *fact
    lockdown: *fact
read_at:
  description: When the devices were read, by the host's clock, in UTC.
  returned: success
  type: str
  sample: "2026-11-27T06:00:00Z"
tool_version:
  description: Version of gpu-admin-tools.
  returned: success
  type: str
  sample: v2025.11.21o
tool_tested:
  description: Whether that is the release that this collection is tested with; false for a newer one, with a warning.
  returned: success
  type: bool
  sample: true
error:
  description: The error as data - kind, cause, state, remedy, retryable, and what was seen.
  returned: on failure
  type: dict
  sample: {kind: ToolMissing, cause: Not installed., state: "", remedy: Install it., retryable: false, seen: {}}
"""

import time
from typing import TYPE_CHECKING

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.confidential.gpu.plugins.module_utils import _module
from ansible_collections.confidential.gpu.plugins.module_utils._buses import bus_named
from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import ExplainedError
from ansible_collections.confidential.gpu.plugins.module_utils._gpu import report
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.admin_tools import untested
from ansible_collections.confidential.gpu.plugins.module_utils._pci.bus import parse_address

if TYPE_CHECKING:
    from ansible_collections.confidential.gpu.plugins.module_utils._core.answers import InfoAnswer


def main() -> None:
    """Run as an Ansible module."""
    arguments = {**_module.DEVICE_ARGUMENTS, **_module.STATE_ARGUMENTS}
    module = AnsibleModule(argument_spec=arguments, supports_check_mode=True)
    given = module.params
    try:
        found = report.read(
            bus_named(given["bus"], given["state_folder"]),
            [parse_address(address) for address in given["devices"]],
            given["admin_tools"],
            boot_timeout_s=given["boot_timeout"],
        )
    except ExplainedError as error:
        _module.fail(module, error)
    if not found["tool_tested"]:
        module.warn(untested(found["tool_version"]))
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    answer: InfoAnswer = {"changed": False, "read_at": now, **found}
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
