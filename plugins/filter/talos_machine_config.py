# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The filter talos_machine_config."""

from __future__ import annotations

DOCUMENTATION = r"""
---
name: talos_machine_config
short_description: A patch of Talos Linux's machine configuration for GPUs in virtual machines or in containers
version_added: 0.1.0
author:
  - confidential.gpu contributors (@confidential-gpu)
description:
  - Talos Linux has no shell and no SSH, so it is not changed by modules. This filter renders the same requests as
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
  release:
    description:
      - The Talos release that the node runs, or is upgraded to, such as V(1.13) or V(v1.14.2). Put it in quotes.
      - From 1.14 on modules, sysctls and the runtime are documents of their own. There kernel parameters are part of
        the image only, and O(document=patch) refuses them.
      - Without it the documents are in the older form, which 1.14 takes and calls deprecated.
      - Required with O(containers) and O(default_runtime), whose documents differ from release to release.
    type: str
  containers:
    description:
      - Whether the node's own containers use its GPUs. The patch then loads the driver's modules, and sets the sysctl
        that releases up to 1.12 need; the schematic has the extensions.
      - From 1.13 on containers get GPUs by CDI, whose specification Talos writes itself to C(/run/cdi).
    type: bool
    default: false
  driver_branch:
    description: Which of NVIDIA's driver branches the extensions are of, with O(containers=true).
    type: str
    choices: [production, lts]
    default: production
  kernel_modules:
    description:
      - Which of NVIDIA's kernel modules, with O(containers=true). Confidential computing needs V(open).
    type: str
    choices: [open, nonfree]
    default: open
  fabric_manager:
    description: Whether the node has NVSwitches and needs NVIDIA's fabric manager, with O(containers=true).
    type: bool
    default: false
  sysctls:
    description: Kernel settings below C(/proc/sys).
    type: dict
    default: {}
  default_runtime:
    description:
      - The runtime of pods that name no RuntimeClass, such as V(nvidia). Needless from 1.13 on.
      - An image that sets C(NVIDIA_VISIBLE_DEVICES=all) sees every GPU of a node whose default runtime is NVIDIA's.
    type: str
    default: ""
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

- name: A node of 1.14 whose pods use its GPUs
  ansible.builtin.copy:
    content: "{{ [] | confidential.gpu.talos_machine_config(release='1.14', containers=true) }}"
    dest: gpu-patch.yaml
    mode: "0644"
  delegate_to: localhost

- name: Its extensions
  ansible.builtin.copy:
    content: "{{ [] | confidential.gpu.talos_machine_config(release='1.14', containers=true, document='schematic') }}"
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
from ansible_collections.confidential.gpu.plugins.module_utils._boot.cmdline import Desired
from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import ExplainedError
from ansible_collections.confidential.gpu.plugins.module_utils._pci.bus import parse_address

_MODULE = re.compile(r"[A-Za-z0-9_-]+")
_SYSCTL = re.compile(r"[A-Za-z0-9_.*/-]+")
_RELEASE = re.compile(r"v?(\d+)\.(\d+)(\.\d+)?(-[a-z0-9.]+)?")
# The first release that rebinds devices and has containerd 2; what was before has other documents.
_OLDEST: talos.Release = (1, 10)


def talos_machine_config(
    devices: Sequence[str],
    add: Sequence[str] = (),
    remove: Sequence[str] = (),
    replace: Sequence[str] = (),
    modules: Mapping[str, Sequence[str]] | None = None,
    driver: str = "vfio-pci",
    release: str | None = None,
    containers: bool = False,
    driver_branch: str = "production",
    kernel_modules: str = "open",
    fabric_manager: bool = False,
    sysctls: Mapping[str, str] | None = None,
    default_runtime: str = "",
    document: str = "patch",
) -> str:
    """The documents as YAML; empty when nothing is asked for. Raises AnsibleFilterError for what Talos cannot take."""
    _one_of("document", document, ("patch", "schematic"))
    _one_of("driver_branch", driver_branch, ("production", "lts"))
    _one_of("kernel_modules", kernel_modules, tuple(talos.KERNEL_MODULES))
    for name, value in (("containers", containers), ("fabric_manager", fabric_manager)):
        if not isinstance(value, bool):
            raise _refused("%s is true or false, not %r." % (name, value))
    if not _MODULE.fullmatch(str(driver)):
        raise _refused("%r is not a driver's name. Use a name such as vfio-pci." % (driver,))
    if default_runtime and not _MODULE.fullmatch(str(default_runtime)):
        raise _refused("%r is not a runtime's name. Use a name such as nvidia." % (default_runtime,))
    given = {"devices": devices, "add": add, "remove": remove, "replace": replace}
    texts = {name: _texts(name, values) for name, values in given.items()}
    try:
        desired = Desired(texts["add"], texts["remove"], texts["replace"])
        addresses = list(dict.fromkeys(parse_address(address) for address in texts["devices"]))
    except ExplainedError as error:
        raise _refused("%s %s" % (error.cause, error.remedy)) from None
    running = _release(release)
    checked, settings = _modules(modules or {}), _sysctls(sysctls or {})
    if document == "schematic":
        names = talos.extensions(driver_branch, kernel_modules, fabric_manager) if containers else []
        return _yaml(talos.schematic(desired, names))
    if running is None and (containers or default_runtime):
        raise _refused("release is not there, and what containers need differs by it. Give it, such as '1.13'.")
    if running is not None and running >= talos.DOCUMENTS and talos.kernel_arguments(desired):
        raise _refused(
            "Talos %d.%d has kernel parameters in its image only. Give add, remove and replace to document='schematic' "
            "instead, and upgrade the node to the image that Image Factory makes of it." % running
        )
    if running is not None and containers:
        checked = {**{name: [] for name in talos.NVIDIA_MODULES}, **checked}
        settings = {**talos.sysctls_for_containers(running), **settings}
    node = talos.Node(desired, checked, addresses, str(driver), settings, str(default_runtime))
    return _yaml(talos.patch(node, running))


def _yaml(documents: Sequence[Mapping[str, Any]]) -> str:
    return yaml.safe_dump_all(documents, sort_keys=False) if documents else ""


def _refused(words: str) -> AnsibleFilterError:
    return AnsibleFilterError("talos_machine_config: %s" % words)


def _one_of(name: str, value: Any, choices: Sequence[str]) -> None:
    if value not in choices:
        raise _refused("%s is %s, not %r." % (name, " or ".join(choices), value))


def _release(value: Any) -> talos.Release | None:
    """Major and minor. A number is refused: YAML reads 1.10 as 1.1."""
    if value is None:
        return None
    found = _RELEASE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise _refused("release is %r. Give a release of Talos in quotes, such as '1.13'." % (value,))
    release = (int(found.group(1)), int(found.group(2)))
    if release < _OLDEST or release[0] != 1:
        raise _refused("release is %r, which is not known here. Give 1.%d or a later 1.x." % (value, _OLDEST[1]))
    return release


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


def _sysctls(sysctls: Any) -> dict[str, str]:
    if not isinstance(sysctls, Mapping):
        raise _refused("sysctls is not a mapping from name to value, but %r." % (sysctls,))
    wrong = [name for name in sysctls if not isinstance(name, str) or not _SYSCTL.fullmatch(name)]
    if wrong:
        raise _refused("%r is not a sysctl's name. Use a name such as net.core.bpf_jit_harden." % (wrong[0],))
    return {name: _texts("sysctls.%s" % name, [value])[0] for name, value in sysctls.items()}


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters by name."""
        return {"talos_machine_config": talos_machine_config}
