# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What is refused at the start: with file, key and remedy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from device_plugin import settings
from device_plugin.keys import read
from device_plugin.refusal import BadConfig
from device_plugin.tee.config import parse
from fake_kubelet.node import Node
from kube.settings import BadSetting

TDX = {"device": "tdx-guest"}


def refused(config: Any) -> str:
    """What is said of a configuration."""
    with pytest.raises(BadConfig) as error:
        parse(config if isinstance(config, str) else yaml.safe_dump(config), "c.yaml")
    return str(error.value)


def one(**resource: Any) -> dict[str, Any]:
    """A configuration with one resource."""
    return {"resources": [{**TDX, **resource}]}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("", ["c.yaml: is empty"]),
        ("a: [", ["c.yaml: is no YAML", "line 1"]),
        ("- a", ["c.yaml: is a list"]),
        ("resources: 1\nresources: 2\n", ["'resources' is there twice", "line 2"]),
        ({}, ["c.yaml: resources: is not there. Give it."]),
        ({"resources": []}, ["resources: is a list", "at least one entry"]),
        ({"resources": ["tdx"]}, ["resources[0]: is 'tdx'", "keys and values"]),
        ({**one(), "resorces": []}, ["resorces: there is no such key", "Did you mean resources?"]),
        (
            {**one(), "zzz": 1},
            ["zzz: there is no such key", "There are: version, resources, socketFolder, reports, cdi"],
        ),
        ({**one(), "version": "v2"}, ["version: is 'v2'", "Give one of v1"]),
        (one(slot=4), ["resources[0].slot: there is no such key", "Did you mean slots?"]),
        (one(slots=0), ["resources[0].slots: is 0", "from 1 to 1000000"]),
        (one(slots=True), ["resources[0].slots: is True"]),
        (one(slots="4"), ["resources[0].slots: is '4'"]),
        ({"resources": [{"device": "tdx_guest"}]}, ["resources[0].device", "Did you mean tdx-guest?"]),
        ({"resources": [{"name": "a/b"}]}, ["resources[0].device: is not there"]),
        ({"resources": [TDX, TDX]}, ["resources[1].name: is 'tdx.intel.com/tdx-guest', as before"]),
        (one(name="tdx"), ["resources[0].name: is 'tdx'", "a domain and a name"]),
        (one(name="kubernetes.io/tdx"), ["resources[0].name"]),
        (one(name="a.example/" + "n" * 64), ["resources[0].name"]),
        (one(paths=[]), ["resources[0].paths: is a list"]),
        (one(paths="/dev/tdx_guest"), ["resources[0].paths: is '/dev/tdx_guest'", "Give a list"]),
        (one(paths=["tdx_guest"]), ["resources[0].paths[0]", "below /dev/"]),
        (one(paths=["/dev/../etc/x"]), ["resources[0].paths[0]"]),
        (one(paths=["/dev/"]), ["resources[0].paths[0]"]),
        (one(paths=[3]), ["resources[0].paths[0]: is 3"]),
        ({**one(), "socketFolder": {"mode": "0777"}}, ["socketFolder.mode: is '0777'", "plant a socket"]),
        ({**one(), "socketFolder": {"mode": "0757"}}, ["plant a socket"]),
        ({**one(), "socketFolder": {"mode": 755}}, ["socketFolder.mode: is 755", "in quotes"]),
        ({**one(), "socketFolder": {"mode": "1755"}}, ["three octal digits"]),
        ({**one(), "socketFolder": {"uid": -1}}, ["socketFolder.uid: is -1"]),
        ({**one(), "socketFolder": {"path": "/etc"}}, ["socketFolder.path", "below /run/"]),
        ({**one(), "socketFolder": {"gidd": 1}}, ["socketFolder.gidd", "Did you mean gid?"]),
        ({**one(), "socketFolder": 1}, ["socketFolder: is 1"]),
        ({**one(), "cdi": {"enabled": "yes"}}, ["cdi.enabled: is 'yes'", "true or false"]),
        ({**one(), "cdi": {"folder": ""}}, ["cdi.folder: is ''"]),
        ({**one(), "reports": {"path": "tsm"}}, ["reports.path: is 'tsm'", "absolute"]),
    ],
)
def test_what_cannot_be_meant(config: Any, words: list[str]) -> None:
    said = refused(config)
    for word in words:
        assert word in said
    assert said.startswith("c.yaml: ")
    assert said.endswith((".", "?"))


def test_too_large_and_too_deep() -> None:
    with pytest.raises(BadConfig, match="at most"):
        read("a" * (1 << 21), "c.yaml")
    with pytest.raises(BadConfig, match="nested too deeply"):
        read("[" * 5000, "c.yaml")


def test_the_defaults_are_those_of_the_seed() -> None:
    config = parse(yaml.safe_dump(one()), "c.yaml")
    (resource,) = config.resources
    assert (resource.name, resource.slots) == ("tdx.intel.com/tdx-guest", 110)
    assert resource.paths == ("/dev/tdx_guest", "/dev/tdx-guest")
    assert config.folder is not None
    assert (config.folder.path, config.folder.mode, config.folder.uid, config.folder.gid) == (
        "/run/ccnp/uds",
        0o755,
        0,
        0,
    )
    assert not config.folder.read_only
    assert config.reports is None
    assert config.cdi_folder is None


