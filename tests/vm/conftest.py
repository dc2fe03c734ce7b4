# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""Machines for the tests. One runs at a time; each costs half a minute to boot."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from emulator.launch import Emulator, launch  # noqa: E402

from tests.vm.bench.control import Control, wheels  # noqa: E402
from tests.vm.bench.image import Image, build  # noqa: E402
from tests.vm.bench.machine import Gpu, Machine, clean, node  # noqa: E402
from tests.vm.bench.places import PROGRAMS  # noqa: E402
from tools.needs import NotPossible, check_programs  # noqa: E402


@dataclass
class Vm:
    """A machine, its emulated devices, and the control machine beside it."""

    machine: Machine
    emulator: Emulator
    control: Control

    def lose_power(self) -> None:
        """Both the machine and its devices."""
        self.machine.kill()
        self.emulator.control.power_cycle()


@pytest.fixture(scope="session")
def programs() -> None:
    """What builds images. Without it the suite is left out, unless nothing may be."""
    try:
        check_programs(PROGRAMS)
    except NotPossible as reason:
        if os.environ.get("REQUIRE_ALL"):
            raise
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def image(programs: None) -> Image:
    """The stock image."""
    return build()


@pytest.fixture(scope="session")
def wheel_folder() -> Path:
    """NVIDIA's tool, as the role installs it on hosts without a package index."""
    return wheels()


@contextmanager
def running(
    image: Image,
    folder: Path,
    models: list[str],
    disks: Sequence[Path] = (),
    with_iommu: bool = False,
    **timing: float,
) -> Iterator[Vm]:
    """A booted machine with these devices; its disk goes at the end, its logs stay."""
    with launch(node(models, **timing), sockets=folder / "s", log=folder / "emulator.jsonl") as emulator:
        gpus = [Gpu(address, folder / "s" / f"{address}.sock") for address in emulator.control.state()]
        machine = Machine(image, folder / "m", gpus, disks, with_iommu)
        try:
            machine.boot()
            yield Vm(machine, emulator, Control(machine, folder / "c"))
        finally:
            machine.discard()


__all__ = ["Vm", "clean", "running"]
