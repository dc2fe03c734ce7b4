# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The inventory plugin as ansible-inventory runs it, against an emulated API."""

from __future__ import annotations

import json
import os
import resource
import time
from typing import Any

import pytest
from bmm_controller import FLEET, TOKEN, USER_DATA, Controller, programs
from bmm_emulator.launch import launch
from bmm_emulator.server import Emulator

ONE, TWO, ODD = (f"{digit * 8}-{digit * 4}-4{digit * 3}-8{digit * 3}-{digit * 12}" for digit in "123")
GRAPH = f"""\
@all:
  |--@ungrouped:
  |--@site_sjc4:
  |  |--{ONE}
  |  |--{ODD}
  |  |--gpu-0
  |  |--gpu-1
  |  |--gpu-2
  |--@status_ready:
  |  |--{ONE}
  |  |--{TWO}
  |  |--{ODD}
  |  |--gpu-0
  |  |--gpu-1
  |  |--gpu-2
  |--@site_rno1:
  |  |--{TWO}
  |  |--cpu-0
  |--@status_repairing:
  |  |--cpu-0
  |--@many:
  |  |--gpu-0
  |  |--gpu-1
  |  |--gpu-2
  |--@type_gpu_8xh100:
  |  |--gpu-0
  |  |--gpu-1
  |  |--gpu-2
"""


@pytest.mark.skipif(not os.environ.get("REQUIRE_ALL"), reason="the sanity suites bring the others")
def test_more_than_one_release_of_ansible_core_is_there() -> None:
    assert len(programs()) > 1


def test_the_graph(each_controller: Controller, emulator: Emulator) -> None:
    source = each_controller.source(
        group_by=["site", "status"],
        keyed_groups=[{"key": "bmm_instance_type", "prefix": "type"}],
        groups={"many": "bmm_labels.env | default('') == 'prod'"},
    )
    emulator.add_faults([{"action": action, "times": "forever"} for action in ("shuffle", "shuffle_interfaces")])
    done = each_controller.run("ansible-inventory", "-i", source, "--graph")
    assert (done.code, done.out) == (0, GRAPH)
    assert f"2 instances share the name twin; they are listed by their ids: {ONE}, {TWO}." in done.words


def test_the_variables_of_a_host(each_controller: Controller, emulator: Emulator) -> None:
    site, tenant = emulator.instance("gpu-1")["siteId"], emulator.instance("gpu-1")["tenantId"]
    its_id = emulator.instance("gpu-1")["id"]
    found = each_controller.listed(each_controller.source(compose={"rack": "bmm_location.city | lower"}))
    host = found["_meta"]["hostvars"]["gpu-1"]
    assert host == {
        "ansible_host": "10.0.0.2",
        "bmm_addresses": ["10.0.0.2", "192.168.0.2"],
        "bmm_created": "2026-01-05T08:00:00Z",
        "bmm_id": its_id,
        "bmm_instance_type": "gpu.8xh100",
        "bmm_instance_type_id": emulator.instance("gpu-1")["instanceTypeId"],
        "bmm_ipv4": ["10.0.0.2", "192.168.0.2"],
        "bmm_ipv6": [],
        "bmm_labels": {"env": "prod"},
        "bmm_location": {"city": "San Jose", "country": "USA", "state": "CA"},
        "bmm_machine": {"maintenance_message": "", "product_name": "DGXH100", "status": "InUse", "vendor": "NVIDIA"},
        "bmm_machine_id": emulator.instance("gpu-1")["machineId"],
        "bmm_name": "gpu-1",
        "bmm_provider_id": f"nvidia-bmm://acme/{tenant}/{site}/{its_id}",
        "bmm_site": "sjc4",
        "bmm_site_id": site,
        "bmm_site_online": True,
        "bmm_status": "Ready",
        "bmm_status_message": "",
        "bmm_tenant_id": tenant,
        "bmm_update_pending": False,
        "bmm_vpc": "",
        "bmm_vpc_id": emulator.instance("gpu-1")["vpcId"],
        "rack": "san jose",
    }
    assert found["_meta"]["hostvars"]["cpu-0"]["bmm_addresses"] == ["fd00::7"]
    assert "old" not in found["_meta"]["hostvars"]


