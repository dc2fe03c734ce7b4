# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The device plugin's messages and services, field by field, against the kubelet's own of its Go module."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.cluster.kube.programs import GO  # noqa: E402

OURS = ROOT / "container/device_plugin/api"
BLOCK = re.compile(r"\b(message|service)\s+(\w+)\s*\{((?:[^{}]|\{\s*\})*)\}")
FIELD = re.compile(r"((?:repeated\s+)?(?:map\s*<[^>]*>|\w+))\s+(\w+)\s*=\s*(\d+)")
CALL = re.compile(r"rpc\s+(\w+)\s*\(\s*((?:stream\s+)?\w+)\s*\)\s*returns\s*\(\s*((?:stream\s+)?\w+)\s*\)")
Shape = dict[str, dict[str, tuple[str, ...]]]


@pytest.fixture(scope="session")
def theirs() -> Path:
    """The folder of k8s.io/kubelet's interfaces, of the release that the cluster runs."""
    command = ["go", "list", "-mod=readonly", "-m", "-f", "{{.Dir}}", "k8s.io/kubelet"]
    try:
        done = subprocess.run(command, cwd=GO / "kubernetes", capture_output=True, text=True, check=False)
    except FileNotFoundError:
        if os.environ.get("REQUIRE_ALL"):
            raise
        pytest.skip("there is no Go")
    if not done.stdout.strip():  # known, and not fetched yet
        subprocess.run(["go", "mod", "download", "k8s.io/kubelet"], cwd=GO / "kubernetes", check=True)
        done = subprocess.run(command, cwd=GO / "kubernetes", capture_output=True, text=True, check=True)
    return Path(done.stdout.strip()) / "pkg/apis"


def shape(text: str) -> Shape:
    """Messages with their fields (type and number), services with their calls (both types)."""
    plain = re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL)
    found: Shape = {}
    entries: dict[str, tuple[str, ...]]
    for kind, name, body in BLOCK.findall(plain):
        if kind == "message":
            entries = {field: (_spaced(of), number) for of, field, number in FIELD.findall(body)}
        else:
            entries = {call: (_spaced(given), _spaced(answer)) for call, given, answer in CALL.findall(body)}
        found[name] = entries
    return found


def _spaced(words: str) -> str:
    return (
        re.sub(r"\s+", " ", words).replace("map <", "map<").replace(" ,", ",").replace(",", ", ").replace(",  ", ", ")
    )


def test_the_device_plugin_api_is_the_kubelets(theirs: Path) -> None:
    real = shape((theirs / "deviceplugin/v1beta1/api.proto").read_text())
    assert len(real) > 15
    assert shape((OURS / "deviceplugin.proto").read_text()) == real


def test_what_is_asked_of_pod_resources_is_part_of_the_kubelets(theirs: Path) -> None:
    real = shape((theirs / "podresources/v1/api.proto").read_text())
    mine = shape((OURS / "podresources.proto").read_text())
    assert len(mine) == 6
    for name, entries in mine.items():
        assert entries.items() <= real[name].items(), name
