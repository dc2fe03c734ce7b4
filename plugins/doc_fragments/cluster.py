# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Options that say which cluster."""

from __future__ import annotations


class ModuleDocFragment:
    """For modules that talk to the API server."""

    DOCUMENTATION = r"""
options:
  kubectl:
    description: The kubectl executable, on the host that the module runs on.
    type: str
    default: kubectl
  kubeconfig:
    description: The kubeconfig file; empty for kubectl's default.
    type: str
    default: ""
  context:
    description: The context in it; empty for the current one.
    type: str
    default: ""
"""
