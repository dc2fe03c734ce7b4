# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Talos: requests as documents that its tools take.

Talos' own schemas are data of another project, and not here: TALOS_SCHEMAS names a folder with them, a file for each
release (`1.13.json`, which is pkg/machinery/config/schemas/config.schema.json of its release branch).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ansible.errors import AnsibleFilterError

from ansible_collections.confidential.gpu.plugins.filter.talos_machine_config import FilterModule, talos_machine_config

PATCH = """\
machine:
  install:
    extraKernelArgs:
    - -iommu=pt
    - -default_hugepagesz
    - default_hugepagesz=1G
    - intel_iommu=on
  kernel:
    modules:
    - name: vfio_pci
      parameters:
      - disable_idle_d3=1
    - name: vfio_iommu_type1
---
apiVersion: v1alpha1
kind: PCIDriverRebindConfig
name: '0000:17:00.0'
targetDriver: vfio-pci
"""


def test_patch() -> None:
    text = FilterModule().filters()["talos_machine_config"](
        ["0000:17:00.0"],
        add=["intel_iommu=on", "intel_iommu=on"],
        remove=["iommu=pt"],
        replace=["default_hugepagesz=1G"],
        modules={"vfio_pci": ["disable_idle_d3=1"], "vfio_iommu_type1": []},
    )
    assert text == PATCH
    assert len(list(yaml.safe_load_all(text))) == 2


def test_schematic() -> None:
    text = talos_machine_config([], add=["nohibernate"], document="schematic")
    assert yaml.safe_load(text) == {"customization": {"extraKernelArgs": ["nohibernate"]}}


def test_nothing() -> None:
    assert talos_machine_config([]) == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"add": "a"}, "add is not a list"),
        ({"add": ["a b"]}, "'a b' is not a kernel parameter"),
        ({"add": [None]}, "add holds None"),
        ({"document": "x"}, "patch or schematic"),
        ({"devices": "0000:17:00.0"}, "devices is not a list"),
        ({"devices": ["17:00"]}, "'17:00' is not a PCI address"),
        ({"devices": [None]}, "devices holds None"),
        ({"driver": ""}, "'' is not a driver"),
        ({"modules": ["vfio_pci"]}, "modules is not a mapping"),
        ({"modules": {"a b": []}}, "'a b' is not a module"),
        ({"modules": {"vfio_pci": "disable_idle_d3=1"}}, "modules.vfio_pci is not a list"),
        ({"modules": {"vfio_pci": {"disable_idle_d3": 1}}}, "modules.vfio_pci is not a list"),
        ({"modules": {"vfio_pci": None}}, "modules.vfio_pci is not a list"),
        ({"modules": {"vfio_pci": [True]}}, "modules.vfio_pci holds True"),
    ],
)
def test_what_is_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(AnsibleFilterError, match=words) as caught:
        talos_machine_config(**{"devices": [], **arguments})
    assert str(caught.value).count(words) == 1


def test_addresses_are_written_as_talos_has_them_each_once() -> None:
    documents = yaml.safe_load_all(talos_machine_config(["17:00.0", "0000:17:00.0", "0000:AB:00.1"]))
    assert [document["name"] for document in documents] == ["0000:17:00.0", "0000:ab:00.1"]


NVIDIA = ["nvidia", "nvidia_uvm", "nvidia_drm", "nvidia_modeset"]
RELEASES = ("1.11", "1.12", "1.13", "1.14")
RUNTIME = '[plugins."io.containerd.cri.v1.runtime".containerd]\ndefault_runtime_name = "nvidia"\n'
SCHEMAS = os.environ.get("TALOS_SCHEMAS", "")


def documents(*devices: str, **arguments: Any) -> list[dict[str, Any]]:
    """What is rendered, read."""
    return list(yaml.safe_load_all(talos_machine_config(list(devices), **arguments)))


def test_containers_up_to_1_12_need_the_sysctl() -> None:
    (found,) = documents(release="v1.12.4", containers=True)
    assert found == {
        "machine": {
            "kernel": {"modules": [{"name": name} for name in NVIDIA]},
            "sysctls": {"net.core.bpf_jit_harden": "1"},
        }
    }


