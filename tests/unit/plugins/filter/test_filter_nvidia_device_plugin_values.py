# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Values for NVIDIA's chart: what is refused of a configuration, and what the chart is told.

NVIDIA's chart is another project's, and not here: NVIDIA_DEVICE_PLUGIN_CHART names its folder, HELM the executable.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from device_plugin.gpu import config as own
from device_plugin.refusal import BadConfig

from ansible_collections.confidential.gpu.plugins.filter.nvidia_device_plugin_values import FilterModule
from ansible_collections.confidential.gpu.plugins.plugin_utils import nvidia_config

ROOT = Path(__file__).resolve().parents[4]
CHART, HELM = os.environ.get("NVIDIA_DEVICE_PLUGIN_CHART", ""), os.environ.get("HELM", "helm")
LEAST: dict[str, Any] = {"version": "v1"}


def slices(**keys: Any) -> dict[str, Any]:
    """A configuration with time slicing."""
    resource = {"name": "nvidia.com/gpu", "replicas": 4, **keys.pop("resource", {})}
    return {**LEAST, "sharing": {"timeSlicing": {"resources": [resource], **keys}}}


def values(config: dict[str, Any], **options: Any) -> dict[str, Any]:
    """What the filter makes of one configuration."""
    made: dict[str, Any] = FilterModule().filters()["nvidia_device_plugin_values"]({"default": config}, **options)
    return made


EVERYTHING = {
    "version": "v1",
    "flags": {
        "migStrategy": "none",
        "failOnInitError": False,
        "nvidiaDriverRoot": "/run/nvidia/driver",
        "nvidiaDevRoot": "/",
        "mpsRoot": "/run/nvidia/mps",
        "gdrcopyEnabled": False,
        "gdsEnabled": False,
        "mofedEnabled": False,
        "useNodeFeatureAPI": True,
        "deviceDiscoveryStrategy": "nvml",
        "plugin": {
            "passDeviceSpecs": True,
            "deviceListStrategy": ["envvar", "cdi-annotations", "cdi-cri"],
            "deviceIDStrategy": "index",
            "cdiAnnotationPrefix": "cdi.k8s.io/",
            "nvidiaCTKPath": "/usr/bin/nvidia-ctk",
            "containerDriverRoot": "/driver-root",
            "sharedDevicesAllocationPolicy": "packed",
        },
        "gfd": {
            "oneshot": False,
            "noTimestamp": False,
            "sleepInterval": "60s",
            "outputFile": "/x",
            "machineTypeFile": "/y",
        },
    },
    "sharing": {
        "timeSlicing": {
            "renameByDefault": True,
            "failRequestsGreaterThanOne": True,
            "resources": [{"name": "gpu", "replicas": 2, "devices": "all"}],
        }
    },
    "imex": {"channelIDs": [], "required": False},
}


def test_every_key_is_taken_and_written_as_it_was() -> None:
    made = values(EVERYTHING)
    assert yaml.safe_load(made["config"]["map"]["default"]) == EVERYTHING
    assert made["config"]["default"] == "default"
    assert (made["migStrategy"], made["nvidiaDriverRoot"]) == ("none", "/run/nvidia/driver")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {**LEAST, "sharing": {"timeSlicng": {}}},
            "sharing.timeSlicng: there is no such key.* Did you mean timeSlicing",
        ),
        ({**LEAST, "flags": {"renameByDefault": True}}, "flags.renameByDefault: .*It is a key of sharing.timeSlicing"),
        ({**LEAST, "flags": {"replica": 2}}, "Did you mean replicas, a key of sharing.timeSlicing.resources"),
        ({**LEAST, "zzz": 1}, "zzz: there is no such key.* There are: version, flags"),
        ({**LEAST, "Flags": {}}, "Did you mean flags"),
        ({}, "the configuration: version is not there"),
        ({"version": "v2"}, "version: is 'v2'. Give one of v1"),
        (slices(resource={"replicas": 1}), r"sharing.timeSlicing.resources\[0\].replicas: 1 is less than"),
        (slices(resource={"replicas": "4"}), "'4' is not of type 'integer'"),
        (slices(resource={"name": "nvidia.com/gpus"}), "does not match"),
        (slices(resource={"devices": ["0"]}), "shares all GPUs alike"),
        (slices(resource={"rename": "mine"}), r"resources\[0\].rename: NVIDIA's plugin takes no notice of it"),
        (slices(resources=[]), "resources: .*non-empty"),
        ({**LEAST, "sharing": {"timeSlicing": {}}}, "sharing.timeSlicing: resources is not there"),
        ({**LEAST, "resources": {"gpus": []}}, "resources: NVIDIA's plugin takes no notice of it"),
        ({**LEAST, "flags": {"plugin": {"deviceListStrategy": "envvar,cdi-cri"}}}, "deviceListStrategy: .*or a list"),
        ({**LEAST, "imex": {"channelIDs": [1]}}, r"imex.channelIDs: is \[1\]. Give \[0\]"),
        (
            slices(resources=[{"name": "gpu", "replicas": 2}, {"name": "nvidia.com/gpu", "replicas": 3}]),
            "nvidia.com/gpu is there twice",
        ),
        (
            {
                **LEAST,
                "sharing": {key: {"resources": [{"name": "gpu", "replicas": 2}]} for key in ("mps", "timeSlicing")},
            },
            "Give one of them",
        ),
        ("version: v1", "'version: v1' is not of type 'object'"),
    ],
)
def test_what_is_refused(config: Any, words: str) -> None:
    with pytest.raises(AnsibleFilterError, match=words) as caught:
        values(config)
    assert "configuration default: " in str(caught.value)


