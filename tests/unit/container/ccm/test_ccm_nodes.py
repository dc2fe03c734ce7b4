# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What a new node gets, and what nodes keep: provider id, labels, addresses, taints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ccm_bed import FOUR, NODES, ORG, SITE, TENANT, UNINITIALIZED, Bed

TYPE, ZONE, REGION = "node.kubernetes.io/instance-type", "topology.kubernetes.io/zone", "topology.kubernetes.io/region"
BETA_ZONE = "failure-domain.beta.kubernetes.io/zone"


def test_a_new_node(some: Bed) -> None:
    some.add("gpu-0", provider_id="")
    some.step()
    assert some.node()["spec"]["providerID"] == some.provider_id("gpu-0")
    assert some.taints() == []
    assert some.ips() == ["10.0.0.1", "fd00::1"]
    assert [one["type"] for one in some.node()["status"]["addresses"]] == ["InternalIP", "InternalIP", "Hostname"]
    labels = some.labels()
    assert labels[TYPE] == labels["beta.kubernetes.io/instance-type"] == "gpu.8xh100"
    assert labels[ZONE] == labels[BETA_ZONE] == "site-1"
    assert labels[REGION] == labels["failure-domain.beta.kubernetes.io/region"] == "usa-ca"
    (event,) = some.events()
    assert (event["type"], event["reason"], event["message"]) == ("Normal", "Synced", "Node synced successfully")
    assert event["involvedObject"]["uid"] == some.node()["metadata"]["uid"]
