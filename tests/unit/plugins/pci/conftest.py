# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""A host with a kernel of its own, and a clock that does not wait."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_pci_kernel import AUDIO, BRIDGE, FakeKernel

from ansible_collections.confidential.gpu.plugins.module_utils._core.wait import Clock


class FakeClock(Clock):
    """Time passes only in sleep(); ''then'' is called after so many seconds."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.then = (0.0, lambda: None)

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        if self.then[0] and self.seconds >= self.then[0]:
            self.then, call = (0.0, lambda: None), self.then[1]
            call()


@pytest.fixture
def clock() -> FakeClock:
    """Starts at 0."""
    return FakeClock()


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    """vfio-pci and nvidia; two GPUs on nvidia, one with an audio function and a bridge in its group."""
    kernel = FakeKernel(tmp_path)
    kernel.driver("nvidia", ["10de:2331"], refcnt=0)
    kernel.driver("pcieport")
    kernel.driver("snd_hda_intel", ["10de:22b8"], refcnt=0)
    kernel.driver("vfio-pci")
    kernel.device("0000:16:00.0", "1022:1483", BRIDGE, group=1, driver="pcieport")
    kernel.device("0000:17:00.0", driver="nvidia")
    kernel.device("0000:17:00.1", "10de:22b8", AUDIO, driver="snd_hda_intel")
    kernel.device("0000:3d:00.0", group=2, driver="nvidia")
    return kernel
