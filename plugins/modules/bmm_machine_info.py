#!/usr/bin/python
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
---
module: bmm_machine_info
short_description: Read machines of NVIDIA's bare-metal manager
version_added: 0.2.0
description:
  - Reads the machines that are named by their ids, or lists all.
  - Providers may list machines, and tenants that may choose the machine of an instance (targeted instance creation).
    Any tenant may read a machine that one of its instances runs on, by its id.
author:
  - confidential.gpu contributors (@confidential-gpu)
extends_documentation_fragment:
  - confidential.gpu.bmm
  - confidential.gpu.attributes.reads_only
options:
  ids:
    description: Ids of the machines. The default is all that may be listed.
    type: list
    elements: str
    default: []
  site_id:
    description: Only machines of this site.
    type: str
"""

EXAMPLES = r"""
- name: Read the machine of a host that the inventory lists
  confidential.gpu.bmm_machine_info:
    endpoint: https://bmm.example.com
    org: acme
    ids: ["{{ bmm_machine_id }}"]
  delegate_to: localhost
"""

RETURN = r"""
machines:
  description: One entry for each machine in the order of the ids.
  returned: success
  type: list
  elements: dict
  contains:
    id:
      description: Id of the machine.
      type: str
      sample: fm100ht4v4mce2qstjnl8970nnj3ie6ecek4mtjn27pea4kre5gsa49jg0g
    status:
      description: Status.
      type: str
      sample: InUse
    site_id:
      description: Id of the site.
      type: str
      sample: 60189e9c-7d12-438c-b9ca-6998d9c364b1
    instance_id:
      description: Id of the instance that runs on it, empty for none.
      type: str
      sample: 497f6eca-6276-4993-bfeb-53cbbbba6f08
    vendor:
      description: Vendor.
      type: str
      sample: NVIDIA
    product_name:
      description: Product name.
      type: str
      sample: DGXH100
    serial_number:
      description: Serial number; providers see it.
      type: str
      sample: "1660224000000"
    maintenance_message:
      description: Why it is in maintenance, empty if it is not.
      type: str
      sample: Replacing a fan.
    alerts:
      description: Messages of the health alerts.
      type: list
      elements: str
      sample: [BmcSensor - Fan 3 is slow]
    labels:
      description: Labels.
      type: dict
      sample: {}
error:
  description: The error as data - kind, cause, state, remedy, retryable, and what was seen.
  returned: on failure
  type: dict
  sample: {kind: NotAllowed, cause: "403.", state: "", remedy: Check the role., retryable: false, seen: {status: 403}}
"""

from typing import Any, Mapping

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.confidential.gpu.plugins.module_utils import _bmm_module
from ansible_collections.confidential.gpu.plugins.module_utils._bmm import hosts
from ansible_collections.confidential.gpu.plugins.module_utils._bmm.client import Client
from ansible_collections.confidential.gpu.plugins.module_utils._bmm.errors import NotAllowed


def read(client: Client, given: Mapping[str, Any]) -> dict[str, Any]:
    """The result. Raises ApiError."""
    site_id = given["site_id"]
    if given["ids"]:
        records = [client.machine(its_id) for its_id in sorted(set(given["ids"]))]
    else:
        try:
            records = client.machines([("siteId", site_id)] if site_id else [])
        except NotAllowed as error:
            raise NotAllowed(
                error.cause, "Give ids: a tenant reads the machines of its instances.", **error.seen
            ) from None
    found = [hosts.machine_facts(one) for one in records if not site_id or one.get("siteId") == site_id]
    return {"changed": False, "machines": sorted(found, key=lambda one: str(one["id"]))}


def main() -> None:
    """Run as an Ansible module."""
    arguments = {
        **_bmm_module.ARGUMENTS,
        "ids": {"type": "list", "elements": "str", "default": []},
        "site_id": {"type": "str"},
    }
    _bmm_module.run(AnsibleModule(argument_spec=arguments, supports_check_mode=True), read)


if __name__ == "__main__":
    main()
