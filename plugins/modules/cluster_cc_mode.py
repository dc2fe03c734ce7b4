#!/usr/bin/python
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
---
module: cluster_cc_mode
short_description: Set the confidential-computing mode of a node's GPUs, or the cluster's default, through the API
version_added: 0.2.0
description:
  - Sets the label C(nvidia.com/cc.mode) of a node, and waits until the manager on it says that the devices are in this
    mode (C(nvidia.com/cc.mode.state)). Without O(node) it sets the default mode in the ClusterPolicy.
  - A node is not changed while pods hold its GPUs, unless they may be evicted.
author:
  - confidential.gpu contributors (@confidential-gpu)
options:
  node:
    description: The node; without it, the cluster's default mode is set.
    type: str
  mode:
    description:
      - The mode. V(ppcie) is for nodes only.
      - YAML turns a bare C(on) and C(off) into booleans; both spellings work.
    type: str
    choices: ["off", "on", devtools, ppcie]
    required: true
  drain:
    description: Whether pods that hold GPUs are evicted. Disruption budgets are kept.
    type: bool
    default: false
  timeout:
    description: Seconds for the pods to go, and again for the mode to be there.
    type: float
    default: 900
extends_documentation_fragment:
  - confidential.gpu.cluster
attributes:
  check_mode:
    support: full
    description: Refuses what a real run would refuse, and changes nothing.
  diff_mode:
    support: full
    description: Shows the mode.
  idempotent:
    support: full
    description: A node that has the mode is not touched.
requirements:
  - kubectl
"""

EXAMPLES = r"""
- name: One node, when no pod holds its GPUs
  confidential.gpu.cluster_cc_mode:
    node: worker-1
    mode: "on"
  delegate_to: localhost

- name: All nodes without a label of their own
  confidential.gpu.cluster_cc_mode:
    mode: "on"
  delegate_to: localhost
"""

RETURN = r"""
before:
  description: The mode that was desired before; empty for none.
  returned: success
  type: str
  sample: "off"
after:
  description: The mode that is desired now.
  returned: success
  type: str
  sample: "on"
state:
  description: What the manager on the node says, in check mode as before.
  returned: success
  type: str
  sample: "on"
evicted:
  description: Pods that were, or would be, evicted.
  returned: success
  type: list
  elements: str
  sample: [default/vm]
error:
  description: The error as data - kind, cause, state, remedy, retryable, and what was seen.
  returned: on failure
  type: dict
  sample: {kind: GpusHeld, cause: "...", state: "", remedy: "...", retryable: false, seen: {}}
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.confidential.gpu.plugins.module_utils import _module
from ansible_collections.confidential.gpu.plugins.module_utils._coco import node_mode
from ansible_collections.confidential.gpu.plugins.module_utils._coco.kubectl import Api, Place
from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import ExplainedError


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "node": {"type": "str"},
            "mode": {"type": "str", "choices": ["off", "on", "devtools", "ppcie"], "required": True},
            "drain": {"type": "bool", "default": False},
            "timeout": {"type": "float", "default": 900},
            **_module.CLUSTER_ARGUMENTS,
        },
        supports_check_mode=True,
    )
    given = module.params
    place = Place(kubectl=given["kubectl"], kubeconfig=given["kubeconfig"], context=given["context"])
    try:
        with Api(place) as api:
            if given["node"]:
                found = node_mode.set_of_node(
                    api, given["node"], given["mode"], given["drain"], given["timeout"], module.check_mode
                )
            else:
                found = node_mode.set_of_cluster(
                    api, given["mode"], given["drain"], given["timeout"], module.check_mode
                )
    except ExplainedError as error:
        _module.fail(module, error)
    diff = {"before": "mode: %s\n" % found.before, "after": "mode: %s\n" % found.after} if found.changed else {}
    module.exit_json(diff=diff, **found._asdict())


if __name__ == "__main__":
    main()
