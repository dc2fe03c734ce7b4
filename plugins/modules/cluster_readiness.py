#!/usr/bin/python
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
---
module: cluster_readiness
short_description: Say what keeps a cluster from running confidential containers with GPUs
version_added: 0.2.0
description:
  - Reads nodes, runtime classes, DaemonSets, the GPU Operator's and NFD's objects, Helm's releases and the kubelets'
    settings, and judges them. Changes nothing, and works on clusters that somebody else has installed.
  - Tells everything that it finds at once, each with what was seen and what to do.
  - Asks for each kind of object once, however many nodes there are. Only O(configz) asks the kubelets one by one.
author:
  - confidential.gpu contributors (@confidential-gpu)
options:
  nodes:
    description: The nodes that are, or are to be, confidential. Nothing is said of others.
    type: list
    elements: str
    required: true
  installed:
    description: Whether everything is to be installed by now. Else only what cannot be installed is refused.
    type: bool
    default: false
  steps:
    description: The steps that are wanted; the default is all. The rest of the report says skipped.
    type: list
    elements: str
    choices: [nodes, kubelet, nfd, gpu_operator, kata, mode, resources, sample, attestation]
    default: []
  expect:
    description:
      - What the cluster is to be. Keys that are left out are not looked at, or have the given default.
    type: dict
    default: {}
    suboptions:
      technology:
        description: Of the processors; without it, what the node's label says.
        type: str
        choices: ["", snp, tdx]
        default: ""
      mode:
        description: The nodes' mode.
        type: str
        default: ""
      mode_of_cluster:
        description: The cluster's default mode.
        type: str
        default: ""
      gpus:
        description: GPUs of each node; 0 for any number.
        type: int
        default: 0
      sample_gpus:
        description: GPUs of a pod.
        type: int
        default: 1
      sample_nvswitches:
        description: NVSwitches of a pod.
        type: int
        default: 0
      sample_memory:
        description: Memory of a pod.
        type: str
        default: 16Gi
      distribution:
        description: As kata-deploy calls it.
        type: str
        choices: [k8s, k3s, rke2, k0s, microk8s]
        default: k8s
      imports:
        description:
          - Nodes of K3s or RKE2 whose containerd is known to import C(config-v3.toml.d/*.toml).
          - Other ones are refused unless their containerd tells that it has Kata's handlers.
        type: list
        elements: str
        default: []
      installs_nfd:
        description: Whether NFD is going to be installed by its own chart.
        type: bool
        default: false
      kata_version:
        description: Of Kata; without it, the installed release's.
        type: str
        default: ""
      minimum:
        description:
          - Oldest versions of V(kernel), V(containerd), V(kubernetes), V(kata) and V(gpu_operator).
          - Older ones are refused; an operator that is older fails where it is to be installed by now.
        type: dict
        default: {}
      documented:
        description: For the same names, lists of versions' beginnings; others are a warning.
        type: dict
        default: {}
      runtime_request_timeout:
        description: Seconds that the kubelets are to give the runtime.
        type: float
        default: 1200
  configz:
    description: Whether to ask each of the O(nodes) for its kubelet's settings.
    type: bool
    default: true
  wait:
    description:
      - Seconds to wait until nothing of the O(steps) fails; then, or at the end of this time, what is seen is told.
        0 looks once.
    type: float
    default: 0
  read:
    description: Whether to read the cluster. Without it, the report is of what O(also) holds alone.
    type: bool
    default: true
  dest:
    description:
      - A file for the report as JSON, with RV(rows) and RV(findings); it is replaced whole. Empty for none.
      - A report is no change of what it is about, so it is also written in check mode.
    type: str
    default: ""
  also:
    description:
      - Findings of others, such as a sample's, for the rows of the report; as RV(findings).
      - Those about other nodes are left out.
    type: list
    elements: dict
    default: []
extends_documentation_fragment:
  - confidential.gpu.cluster
  - confidential.gpu.attributes.reads_only
requirements:
  - kubectl
"""

EXAMPLES = r"""
- name: Whether these nodes can become confidential
  confidential.gpu.cluster_readiness:
    nodes: [worker-1, worker-2]
  delegate_to: localhost
  register: cluster

- name: Refuse what is not supported
  ansible.builtin.assert:
    that: cluster.refused | length == 0
"""

RETURN = r"""
findings:
  description: What each rule says.
  returned: success
  type: list
  elements: dict
  contains:
    rule:
      description: Name of the rule.
      type: str
      sample: labelled
    step:
      description: Which step it belongs to.
      type: str
      sample: nfd
    about:
      description: A node, or V(cluster).
      type: str
      sample: worker-1
    state:
      description: V(ok), V(warn), V(refused) for what is not supported, V(failed) for what should be else.
      type: str
      sample: failed
    seen:
      description: What was seen.
      type: str
      sample: neither amd.feature.node.kubernetes.io/snp
    remedy:
      description: What to do; empty where nothing has to be done.
      type: str
      sample: "Upgrade kata-deploy again, now that NFD is there: its rule sets the label."
    text:
      description: All of it as one sentence.
      type: str
      sample: "worker-1, nfd: neither amd.feature.node.kubernetes.io/snp. Upgrade kata-deploy again."
refused:
  description: The findings that are refused, as sentences.
  returned: success
  type: list
  elements: str
unmet:
  description: The findings that are failed, as sentences. (A key C(failed) would make Ansible fail the task.)
  returned: success
  type: list
  elements: str
warned:
  description: The findings that are warnings, as sentences.
  returned: success
  type: list
  elements: str
rows:
  description: The report - for each node and step V(ok), V(failed), V(refused) or V(skipped), with evidence and remedy.
  returned: success
  type: list
  elements: dict
  sample: [{node: worker-1, step: kata, state: ok, evidence: "class kata-qemu-nvidia-gpu-snp selects it", remedy: ""}]
table:
  description: The same rows as lines of text.
  returned: success
  type: list
  elements: str
as_installed:
  description:
    - What each rule says if everything is to be installed by now, whatever O(installed) is; as RV(findings), no texts.
  returned: with O(read=true), as all that follows
  type: list
  elements: dict
  sample: []
nodes:
  description: For each node its technology, and its confidential runtime class.
  returned: success
  type: dict
  sample: {worker-1: {technology: snp, runtime_class: kata-qemu-nvidia-gpu-snp, handler: kata-qemu-nvidia-gpu-snp}}
kubelets:
  description: What each kubelet's settings lack, which gates it needs, and whether its node is ready.
  returned: success
  type: dict
  sample: {worker-1: {lacks: [featureGates.RuntimeClassInImageCriApi], gates: [RuntimeClassInImageCriApi], ready: true}}
users:
  description: Pods that use a runtime class of Kata's with GPUs, or hold GPUs, on these nodes.
  returned: success
  type: list
  elements: dict
  sample: [{namespace: default, name: vm, node: worker-1, runtime_class: kata-qemu-nvidia-gpu-snp, gpus: 1}]
releases:
  description: Helm's releases of the charts that matter - chart, name, namespace, version, status.
  returned: success
  type: list
  elements: dict
  sample: [{chart: kata-deploy, name: kata-deploy, namespace: kata-system, version: 4.1.0, status: deployed}]
crds:
  description: Names of the custom resources that the cluster knows.
  returned: success
  type: list
  elements: str
nfd:
  description: DaemonSets of NFD's workers.
  returned: success
  type: list
  elements: str
  sample: [node-feature-discovery/nfd-worker]
mode_of_cluster:
  description: The default mode in the ClusterPolicy; empty for none.
  returned: success
  type: str
  sample: "on"
workloads:
  description: For each node the value of its label C(nvidia.com/gpu.workload.config); empty for none.
  returned: success
  type: dict
  sample: {worker-1: vm-passthrough}
capable:
  description: The nodes with the label C(nvidia.com/cc.capable=true), by which this collection's CC manager chooses.
  returned: success
  type: list
  elements: str
  sample: [worker-1]
lists:
  description: How many kinds of objects were asked for.
  returned: success
  type: int
  sample: 9
error:
  description: The error as data - kind, cause, state, remedy, retryable, and what was seen.
  returned: on failure
  type: dict
  sample: {kind: ClusterUnreachable, cause: "...", state: "", remedy: "...", retryable: true, seen: {}}
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.confidential.gpu.plugins.module_utils import _module
from ansible_collections.confidential.gpu.plugins.module_utils._coco import look
from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import ExplainedError

STEPS = ["nodes", "kubelet", "nfd", "gpu_operator", "kata", "mode", "resources", "sample", "attestation"]


def main() -> None:
    """Run as an Ansible module."""
    expect = {
        "technology": {"type": "str", "choices": ["", "snp", "tdx"], "default": ""},
        "mode": {"type": "str", "default": ""},
        "mode_of_cluster": {"type": "str", "default": ""},
        "gpus": {"type": "int", "default": 0},
        "sample_gpus": {"type": "int", "default": 1},
        "sample_nvswitches": {"type": "int", "default": 0},
        "sample_memory": {"type": "str", "default": "16Gi"},
        "distribution": {"type": "str", "choices": ["k8s", "k3s", "rke2", "k0s", "microk8s"], "default": "k8s"},
        "imports": {"type": "list", "elements": "str", "default": []},
        "installs_nfd": {"type": "bool", "default": False},
        "kata_version": {"type": "str", "default": ""},
        "minimum": {"type": "dict", "default": {}},
        "documented": {"type": "dict", "default": {}},
        "runtime_request_timeout": {"type": "float", "default": 1200},
    }
    module = AnsibleModule(
        argument_spec={
            "nodes": {"type": "list", "elements": "str", "required": True},
            "installed": {"type": "bool", "default": False},
            "steps": {"type": "list", "elements": "str", "choices": STEPS, "default": []},
            "expect": {"type": "dict", "default": {}, "options": expect, "apply_defaults": True},
            "configz": {"type": "bool", "default": True},
            "wait": {"type": "float", "default": 0},
            "read": {"type": "bool", "default": True},
            "dest": {"type": "str", "default": ""},
            "also": {"type": "list", "elements": "dict", "default": []},
            **_module.CLUSTER_ARGUMENTS,
        },
        supports_check_mode=True,
    )
    try:
        found = look.run(module.params)
    except ExplainedError as error:
        _module.fail(module, error)
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
