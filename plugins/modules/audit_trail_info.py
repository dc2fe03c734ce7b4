#!/usr/bin/python
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
---
module: audit_trail_info
short_description: Read and check the audit records of mode changes on a host
version_added: 0.2.0
description:
  - Reads the files C(NAME.jsonl) of a folder, in which M(confidential.gpu.cc_mode) and the manager in Kubernetes record
    each change, and checks that each record holds the hash of the one before.
  - A record that was modified or removed is a finding. Records that were cut off at the end are found only where the
    last record is known from elsewhere (O(anchors)).
author:
  - confidential.gpu contributors (@confidential-gpu)
options:
  folder:
    description: The folder.
    type: path
    required: true
  records:
    description: How many of the last records of each trail to return.
    type: int
    default: 20
  anchors:
    description:
      - Name of a trail to what its last record was known to be, C(NUMBER HASH), as an earlier answer of this module
        (RV(trails[].anchor)) or the node's annotation C(nvidia.com/cc.mode.audit) has it. A list gives several.
    type: dict
    default: {}
extends_documentation_fragment:
  - confidential.gpu.attributes.reads_only
attributes:
  platform:
    support: full
    platforms: linux
    description: Needs the right to read the folder.
"""

EXAMPLES = r"""
- name: Check the records
  confidential.gpu.audit_trail_info:
    folder: /var/log/confidential-gpu
  register: audit

- name: Refuse to go on where records were changed
  ansible.builtin.assert:
    that: audit.trails | selectattr('state', 'eq', 'broken') | length == 0
"""

RETURN = r"""
folder_exists:
  description: Whether there is such a folder.
  returned: success
  type: bool
  sample: true
trails:
  description: One entry for each trail.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: V(ansible), or V(operand) for the CC manager in Kubernetes.
      type: str
      sample: operand
    state:
      description: V(whole), V(broken) or V(empty).
      type: str
      sample: whole
    anchor:
      description: Number and hash of the last record, for O(anchors) of a later run.
      type: str
      sample: 12 5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef
    count:
      description: How many records could be read.
      type: int
      sample: 12
    findings:
      description:
        - What is not in order - C(what) is V(modified), V(removed) or V(truncated), with C(file), C(line), C(number) of
          the record (0 where it is not known) and C(text).
      type: list
      elements: dict
      sample: []
    notes:
      description: What breaks nothing, such as a torn last line, a repair, or records dropped by rotation.
      type: list
      elements: str
      sample: []
    records:
      description: The last records.
      type: list
      elements: dict
      sample: [{event: change, number: 12, time: "2026-11-27T06:00:00Z", asked: {by: alice}, devices: []}]
error:
  description: The error as data - kind, cause, state, remedy, retryable, and what was seen.
  returned: on failure
  type: dict
  sample: {kind: NotPermitted, cause: "...", state: "", remedy: Run as root., retryable: false, seen: {}}
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.confidential.gpu.plugins.module_utils import _module
from ansible_collections.confidential.gpu.plugins.module_utils._core import chain
from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import (
    ExplainedError,
    InvalidRequest,
    NotPermitted,
)


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "folder": {"type": "path", "required": True},
            "records": {"type": "int", "default": 20},
            "anchors": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    given = module.params
    try:
        anchors = {name: _anchors(value) for name, value in given["anchors"].items()}
        trails = _read(given["folder"], given["records"], anchors)
    except ExplainedError as error:
        _module.fail(module, error)
    module.exit_json(changed=False, folder_exists=os.path.isdir(given["folder"]), trails=trails)


def _read(folder: str, count: int, anchors: dict[str, list[chain.Tail]]) -> list[dict[str, Any]]:
    try:
        # A trail that is known from elsewhere and is not there is one whose end was cut off.
        names = sorted({*chain.names(folder), *anchors})
        return [_trail(chain.check(folder, name, anchors.get(name, [])), count) for name in names]
    except (OSError, ValueError) as error:
        raise NotPermitted(
            "The audit records in %s cannot be read: %s." % (folder, error),
            "Run as root (become: true), and see what is there.",
            path=folder,
        ) from error


def _trail(found: chain.Checked, count: int) -> dict[str, Any]:
    return {
        "name": found.name,
        "state": found.state,
        "anchor": found.tail.text,
        "count": len(found.records),
        "findings": [one._asdict() for one in found.findings],
        "notes": found.notes,
        "records": found.records[-count:] if count > 0 else [],
    }


def _anchors(value: Any) -> list[chain.Tail]:
    texts = value if isinstance(value, list) else [value]
    found = [chain.anchor(str(text)) for text in texts]
    if None in found:
        raise InvalidRequest(
            "anchors holds %r, which is no number with a hash." % (value,), "Give what an earlier answer has as anchor."
        )
    return [one for one in found if one is not None]


if __name__ == "__main__":
    main()