def test_containers_in_1_13() -> None:
    (found,) = documents(release="1.13", containers=True, modules={"nvidia": ["NVreg_OpenRmEnableUnsupportedGpus=1"]})
    first, *others = found["machine"]["kernel"]["modules"]
    assert first == {"name": "nvidia", "parameters": ["NVreg_OpenRmEnableUnsupportedGpus=1"]}
    assert others == [{"name": name} for name in NVIDIA[1:]]
    assert set(found["machine"]) == {"kernel"}


@pytest.mark.parametrize("release", ["1.14", "1.14.0-rc.1", "1.15"])
def test_containers_from_1_14_have_documents_of_their_own(release: str) -> None:
    found = documents(
        "17:00.0", release=release, containers=True, sysctls={"vm.nr_hugepages": 8}, default_runtime="nvidia"
    )
    assert all(one["apiVersion"] == "v1alpha1" for one in found)
    assert [(one["kind"], one.get("name")) for one in found] == [
        *(("KernelModuleConfig", name) for name in NVIDIA),
        ("SysctlConfig", None),
        ("CRICustomizationConfig", "20-default-runtime"),
        ("PCIDriverRebindConfig", "0000:17:00.0"),
    ]
    assert found[4]["params"] == {"vm.nr_hugepages": "8"}
    assert found[5]["content"] == RUNTIME


def test_the_runtime_of_pods_that_name_none_before_1_14() -> None:
    (found,) = documents(release="1.12", default_runtime="nvidia")
    (file,) = found["machine"]["files"]
    assert file == {"op": "create", "path": "/etc/cri/conf.d/20-customization.part", "content": RUNTIME}


def test_extensions_are_of_one_branch() -> None:
    (found,) = documents(
        release="1.13", containers=True, document="schematic", driver_branch="lts", fabric_manager=True
    )
    assert found == {
        "customization": {
            "systemExtensions": {
                "officialExtensions": [
                    "siderolabs/nvidia-container-toolkit-lts",
                    "siderolabs/nvidia-open-gpu-kernel-modules-lts",
                    "siderolabs/nvidia-fabricmanager-lts",
                ]
            }
        }
    }
    (found,) = documents(add=["a=b"], containers=True, document="schematic", kernel_modules="nonfree")
    assert found["customization"]["extraKernelArgs"] == ["a=b"]
    assert found["customization"]["systemExtensions"]["officialExtensions"][1].endswith(
        "nonfree-kmod-nvidia-production"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"release": 1.13}, "in quotes"),
        ({"release": "2.0"}, "not known here"),
        ({"release": "1.9"}, "1.10 or a later"),
        ({"release": "latest"}, "in quotes"),
        ({"containers": True}, "release is not there"),
        ({"default_runtime": "nvidia"}, "release is not there"),
        ({"release": "1.14", "add": ["a=b"]}, "document='schematic'"),
        ({"release": "1.14", "containers": "yes"}, "containers is true or false"),
        ({"fabric_manager": 1}, "fabric_manager is true or false"),
        ({"driver_branch": "new"}, "production or lts"),
        ({"kernel_modules": "free"}, "open or nonfree"),
        ({"default_runtime": 'a"b'}, "not a runtime"),
        ({"sysctls": ["a"]}, "sysctls is not a mapping"),
        ({"sysctls": {"a b": "1"}}, "'a b' is not a sysctl"),
        ({"sysctls": {"a": None}}, "sysctls.a holds None"),
    ],
)
def test_what_is_refused_of_a_release(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(AnsibleFilterError, match=words):
        talos_machine_config([], **arguments)


@pytest.mark.skipif(not SCHEMAS, reason="TALOS_SCHEMAS names no folder with Talos' schemas")
@pytest.mark.parametrize("release", RELEASES)
def test_talos_own_schema_takes_every_document(release: str) -> None:
    schema = json.loads((Path(SCHEMAS) / f"{release}.json").read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(schema)
    desired = {"containers": True, "default_runtime": "nvidia", "sysctls": {"vm.nr_hugepages": 8}}
    # A patch is a part of a configuration: what a whole one has to have is not asked of it.
    for found in documents("0000:17:00.0", release=release, modules={"vfio_pci": ["disable_idle_d3=1"]}, **desired):
        assert [one for one in validator.iter_errors(found) if one.validator != "required"] == [], found
        wrong = {**found, "sysctl": {}}
        assert list(validator.iter_errors(wrong)), "the schema takes anything"
