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
    description:
      - PCI addresses of the devices to bind to O(driver), such as V(0000:17:00.0), or without the domain (V(17:00.0)).
        May be empty.
      - Every function of an IOMMU group has to be named, such as the audio function beside a GPU.
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
    description: Kernel modules to load, each with the list of its parameters, which may be empty.
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

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml
from ansible.errors import AnsibleFilterError

from ansible_collections.confidential.gpu.plugins.module_utils._boot import talos
from ansible_collections.confidential.gpu.plugins.module_utils._boot.cmdline import Wish
from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import ExplainedError
from ansible_collections.confidential.gpu.plugins.module_utils._pci.bus import parse_address

_MODULE = re.compile(r"[A-Za-z0-9_-]+")


def talos_machine_config(
    devices: Sequence[str],
    add: Sequence[str] = (),
    remove: Sequence[str] = (),
    replace: Sequence[str] = (),
    modules: Mapping[str, Sequence[str]] | None = None,
    driver: str = "vfio-pci",
    document: str = "patch",
) -> str:
    """The documents as YAML; empty when nothing is asked for. Raises AnsibleFilterError for what Talos cannot take."""
    if document not in ("patch", "schematic"):
        raise _refused("document is patch or schematic, not %r." % document)
    if not _MODULE.fullmatch(str(driver)):
        raise _refused("%r is not a driver's name. Use a name such as vfio-pci." % (driver,))
    given = {"devices": devices, "add": add, "remove": remove, "replace": replace}
    texts = {name: _texts(name, values) for name, values in given.items()}
    try:
        wish = Wish(texts["add"], texts["remove"], texts["replace"])
        addresses = list(dict.fromkeys(parse_address(address) for address in texts["devices"]))
    except ExplainedError as error:
        raise _refused("%s %s" % (error.cause, error.remedy)) from None
    checked = _modules(modules or {})
    if document == "schematic":
        return _yaml(talos.schematic(wish))
    return _yaml(talos.patch(wish, checked, addresses, str(driver)))


def _yaml(documents: Sequence[Mapping[str, Any]]) -> str:
    return yaml.safe_dump_all(documents, sort_keys=False) if documents else ""


def _refused(words: str) -> AnsibleFilterError:
    return AnsibleFilterError("talos_machine_config: %s" % words)


def _texts(name: str, values: Any) -> tuple[str, ...]:
    """The strings of a list; YAML's numbers too, but neither a text, which is a list of letters, nor a mapping."""
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise _refused("%s is not a list, but %r." % (name, values))
    wrong = [value for value in values if not isinstance(value, (str, int, float)) or isinstance(value, bool)]
    if wrong:
        raise _refused("%s holds %r, which is not a text. Put it in quotes." % (name, wrong[0]))
    return tuple(str(value) for value in values)


def _modules(modules: Any) -> dict[str, list[str]]:
    if not isinstance(modules, Mapping):
        raise _refused("modules is not a mapping from module to list of parameters, but %r." % (modules,))
    wrong = [name for name in modules if not _MODULE.fullmatch(str(name))]
    if wrong:
        raise _refused("%r is not a module's name. Use a name such as vfio_pci." % (wrong[0],))
    return {str(name): list(_texts("modules.%s" % name, parameters)) for name, parameters in modules.items()}


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters by name."""
        return {"talos_machine_config": talos_machine_config}
