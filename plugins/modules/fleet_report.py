#!/usr/bin/python
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
---
module: fleet_report
short_description: Make a signed report of a fleet's confidential GPUs
version_added: 0.2.0
description:
  - Makes one HTML page, JSON and CSV of what hosts and a cluster have answered. The playbook
    C(confidential.gpu.report) gathers the answers and runs this on the controller.
  - Hosts and nodes are joined by provider id where both have one, else by name.
  - A host that did not answer is in the report, with its devices as they were known last. Only a mode that was read
    back counts as protected.
author:
  - confidential.gpu contributors (@confidential-gpu)
options:
  folder:
    description:
      - The folder of the reports. Each gets a folder in it that is named by the time; the link C(latest) leads to the
        last.
    type: path
    required: true
  hosts:
    description: The hosts of the inventory, those that did not answer among them.
    type: list
    elements: str
    default: []
  readings:
    description: Host to the result of M(confidential.gpu.cc_mode_info) there, as it was registered.
    type: dict
    default: {}
  readiness:
    description: Host to the result of M(confidential.gpu.host_readiness).
    type: dict
    default: {}
  trails:
    description: Host to the result of M(confidential.gpu.audit_trail_info).
    type: dict
    default: {}
  provider_ids:
    description: Host to its provider id.
    type: dict
    default: {}
  cluster:
    description: The result of M(confidential.gpu.cluster_cc_mode_info); empty when no cluster was asked.
    type: dict
    default: {}
  cluster_name:
    description: How the report names the cluster.
    type: str
    default: kubernetes
  previous:
    description:
      - The C(report.json) of an earlier report, to compare with. The default is the last one in O(folder), if there is
        one; V(none) compares with nothing.
    type: path
    default: ""
  old_after:
    description: Seconds after which what a node's manager has published counts as an old reading.
    type: float
    default: 86400
  key:
    description:
      - File of a private key of OpenSSH that needs no passphrase, or of the public key of one that ssh-agent holds. The
        file C(SHA256SUMS) is signed with it. The default signs nothing.
    type: path
  made_by:
    description: Who makes the report.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    description: Makes the report in memory and writes nothing.
  diff_mode:
    support: none
    description: A report has no earlier state.
  idempotent:
    support: none
    description: Each run makes a report.
requirements:
  - ssh-keygen of OpenSSH 8.0 or later, to sign
"""

EXAMPLES = r"""
- name: Report
  confidential.gpu.fleet_report:
    folder: reports
    hosts: "{{ groups.gpu_nodes }}"
    readings: "{{ readings }}"
    key: ~/.ssh/report
  delegate_to: localhost
"""

RETURN = r"""
path:
  description: The folder of this report; empty in check mode.
  returned: success
  type: str
  sample: /srv/reports/20261127T060000Z
summary:
  description: How many devices, hosts, audit trails and differences there are, by what was found.
  returned: success
  type: dict
  sample: {devices: 16, protected: 12, unprotected: 2, pending: 0, old: 0, unknown: 2, trails_broken: 0, drift: 1}
signed:
  description: Whether the report is signed.
  returned: success
  type: bool
  sample: true
error:
  description: The error as data - kind, cause, state, remedy, retryable, and what was seen.
  returned: on failure
  type: dict
  sample: {kind: NotSigned, cause: "...", state: "", remedy: "...", retryable: false, seen: {}}
"""

import getpass
import os
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.confidential.gpu.plugins.module_utils import _module
from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import ExplainedError
from ansible_collections.confidential.gpu.plugins.module_utils._report import out, report

NO_PREVIOUS = "none"


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "folder": {"type": "path", "required": True},
            "hosts": {"type": "list", "elements": "str", "default": []},
            "readings": {"type": "dict", "default": {}},
            "readiness": {"type": "dict", "default": {}},
            "trails": {"type": "dict", "default": {}},
            "provider_ids": {"type": "dict", "default": {}},
            "cluster": {"type": "dict", "default": {}},
            "cluster_name": {"type": "str", "default": "kubernetes"},
            "previous": {"type": "path", "default": ""},
            "old_after": {"type": "float", "default": 86400},
            "key": {"type": "path", "no_log": False},
            "made_by": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    given = module.params
    try:
        last = os.path.join(given["folder"], out.LATEST, out.JSON)
        chosen = given["previous"] or last
        previous, about = (None, {}) if chosen == NO_PREVIOUS else out.previous(chosen)
        made_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        made_by = given["made_by"] or "%s@%s" % (getpass.getuser(), os.uname().nodename)
        found = report.build(_sources(given), made_at, made_by, given["old_after"], previous, about)
        path = "" if module.check_mode else out.write(found, given["folder"], given["key"] or "")
    except ExplainedError as error:
        _module.fail(module, error)
    signed = bool(given["key"]) and not module.check_mode
    module.exit_json(changed=not module.check_mode, path=path, summary=found["summary"], signed=signed)


def _sources(given: dict[str, Any]) -> report.Sources:
    asked = bool(given["cluster"])
    nodes = given["cluster"].get("nodes")
    return report.Sources(
        hosts=given["hosts"],
        readings=given["readings"],
        readiness=given["readiness"],
        trails=given["trails"],
        provider_ids={host: str(value) for host, value in given["provider_ids"].items() if value},
        nodes=nodes or [],
        cluster=given["cluster_name"] if asked else "",
        cluster_problem=str(given["cluster"].get("msg") or "no answer") if asked and nodes is None else "",
    )


if __name__ == "__main__":
    main()
