#!/usr/bin/python
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
---
module: rollout_record
short_description: Keep a host's record of a rollout, which is its part of the fleet's lock
version_added: 0.1.0
description:
  - The playbook C(confidential.gpu.rollout) keeps a file on each host that says which rollout has the host, since when
    and by whom, how far it is, and in which modes the devices were before.
  - While a record is open, another rollout is refused.
  - No device is looked at.
author:
  - confidential.gpu contributors (@confidential-gpu)
options:
  state:
    description:
      - Without it the record is read.
      - V(claimed) takes the host. A record of the same rollout stays as it is.
      - V(begun) is written before the devices are changed. Begun again, the modes of the first time stay.
      - V(passed) says that the host's wave has passed its gates.
      - V(ended) lets other rollouts begin. The modes from before are kept for O(undo).
    type: str
    choices: [claimed, begun, passed, ended]
  name:
    description: The rollout's name. Required with O(state).
    type: str
  mode:
    description:
      - The mode that the rollout brings. Required with O(state=claimed) and O(state=begun), except with O(undo).
      - YAML turns a bare C(on) and C(off) into booleans; both spellings work.
    type: str
    choices: ["off", "on", devtools, ppcie]
  before:
    description: With O(state=begun), the mode of each device before the change, by PCI address.
    type: dict
    default: {}
  undo:
    description: Whether the devices are put back into the modes from before. Needs a record of the same name.
    type: bool
    default: false
  by:
    description: Who does it, for others to read.
    type: str
    default: unknown
  take_over:
    description: Name of a rollout that was given up. Its open record is replaced, the modes before it are forgotten.
    type: str
    default: ""
  path:
    description: The record's file. A lock is kept beside it.
    type: path
    default: /var/lib/confidential.gpu/rollout.json
attributes:
  check_mode:
    support: full
    description: Nothing is written, and what a real run would refuse is refused.
  diff_mode:
    support: none
    description: The result has the record.
  idempotent:
    support: full
    description: A record that is as asked for is not written.
  platform:
    support: full
    platforms: linux
    description: Needs root for the default path.
seealso:
  - module: confidential.gpu.cc_mode
"""

EXAMPLES = r"""
- name: See whether a rollout has this host
  confidential.gpu.rollout_record:
  register: rollout

- name: Take the host
  confidential.gpu.rollout_record:
    state: claimed
    name: change-4711
    mode: "on"
    by: alice
"""

RETURN = r"""
record:
  description: The record as it is afterwards, null where there is none.
  returned: success
  type: dict
  sample:
    name: change-4711
    mode: "on"
    by: alice
    since: "2026-01-01T08:00:00Z"
    state: begun
    undo: false
    before: {"0000:17:00.0": "off"}
open:
  description: Whether a rollout has this host.
  returned: success
  type: bool
  sample: true
error:
  description: The error as data - kind, cause, state, remedy, retryable, and what was seen.
  returned: on failure
  type: dict
  sample: {kind: HeldByAnother, cause: Taken., state: "", remedy: Let it finish., retryable: false, seen: {}}
"""

import contextlib
import time
from typing import Any, Optional

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.confidential.gpu.plugins.module_utils import _module
from ansible_collections.confidential.gpu.plugins.module_utils._core import lock
from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import ExplainedError, InvalidRequest
from ansible_collections.confidential.gpu.plugins.module_utils._rollout import record
from ansible_collections.confidential.gpu.plugins.module_utils._rollout.record import Record, Request

# The lock is held for one read and one write.
LOCK_WAIT_S = 10.0
WRITING = lock.Locked("writing the record of a rollout", "Run this again.")


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": list(record.STATES)},
            "name": {"type": "str"},
            "mode": {"type": "str", "choices": ["off", "on", "devtools", "ppcie"]},
            "before": {"type": "dict", "default": {}},
            "undo": {"type": "bool", "default": False},
            "by": {"type": "str", "default": "unknown"},
            "take_over": {"type": "str", "default": ""},
            "path": {"type": "path", "default": "/var/lib/confidential.gpu/rollout.json"},
        },
        required_if=[("state", state, ("name",)) for state in record.STATES],
        supports_check_mode=True,
    )
    try:
        changed, found = _run(module.params, module.check_mode)
    except ExplainedError as error:
        _module.fail(module, error)
    module.exit_json(changed=changed, record=found.as_dict() if found else None, open=bool(found and found.is_open))


def _run(given: dict[str, Any], only_look: bool) -> tuple[bool, Optional[Record]]:
    """Whether something was, or would be, written; and the record."""
    path = given["path"]
    if given["state"] is None:
        return False, record.read(path)
    record.checked_name(given["name"])
    with contextlib.nullcontext() if only_look else lock.held(path + ".lock", LOCK_WAIT_S, what=WRITING):
        old = record.read(path)
        new = _next(given, old)
        if new is None or new == old:
            return False, old
        if not only_look:
            record.write(path, new)
        return True, new


def _next(given: dict[str, Any], old: Optional[Record]) -> Optional[Record]:
    if given["state"] == record.PASSED:
        return record.passed(old, given["name"])
    if given["state"] == record.ENDED:
        return record.end(old, given["name"])
    if not given["mode"] and not given["undo"]:
        raise InvalidRequest("No mode is given.", "Give the mode that the rollout brings, or undo.")
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    request = Request(given["name"], given["mode"] or "", given["by"], now, given["undo"], given["take_over"])
    before = {str(address): _module.mode_text(mode) for address, mode in given["before"].items()}
    return record.begin(old, request, before if given["state"] == record.BEGUN else None)


if __name__ == "__main__":
    main()
