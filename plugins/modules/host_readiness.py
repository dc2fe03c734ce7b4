#!/usr/bin/python
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
---
module: host_readiness
short_description: Say what a host lacks for confidential GPUs, and what to do about it
version_added: 0.1.0
description:
  - Looks at firmware, processor, kernel, kernel command line, IOMMU, vfio, NVIDIA's tool, and the devices with their
    drivers and modes. Changes nothing.
  - Each requirement is there, missing or not known, with what was seen and the remedy.
  - The kernel command line is judged by what the kernel makes of it, as
    M(confidential.gpu.kernel_cmdline) does with its option C(technology).
  - V(vfio) is missing, too, where a line of modprobe's files or of the kernel command line keeps the next boot from
    loading it, or wins over what the role P(confidential.gpu.vfio#role) wrote.
  - A device that somebody uses is not touched, so its mode is not known.
  - On an Arm host, such as Grace, V(confidential_processor) and V(kernel) are missing - it has neither TDX nor SEV-SNP,
    and confidential virtual machines are not supported there. The others say what ordinary virtual machines lack.
author:
  - confidential.gpu contributors (@confidential-gpu)
options:
  mode:
    description:
      - The mode that the devices should be in. The default accepts any.
      - YAML turns a bare C(on) and C(off) into booleans; both spellings work.
    type: str
    choices: ["off", "on", devtools, ppcie]
extends_documentation_fragment:
  - confidential.gpu.devices
  - confidential.gpu.attributes.reads_only
attributes:
  platform:
    support: full
    platforms: linux
    description: Needs root to read modes; without it they are not known.
seealso:
  - module: confidential.gpu.cc_mode_info
  - module: confidential.gpu.pci_driver
"""

EXAMPLES = r"""
- name: See what the host lacks
  confidential.gpu.host_readiness:
    mode: "on"
  register: readiness

- name: Refuse to go on with a host that lacks something
  ansible.builtin.assert:
    that: readiness.missing | length == 0
"""

RETURN = r"""
requirements:
  description: One entry for each requirement.
  returned: success
  type: list
  elements: dict
  contains:
    requirement:
      description:
        - V(firmware), V(virtualization), V(iommu), V(tdx) on Intel or V(sev_snp) on AMD (else
          V(confidential_processor)), V(kernel), V(command_line), V(vfio), V(lockdown), V(gpu_admin_tools),
          V(devices), V(host_driver), V(binding), V(modes).
      type: str
      sample: command_line
    state:
      description: V(ok), V(missing) or V(unknown).
      type: str
      sample: missing
    seen:
      description: What the state was concluded from.
      type: str
      sample: iommu=pt
    remedy:
      description: What to do; empty where nothing has to be done.
      type: str
      sample: Remove iommu=pt from the kernel command line and reboot.
ready:
  description: Whether every requirement is V(ok).
  returned: success
  type: bool
  sample: false
missing:
  description: The requirements that are V(missing).
  returned: success
  type: list
  elements: str
  sample: [command_line]
unknown:
  description: The requirements that are V(unknown).
  returned: success
  type: list
  elements: str
  sample: [modes]
error:
  description: The error as data - kind, cause, state, remedy, retryable, and what was seen.
  returned: on failure
  type: dict
  sample: {kind: InvalidRequest, cause: No address., state: "", remedy: Write it in full., retryable: false, seen: {}}
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.confidential.gpu.plugins.module_utils import _module
from ansible_collections.confidential.gpu.plugins.module_utils._buses import bus_named
from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import ExplainedError
from ansible_collections.confidential.gpu.plugins.module_utils._host import readiness
from ansible_collections.confidential.gpu.plugins.module_utils._pci.bus import parse_address


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "mode": {"type": "str", "choices": ["off", "on", "devtools", "ppcie"]},
            **_module.DEVICE_ARGUMENTS,
        },
        supports_check_mode=True,
    )
    given = module.params
    try:
        found = readiness.check(
            bus_named(given["bus"]),
            [parse_address(address) for address in given["devices"]],
            given["mode"],
            given["admin_tools"],
            boot_timeout_s=given["boot_timeout"],
        )
    except ExplainedError as error:
        _module.fail(module, error)
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
