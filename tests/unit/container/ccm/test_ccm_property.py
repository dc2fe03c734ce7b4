# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Whatever the bare-metal manager says: no label, address or id that is none reaches the API server."""

from __future__ import annotations

import ipaddress
import json
import re
from typing import Any

from ccm import changes, labels, provider_id
from ccm.changes import NotPossible
from ccm.cloud import _region, cut
from ccm.instance import Instance, Place
from ccm.node import Node, trim
from fake_api.nodes import registered, rules
from fake_api.patches import applied
from hypothesis import given, settings
from hypothesis import strategies as st

TEXT = st.one_of(
    st.text(max_size=80), st.sampled_from(["10.0.0.1", "fd00::1", "fe80::1", "fd00::/64", "-", "a" * 64, "x/y"])
)
JSON: Any = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=8,
)
INTERFACE = st.fixed_dictionaries(
    {},
    optional={
        "ipAddresses": st.one_of(JSON, st.lists(TEXT, max_size=4)),
        "status": JSON,
        "isPhysical": JSON,
        "device": JSON,
        "deviceInstance": JSON,
        "virtualFunctionId": JSON,
        "id": JSON,
    },
)
RECORD = st.fixed_dictionaries(
    {},
    optional={
        "id": st.one_of(JSON, st.uuids().map(str)),
        "name": JSON,
        "status": st.one_of(JSON, st.just("Ready")),
        "siteId": JSON,
        "tenantId": JSON,
        "instanceTypeId": JSON,
        "instanceType": st.one_of(JSON, st.fixed_dictionaries({"name": JSON})),
        "interfaces": st.one_of(JSON, st.lists(st.one_of(JSON, INTERFACE), max_size=4)),
        "autoNetwork": JSON,
        "userData": JSON,
    },
)
SITE = st.fixed_dictionaries({}, optional={"name": JSON, "location": st.one_of(JSON, st.dictionaries(TEXT, JSON))})


@settings(max_examples=300, deadline=None)
@given(record=RECORD, site=SITE, node_ip=st.one_of(st.just(""), TEXT))
def test_no_invalid_thing_is_written(record: dict[str, Any], site: dict[str, Any], node_ip: str) -> None:
    instance = Instance.of(cut(record))
    name = site.get("name")
    place = Place(labels.value_of(name) if isinstance(name, str) else "", _region(site))
    made = registered("node", node_ip="")
    made["metadata"] |= {"uid": "u", "resourceVersion": "1"}
    made["metadata"]["annotations"] = {"alpha.kubernetes.io/provided-node-ip": node_ip} if node_ip else {}
    node = Node.of(trim(made))
    try:
        new_id = provider_id.write("nvidia-bmm", provider_id.ProviderId(instance.id, "org", "tenant", "site"))
    except ValueError:
        new_id = ""
    after = applied(made, changes.initialised(node, new_id, instance, place))
    rules("/api/v1/nodes", made, after)
    if new_id:
        assert provider_id.read(after["spec"]["providerID"]).instance == instance.id
    try:
        wanted = changes.changed_addresses(node, instance)
    except NotPossible:
        return
    for one in wanted or ():
        if one.type == "InternalIP":
            assert str(ipaddress.ip_address(one.address)) == one.address
    json.dumps(changes.address_patch(node, wanted or ()))


@given(TEXT)
def test_label_values(text: str) -> None:
    made = labels.value_of(text)
    assert labels.is_value(made)
    assert re.fullmatch(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?", made)
    assert len(made) <= 63
    if labels.is_value(text):
        assert made == text


@given(st.one_of(TEXT, TEXT.map(lambda rest: f"nico://{rest}"), TEXT.map(lambda rest: f"nvidia-bmm://{rest}")))
def test_provider_ids_that_are_read_can_be_written(text: str) -> None:
    try:
        found = provider_id.read(text)
    except provider_id.NotOurs:
        return
    forms = [form for form in provider_id.FORMS if _written(form, found) == text.lower()]
    assert forms or text != text.lower()


def _written(form: str, found: provider_id.ProviderId) -> str:
    try:
        return provider_id.write(form, found).lower()
    except ValueError:
        return ""


@given(st.lists(st.sampled_from(["10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2"]), unique=True, min_size=1), st.randoms())
def test_order_is_no_difference(addresses: list[str], random: Any) -> None:
    interfaces = [{"id": f"i{number}", "ipAddresses": [one], "status": "Ready"} for number, one in enumerate(addresses)]
    one = Instance.of({"id": "x", "status": "Ready", "interfaces": interfaces})
    random.shuffle(interfaces)
    other = Instance.of({"id": "x", "status": "Ready", "interfaces": interfaces})
    assert one.addresses == other.addresses
    made = registered("node")
    made["metadata"] |= {"uid": "u", "resourceVersion": "1"}
    wanted = changes.changed_addresses(Node.of(made), one)
    assert wanted is not None
    shuffled = [entry._asdict() for entry in wanted]
    random.shuffle(shuffled)
    made["status"]["addresses"] = shuffled
    assert changes.changed_addresses(Node.of(made), other) is None
