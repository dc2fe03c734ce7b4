# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Records as addresses and hosts: any input gives a stable order and nothing that cannot be used."""

from __future__ import annotations

import ipaddress
import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.confidential.gpu.plugins.module_utils._bmm import hosts
from ansible_collections.confidential.gpu.plugins.module_utils._bmm.records import addresses, public
from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import InvalidRequest

# What a server may send in place of what it should.
ODD = st.sampled_from([None, True, -1, 2.5, "", "x", [], [None], ["x"], {}, {"x": None}])
TEXT = ODD | st.sampled_from(["10.0.0.1", "10.0.0.2", "fd00::1", "fe80::1", "127.0.0.1", "::1", "fd00::/64", "0.0.0.0"])
INTERFACE = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from("abc") | ODD,
        "status": st.sampled_from(["Ready", "Pending"]) | ODD,
        "isPhysical": st.booleans() | ODD,
        "device": st.sampled_from(["eth0", "eth1"]) | ODD,
        "deviceInstance": st.integers(0, 3) | ODD,
        "virtualFunctionId": st.integers(0, 3) | ODD,
        "ipAddresses": st.lists(TEXT, max_size=3) | ODD,
    },
)


@given(st.lists(INTERFACE | ODD, max_size=5) | ODD)
def test_addresses_of_anything_can_be_used(interfaces: Any) -> None:
    found = addresses({"interfaces": interfaces})
    assert len(found) == len(set(found))
    for one in found:
        assert isinstance(one, (ipaddress.IPv4Address, ipaddress.IPv6Address))
        useless = one.is_loopback or one.is_link_local or one.is_unspecified or one.is_multicast
        assert not useless


def interface(name: str, *texts: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "status": "Ready", "isPhysical": True, "deviceInstance": 0, "ipAddresses": list(texts), **more}


def test_the_best_address_comes_first_whatever_the_list_says() -> None:
    found = [
        interface("a", "10.0.0.1"),
        interface("b", "10.0.0.2", deviceInstance=1),
        interface("c", "10.0.0.3", device="eth1"),
        interface("d", "10.0.0.4", isPhysical=False, virtualFunctionId=0),
        interface("e", "10.0.0.5", isPhysical=False, virtualFunctionId=1),
        interface("f", "10.0.0.6", "10.0.0.1", status="Pending"),
    ]
    for seed in range(20):
        shuffled = random.Random(seed).sample(found, len(found))
        assert [str(one) for one in addresses({"interfaces": shuffled})] == ["10.0.0.%d" % n for n in range(1, 7)]


@pytest.mark.parametrize("instance", [{}, {"interfaces": None}, {"interfaces": [None]}, {"interfaces": [{}]}])
def test_an_instance_without_addresses(instance: dict[str, Any]) -> None:
    assert addresses(instance) == []


def test_secrets_are_left_out_at_any_depth() -> None:
    record = {
        "id": "1",
        "userData": "x",
        "site": {"name": "s", "registrationToken": "x"},
        "list": [{"ipxeScript": "x"}],
    }
    assert public(record) == {"id": "1", "site": {"name": "s"}, "list": [{}]}


# --- hosts -----------------------------------------------------------------------------------------------------------

INSTANCE = st.fixed_dictionaries(
    {"id": st.text(min_size=1, max_size=8)},
    optional=dict.fromkeys(
        ("name", "status", "siteId", "tenantId", "site", "machine", "labels", "statusHistory", "interfaces"), ODD
    ),
)


@given(st.lists(INSTANCE, max_size=6, unique_by=lambda one: str(one["id"])), st.randoms())
def test_any_answer_makes_hosts_whose_names_are_names(instances: list[dict[str, Any]], rng: random.Random) -> None:
    facts = [hosts.facts(one, {}, "acme") for one in instances]
    json.dumps(facts, allow_nan=False)
    found = hosts.named(facts, ["name", "address", "label:host"])
    assert all(hosts.is_name(name) for name in found.hosts)
    assert len(found.hosts) + sum("is left out" in warning for warning in found.warnings) <= len(instances)
    rng.shuffle(facts)
    again = hosts.named(facts, ["name", "address", "label:host"])
    assert list(again.hosts) == list(found.hosts)


@pytest.mark.parametrize(
    "text", ["", "{{ x }}", "a b", "a/b", "-a", "a-", "a\n", "localhost", "127.0.0.1", "::1", "é", "a" * 255]
)
def test_what_is_no_name(text: str) -> None:
    assert not hosts.is_name(text)


@pytest.mark.parametrize("text", ["a", "gpu-0", "gpu-0.example.com", "10.0.0.1", "fd00::1", "A_b"])
def test_what_is_a_name(text: str) -> None:
    assert hosts.is_name(text)


def test_the_id_of_another_is_no_name() -> None:
    facts = [
        hosts.facts({"id": one, "name": name}, {}, "acme") for one, name in (("1", "2"), ("2", "same"), ("3", "same"))
    ]
    assert {name: host["id"] for name, host in hosts.named(facts, ["name"]).hosts.items()} == {
        "1": "1",
        "2": "2",
        "3": "3",
    }


@pytest.mark.parametrize("bad", [{}, {"colour": "red"}, {"labels": "a"}, {"status": "ready"}, "status"])
def test_a_filter_that_could_never_match_is_refused(bad: Any) -> None:
    with pytest.raises(InvalidRequest):
        hosts.check_filters("include_filters", [bad])


def test_groups_are_named_after_what_a_host_has() -> None:
    facts = hosts.facts({"id": "1", "status": "Ready", "labels": {"env": "prod", "x": ""}}, {}, "acme")
    sources = ["site", "status", "label:env", "label:x", "label:none"]
    hosts.check_groups(sources)
    assert hosts.groups(facts, sources) == ["status_ready", "env_prod"]
    with pytest.raises(InvalidRequest):
        hosts.check_groups(["label:"])
