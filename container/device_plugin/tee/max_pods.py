# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""How many pods the node can have, where the kubelet's configuration file can be read: a slot for each.

A kubelet that gets --max-pods, or a folder of further configuration files, may go by another number; only the API
server could tell, and this process asks nothing of it.
"""

from __future__ import annotations

import logging

import yaml

from ..machine import Machine

LOG = logging.getLogger(__name__)
FILE = "/var/lib/kubelet/config.yaml"
# The kubelet's own default.
MAX_PODS = 110


def of_kubelet(machine: Machine) -> int:
    """What the file says; the kubelet's default where it says nothing, or cannot be read."""
    try:
        text = machine.at(FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return MAX_PODS
    except (OSError, ValueError) as error:
        LOG.warning("%s cannot be read (%s): %d pods are taken for the node's most.", FILE, error, MAX_PODS)
        return MAX_PODS
    try:
        found = (yaml.safe_load(text) or {}).get("maxPods", MAX_PODS)
    except (yaml.YAMLError, AttributeError, RecursionError):
        found = None
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        LOG.warning("%s has no number of pods that can be: %d are taken for the node's most.", FILE, MAX_PODS)
        return MAX_PODS
    return found
