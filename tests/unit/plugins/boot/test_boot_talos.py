# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Talos: wishes as documents that its tools take."""

from __future__ import annotations

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
def test_what_is_refused(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(AnsibleFilterError, match=words) as caught:
        talos_machine_config(**{"devices": [], **arguments})
    assert str(caught.value).count(words) == 1


def test_addresses_are_written_as_talos_has_them_each_once() -> None:
    documents = yaml.safe_load_all(talos_machine_config(["17:00.0", "0000:17:00.0", "0000:AB:00.1"]))
    assert [document["name"] for document in documents] == ["0000:17:00.0", "0000:ab:00.1"]
