#!/usr/bin/python
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
---
module: bmm_instance
short_description: Label and reboot an instance of NVIDIA's bare-metal manager
version_added: 0.2.0
description:
  - Sets labels of an instance, and reboots it by a power cycle of its machine. It neither makes nor deletes instances.
  - All is checked before anything is changed. Labels come before the reboot.
author:
  - confidential.gpu contributors (@confidential-gpu)
extends_documentation_fragment:
  - confidential.gpu.bmm
attributes:
  check_mode:
    support: full
    description: Reads the instance and says what would be changed.
  diff_mode:
    support: full
    description: Shows the labels before and after.
  idempotent:
    support: partial
    description: Labels are; O(reboot) reboots each time.
options:
  id:
    description: Id of the instance; of a host that the inventory lists, C(bmm_id).
    type: str
    required: true
  labels:
    description: Labels to set. A value of null takes the label away. The API keeps ten at most.
    type: dict
  replace_labels:
    description: Whether labels that O(labels) does not name are taken away.
    type: bool
    default: false
  reboot:
    description: Whether to power-cycle the instance's machine. The instance has to be Ready.
    type: bool
    default: false
  wait:
    description: Whether to wait until the instance is Ready again after its reboot.
    type: bool
    default: true
  wait_timeout:
    description: Seconds to wait for that. A large machine takes many minutes to start.
    type: float
    default: 1800
seealso:
  - module: confidential.gpu.bmm_instance_info
"""

EXAMPLES = r"""
- name: Say that the machine is confidential
  confidential.gpu.bmm_instance:
    endpoint: https://bmm.example.com
    org: acme
    id: "{{ bmm_id }}"
    labels: {confidential-gpu: "on"}
  delegate_to: localhost

- name: Reboot a machine that SSH does not reach, and wait for it
  confidential.gpu.bmm_instance:
    endpoint: https://bmm.example.com
    org: acme
    id: "{{ bmm_id }}"
    reboot: true
  delegate_to: localhost
"""

RETURN = r"""
labels:
  description: The labels after the run; in check mode those that it would leave.
  returned: success
  type: dict
  sample: {confidential-gpu: "on"}
status:
  description: The status after the run.
  returned: success
  type: str
  sample: Ready
rebooted:
  description: Whether the machine was power-cycled; in check mode whether it would be.
  returned: success
  type: bool
  sample: false
error:
  description: The error as data - kind, cause, state, remedy, retryable, and what was seen.
  returned: on failure
  type: dict
  sample: {kind: NotReady, cause: It is Repairing., state: "", remedy: Wait., retryable: true, seen: {}}
"""

from typing import Any, Mapping

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.confidential.gpu.plugins.module_utils import _bmm_module
from ansible_collections.confidential.gpu.plugins.module_utils._bmm import change
from ansible_collections.confidential.gpu.plugins.module_utils._bmm.client import Client


class Run:
    """One run of the module; ``only_plan`` changes nothing."""

    def __init__(self, only_plan: bool) -> None:
        self._only_plan = only_plan

    def __call__(self, client: Client, given: Mapping[str, Any]) -> dict[str, Any]:
        """The result. Raises ApiError, InvalidRequest, NotReady, RebootFailed."""
        instance = client.instance(given["id"])
        labels = change.wanted_labels(instance, given["labels"], given["replace_labels"])
        if given["reboot"]:
            change.check_reboot(instance)
        relabel = labels.before != labels.after
        if not self._only_plan:
            if relabel:
                instance = client.set_labels(given["id"], labels.after)
            if given["reboot"]:
                instance = change.reboot(client, instance, given["wait_timeout"] if given["wait"] else None)
        return {
            "changed": relabel or given["reboot"],
            "labels": labels.after,
            "status": instance.get("status"),
            "rebooted": given["reboot"],
            "diff": {"before": {"labels": labels.before}, "after": {"labels": labels.after}},
        }


def main() -> None:
    """Run as an Ansible module."""
    arguments = {
        **_bmm_module.ARGUMENTS,
        "id": {"type": "str", "required": True},
        "labels": {"type": "dict"},
        "replace_labels": {"type": "bool", "default": False},
        "reboot": {"type": "bool", "default": False},
        "wait": {"type": "bool", "default": True},
        "wait_timeout": {"type": "float", "default": 1800},
    }
    module = AnsibleModule(argument_spec=arguments, supports_check_mode=True)
    _bmm_module.run(module, Run(module.check_mode))


if __name__ == "__main__":
    main()