def test_everything_can_be_said() -> None:
    config = parse(
        yaml.safe_dump(
            {
                "version": "v1",
                "resources": [
                    TDX,
                    {"device": "sev-guest", "name": "x.example/snp", "paths": ["/dev/snp"], "slots": 1},
                ],
                "socketFolder": {"path": "/run/a/b/", "uid": 1, "gid": 2, "mode": "0770", "readOnly": True},
                "reports": {"enabled": True, "containerPath": "/r"},
                "cdi": {"enabled": True, "folder": "/etc/cdi"},
            }
        ),
        "c.yaml",
    )
    assert [one.name for one in config.resources] == ["tdx.intel.com/tdx-guest", "x.example/snp"]
    assert config.folder is not None
    assert (config.folder.path, config.folder.mode, config.folder.read_only) == ("/run/a/b", 0o770, True)
    assert config.reports is not None
    assert (config.reports.path, config.reports.container_path) == ("/sys/kernel/config/tsm/report", "/r")
    assert config.cdi_folder == "/etc/cdi"
    assert parse(yaml.safe_dump({**one(), "socketFolder": {"enabled": False}}), "c.yaml").folder is None


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"DEVICE_PLUGIN_METRICS_PORT": "x"}, "DEVICE_PLUGIN_METRICS_PORT is 'x'. Give a port, or 0 for none."),
        ({"DEVICE_PLUGIN_SOURCE": "gpus"}, "DEVICE_PLUGIN_SOURCE is 'gpus'. Give one of tee."),
        ({"DEVICE_PLUGIN_CONFIG": "a"}, "DEVICE_PLUGIN_CONFIG is 'a'. Give an absolute path."),
        ({"DEVICE_PLUGIN_LOG_FORMAT": "xml"}, "DEVICE_PLUGIN_LOG_FORMAT is 'xml'. Give one of text, json."),
        ({"DEVICE_PLUGIN_POD": "name"}, "DEVICE_PLUGIN_POD is 'name'. Give namespace/name of the pod, or nothing."),
    ],
)
def test_settings_that_cannot_be_meant(environment: dict[str, str], words: str) -> None:
    with pytest.raises(BadSetting) as error:
        settings.parse([], environment, ["tee"])
    assert str(error.value) == words


def test_flags_go_before_variables() -> None:
    found = settings.parse(["--metrics-port", "9", "--pod=a/b"], {"DEVICE_PLUGIN_METRICS_PORT": "8"}, ["tee"])
    assert (found.metrics_port, found.pod) == (9, ("a", "b"))
    assert settings.parse([], {}, ["tee"]).metrics_port == 2112


def started(node: Node, **environment: str) -> subprocess.CompletedProcess[str]:
    """The program, which is expected to end by itself."""
    command = [sys.executable, "-m", "device_plugin"]
    return subprocess.run(
        command, env={**node.environment(), **environment}, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_program_refuses_at_its_start_and_touches_nothing(folder: Path) -> None:
    node = Node(folder)
    (node.dev / "tdx_guest").write_text("")
    done = started(node)
    assert done.returncode == 2
    key = "resources[0].paths[0]: /dev/tdx_guest is no character device. Name the node of the device itself."
    assert f"device-plugin: {node.config}: {key}" in done.stderr
    assert list(node.plugins.iterdir()) == []
    assert list((node.root / "run").iterdir()) == []


@pytest.mark.parametrize(
    ("change", "environment", "words"),
    [
        ({"resources": [{"device": "tdx-guest", "slots": 200_000}]}, {}, "Give at most 1"),
        (None, {"DEVICE_PLUGIN_CONFIG": "/nowhere/c.yaml"}, "/nowhere/c.yaml: cannot be read: No such file"),
        (None, {"DEVICE_PLUGIN_FOLDER": "/nowhere"}, "there is no folder /nowhere. Mount the kubelet's"),
        (None, {"DEVICE_PLUGIN_SOURCE": "x"}, "DEVICE_PLUGIN_SOURCE is 'x'"),
        ({"resources": [TDX], "reports": {"enabled": True}}, {}, "reports.path: "),
    ],
)
def test_other_reasons_to_refuse(folder: Path, change: Any, environment: dict[str, str], words: str) -> None:
    node = Node(folder)
    if change is not None:
        node.configure(change)
    done = started(node, **environment)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) <= 2


def test_not_to_register_is_for_gpus_alone() -> None:
    sources = ["tee", "gpu"]
    assert settings.parse([], {}, sources).register
    assert not settings.parse(["--no-register", "--source=gpu"], {}, sources).register
    assert not settings.parse(["--source=gpu"], {"DEVICE_PLUGIN_REGISTER": "false"}, sources).register
    with pytest.raises(BadSetting, match="with the source tee"):
        settings.parse(["--no-register"], {}, sources)
    with pytest.raises(BadSetting, match="Give true or false"):
        settings.parse([], {"DEVICE_PLUGIN_REGISTER": "some"}, sources)
