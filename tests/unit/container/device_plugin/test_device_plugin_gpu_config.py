# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's configuration file: what is taken, and what is refused with file, key and remedy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from device_plugin.gpu.cdi import Specs
from device_plugin.gpu.config import GPU, SHARED, Sharing, parse
from device_plugin.gpu.source import ANY
from device_plugin.gpu.verdicts import EVERY, Verdicts
from device_plugin.gpu.xids import DISABLE, ENABLE, Xids
from device_plugin.messages import most
from device_plugin.refusal import BadConfig
from fake_kubelet.node import Node
from kube.settings import BadSetting

ONE = {"name": GPU, "replicas": 4}


def refused(config: Any) -> str:
    """What is said of a configuration."""
    with pytest.raises(BadConfig) as error:
        parse(config if isinstance(config, str) else yaml.safe_dump(config), "c.yaml")
    return str(error.value)


def flags(**given: Any) -> dict[str, Any]:
    """A configuration with flags."""
    return {"version": "v1", "flags": given}


def slices(*resources: Any, **given: Any) -> dict[str, Any]:
    """A configuration with time slices."""
    return {"version": "v1", "sharing": {"timeSlicing": {**given, "resources": list(resources)}}}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, ["c.yaml: version: is not there"]),
        ({"version": "v2"}, ["version: is 'v2'", "Give one of v1"]),
        ({"version": "v1", "flag": {}}, ["flag: there is no such key", "Did you mean flags?"]),
        ({"version": "v1", "resources": {}}, ["resources: there is no such key"]),
        (flags(renameByDefault=True), ["flags.renameByDefault: there is no such key"]),
        (flags(migStrategi="none"), ["flags.migStrategi", "Did you mean migStrategy?"]),
        (flags(migStrategy="single"), ["flags.migStrategy: is not none", "NVIDIA's device plugin"]),
        (flags(migStrategy="some"), ["flags.migStrategy: is 'some'"]),
        (flags(gdsEnabled=True), ["flags.gdsEnabled", "NVIDIA's device plugin"]),
        (flags(nvidiaDriverRoot="run/nvidia"), ["flags.nvidiaDriverRoot: is 'run/nvidia'", "absolute"]),
        (flags(nvidiaDriverRoot="/a/../b"), ["flags.nvidiaDriverRoot"]),
        (flags(plugin={"passDeviceSpec": True}), ["flags.plugin.passDeviceSpec", "Did you mean passDeviceSpecs?"]),
        (flags(plugin={"passDeviceSpecs": "yes"}), ["flags.plugin.passDeviceSpecs: is 'yes'", "true or false"]),
        (
            flags(plugin={"deviceListStrategy": "cdi"}),
            ["deviceListStrategy: is 'cdi'", "volume-mounts, cdi-annotations"],
        ),
        (flags(plugin={"cdiAnnotationPrefix": "cdi"}), ["cdiAnnotationPrefix: is 'cdi'", "cdi.k8s.io/"]),
        (flags(plugin={"deviceListStrategy": []}), ["deviceListStrategy: is an empty list"]),
        (flags(plugin={"deviceListStrategy": [True]}), ["deviceListStrategy[0]: is True"]),
        (flags(plugin={"deviceListStrategy": {}}), ["deviceListStrategy: is a dict"]),
        (flags(plugin={"deviceIDStrategy": "name"}), ["flags.plugin.deviceIDStrategy: is 'name'"]),
        ({"version": "v1", "imex": {}}, ["imex: is not done here", "NVIDIA's device plugin"]),
        ({"version": "v1", "sharing": {"mps": {}}}, ["sharing.mps: is not done here", "NVIDIA's device plugin"]),
        ({"version": "v1", "sharing": {"timeSlicng": {}}}, ["sharing.timeSlicng", "Did you mean timeSlicing?"]),
        (slices(ONE, renamByDefault=True), ["timeSlicing.renamByDefault", "Did you mean renameByDefault?"]),
        (slices(), ["sharing.timeSlicing.resources: is a list", "at least one entry"]),
        (slices({"name": GPU}), ["sharing.timeSlicing.resources[0].replicas: is not there"]),
        (slices({**ONE, "replicas": 0}), ["resources[0].replicas: is 0", "from 2"]),
        (slices({**ONE, "replicas": 1}), ["resources[0].replicas: is 1", "from 2"]),
        (slices({**ONE, "replica": 2}), ["resources[0].replica", "Did you mean replicas?"]),
        (slices({**ONE, "name": "nvidia.com/mig-1g.10gb"}), ["resources[0].name", "NVIDIA's device plugin"]),
        (slices({**ONE, "rename": "example.com/gpu"}), ["resources[0].rename: is 'example.com/gpu'"]),
        (slices(ONE, ONE), ["resources[1].name: is 'nvidia.com/gpu', as before", "`devices`"]),
        (slices({**ONE, "devices": [0]}, ONE), ["resources[1].name"]),
        (slices({**ONE, "devices": [0, 1]}, {**ONE, "devices": ["1"]}), ["resources[1].devices: has '1', as before"]),
        (slices({**ONE, "devices": [0, 0]}), ["resources[0].devices[1]: is '0', as before"]),
        (slices({**ONE, "devices": ["0:1"]}), ["resources[0].devices[0]: is '0:1'", "UUID"]),
        (slices(ONE, policy="packed"), ["timeSlicing.policy: there is no such key"]),
        (flags(plugin={"sharedDevicesAllocationPolicy": "spread"}), ["sharedDevicesAllocationPolicy: is 'spread'"]),
        ({"version": "v1", "confidential": {"allow": True}}, ["confidential.allow", "allowSharing"]),
    ],
)
def test_what_cannot_be_meant(config: Any, words: list[str]) -> None:
    said = refused(config)
    for word in words:
        assert word in said
    assert said.startswith("c.yaml: ")


