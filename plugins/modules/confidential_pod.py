#!/usr/bin/python
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
---
module: confidential_pod
short_description: Run a pod once on one node in a runtime class, and say how it went
version_added: 0.2.0
description:
  - Makes a pod, waits for its end, returns its log, and always deletes it, never by force.
  - A pod that does not run yields one cause with its remedy - a key that the class selects by, a resource, or what the
    host said - and no dump.
author:
  - confidential.gpu contributors (@confidential-gpu)
options:
  node:
    description: The node it runs on.
    type: str
    required: true
  namespace:
    description: Where the pod is.
    type: str
    default: default
  runtime_class:
    description: Its runtime class. The default is the node's confidential one; empty is containerd's own.
    type: str
  technology:
    description: Of the node's processor, to find the runtime class; without it what the node's label says.
    type: str
    choices: ["", snp, tdx]
    default: ""
  image:
    description: The image. A confidential guest pulls it by itself, from a registry that the guest must reach.
    type: str
    required: true
  command:
    description: Instead of the image's own.
    type: list
    elements: str
    default: []
  gpus:
    description: How many GPUs.
    type: int
    default: 1
  nvswitches:
    description: How many NVSwitches.
    type: int
    default: 0
  memory:
    description: Its memory.
    type: str
    default: 16Gi
  contains:
    description: What its log has to say.
    type: str
    default: ""
  environment:
    description: Variables of its environment. No secrets.
    type: dict
    default: {}
  annotations:
    description: Annotations, such as C(io.katacontainers.config.hypervisor.cc_init_data).
    type: dict
    default: {}
  pull_secrets:
    description: Names of Secrets for the registry.
    type: list
    elements: str
    default: []
  tolerations:
    description: Tolerations of the pod.
    type: list
    elements: dict
    default: []
  timeout:
    description: Seconds for all of it; the guest pulls the image within them.
    type: float
    default: 1200
extends_documentation_fragment:
  - confidential.gpu.cluster
attributes:
  check_mode:
    support: full
    description: Runs nothing, and says that it was skipped.
  diff_mode:
    support: none
    description: What is made is deleted again.
  idempotent:
    support: full
    description: Nothing is left changed.
requirements:
  - kubectl
"""

EXAMPLES = r"""
- name: NVIDIA's sample
  confidential.gpu.confidential_pod:
    node: worker-1
    image: nvcr.io/nvidia/k8s/cuda-sample:vectoradd-cuda12.5.0-ubuntu22.04
    contains: Test PASSED
  delegate_to: localhost
"""

RETURN = r"""
state:
  description: V(passed), V(failed), or V(skipped) in check mode.
  returned: success
  type: str
  sample: passed
phase:
  description: The pod's phase at the end.
  returned: success
  type: str
  sample: Succeeded
runtime_class:
  description: The runtime class that it ran in.
  returned: success
  type: str
  sample: kata-qemu-nvidia-gpu-snp
log:
  description: The end of its log.
  returned: success
  type: str
  sample: Test PASSED
seen:
  description: What was seen, one sentence.
  returned: success
  type: str
  sample: log says Test PASSED
remedy:
  description: What to do; empty where nothing has to be done.
  returned: success
  type: str
  sample: ""
error:
  description: The error as data - kind, cause, state, remedy, retryable, and what was seen.
  returned: on failure
  type: dict
  sample: {kind: ApiRefused, cause: "...", state: "", remedy: "...", retryable: false, seen: {}}
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.confidential.gpu.plugins.module_utils import _module
from ansible_collections.confidential.gpu.plugins.module_utils._coco import sample
from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import ExplainedError


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "node": {"type": "str", "required": True},
            "namespace": {"type": "str", "default": "default"},
            "runtime_class": {"type": "str"},
            "technology": {"type": "str", "choices": ["", "snp", "tdx"], "default": ""},
            "image": {"type": "str", "required": True},
            "command": {"type": "list", "elements": "str", "default": []},
            "gpus": {"type": "int", "default": 1},
            "nvswitches": {"type": "int", "default": 0},
            "memory": {"type": "str", "default": "16Gi"},
            "contains": {"type": "str", "default": ""},
            "environment": {"type": "dict", "default": {}},
            "annotations": {"type": "dict", "default": {}},
            "pull_secrets": {"type": "list", "elements": "str", "default": [], "no_log": False},
            "tolerations": {"type": "list", "elements": "dict", "default": []},
            "timeout": {"type": "float", "default": 1200},
            **_module.CLUSTER_ARGUMENTS,
        },
        supports_check_mode=True,
    )
    try:
        found = sample.run(module.params, module.check_mode)
    except ExplainedError as error:
        _module.fail(module, error)
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
