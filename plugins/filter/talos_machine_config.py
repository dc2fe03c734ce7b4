# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The filter talos_machine_config."""

from __future__ import annotations

DOCUMENTATION = r"""
---
name: talos_machine_config
short_description: A patch of Talos Linux's machine configuration for GPUs in virtual machines
version_added: 0.1.0
author:
  - confidential.gpu contributors (@confidential-gpu)
description:
  - Talos Linux has no shell and no SSH, so it is not changed by modules. This filter renders the same wishes as
    documents of its machine configuration, or as a schematic of Image Factory.
  - Talos ignores kernel parameters in the machine configuration of hosts that boot a unified kernel image, which is the
    default with UEFI. Use O(document=schematic) for these, and make the installer image from it.
positional: _input
options:
  _input:
    description: PCI addresses of the devices to bind to O(driver), such as V(0000:17:00.0). May be empty.
    type: list
    elements: str
    required: true
  add:
    description: Kernel parameters that shall be there.
    type: list
    elements: str
    default: []
  remove:
    description: Kernel parameters that shall not be there; a name alone is every value of it.
    type: list
    elements: str
    default: []
  replace:
    description: Kernel parameters that shall have this value only.
    type: list
    elements: str
    default: []
  modules:
    description: Kernel modules to load, each with the list of its parameters.
    type: dict
    default: {}
  driver:
    description: The driver that the devices are bound to.
    type: str
    default: vfio-pci
  document:
    description: V(patch) for C(talosctl patch machineconfig), or V(schematic) for Image Factory.
    type: str
    choices: [patch, schematic]
    default: patch
seealso:
  - module: confidential.gpu.kernel_cmdline
"""

EXAMPLES = r"""
- name: A patch for talosctl
  ansible.builtin.copy:
    content: >-
      {{ ['0000:17:00.0'] | confidential.gpu.talos_machine_config(
           add=['intel_iommu=on'], modules={'vfio_pci': ['disable_idle_d3=1'], 'vfio_iommu_type1': []}) }}
    dest: gpu-patch.yaml
    mode: "0644"
  delegate_to: localhost

- name: The kernel parameters as a schematic for Image Factory
  ansible.builtin.copy:
    content: "{{ [] | confidential.gpu.talos_machine_config(add=bootloader_add, document='schematic') }}"
    dest: schematic.yaml
    mode: "0644"
  delegate_to: localhost
"""

RETURN = r"""
_value:
  description: The documents as YAML.
  type: str
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml
from ansible.errors import AnsibleFilterError

from ansible_collections.confidential.gpu.plugins.module_utils._boot import talos
from ansible_collections.confidential.gpu.plugins.module_utils._boot.cmdline import Wish
from ansible_collections.confidential.gpu.plugins.module_utils._boot.errors import BootError


def talos_machine_config(
    devices: Sequence[str],
    add: Sequence[str] = (),
    remove: Sequence[str] = (),
    replace: Sequence[str] = (),
    modules: Mapping[str, Sequence[str]] | None = None,
    driver: str = "vfio-pci",
    document: str = "patch",
) -> str:
    """The documents as YAML; empty when nothing is asked for."""
    for name, given in (("devices", devices), ("add", add), ("remove", remove), ("replace", replace)):
        if isinstance(given, str) or not isinstance(given, Sequence):
            raise AnsibleFilterError("talos_machine_config: %s is not a list, but %r." % (name, given))
    if document not in ("patch", "schematic"):
        raise AnsibleFilterError("talos_machine_config: document is patch or schematic, not %r." % document)
    try:
        wish = Wish(*(tuple(str(token) for token in tokens) for tokens in (add, remove, replace)))
    except BootError as error:
        raise AnsibleFilterError("talos_machine_config: %s %s" % (error.cause, error.remedy)) from error
    if document == "schematic":
        documents = talos.schematic(wish)
    else:
        plain = {str(name): [str(one) for one in parameters] for name, parameters in (modules or {}).items()}
        documents = talos.patch(wish, plain, [str(device) for device in devices], str(driver))
    return yaml.safe_dump_all(documents, sort_keys=False) if documents else ""


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters by name."""
        return {"talos_machine_config": talos_machine_config}
