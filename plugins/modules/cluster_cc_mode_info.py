#!/usr/bin/python
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
---
module: cluster_cc_mode_info
short_description: Read what a cluster's nodes say of the confidential-computing modes of their GPUs
version_added: 0.2.0
description:
  - Reads the labels and annotations of nodes with GPUs, who has set the desired mode and when (managed fields), and the
    Events of the manager on the node. Changes nothing.
  - What a node says is what its manager has read back from the devices, at the time in RV(nodes[].published_at). The
    manager writes nothing while it reads the same again.
author:
  - confidential.gpu contributors (@confidential-gpu)
extends_documentation_fragment:
  - confidential.gpu.cluster
  - confidential.gpu.attributes.reads_only
requirements:
  - kubectl
"""

EXAMPLES = r"""
- name: Read the nodes
  confidential.gpu.cluster_cc_mode_info:
  delegate_to: localhost
  register: cluster
"""

RETURN = r"""
nodes:
  description: One entry for each node that has GPUs which somebody looks after, or shall.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The node's name.
      type: str
      sample: worker-1
    provider_id:
      description: Which machine it is.
      type: str
      sample: nvidia-bmm://org/tenant/site/1a0b3fc4-26d1-4c34-9e8f-1b2f3c4d5e6f
    ready:
      description: Whether the kubelet says that the node is ready; null when it does not say it.
      type: bool
      sample: true
    boot:
      description: The boot ID of the host's present boot.
      type: str
      sample: 0b5a9c1e-6d1f-4d0e-9d0b-4f8f7a0a3f11
    wanted:
      description: The label C(nvidia.com/cc.mode); empty for none.
      type: str
      sample: "on"
    wanted_devices:
      description: The annotation with desired modes of single devices.
      type: str
      sample: ""
    state:
      description: The label C(nvidia.com/cc.mode.state).
      type: str
      sample: "on"
    ready_state:
      description: The label C(nvidia.com/cc.ready.state).
      type: str
      sample: "true"
    reason:
      description: Why the state is not what is desired.
      type: str
      sample: ""
    changing:
      description: The change that is under way.
      type: str
      sample: ""
    audit:
      description: Number and hash of the last audit record on the node.
      type: str
      sample: ""
    devices:
      description: PCI address to what was read from the device, with the boot in which that was.
      type: dict
      sample: {"0000:17:00.0": {kind: gpu, name: H100-SXM, mode: "on", boot: 0b5a9c1e-6d1f-4d0e-9d0b-4f8f7a0a3f11}}
    published_by:
      description: Who wrote that.
      type: str
      sample: k8s-cc-manager
    published_at:
      description: When.
      type: str
      sample: "2026-11-27T06:00:00Z"
    asked:
      description: Who has set the desired mode, by the name that the program gave itself, and when.
      type: list
      elements: dict
      sample: [{key: nvidia.com/cc.mode, by: kubectl-label, at: "2026-11-27T06:00:00Z"}]
    events:
      description: The manager's Events that the API server still has, which is an hour by default.
      type: list
      elements: dict
      sample: []
anchors:
  description: Node to its last audit record, of nodes that name one.
  returned: success
  type: dict
  sample: {worker-1: 12 5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef}
anchors_by_provider_id:
  description: The same by provider id.
  returned: success
  type: dict
  sample: {}
error:
  description: The error as data - kind, cause, state, remedy, retryable, and what was seen.
  returned: on failure
  type: dict
  sample: {kind: ClusterUnreachable, cause: "...", state: "", remedy: "...", retryable: true, seen: {}}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.confidential.gpu.plugins.module_utils import _module
from ansible_collections.confidential.gpu.plugins.module_utils._coco.errors import ApiRefused
from ansible_collections.confidential.gpu.plugins.module_utils._coco.kubectl import Api, Place
from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import ExplainedError
from ansible_collections.confidential.gpu.plugins.module_utils._report import cluster


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec={**_module.CLUSTER_ARGUMENTS}, supports_check_mode=True)
    given = module.params
    try:
        with Api(Place(kubectl=given["kubectl"], kubeconfig=given["kubeconfig"], context=given["context"])) as api:
            nodes = [node for node in api.list("/api/v1/nodes") or [] if cluster.concerns(node)]
            events = _events(module, api)
    except ExplainedError as error:
        _module.fail(module, error)
    facts = [cluster.node_facts(node, events.get(node["metadata"]["name"], [])) for node in nodes]
    known = [one for one in facts if one["audit"]]
    module.exit_json(
        changed=False,
        nodes=facts,
        anchors={one["name"]: one["audit"] for one in known},
        anchors_by_provider_id={one["provider_id"]: one["audit"] for one in known if one["provider_id"]},
    )


def _events(module: AnsibleModule, api: Api) -> dict[str, list[Any]]:
    """Node to its Events. They are a help: without the right to read them there is a warning."""
    try:
        found = api.list("/api/v1/namespaces/default/events?fieldSelector=involvedObject.kind%3DNode") or []
    except ApiRefused as error:
        module.warn("Events of nodes are left out. %s" % error)
        return {}
    by_node: dict[str, list[Any]] = {}
    for event in found:
        if cluster.is_ours(event):
            by_node.setdefault(event["involvedObject"].get("name", ""), []).append(event)
    return by_node


if __name__ == "__main__":
    main()