def test_the_defaults_are_those_of_nvidias_plugin() -> None:
    config = parse("version: v1", "c.yaml")
    assert (config.driver_root, config.strategies, config.ids, config.pass_nodes) == ("/", ("envvar",), "uuid", False)
    assert (config.shared, config.fail_above_one, config.share_confidential) == ((), False, False)


def test_what_nvidias_file_may_have_is_taken() -> None:
    text = """
version: v1
flags:
  migStrategy: none
  failOnInitError: false
  nvidiaDriverRoot: /run/nvidia/driver
  gdsEnabled: false
  plugin:
    passDeviceSpecs: true
    deviceListStrategy: envvar,cdi-cri
    deviceIDStrategy: index
    containerDriverRoot: /driver-root
  gfd: {oneshot: false, sleepInterval: 60s}
sharing:
  timeSlicing:
    renameByDefault: true
    failRequestsGreaterThanOne: true
    resources:
    - {name: gpu, replicas: 10, devices: all}
"""
    config = parse(text, "c.yaml")
    assert (config.driver_root, config.strategies, config.ids) == ("/run/nvidia/driver", ("envvar", "cdi-cri"), "index")
    assert config.shared == (Sharing(GPU + SHARED, 10, frozenset()),)
    assert config.pass_nodes
    assert config.fail_above_one


@pytest.mark.parametrize(
    ("disable", "enable", "counting", "ignored"),
    [
        ("", "", {48, 79, 95}, {13, 31, 43, 45, 68, 109}),
        ("79, 48", "", {95}, {13, 79, 48}),
        ("all", "", set(), {13, 79}),
        ("xids", "79", {79}, {13, 48}),
        ("", "13", {13, 79}, {31}),
        ("79", "ALL", {13, 48}, {79}),
        ("79", "79", {79}, {13}),
    ],
)
def test_the_variables_of_nvidias_plugin(disable: str, enable: str, counting: set[int], ignored: set[int]) -> None:
    xids = Xids({DISABLE: disable, ENABLE: enable})
    assert {one for one in counting | ignored if xids.counts(one)} == counting


def test_a_variable_that_cannot_be_meant() -> None:
    with pytest.raises(BadSetting, match="DP_DISABLE_HEALTHCHECKS has 'none'. Give `all`, or numbers"):
        Xids({DISABLE: "79,none"})


def test_verdicts_hold_until_the_next_boot(tmp_path: Path) -> None:
    boot = tmp_path / "boot_id"
    boot.write_text("first\n")
    folder = tmp_path / "state"
    verdicts = Verdicts(folder, boot)
    verdicts.start()
    verdicts.add("GPU-1", "XID 79")
    (folder / "half.tmp").write_text("{")
    (folder / f"{EVERY}.json").write_text("{")  # nobody knows what it said
    again = Verdicts(folder, boot)
    again.start()
    assert dict(again.all()) == {"GPU-1": "XID 79", EVERY: "all.json cannot be read"}
    assert not list(folder.glob("*.tmp"))
    boot.write_text("second\n")
    again.start()
    assert dict(again.all()) == {EVERY: "all.json cannot be read"}


def test_a_verdict_that_cannot_be_written_holds_in_this_process(tmp_path: Path) -> None:
    verdicts = Verdicts(tmp_path / "state")
    with pytest.raises(OSError, match="No such file"):
        verdicts.add("GPU-1", "XID 79")
    assert verdicts.all() == {"GPU-1": "XID 79"}


def test_specifications_are_read_again_when_they_change(tmp_path: Path) -> None:
    specs = Specs([tmp_path, tmp_path / "absent"])
    assert specs.names() == frozenset()
    (tmp_path / "a.json").write_text('{"kind": "nvidia.com/gpu", "devices": [{"name": "0"}]}')
    (tmp_path / "b.yaml").write_text("kind: nvidia.com/gpu\ndevices: [{name: GPU-1}, {name: all}]\n")
    (tmp_path / "c.yaml").write_text("kind: example.com/gpu # not nvidia.com/gpu\ndevices: [{name: GPU-9}]\n")
    (tmp_path / "d.yaml").write_text("nvidia.com/gpu: [")
    assert specs.names() == {"0", "GPU-1", "all"}
    (tmp_path / "b.yaml").unlink()
    (tmp_path / "a.json").write_text('{"kind": "nvidia.com/gpu", "devices": [{"name": "17"}]}')
    assert specs.names() == {"17"}


def test_more_shares_of_one_gpu_than_a_message_holds_are_refused_at_the_start(folder: Path) -> None:
    many = {"name": "gpu", "replicas": 1_000_000, "devices": ["1"]}
    few = {"name": "gpu", "replicas": 2, "devices": ["0"]}
    node = Node(folder)
    node.configure({"version": "v1", "sharing": {"timeSlicing": {"resources": [few, many]}}})
    command = [sys.executable, "-m", "device_plugin", "--source", "gpu"]
    done = subprocess.run(command, env=node.environment(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "sharing.timeSlicing.resources[1].replicas: is 1000000" in done.stderr
    fits = most(f"{ANY}::", (0,))
    assert f"Give at most {fits}, divided by the number of GPUs" in done.stderr
