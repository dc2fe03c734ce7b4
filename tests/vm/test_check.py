# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""Check mode and the playbook `check` tell the truth: what they announce on a stock machine the first run does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.bench.control import CHECK, HOST, SITE, Run, site_variables
from tests.vm.bench.image import Image
from tests.vm.conftest import Vm, running


@pytest.fixture(scope="module")
def vm(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vm]:
    """Two H100 in a stock machine."""
    with running(image, tmp_path_factory.mktemp("check"), ["h100-pcie", "h100-pcie"]) as made:
        yield made


def states(run: Run) -> dict[str, str]:
    """What the playbook check printed, as it is meant for programs: requirement to state."""
    assert run.status == 0, run.output
    assert run.recap["changed"] == 0, run.output
    printed = re.search(r'=> (\{\n +"msg": .*?^\})', run.output, re.MULTILINE | re.DOTALL)
    assert printed is not None, run.output
    answer = json.loads(printed.group(1))
    return {one["requirement"]: one["state"] for one in answer["msg"][HOST]["requirements"]}


def files(vm: Vm) -> dict[str, str]:
    """Path to hash of every file that the playbook might change."""
    listed = vm.machine.ssh.run("find /etc /boot /opt /usr/lib/modprobe.d -xdev -type f -exec md5sum {} +").splitlines()
    return {path: hashed for hashed, path in (line.split(maxsplit=1) for line in listed)}


@pytest.fixture(scope="module")
def stock(vm: Vm) -> dict[str, str]:
    """The files before anything was done."""
    return files(vm)


@pytest.fixture(scope="module")
def announced(vm: Vm, stock: dict[str, str], wheel_folder: Path) -> Run:
    """Check mode on the stock machine."""
    run = vm.control.playbook(SITE, site_variables(wheel_folder), "--check", "--diff")
    assert run.status == 0, run.output
    return run


@pytest.fixture(scope="module")
def first(vm: Vm, announced: Run, wheel_folder: Path) -> Run:
    """The first run."""
    run = vm.control.playbook(SITE, site_variables(wheel_folder))
    assert run.status == 0, run.output
    return run


def test_check_says_what_a_stock_host_lacks(vm: Vm) -> None:
    found = states(vm.control.playbook(CHECK, {"check_format": "json"}))
    lacks = ("iommu", "command_line", "vfio", "gpu_admin_tools", "binding")
    assert {name: found[name] for name in lacks} == dict.fromkeys(lacks, "missing")
    assert (found["devices"], found["lockdown"], found["host_driver"]) == ("ok", "ok", "ok")


def test_check_mode_changes_nothing(vm: Vm, announced: Run, stock: dict[str, str]) -> None:
    assert announced.recap["changed"] > 0, announced.output
    assert files(vm) == stock


def test_check_mode_announced_what_the_first_run_changed(
    vm: Vm, announced: Run, stock: dict[str, str], first: Run
) -> None:
    now = files(vm)
    changed = {path for path in {*stock, *now} if path.startswith("/etc/") and stock.get(path) != now.get(path)}
    # Copies that are kept, and the fact that the mode is read from: they follow from what was announced.
    changed = {path for path in changed if not path.endswith("~") and "/facts.d/" not in path}
    assert {path for path in announced.changed_files if path.startswith("/etc/")} == changed


def test_check_says_that_nothing_is_missing_that_can_be_set(vm: Vm, first: Run) -> None:
    found = states(vm.control.playbook(CHECK, {"check_format": "json", "check_mode_wanted": "on"}))
    # The emulated processor has neither KVM nor TDX, and its kernel is too old for that.
    cannot = {"virtualization", "tdx", "kernel", "command_line"}
    assert {name for name, state in found.items() if state != "ok"} <= cannot, found
