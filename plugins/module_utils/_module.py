# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What the modules of this collection share with Ansible: arguments, errors as failures."""

from __future__ import annotations

from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule

from ._core.errors import ExplainedError

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

# What a release is made of, beside its name, namespace and chart.
RELEASE_ARGUMENTS: dict[str, Any] = {
    "version": {"type": "str", "default": ""},
    "repository": {"type": "str", "default": ""},
    "digest": {"type": "str", "default": ""},
    "values": {"type": "dict", "default": {}},
    "secret_values": {"type": "str", "no_log": True},
}

# How releases are compared and changed.
HELM_ARGUMENTS: dict[str, Any] = {
    "keep_values": {"type": "bool", "default": False},
    "downgrade": {"type": "bool", "default": False},
    "registry": {"type": "str", "default": ""},
    "take_ownership": {"type": "bool", "default": False},
    "repair": {"type": "bool", "default": False},
    "patience": {"type": "float", "default": 900},
    "helm": {"type": "str", "default": "helm"},
    **CLUSTER_ARGUMENTS,
}


def mode_text(value: Any) -> str:
    """A mode as text: YAML turns a bare on and off into booleans."""
    if isinstance(value, bool) or value in ("True", "False"):
        return "on" if value in (True, "True") else "off"
    return str(value)


def fail(module: AnsibleModule, error: ExplainedError, **result: Any) -> NoReturn:
    """End the module with an error of ours."""
    module.fail_json(msg=str(error), error=error.as_dict(), **result)
    raise AssertionError("fail_json ends the process")
