# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What the modules of this collection share with Ansible: arguments, buses by name, errors as failures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, Optional

from ansible.module_utils.basic import AnsibleModule

from ._core.errors import ExplainedError, InvalidRequest

# Buses are imported where one is asked for: a host compiles anew at each run what a module imports.
if TYPE_CHECKING:
    from ._pci.bus import Bus

DEVICE_ARGUMENTS: dict[str, Any] = {
    "devices": {"type": "list", "elements": "str", "default": []},
    "boot_timeout": {"type": "float", "default": 30},
    "bus": {"type": "str", "default": "sysfs"},
    "admin_tools": {"type": "path"},
}

STATE_ARGUMENTS: dict[str, Any] = {"state_folder": {"type": "path"}}

CLUSTER_ARGUMENTS: dict[str, Any] = {
    "kubectl": {"type": "str", "default": "kubectl"},
    "kubeconfig": {"type": "str", "default": ""},
    "context": {"type": "str", "default": ""},
}

VFIO_USER = "vfio-user:"


def bus_named(name: str, state_folder: Optional[str] = None) -> Bus:
    """'sysfs' or 'vfio-user:<folder>' as a bus. Raises InvalidRequest.

    ``state_folder`` is where a sysfs bus keeps its lock, instead of STATE_FOLDER.
    """
    if "\0" in name:
        raise InvalidRequest("%r is not a bus." % name, "Leave out the NUL character.")
    if name == "sysfs":
        from ._pci.sysfs import STATE_FOLDER, SysfsBus  # noqa: PLC0415

        return SysfsBus(state_folder=state_folder or STATE_FOLDER)
    if name.startswith(VFIO_USER) and len(name) > len(VFIO_USER):
        from ._pci.vfio_user import VfioUserBus  # noqa: PLC0415

        return VfioUserBus(name[len(VFIO_USER) :])
    raise InvalidRequest("%r is not a bus." % name, "Use sysfs, or vfio-user: followed by a folder of sockets.")


def mode_text(value: Any) -> str:
    """A mode as text: YAML turns a bare on and off into booleans."""
    if isinstance(value, bool) or value in ("True", "False"):
        return "on" if value in (True, "True") else "off"
    return str(value)


def fail(module: AnsibleModule, error: ExplainedError, **result: Any) -> NoReturn:
    """End the module with an error of ours."""
    module.fail_json(msg=str(error), error=error.as_dict(), **result)
    raise AssertionError("fail_json ends the process")
