# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What is read from trees that a real kernel showed: the IOMMU off, and after the playbook site."""

from __future__ import annotations

from pathlib import Path

import kernel_facts
import pytest

from ansible_collections.confidential.gpu.plugins.module_utils._gpu import host
from ansible_collections.confidential.gpu.plugins.module_utils._host import system
from ansible_collections.confidential.gpu.plugins.module_utils._pci.binding import Binding
from ansible_collections.confidential.gpu.plugins.module_utils._pci.errors import DriverNotLoaded, NoIommuGroup
from ansible_collections.confidential.gpu.plugins.module_utils._pci.functions import Match, find
from ansible_collections.confidential.gpu.plugins.module_utils._pci.request import Request
from ansible_collections.confidential.gpu.plugins.module_utils._pci.sysfs import SysfsBus


@pytest.fixture
def at_vfio(tmp_path: Path) -> Path:
    kernel_facts.lay_out("vfio-pci.txt", tmp_path)
    return tmp_path


@pytest.fixture
def without_iommu(tmp_path: Path) -> Path:
    kernel_facts.lay_out("iommu-off.txt", tmp_path)
    return tmp_path


def test_a_device_at_vfio(at_vfio: Path) -> None:
    (function,) = find(at_vfio)
    assert (function.id, function.class_code) == ("10de:2331", 0x030200)
    assert (function.driver(), function.driver_override()) == ("vfio-pci", "vfio-pci")
    assert function.iommu_group() == 7
    assert function.reset_method() == "flr bus"
    assert function.power_control() == "auto"
    assert [one.address for one in SysfsBus(str(at_vfio)).find()] == [kernel_facts.ADDRESS]


def test_a_device_without_iommu(without_iommu: Path) -> None:
    (function,) = find(without_iommu)
    assert (function.driver(), function.driver_override(), function.iommu_group()) == (None, None, None)
    assert function.reset_method() == "flr bus"


def test_a_device_that_is_bound_needs_nothing(at_vfio: Path) -> None:
    binding = Binding(Request(match=Match(classes=["0302"]), load=True), str(at_vfio))
    (at_vfio / "sys/bus/pci/drivers/vfio-pci").mkdir(parents=True)
    binding.run(only_plan=True)
    assert not binding.is_change
    assert binding.result()["devices"][0]["group"] == 7


def test_binding_is_refused_without_iommu(without_iommu: Path) -> None:
    with pytest.raises(DriverNotLoaded, match="modprobe vfio-pci"):
        Binding(Request(match=Match()), str(without_iommu)).run(only_plan=True)
    (without_iommu / "sys/bus/pci/drivers/vfio-pci").mkdir(parents=True)
    with pytest.raises(NoIommuGroup, match="Enable the IOMMU"):
        Binding(Request(match=Match()), str(without_iommu)).run(only_plan=True)


def test_what_the_hosts_say(at_vfio: Path) -> None:
    facts = host.facts(str(at_vfio))
    assert {name: facts[name]["value"] for name in ("iommu", "lockdown")} == {"iommu": "yes", "lockdown": "no"}
    seen = {one.requirement: one.state for one in system.requirements(system.System.read(str(at_vfio)))}
    assert (seen["iommu"], seen["vfio"], seen["lockdown"], seen["command_line"]) == ("ok", "ok", "ok", "ok")


def test_what_a_host_without_iommu_says(without_iommu: Path) -> None:
    seen = {one.requirement: one for one in system.requirements(system.System.read(str(without_iommu)))}
    assert (seen["iommu"].state, seen["iommu"].seen.split(":")[0]) == ("missing", "0 groups")
    assert seen["vfio"].state == "missing"
