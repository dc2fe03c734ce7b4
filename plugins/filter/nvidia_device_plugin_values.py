# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The filter nvidia_device_plugin_values."""

from __future__ import annotations

DOCUMENTATION = r"""
---
name: nvidia_device_plugin_values
short_description: Checked values for the Helm chart of NVIDIA's device plugin
version_added: 0.1.0
author:
  - confidential.gpu contributors (@confidential-gpu)
description:
  - Holds configuration files of NVIDIA's device plugin (C(version v1), as of 0.20) against a schema, and renders values
    for NVIDIA's own Helm chart from them.
  - NVIDIA's plugin takes no notice of keys that it does not know, and of some that it knows. Both are refused, with the
    nearest known key; so is what would end the plugin at its start, such as one replica.
  - The values drop all capabilities, forbid escalation, make the root read-only, choose nodes by the labels that
    node-feature-discovery sets as it comes, and keep the plugin off hosts whose GPUs are for confidential virtual
    machines.
  - It changes nothing and asks nobody, so it works in check mode, and gives equal values for equal configurations.
positional: _input
options:
  _input:
    description:
      - Configurations by name. The label C(nvidia.com/device-plugin.config) of a node chooses one of them.
    type: dict
    required: true
  default:
    description: The name of the configuration for nodes without that label.
    type: str
    default: default
  node_labels:
    description: Labels of nodes that have GPUs; one with the value V(true) is enough.
    type: list
    elements: str
    default:
      - feature.node.kubernetes.io/pci-0302_10de.present
      - feature.node.kubernetes.io/pci-0300_10de.present
      - feature.node.kubernetes.io/pci-10de.present
      - nvidia.com/gpu.present
  runtime_class:
    description:
      - The RuntimeClass of NVIDIA's container runtime, which puts the driver's library into the plugin's container.
        Empty where it is the default runtime.
    type: str
    default: nvidia
requirements:
  - jsonschema, on the control node
seealso:
  - name: k8s-device-plugin
    description: NVIDIA's device plugin and its chart.
    link: https://github.com/NVIDIA/k8s-device-plugin
"""

EXAMPLES = r"""
- name: Values for helm
  ansible.builtin.copy:
    content: "{{ configs | confidential.gpu.nvidia_device_plugin_values | to_nice_yaml }}"
    dest: values.yaml
    mode: "0644"
  delegate_to: localhost
  vars:
    configs:
      default:
        version: v1
        sharing:
          timeSlicing:
            renameByDefault: true
            failRequestsGreaterThanOne: true
            resources:
              - name: nvidia.com/gpu
                replicas: 4
"""

RETURN = r"""
_value:
  description: Values for the chart C(nvidia-device-plugin).
  type: dict
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.confidential.gpu.plugins.plugin_utils import nvidia_config, nvidia_values

# A key of a ConfigMap that is a label's value too.
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")


def nvidia_device_plugin_values(
    configs: Mapping[str, Any],
    default: str = "default",
    node_labels: Sequence[str] = nvidia_values.NODE_LABELS,
    runtime_class: str = "nvidia",
) -> dict[str, Any]:
    """Values for the chart. Raises AnsibleFilterError with everything that is wrong with the configurations."""
    plain = _plain(configs)
    if not isinstance(plain, dict) or not plain:
        raise _refused("give configurations by name, such as {default: {version: v1}}, not %r." % (configs,))
    for name in plain:
        if not _NAME.fullmatch(name):
            raise _refused("%r is not a configuration's name. Use letters, digits, '-', '_' and '.'." % (name,))
    if default not in plain:
        raise _refused("default is %r, and there are %s. Give one of them." % (default, ", ".join(plain)))
    if isinstance(node_labels, str) or not node_labels:
        raise _refused("node_labels is %r. Give a list with at least one label." % (node_labels,))
    found = []
    for name, config in plain.items():
        try:
            nvidia_config.check(config)
        except nvidia_config.BadNvidiaConfig as error:
            found += ["configuration %s: %s" % (name, line) for line in str(error).splitlines()]
        except nvidia_config.NoJsonschema as error:
            raise _refused(str(error)) from None
    if found:
        raise _refused("\n".join(found))
    roots = nvidia_values.driver_roots(plain)
    if len(roots) > 1:
        raise _refused(
            "flags.nvidiaDriverRoot is %s in different configurations, and NVIDIA's chart mounts one folder. "
            "Give all nodes one, or install the chart once for each." % " and ".join(sorted(roots))
        )
    return nvidia_values.values(plain, str(default), [str(label) for label in node_labels], str(runtime_class))


def _plain(value: Any) -> Any:
    """Ansible's tagged and lazy values as those that YAML writes."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, bool) or value is None:
        return value
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value


def _refused(words: str) -> AnsibleFilterError:
    return AnsibleFilterError("nvidia_device_plugin_values: %s" % words)


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters by name."""
        return {"nvidia_device_plugin_values": nvidia_device_plugin_values}
