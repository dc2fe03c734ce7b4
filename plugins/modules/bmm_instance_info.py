#!/usr/bin/python
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
---
module: bmm_instance_info
short_description: Read instances of NVIDIA's bare-metal manager
version_added: 0.2.0
description:
  - Lists a tenant's instances, or reads the ones that are named by their ids.
  - Terminated instances, user data and other fields that may hold secrets are left out.
author:
  - confidential.gpu contributors (@confidential-gpu)
extends_documentation_fragment:
  - confidential.gpu.bmm
  - confidential.gpu.attributes.reads_only
options:
  ids:
    description: Ids of the instances. The default is all that pass the filters.
    type: list
    elements: str
    default: []
  include_filters:
    description:
      - An instance is listed if it passes any of these, or if there are none.
      - Keys are V(id), V(name), V(status), V(site) (name or id), V(site_id), V(vpc_id), V(instance_type_id),
        V(machine_id) and V(labels). All keys of one filter have to match; a list means any of its values.
    type: list
    elements: dict
    default: []
  exclude_filters:
    description: An instance that passes any of these is not listed. Keys as in O(include_filters).
    type: list
    elements: dict
    default: []
seealso:
  - module: confidential.gpu.bmm_instance
  - plugin: confidential.gpu.bmm
    plugin_type: inventory
"""

EXAMPLES = r"""
- name: Read what is ready, with the token in the environment (NVIDIA_BMM_TOKEN)
  confidential.gpu.bmm_instance_info:
    endpoint: https://bmm.example.com
    org: acme
    include_filters:
      - status: Ready
  delegate_to: localhost
  register: fleet

- name: Show the addresses
  ansible.builtin.debug:
    msg: "{{ fleet.instances | map(attribute='addresses') }}"
"""

RETURN = r"""
instances:
  description:
    - One entry for each instance in the order of the names. The inventory plugin gives a host the same facts, with a
      prefix.
  returned: success
  type: list
  elements: dict
  contains:
    id:
      description: Id of the instance.
      type: str
      sample: 497f6eca-6276-4993-bfeb-53cbbbba6f08
    name:
      description: Name of the instance, which may hold any text.
      type: str
      sample: gpu-0
    status:
      description: Status.
      type: str
      sample: Ready
    status_message:
      description: Message of the newest entry of its history.
      type: str
      sample: Instance is missing on Site
    site_id:
      description: Id of the site.
      type: str
      sample: 60189e9c-7d12-438c-b9ca-6998d9c364b1
    site:
      description: Name of the site.
      type: str
      sample: sjc4
    site_online:
      description: Whether the site is connected; if it is not, what is said of the instance is old.
      type: bool
      sample: true
    location:
      description: City, state and country of the site, if it has them.
      type: dict
      sample: {city: San Jose, state: CA, country: USA}
    tenant_id:
      description: Id of the tenant.
      type: str
      sample: f97df110-f4de-492e-8849-4a6af68026b0
    vpc_id:
      description: Id of the VPC.
      type: str
      sample: 5e28ad7c-5fb7-46d6-a28a-fc0ba6fdc4a3
    vpc:
      description: Name of the VPC.
      type: str
      sample: default
    instance_type_id:
      description: Id of the instance type.
      type: str
      sample: 41e36058-8403-4086-a9b8-39cb5bc9cb98
    instance_type:
      description: Name of the instance type.
      type: str
      sample: gpu.8xh100
    machine_id:
      description: Id of the machine.
      type: str
      sample: fm100ht4v4mce2qstjnl8970nnj3ie6ecek4mtjn27pea4kre5gsa49jg0g
    machine:
      description: The machine's C(status), C(vendor), C(product_name), C(maintenance_message).
      type: dict
      sample: {status: InUse, vendor: NVIDIA, product_name: DGXH100, maintenance_message: ""}
    labels:
      description: Labels.
      type: dict
      sample: {env: staging}
    addresses:
      description: Addresses of its interfaces, the best first; none of the link or the loopback.
      type: list
      elements: str
      sample: [10.0.0.7]
    ipv4:
      description: Those of them that are IPv4.
      type: list
      elements: str
      sample: [10.0.0.7]
    ipv6:
      description: Those of them that are IPv6.
      type: list
      elements: str
      sample: []
    update_pending:
      description: Whether an update waits for the next reboot.
      type: bool
      sample: false
    created:
      description: When it was made.
      type: str
      sample: "2026-01-05T08:00:00Z"
    provider_id:
      description: Provider id for a Kubernetes node.
      type: str
      sample: nvidia-bmm://acme/f97df110-f4de-492e-8849-4a6af68026b0/60189e9c/497f6eca-6276-4993-bfeb-53cbbbba6f08
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


def read(client: Client, given: Mapping[str, Any]) -> dict[str, Any]:
    """The result. Raises ApiError, InvalidRequest."""
    include, exclude = given["include_filters"], given["exclude_filters"]
    hosts.check_filters("include_filters", include)
    hosts.check_filters("exclude_filters", exclude)
    if given["ids"]:
        records = [client.instance(its_id, hosts.RELATIONS) for its_id in dict.fromkeys(given["ids"])]
    else:
        records = client.instances(hosts.query_of(include), hosts.RELATIONS)
    sites = _bmm_module.sites(client, records)
    found = [hosts.facts(one, sites, client.settings.org) for one in records]
    return {"changed": False, "instances": [one for one in found if hosts.wanted(one, include, exclude)]}


def main() -> None:
    """Run as an Ansible module."""
    filters: dict[str, Any] = {"type": "list", "elements": "dict", "default": []}
    arguments = {
        **_bmm_module.ARGUMENTS,
        "ids": {"type": "list", "elements": "str", "default": []},
        "include_filters": filters,
        "exclude_filters": filters,
    }
    _bmm_module.run(AnsibleModule(argument_spec=arguments, supports_check_mode=True), read)


if __name__ == "__main__":
    main()
