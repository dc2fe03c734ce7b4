#!/usr/bin/python
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
---
module: helm_release
short_description: Install, upgrade, adopt, repair or remove a Helm release, and say beforehand what would change
version_added: 0.2.0
description:
  - Compares the installed release with what is wanted - chart, version, digest, values, and each object and hook that
    the chart renders against what the cluster knows now - and upgrades only if something differs.
  - Check mode and diff need no plugin of Helm. The installed release is read from the Secrets in which Helm keeps it.
  - A release that somebody else installed is adopted as it is found.
  - A release that an interrupted Helm left half done is refused with its remedy, or repaired.
  - Runs where helm and kubectl are; usually that is the control node (C(delegate_to), C(connection=local)).
author:
  - confidential.gpu contributors (@confidential-gpu)
options:
  name:
    description: Name of the release.
    type: str
    required: true
  namespace:
    description: Namespace of the release, made when it is not there.
    type: str
    required: true
  state:
    description: Whether the release is to be there.
    type: str
    choices: [present, absent]
    default: present
  chart:
    description:
      - A folder, an archive, an OCI reference (V(oci://...)), or with O(repository) a name.
      - Required with O(state=present).
    type: str
  version:
    description: Version of the chart. Without it, a repository gives its newest.
    type: str
    default: ""
  repository:
    description: Address of a Helm repository.
    type: str
    default: ""
  digest:
    description: SHA-256 of the chart's archive. Another archive is refused.
    type: str
    default: ""
  values:
    description: Values of the chart. Do not put secrets here; Ansible logs what modules are given.
    type: dict
    default: {}
  secret_values:
    description: Further values as JSON text, merged over O(values). They are in no log and no diff.
    type: str
  keep_values:
    description:
      - Whether values of the installed release stay where O(values) does not say otherwise.
      - This takes over what somebody else has installed without losing their settings.
    type: bool
    default: false
  downgrade:
    description: Whether an older version of the chart may replace a newer one.
    type: bool
    default: false
  registry:
    description:
      - A prefix that the name of every image must begin with; empty allows all.
      - A chart with other images, or with images without a fixed tag, is refused.
    type: str
    default: ""
  take_ownership:
    description: Make objects that are there already part of the release.
    type: bool
    default: false
  repair:
    description:
      - Whether a release that an interrupted Helm left pending or half uninstalled is repaired.
      - The interrupted revision is forgotten, and the chart installed again over what is there.
    type: bool
    default: false
  patience:
    description: Seconds for which a pending release may belong to a Helm that is at work, and is not repaired.
    type: float
    default: 900
  timeout:
    description: Seconds for the objects to become ready; 0 does not wait.
    type: int
    default: 300
  helm:
    description: The helm executable, 3.17 or later.
    type: str
    default: helm
extends_documentation_fragment:
  - confidential.gpu.cluster
attributes:
  check_mode:
    support: full
    description: Compares as a real run does, and writes nothing.
  diff_mode:
    support: full
    description:
      - Shows versions, values and which objects change. Contents of objects, and values that look like secrets, are not
        shown.
  idempotent:
    support: full
    description: A release that is as wanted is not touched. A chart that renders random things always changes.
requirements:
  - helm 3.17 or later and kubectl
notes:
  - Only releases that Helm keeps in Secrets, which is its default, are found.
"""

EXAMPLES = r"""
- name: Node feature discovery from an archive that is checked
  confidential.gpu.helm_release:
    name: nfd
    namespace: node-feature-discovery
    chart: /srv/charts/node-feature-discovery-0.19.0.tgz
    digest: 5d7bf8a3f1b4c1f8f4a63e3a7e3a4a0d9a1b1f2c3d4e5f60718293a4b5c6d7e8
  delegate_to: localhost

- name: What a chart would install, and every image that it names
  confidential.gpu.helm_release:
    name: kata-deploy
    namespace: kata-system
    chart: oci://registry.example/charts/kata-deploy
    version: 4.1.0
    registry: registry.example/mirror
  check_mode: true
  diff: true
  register: kata
  delegate_to: localhost
"""

RETURN = r"""
changes:
  description: What differs, in the order in which it was looked at.
  returned: success
  type: list
  elements: dict
  sample: [{what: version, before: 4.0.0, after: 4.1.0}]
installed:
  description: The release as it was found - revision, status, chart, version, digest; null where there was none.
  returned: success
  type: dict
  sample: {revision: 1, status: deployed, chart: kata-deploy, version: 4.0.0, digest: ""}
images:
  description: Every image that the wanted release names.
  returned: with O(state=present)
  type: list
  elements: str
  sample: [registry.example/mirror/kata-containers/kata-deploy:4.1.0]
chart:
  description: Name, version and digest of the wanted chart.
  returned: with O(state=present)
  type: dict
  sample: {name: kata-deploy, version: 4.1.0, digest: ""}
error:
  description: The error as data - kind, cause, state, remedy, retryable, and what was seen.
  returned: on failure
  type: dict
  sample: {kind: ReleaseWedged, cause: "...", state: "", remedy: "...", retryable: false, seen: {}}
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.confidential.gpu.plugins.module_utils import _module
from ansible_collections.confidential.gpu.plugins.module_utils._coco import deploy
from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import ExplainedError


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "namespace": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "chart": {"type": "str"},
            "timeout": {"type": "int", "default": 300},
            **_module.RELEASE_ARGUMENTS,
            **_module.HELM_ARGUMENTS,
        },
        required_if=[("state", "present", ["chart"])],
        supports_check_mode=True,
    )
    try:
        found = deploy.run(module.params, module.check_mode)
    except ExplainedError as error:
        _module.fail(module, error)
    for words in found.pop("warnings"):
        module.warn(words)
    lines = found.pop("diff")
    module.exit_json(diff=lines if module._diff else {}, **found)


if __name__ == "__main__":
    main()