@pytest.mark.parametrize("cached", [False, True])
def test_no_text_of_the_api_is_a_template(each_controller: Controller, cached: bool) -> None:
    source = each_controller.cached() if cached else each_controller.source()
    for _ in range(2):
        found = each_controller.listed(source)["_meta"]["hostvars"][ODD]
        assert found["bmm_name"] == "{{ 7 * 7 }}"
        assert found["bmm_labels"] == {"env": "{{ 1 + 1 }}"}
    done = each_controller.run("ansible", ODD, "-i", source, "-m", "debug", "-a", "msg={{ bmm_labels.env }}")
    assert "{{ 1 + 1 }}" in done.out


def test_a_second_run_asks_nothing_and_says_the_same(controller: Controller, emulator: Emulator) -> None:
    source = controller.cached()
    first = controller.listed(source)
    asked = len(emulator.requests)
    assert controller.listed(source) == first
    assert len(emulator.requests) == asked
    controller.listed(source, "--flush-cache")
    assert len(emulator.requests) == 2 * asked


@pytest.mark.parametrize("change", [{"api": "carbide"}, {"org": "other"}, {"include_filters": [{"status": "Ready"}]}])
def test_the_cache_of_another_question_is_no_answer(controller: Controller, emulator: Emulator, change: Any) -> None:
    controller.listed(controller.cached())
    asked = len(emulator.requests)
    controller.run("ansible-inventory", "-i", controller.cached(**change), "--list")
    assert len(emulator.requests) > asked


def test_no_secret_is_kept_or_shown(controller: Controller) -> None:
    source = controller.cached()
    done = controller.run("ansible-inventory", "-i", source, "--list", "-vvvv")
    kept = "".join(path.read_text() for path in controller.cache.iterdir())
    assert "gpu-1" in kept
    for place in (done.out, done.words, kept):
        for secret in (TOKEN, USER_DATA, "userData"):
            assert secret not in place


def test_filters(controller: Controller, emulator: Emulator) -> None:
    source = controller.source(
        include_filters=[{"status": ["Ready", "Repairing"], "site": "rno1"}, {"labels": {"env": ["prod", "dev"]}}],
        exclude_filters=[{"name": ["gpu-0", "gpu-2"]}],
    )
    assert sorted(controller.listed(source)["_meta"]["hostvars"]) == ["cpu-0", "gpu-1", "twin"]
    emulator.forget_requests()
    controller.listed(controller.source(include_filters=[{"status": ["Ready", "Error"], "name": "gpu-0"}]))
    assert "status=Ready&status=Error" in str(emulator.requests[0]["query"])


def test_names_by_preference(controller: Controller) -> None:
    found = controller.listed(controller.source(hostnames=["label:host", "ipv6", "ipv4"]))["_meta"]["hostvars"]
    assert set(found) == {"10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::7", ONE, TWO, ODD}


def test_names_of_variables(controller: Controller) -> None:
    found = controller.listed(controller.source(hostvars_prefix="x_", hostvars_suffix="_y"))["_meta"]["hostvars"]
    assert found["gpu-0"]["x_name_y"] == "gpu-0"


def test_another_file_is_not_for_this_plugin(controller: Controller) -> None:
    done = controller.run("ansible-inventory", "-i", controller.source("fleet.yml"), "--list")
    assert done.code != 0
    assert "gpu-1" not in done.out


