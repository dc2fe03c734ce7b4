#!/usr/bin/python
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
---
module: helm_release_info
short_description: Say what would change in several Helm releases, and which images they name
version_added: 0.2.0
description:
  - Compares each installed release with what is wanted, as M(confidential.gpu.helm_release) does in check mode, but all
    of them at once, which takes the time of the slowest.
  - A release that cannot be compared, because its chart is not to be had or the installed one is newer, is told with
    the reason, and keeps none of the others from being told.
author:
  - confidential.gpu contributors (@confidential-gpu)
options:
  releases:
    description: The releases that are wanted.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the release.
        type: str
        required: true
      namespace:
        description: Namespace of the release.
        type: str
        required: true
      chart:
        description: A folder, an archive, an OCI reference (V(oci://...)), or with C(repository) a name.
        type: str
        required: true
      version:
        description: Version of the chart.
        type: str
        default: ""
      repository:
        description: Address of a Helm repository.
        type: str
        default: ""
      digest:
        description: SHA-256 of the chart's archive.
        type: str
        default: ""
      values:
        description: Values of the chart, without secrets.
        type: dict
        default: {}
      secret_values:
        description: Further values as JSON text, merged over C(values). They are in no log.
        type: str
  keep_values:
    description: As of M(confidential.gpu.helm_release).
    type: bool
    default: false
  downgrade:
    description: As of M(confidential.gpu.helm_release).
    type: bool
    default: false
  registry:
    description: As of M(confidential.gpu.helm_release).
    type: str
    default: ""
  take_ownership:
    description: As of M(confidential.gpu.helm_release).
    type: bool
    default: false
  repair:
    description: As of M(confidential.gpu.helm_release).
    type: bool
    default: false
  patience:
    description: As of M(confidential.gpu.helm_release).
    type: float
    default: 900
  helm:
    description: The helm executable, 3.17 or later.
    type: str
    default: helm
extends_documentation_fragment:
  - confidential.gpu.cluster
  - confidential.gpu.attributes.reads_only
requirements:
  - helm 3.17 or later and kubectl
"""

EXAMPLES = r"""
- name: Every image of two charts, for a mirror
  confidential.gpu.helm_release_info:
    releases:
      - name: nfd
        namespace: node-feature-discovery
        chart: /srv/charts/node-feature-discovery-0.19.0.tgz
      - name: kata-deploy
        namespace: kata-system
        chart: /srv/charts/kata-deploy-4.1.0.tgz
  delegate_to: localhost
  register: wanted

- name: Show them
  ansible.builtin.debug:
    var: wanted.images
"""

RETURN = r"""
releases:
  description: For each release, in the given order.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Its name.
      type: str
      sample: kata-deploy
    namespace:
      description: Its namespace.
      type: str
      sample: kata-system
    changed:
      description: Whether an upgrade would change anything; V(false) where nobody can say.
      type: bool
      sample: true
    changes:
      description: As of M(confidential.gpu.helm_release).
      type: list
      elements: dict
      sample: [{what: version, before: 4.0.0, after: 4.1.0}]
    images:
      description: As of M(confidential.gpu.helm_release).
      type: list
      elements: str
      sample: [registry.example/mirror/kata-containers/kata-deploy:4.1.0]
    chart:
      description: As of M(confidential.gpu.helm_release).
      returned: where it could be compared
      type: dict
      sample: {name: kata-deploy, version: 4.1.0, digest: ""}
    installed:
      description: As of M(confidential.gpu.helm_release).
      returned: where it could be compared
      type: dict
      sample: {revision: 1, status: deployed, chart: kata-deploy, version: 4.0.0, digest: ""}
    error:
      description: Why nobody can say; as RV(error).
      returned: where it could not be compared
      type: dict
      sample: {kind: ChartRefused, cause: "...", state: "", remedy: "...", retryable: false, seen: {}}
images:
  description: Every image that the wanted releases name.
  returned: success
  type: list
  elements: str
  sample: [registry.example/mirror/kata-containers/kata-deploy:4.1.0]
error:
  description: The error as data - kind, cause, state, remedy, retryable, and what was seen.
  returned: on failure
  type: dict
  sample: {kind: ClusterUnreachable, cause: "...", state: "", remedy: "...", retryable: true, seen: {}}
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.confidential.gpu.plugins.module_utils import _module
from ansible_collections.confidential.gpu.plugins.module_utils._coco import deploy
from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import ExplainedError


def main() -> None:
    """Run as an Ansible module."""
    release = {
        "name": {"type": "str", "required": True},
        "namespace": {"type": "str", "required": True},
        "chart": {"type": "str", "required": True},
        **_module.RELEASE_ARGUMENTS,
    }
    module = AnsibleModule(
        argument_spec={
            "releases": {"type": "list", "elements": "dict", "required": True, "options": release},
            **_module.HELM_ARGUMENTS,
        },
        supports_check_mode=True,
    )
    try:
        found = deploy.plan(module.params)
    except ExplainedError as error:
        _module.fail(module, error)
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
