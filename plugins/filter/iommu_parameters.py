# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The filter iommu_parameters."""

from __future__ import annotations

DOCUMENTATION = r"""
---
name: iommu_parameters
short_description: What a kernel command line lacks for TDX, SEV-SNP or pass-through of devices
version_added: 0.1.0
author:
  - confidential.gpu contributors (@confidential-gpu)
description:
  - Reads a command line as the kernel does - comma lists, its booleans, later parameters that win over earlier ones -
    and says which parameters M(confidential.gpu.kernel_cmdline) has to add and to remove.
  - What the host needs and has already is left as it is spelled, and asks for no reboot.
  - Of a comma list only the members go that do harm.
positional: _input, technology, running
options:
  _input:
    description: The boot loader's command line, RV(confidential.gpu.kernel_cmdline#module:before).
    type: str
    required: true
  technology:
    description: What the host is for.
    type: str
    choices: [tdx, snp, passthrough]
    required: true
  running:
    description:
      - The command line of the running kernel, RV(confidential.gpu.kernel_cmdline#module:running).
      - What it lacks is asked for as the boot loader's spells it.
    type: str
    required: true
  vendor:
    description:
      - The processor's C(vendor_id) in C(/proc/cpuinfo).
      - With O(technology=passthrough) only V(GenuineIntel) needs a parameter.
    type: str
    default: ""
  add:
    description: Further parameters that shall be there.
    type: list
    elements: str
    default: []
  remove:
    description: Further parameters that shall not be there.
    type: list
    elements: str
    default: []
seealso:
  - module: confidential.gpu.kernel_cmdline
  - module: confidential.gpu.host_readiness
"""

EXAMPLES = r"""
- name: Read the command lines
  confidential.gpu.kernel_cmdline:
  check_mode: true
  register: lines

- name: Prepare the host for SEV-SNP
  confidential.gpu.kernel_cmdline:
    add: "{{ wish.add }}"
    remove: "{{ wish.remove }}"
  vars:
    wish: "{{ lines.before | confidential.gpu.iommu_parameters('snp', lines.running) }}"
"""

RETURN = r"""
_value:
  description: C(add) and C(remove), lists for the options of the same name of M(confidential.gpu.kernel_cmdline).
  type: dict
  sample: {add: [iommu=nobypass], remove: ["iommu=pt,nobypass"]}
"""

from collections.abc import Callable, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.confidential.gpu.plugins.module_utils._boot.cmdline import Wish, split
from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import ExplainedError
from ansible_collections.confidential.gpu.plugins.module_utils._host import parameters


def iommu_parameters(
    configured: str,
    technology: str,
    running: str,
    vendor: str = "",
    add: Sequence[str] = (),
    remove: Sequence[str] = (),
) -> dict[str, list[str]]:
    """``add`` and ``remove`` for kernel_cmdline. Raises AnsibleFilterError."""
    if technology not in parameters.TECHNOLOGIES:
        raise _refused("%r is no technology. Use one of %s." % (technology, ", ".join(parameters.TECHNOLOGIES)))
    for name, line in (("the command line", configured), ("running", running)):
        if not isinstance(line, str):
            raise _refused("%s is not a text, but %r." % (name, line))
    try:
        asked = Wish(tuple(add), tuple(remove))
        needed = parameters.settings(technology, vendor)
        found = parameters.edits(needed, asked.applied(split(configured)), split(running))
    except ExplainedError as error:
        raise _refused("%s %s" % (error.cause, error.remedy)) from None
    return {
        "add": list(dict.fromkeys([*found.add, *add])),
        "remove": list(dict.fromkeys([*found.remove, *remove])),
    }


def _refused(words: str) -> AnsibleFilterError:
    return AnsibleFilterError("iommu_parameters: %s" % words)


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters by name."""
        return {"iommu_parameters": iommu_parameters}