def test_every_credential_may_come_from_the_environment(controller: Controller) -> None:
    data = {**FLEET, "api": "carbide", "clients": [{"id": "ci", "secret": "s3cr3t"}]}
    with launch(data) as other:
        controller.environment.update(
            NVIDIA_BMM_ENDPOINT=other.url,
            NVIDIA_BMM_ORG_NAME="acme",
            NVIDIA_BMM_API_NAME="carbide",
            NVIDIA_BMM_TOKEN_URL=other.url + "/oidc/token",
            NVIDIA_BMM_CLIENT_ID="ci",
            NVIDIA_BMM_CLIENT_SECRET="s3cr3t",
        )
        del controller.environment["NVIDIA_BMM_TOKEN"]
        found = controller.listed(controller.source(endpoint=None, org=None))
    assert "gpu-1" in found["_meta"]["hostvars"]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"action": "status", "status": 401}, "Give a token that has not expired"),
        ({"action": "status", "status": 403}, "Check the org, the role"),
        ({"action": "no_route"}, "Check the endpoint and the API name"),
        ({"action": "rate_limit"}, "Wait, and ask less often."),
        ({"action": "status", "status": 500}, "ask who runs the API"),
        ({"action": "html"}, "a login page, a proxy or another service"),
        ({"action": "broken"}, "look at what stands between"),
        ({"action": "reset"}, "look at the API's server"),
        ({"action": "hang", "seconds": 9}, "give more time"),
        ({"action": "one_page"}, "Try again when less is being created"),
    ],
)
def test_each_fault_is_one_sentence_with_a_remedy(controller: Controller, fault: dict[str, Any], words: str) -> None:
    many = {**FLEET, "instances": [{"name": "n-{n}", "count": 101}], "faults": [{**fault, "times": "forever"}]}
    # Eight walks over the pages take their time; the other faults end at once, or when the time is over.
    deadline = 60 if fault["action"] == "one_page" else 1
    with launch(many) as ill:
        source = controller.source(endpoint=ill.url, deadline=deadline)
        done = controller.run("ansible-inventory", "-i", source, "--list")
    assert done.code != 0
    assert words in done.words
    assert "Traceback" not in done.words


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"endpoint": None}, "set NVIDIA_BMM_ENDPOINT"),
        ({"endpoint": "http://bmm.example.com"}, "clear text"),
        ({"token_file": "/x"}, "Several ways to a token"),
        ({"hostnames": ["mac"]}, "hostnames: 'mac' is unknown"),
        ({"group_by": ["mac"]}, "group_by: 'mac' is unknown"),
        ({"include_filters": [{"colour": "red"}]}, "include_filters: 'colour' is unknown"),
        ({"exclude_filters": [{"status": "Redy"}]}, "the status 'Redy' is unknown"),
    ],
)
def test_a_mistake_in_the_file_is_named(
    controller: Controller, emulator: Emulator, options: dict[str, Any], words: str
) -> None:
    done = controller.run("ansible-inventory", "-i", controller.source(**options), "--list")
    assert done.code != 0
    assert words in done.words
    assert emulator.requests == []


def test_sites_that_may_not_be_listed_cost_the_location_alone(controller: Controller, emulator: Emulator) -> None:
    emulator.add_faults([{"action": "status", "status": 403, "path": "site", "times": "forever"}])
    done = controller.run("ansible-inventory", "-i", controller.source(), "--list")
    assert done.code == 0
    assert "Hosts have no location" in done.words
    assert "gpu-1" in json.loads(done.out)["_meta"]["hostvars"]


def test_ten_thousand_instances(controller: Controller) -> None:
    many = {**FLEET, "instances": [{"name": "n-{n:05d}", "count": 10_000, "addresses": ["10.0.0.0/16"]}]}
    with launch(many) as large:
        source = controller.cached(endpoint=large.url, deadline=300, group_by=["site", "status"])
        runs = []
        for _ in range(2):
            began, before = time.monotonic(), cpu_s()
            done = controller.run("ansible-inventory", "-i", source, "--graph", "site_sjc4")
            runs.append("%.1f s (%.1f s of a processor)" % (time.monotonic() - began, cpu_s() - before))
            assert done.out.count("|--n-") == 10_000
        asked = len(large.requests)
    assert asked == 101, "100 pages and the sites; nothing from the second run"
    print(f"10,000 instances: {runs[0]}, from the cache {runs[1]}")


def cpu_s() -> float:
    """What programs that have ended took of a processor: the wall clock says more of a machine's other work."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
