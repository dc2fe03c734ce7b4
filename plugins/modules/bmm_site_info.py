#!/usr/bin/python
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
---
module: bmm_site_info
short_description: Read sites of NVIDIA's bare-metal manager
version_added: 0.2.0
description:
  - Lists the sites that the tenant may use, with their locations.
author:
  - confidential.gpu contributors (@confidential-gpu)
extends_documentation_fragment:
  - confidential.gpu.bmm
  - confidential.gpu.attributes.reads_only
options:
  names:
    description: Names or ids of the sites. The default is all.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Read the sites
  confidential.gpu.bmm_site_info:
    endpoint: https://bmm.example.com
    org: acme
  delegate_to: localhost
  register: sites

- name: Go on with a site that is connected
  ansible.builtin.assert:
    that: sites.sites | selectattr('online') | length > 0
"""

RETURN = r"""
sites:
  description: One entry for each site in the order of the names.
  returned: success
  type: list
  elements: dict
  contains:
    id:
      description: Id of the site.
      type: str
      sample: 60189e9c-7d12-438c-b9ca-6998d9c364b1
    name:
      description: Name of the site.
      type: str
      sample: sjc4
    status:
      description: Status.
      type: str
      sample: Registered
    online:
      description: Whether the site is connected; if it is not, what is said of its instances is old.
      type: bool
      sample: true
    location:
      description: City, state and country, if it has them.
      type: dict
      sample: {city: San Jose, state: CA, country: USA}
    capabilities:
      description: What the site can do, as the API says it.
      type: dict
      sample: {nativeNetworking: true}
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
from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import InvalidRequest


def read(client: Client, given: Mapping[str, Any]) -> dict[str, Any]:
    """The result. Raises ApiError, InvalidRequest for a site that is not there."""
    found = sorted((hosts.site_facts(one) for one in client.sites()), key=lambda one: (one["name"], one["id"]))
    for name in given["names"]:
        if not any(name in (one["name"], one["id"]) for one in found):
            raise InvalidRequest(
                "There is no site %r." % name, "There are: %s." % ", ".join(one["name"] for one in found)
            )
    names = given["names"]
    return {
        "changed": False,
        "sites": [one for one in found if not names or one["name"] in names or one["id"] in names],
    }


def main() -> None:
    """Run as an Ansible module."""
    arguments = {**_bmm_module.ARGUMENTS, "names": {"type": "list", "elements": "str", "default": []}}
    _bmm_module.run(AnsibleModule(argument_spec=arguments, supports_check_mode=True), read)


if __name__ == "__main__":
    main()
