#!/usr/bin/python
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
---
module: pci_driver
short_description: Bind PCI devices to a driver such as vfio-pci, or give them back
version_added: 0.1.0
description:
  - Gives PCI devices to one driver with the kernel's C(driver_override), takes their driver away, or leaves the choice
    to the kernel again. Verified by reading back which driver is bound.
  - Writes only what differs, never touches a device that somebody uses, and takes along every function of a device's
    IOMMU group, because a group is given to a virtual machine as a whole.
  - The functions of a group move together. When one of them is refused, all of them are put back.
  - What it does lasts until the next boot. The role P(confidential.gpu.vfio#role) makes it permanent.
  - A run that was killed is finished by the next one.
author:
  - confidential.gpu contributors (@confidential-gpu)
options:
  devices:
    description:
      - PCI addresses, such as V(0000:17:00.0), or without the domain (V(17:00.0)).
      - Exactly one of O(devices) and O(match) is required.
    type: list
    elements: str
    default: []
  match:
    description:
      - Instead of addresses, what the devices are. At least one device has to match; bridges never do.
      - Put the numbers in quotes; YAML takes some of them for octal or hexadecimal numbers.
    type: dict
    suboptions:
      vendor:
        description: Vendor id. V(10de) is NVIDIA.
        type: str
        default: "10de"
      devices:
        description: Device ids, such as V(2331). The default is every device of the vendor.
        type: list
        elements: str
        default: []
      classes:
        description:
          - PCI classes, such as V(0302), which may be shortened from the right. The default is every class.
          - GPUs are V(0300) and V(0302), NVSwitches V(0680).
        type: list
        elements: str
        default: []
  driver:
    description:
      - The driver as it is called in C(/sys/bus/pci/drivers).
      - Grace Hopper and Grace Blackwell need V(nvgrace_gpu_vfio_pci).
    type: str
    default: vfio-pci
  state:
    description:
      - V(bound) binds the devices to O(driver).
      - V(unbound) leaves them without a driver and without a C(driver_override).
      - V(default) undoes it. A device that has a C(driver_override) is given to whatever driver the kernel chooses
        without it; one that has none keeps its driver.
    type: str
    choices: [bound, unbound, default]
    default: bound
  whole_group:
    description:
      - Whether to take along every function of the devices' IOMMU groups, bridges apart.
      - What has a driver of the host's, and is neither NVIDIA's nor of the same card, is refused, unless O(companions)
        or O(devices) names it.
      - What the host may need and has no driver for now (disks, network, USB, a BMC's display, AMD's secure processor,
        serial ports, memory controllers) is left as it is; a group can be used beside it.
    type: bool
    default: true
  companions:
    description:
      - PCI addresses of functions that may be taken along with O(whole_group=true) whatever they are.
      - Those that share no IOMMU group with the devices are not touched.
    type: list
    elements: str
    default: []
  load:
    description: Whether to load the driver's module when the kernel does not have it yet.
    type: bool
    default: false
  busy:
    description:
      - What to do when something uses a device that has to be changed - a process that has its vfio group or a device
        file open, or a driver other than vfio-pci that is in use - or when another run of this collection is at work.
      - V(refuse) fails at once, V(wait) waits up to O(busy_timeout).
    type: str
    choices: [refuse, wait]
    default: refuse
  busy_timeout:
    description: Seconds to wait with O(busy=wait).
    type: float
    default: 300
  timeout:
    description: Seconds until a driver has to have let go of a device, or to have taken it.
    type: float
    default: 10
attributes:
  check_mode:
    support: full
    description: Shows the plan that a real run would carry out. Only reads.
  diff_mode:
    support: full
    description: Shows the drivers and overrides that change.
  idempotent:
    support: full
    description: A device that has its driver is not written.
  platform:
    support: full
    platforms: linux
    description: Needs root, except in check mode.
requirements:
  - Python 3.9 or later on the host
  - modprobe, with O(load=true)
seealso:
  - module: confidential.gpu.host_readiness
"""

EXAMPLES = r"""
- name: Every NVIDIA GPU and NVSwitch, with what shares their IOMMU groups, for virtual machines
  confidential.gpu.pci_driver:
    match:
      classes: ["0300", "0302", "0680"]
    load: true

- name: One GPU only
  confidential.gpu.pci_driver:
    devices: ["0000:17:00.0"]

- name: A Grace Hopper superchip
  confidential.gpu.pci_driver:
    devices: ["0009:01:00.0"]
    driver: nvgrace_gpu_vfio_pci

- name: Back to the host's own driver, when the virtual machine has ended
  confidential.gpu.pci_driver:
    devices: ["0000:17:00.0"]
    state: default
    busy: wait
    busy_timeout: 600
"""

RETURN = r"""
devices:
  description: Every function that was looked at, by address.
  returned: always, except when the request itself is refused
  type: list
  elements: dict
  contains:
    address:
      description: PCI address.
      type: str
      sample: "0000:17:00.0"
    id:
      description: Vendor and device id.
      type: str
      sample: "10de:2331"
    class:
      description: PCI class, six hex digits.
      type: str
      sample: "030200"
    group:
      description: Number of the IOMMU group; null when there is none.
      type: int
      sample: 27
    added:
      description: Whether it came along because of its IOMMU group.
      type: bool
      sample: false
    driver_before:
      description: Bound driver before the run.
      type: str
      sample: nvidia
    driver_after:
      description:
        - Bound driver as read back after the run.
        - In check mode, the driver that a real run would bind; null where the kernel is to choose.
      type: str
      sample: vfio-pci
    override_before:
      description: C(driver_override) before the run.
      type: str
      sample: null
    override_after:
      description: C(driver_override) after the run, in check mode as a real run would leave it.
      type: str
      sample: vfio-pci
added:
  description: Addresses that came along because of their IOMMU group.
  returned: always, except when the request itself is refused
  type: list
  elements: str
  sample: ["0000:17:00.1"]
bridges:
  description: Bridges in the same groups, which keep their driver.
  returned: always, except when the request itself is refused
  type: list
  elements: str
  sample: ["0000:16:00.0"]
left:
  description:
    - Functions of the same groups that the host may need and that have no driver. They are left as they are.
  returned: always, except when the request itself is refused
  type: list
  elements: str
  sample: ["0000:15:00.2"]
driver:
  description: The driver, whether the kernel has it, and whether it is built into the kernel.
  returned: always, except when the request itself is refused
  type: dict
  sample: {name: vfio-pci, loaded: true, built_in: false}
rivals:
  description:
    - With O(state=bound), lines of modprobe's files and of the kernel command line that win over those of the role
      P(confidential.gpu.vfio#role), or keep vfio's modules from being loaded. Each is also a warning.
  returned: always, except when the request itself is refused
  type: list
  elements: dict
  sample:
    - file: /etc/modprobe.d/zz-local.conf
      line: 3
      text: options vfio-pci ids=10de:2330
      why: it comes after /etc/modprobe.d/confidential-gpu-vfio.conf, and its ids counts
plan:
  description: The steps in order.
  returned: always, except when the request itself is refused
  type: list
  elements: dict
  sample:
    - {device: "0000:17:00.1", step: override, before: null, after: vfio-pci}
    - {device: "0000:17:00.0", step: override, before: null, after: vfio-pci}
    - {device: "0000:17:00.1", step: unbind, driver: snd_hda_intel}
    - {device: "0000:17:00.0", step: unbind, driver: nvidia}
    - {device: "0000:17:00.1", step: probe}
    - {device: "0000:17:00.0", step: probe}
    - {device: "0000:17:00.1", step: verify, driver: vfio-pci}
    - {device: "0000:17:00.0", step: verify, driver: vfio-pci}
error:
  description:
    - The error as data - kind, cause, state (of a device on which something had been changed), remedy, retryable, and
      what was seen (device, errno, driver, holders).
  returned: on failure
  type: dict
  sample:
    {kind: DeviceBusy, cause: "In use.", state: "", remedy: "Stop it.", retryable: true, seen: {device: "0000:17:00.0"}}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.confidential.gpu.plugins.module_utils import _module
from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import ExplainedError
from ansible_collections.confidential.gpu.plugins.module_utils._host import modprobe
from ansible_collections.confidential.gpu.plugins.module_utils._pci.binding import Binding
from ansible_collections.confidential.gpu.plugins.module_utils._pci.functions import Match
from ansible_collections.confidential.gpu.plugins.module_utils._pci.request import Request


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "devices": {"type": "list", "elements": "str", "default": []},
            "match": {
                "type": "dict",
                "options": {
                    "vendor": {"type": "str", "default": "10de"},
                    "devices": {"type": "list", "elements": "str", "default": []},
                    "classes": {"type": "list", "elements": "str", "default": []},
                },
            },
            "driver": {"type": "str", "default": "vfio-pci"},
            "state": {"type": "str", "choices": ["bound", "unbound", "default"], "default": "bound"},
            "whole_group": {"type": "bool", "default": True},
            "companions": {"type": "list", "elements": "str", "default": []},
            "load": {"type": "bool", "default": False},
            "busy": {"type": "str", "choices": ["refuse", "wait"], "default": "refuse"},
            "busy_timeout": {"type": "float", "default": 300},
            "timeout": {"type": "float", "default": 10},
        },
        supports_check_mode=True,
    )
    given = module.params
    try:
        binding = Binding(_request(given))
    except ExplainedError as error:
        _module.fail(module, error)
    in_the_way = modprobe.rivals(binding.root, given["driver"]) if given["state"] == "bound" else []
    for rival in in_the_way:
        module.warn("%s. Take that line out: the next boot may give devices to another driver." % rival.words())
    rivals = [rival._asdict() for rival in in_the_way]
    try:
        binding.run(only_plan=module.check_mode)
    except ExplainedError as error:
        _module.fail(module, error, changed=binding.touched(), rivals=rivals, **binding.result())
    module.exit_json(changed=binding.is_change, rivals=rivals, **binding.result())


def _request(given: dict[str, Any]) -> Request:
    return Request(
        devices=given["devices"],
        match=Match(**given["match"]) if given["match"] is not None else None,
        driver=given["driver"],
        state=given["state"],
        whole_group=given["whole_group"],
        companions=given["companions"],
        load=given["load"],
        busy=given["busy"],
        busy_timeout_s=given["busy_timeout"],
        timeout_s=given["timeout"],
    )


if __name__ == "__main__":
    main()
