# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The emulator's answers against the API's own document, an OpenAPI file that BMM_OPENAPI names.

The project holds no copy of it. Its reads have no ``required``, so beside the schemas every declared property has to
be there, but for those of which the document says when they are left out.
"""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from bmm_emulator.launch import launch
from bmm_emulator.lists import INSTANCE_STATUSES, MACHINE_STATUSES, ORDERS, SITE_STATUSES
from bmm_emulator.server import Emulator

SETTING = "BMM_OPENAPI"
# Shown to providers only, or when a query asks for them, or when there is something to say.
LEFT_OUT = {
    "Site": {"location", "machineStats", "gpuStats"},
    "Machine": {"metadata", "health"},
    "Instance": {"networkSecurityGroupPropagationDetails"},
    "Interface": {"vpcId"},
}
FLEET = {
    "provider": True,
    "timing": {"reboot_s": 60.0},
    "sites": [{"name": "sjc4", "location": {"city": "San Jose", "state": "CA", "country": "USA"}}, {"name": "bare"}],
    "instances": [
        {"name": "gpu-{n}", "count": 3, "addresses": ["10.0.0.0/24", ["10.1.0.1", "fd00::1"]], "type": "t", "vpc": "v"},
        *({"name": status, "status": status} for status in INSTANCE_STATUSES if status != "Terminated"),
    ],
    "machines": [{"id": status, "status": status} for status in MACHINE_STATUSES],
}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    named = os.environ.get(SETTING)
    if not named:
        pytest.skip(f"{SETTING} names no OpenAPI document of the bare-metal manager")
    # A path that is named and not there is a mistake, not a reason to skip.
    loaded: dict[str, Any] = yaml.safe_load(Path(named).read_text(encoding="utf-8"))
    return loaded


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with launch(FLEET) as running:
        yield running


def ask(emulator: Emulator, path: str, method: str = "GET", body: object = None) -> tuple[int, Any, dict[str, str]]:
    request = urllib.request.Request(f"{emulator.url}/v2/org/acme/nico/{path}", method=method)
    request.add_header("Authorization", "Bearer emulated")
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(request, data) as answer:
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return answer.status, json.loads(answer.read() or b"null"), headers


def check(document: dict[str, Any], template: str, method: str, status: int, data: object) -> None:
    """The answer fits the schema that the document declares for it."""
    operation = document["paths"]["/v2/org/{org}/nico/" + template][method.lower()]
    assert str(status) in operation["responses"]
    content = operation["responses"][str(status)].get("content")
    if content is None:
        assert data is None
        return
    schema = {**content["application/json"]["schema"], "components": document["components"]}
    jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker()).validate(data)


def whole(document: dict[str, Any], name: str, data: dict[str, Any]) -> None:
    """Every property that the document declares is there, and no other."""
    declared = set(document["components"]["schemas"][name]["properties"])
    assert declared - set(data) <= LEFT_OUT.get(name, set())
    assert set(data) <= declared


@pytest.mark.parametrize(
    ("template", "kind"),
    [("instance", "Instance"), ("site", "Site"), ("machine", "Machine")],
)
def test_lists(emulator: Emulator, document: dict[str, Any], template: str, kind: str) -> None:
    status, data, headers = ask(emulator, f"{template}?pageSize=100")
    check(document, template, "GET", status, data)
    pagination = json.loads(headers["x-pagination"])
    example = document["paths"]["/v2/org/{org}/nico/" + template]["get"]["responses"]["200"]["headers"]["X-Pagination"]
    assert set(pagination) == set(json.loads(example["schema"]["example"]))
    assert pagination["total"] == len(data) > 1
    for one in data:
        whole(document, kind, one)
        status, alone, _ = ask(emulator, f"{template}/{one['id']}")
        check(document, f"{template}/{{{template}Id}}", "GET", status, alone)
        assert alone == one


def test_what_lists_hold(emulator: Emulator, document: dict[str, Any]) -> None:
    _, instances, _ = ask(emulator, "instance?name=gpu-1")
    for one in instances[0]["interfaces"]:
        whole(document, "Interface", one)
    for one in instances[0]["statusHistory"]:
        whole(document, "StatusDetail", one)
    status, data, _ = ask(emulator, f"instance/{instances[0]['id']}/interface")
    check(document, "instance/{instanceId}/interface", "GET", status, data)
    status, data, _ = ask(emulator, f"instance/{instances[0]['id']}/status-history")
    check(document, "instance/{instanceId}/status-history", "GET", status, data)


def test_single_answers(emulator: Emulator, document: dict[str, Any]) -> None:
    for template, kind in (("metadata", "Metadata"), ("tenant/current", "Tenant")):
        status, data, _ = ask(emulator, template)
        check(document, template, "GET", status, data)
        whole(document, kind, data)


def test_writes(emulator: Emulator, document: dict[str, Any]) -> None:
    its_id = emulator.instance("gpu-0")["id"]
    for change in ({"labels": {"a": "b"}}, {"triggerReboot": True}):
        status, data, _ = ask(emulator, f"instance/{its_id}", "PATCH", change)
        check(document, "instance/{instanceId}", "PATCH", status, data)
    machine = emulator.instance("gpu-1")["machineId"]
    power = {"action": "ForceRestart", "acknowledgeAttachedInstance": True}
    status, data, _ = ask(emulator, f"machine/{machine}/power", "PATCH", power)
    check(document, "machine/{machineId}/power", "PATCH", status, data)


def test_errors(emulator: Emulator, document: dict[str, Any]) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask(emulator, "instance/none")
    data = json.loads(caught.value.read())
    whole(document, "NICoAPIError", data)
    schema = {"$ref": "#/components/schemas/NICoAPIError", "components": document["components"]}
    jsonschema.Draft202012Validator(schema).validate(data)
    caught.value.close()


def test_relations(emulator: Emulator, document: dict[str, Any]) -> None:
    _, data, _ = ask(emulator, "instance?name=gpu-1&includeRelation=Machine&includeRelation=Site")
    for key, kind in (("machine", "MachineSummary"), ("site", "SiteSummary")):
        whole(document, kind, data[0][key])
        schema = {"$ref": f"#/components/schemas/{kind}", "components": document["components"]}
        jsonschema.Draft202012Validator(schema).validate(data[0][key])


def test_words_are_the_documents(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert {*schemas["InstanceStatus"]["enum"], "Terminated"} == set(INSTANCE_STATUSES)
    assert set(schemas["MachineStatus"]["enum"]) == set(MACHINE_STATUSES)
    assert set(schemas["SiteStatus"]["enum"]) == set(SITE_STATUSES)
    for kind, orders in ORDERS.items():
        parameters = document["paths"][f"/v2/org/{{org}}/nico/{kind}"]["get"]["parameters"]
        declared = next(one["schema"]["enum"] for one in parameters if one["name"] == "orderBy")
        assert {f"{order}_ASC" for order in orders} <= set(declared)