def test_everything_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(AnsibleFilterError) as caught:
        FilterModule().filters()["nvidia_device_plugin_values"](
            {"default": slices(resource={"replicas": 0}, typo=1), "other": {"version": "v2"}}
        )
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("configs", "options", "words"),
    [
        ({}, {}, "give configurations by name"),
        ([LEAST], {}, "give configurations by name"),
        ({"a b": LEAST}, {}, "'a b' is not a configuration's name"),
        ({"other": LEAST}, {}, "default is 'default', and there are other"),
        ({"default": LEAST}, {"node_labels": []}, "at least one label"),
        ({"default": LEAST}, {"node_labels": "a"}, "at least one label"),
        ({"default": LEAST, "b": {**LEAST, "flags": {"nvidiaDriverRoot": "/b"}}}, {}, "mounts one folder"),
    ],
)
def test_options_that_are_refused(configs: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(AnsibleFilterError, match=words):
        FilterModule().filters()["nvidia_device_plugin_values"](configs, **options)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia_config, "jsonschema", None)
    with pytest.raises(AnsibleFilterError, match="pip install jsonschema"):
        values(LEAST)


def test_containers_have_no_right_that_they_do_not_need() -> None:
    context = values(LEAST)["securityContext"]
    assert context == {
        "runAsUser": 0,
        "runAsGroup": 0,
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    for flags in ({"migStrategy": "mixed"}, {"plugin": {"deviceListStrategy": ["volume-mounts"]}}):
        context = values({**LEAST, "flags": flags})["securityContext"]
        assert context["capabilities"] == {"drop": ["ALL"], "add": ["SYS_ADMIN"]}
        assert "allowPrivilegeEscalation" not in context  # Kubernetes refuses both together


def test_nodes_are_those_of_the_own_chart() -> None:
    terms = values(LEAST)["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    chart = yaml.safe_load((ROOT / "container/charts/device-plugin/values.yaml").read_text())
    wanted = [one["matchExpressions"][0]["key"] for one in terms["nodeSelectorTerms"]]
    assert wanted == chart["gpuNodeLabels"]
    for term in terms["nodeSelectorTerms"]:
        assert term["matchExpressions"][1] == {
            "key": "nvidia.com/cc.mode.state",
            "operator": "NotIn",
            "values": ["on", "devtools", "ppcie"],
        }
    assert values(LEAST, runtime_class="")["affinity"]
    assert "runtimeClassName" not in values(LEAST, runtime_class="")
    assert values(LEAST)["runtimeClassName"] == "nvidia"


def test_of_different_strategies_the_file_alone_tells() -> None:
    made = FilterModule().filters()["nvidia_device_plugin_values"](
        {"default": LEAST, "mig": {**LEAST, "flags": {"migStrategy": "single"}}}
    )
    assert "migStrategy" not in made
    assert set(made["config"]["map"]) == {"default", "mig"}


def test_the_own_plugin_takes_what_both_can_do() -> None:
    """Changing from one to the other changes no file; what the own one cannot do it refuses by name."""
    taken = {**EVERYTHING, "imex": {}}
    taken.pop("imex")
    read = own.parse(yaml.safe_dump(taken), "config.yaml")
    assert (read.policy, read.fail_above_one) == ("packed", True)
    for key, value in (("flags", {"migStrategy": "mixed"}), ("imex", {"channelIDs": [0]})):
        values({**LEAST, key: value})
        with pytest.raises(BadConfig, match="Use NVIDIA's device plugin"):
            own.parse(yaml.safe_dump({**LEAST, key: value}), "config.yaml")


@pytest.mark.skipif(not CHART, reason="NVIDIA_DEVICE_PLUGIN_CHART names no folder with NVIDIA's chart")
def test_the_pod_of_nvidias_own_chart(tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values(EVERYTHING)))
    command = [HELM, "template", "gpus", CHART, "--namespace", "gpus", "--values", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    # The chart has another one for MPS, whose pods are privileged, on nodes with nvidia.com/mps.capable=true.
    made = [one for one in yaml.safe_load_all(done.stdout) if one and one["kind"] == "DaemonSet"]
    (daemon,) = [one for one in made if one["metadata"]["name"] == "gpus-nvidia-device-plugin"]
    pod = daemon["spec"]["template"]["spec"]
    assert [one["securityContext"] for one in pod["containers"]] == [values(EVERYTHING)["securityContext"]] * 2
    assert pod["affinity"] == values(EVERYTHING)["affinity"]
    assert pod["runtimeClassName"] == "nvidia"
    mounted = {one["hostPath"]["path"] for one in pod["volumes"] if "hostPath" in one}
    assert "/run/nvidia/driver" in mounted
