# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What the roles say of themselves: argument_specs, defaults and README are three tellings of the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROLES = Path(__file__).resolve().parents[3] / "roles"
NAMES = sorted(path.name for path in ROLES.iterdir())
# The default is an expression there, which an argument spec cannot hold.
COMPUTED = {
    "cc_manager_chart",
    "operand_chart",
    "confidential_containers_cc_manager",
    "confidential_containers_cc_manager_values",
    "device_plugin_chart",
    "device_plugin_release",
    "kubelet_confidential_node",
    "confidential_containers_node",
    "confidential_containers_nodes",
    "confidential_containers_containerd_file",
    "confidential_containers_check_node",
    "confidential_containers_check_nodes",
    "attestation_check_node",
}


def read(role: str, path: str) -> Any:
    return yaml.safe_load((ROLES / role / path).read_text())


def options(role: str) -> dict[str, Any]:
    found: dict[str, Any] = read(role, "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    return found


@pytest.mark.parametrize("role", NAMES)
def test_defaults_are_those_of_the_argument_spec(role: str) -> None:
    specified = {name: option["default"] for name, option in options(role).items() if "default" in option}
    defaults = read(role, "defaults/main.yml")
    assert {name: value for name, value in defaults.items() if name not in COMPUTED} == specified


@pytest.mark.parametrize("role", NAMES)
def test_the_readme_has_a_row_for_every_option_and_an_example_with_this_role(role: str) -> None:
    text = (ROLES / role / "README.md").read_text()
    rows = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row) if name.startswith(role + "_")}
    assert named == set(options(role))
    examples = [yaml.safe_load(example) for example in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
    used = [one["role"] for play in examples[0] for one in play["roles"]]
    assert used == ["confidential.gpu." + role]
    given = {name for play in examples[0] for one in play["roles"] for name in one.get("vars", {})}
    assert {name for name in given if name.startswith(role + "_")} <= set(options(role))


@pytest.mark.parametrize("role", NAMES)
def test_the_galaxy_knows_the_role(role: str) -> None:
    meta = read(role, "meta/main.yml")
    info = meta["galaxy_info"]
    assert set(info) >= {"author", "description", "license", "min_ansible_version", "platforms", "galaxy_tags"}
    assert meta["dependencies"] == []
