# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Emulated nodes with short times, and a way to ask for modes and look at what became of the devices."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from emulator.launch import launch

from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import ExplainedError, Several
from ansible_collections.confidential.gpu.plugins.module_utils._gpu import report
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.change import ModeChange, Request
from ansible_collections.confidential.gpu.plugins.module_utils._pci.vfio_user import VfioUserBus

BOOT_TIMEOUT_S = 0.3
# Devices with one peculiarity each.
PECULIAR = {
    "name": "peculiar",
    "devices": [
        {"address": "0000:01:00.0", "model": "h100-pcie", "firmware": "old"},
        {"address": "0000:02:00.0", "model": "h100-pcie", "flr": False},
        {"address": "0000:03:00.0", "model": "h100-pcie", "memory_decode": False},
        {"address": "0000:04:00.0", "model": "h100-pcie", "power": "d3hot"},
        {"address": "0000:05:00.0", "model": "h100-pcie", "device_id": 0x237E},
        {"address": "0000:06:00.0", "model": "b200", "device_id": 0x297E},
        {"address": "0000:07:00.0", "model": "h100-pcie", "knobs": {"2": 1, "4": 1, "34": 1}},
        {"address": "0000:08:00.0", "model": "h100-pcie", "locked": ["CCM"]},
    ],
}
# Firmware that does not know every knob.
SPARSE = {
    "name": "sparse",
    "devices": [
        {"address": "0000:01:00.0", "model": "h100-pcie", "unknown_knobs": ["CCD"]},
        {"address": "0000:02:00.0", "model": "h100-pcie", "unknown_knobs": ["BAR0_DECOUPLER"]},
        {"address": "0000:03:00.0", "model": "h100-pcie", "unknown_knobs": ["34"]},
        {"address": "0000:04:00.0", "model": "b200", "unknown_knobs": ["CCM"]},
        {"address": "0000:05:00.0", "model": "b200", "unknown_knobs": ["2"]},
        {"address": "0000:06:00.0", "model": "nvswitch-ls10", "unknown_knobs": ["2", "4", "34", "CCD", "CCM"]},
        {"address": "0000:07:00.0", "model": "nvswitch-ls10", "unknown_knobs": ["PPCIE"]},
        {"address": "0000:08:00.0", "model": "h100-pcie", "unknown_knobs": ["PPCIE"]},
    ],
}


class Site:
    """A running node and the code under test beside it."""

    def __init__(self, emulator: Any) -> None:
        self.emulator = emulator
        self.control = emulator.control
        self.folder = str(emulator.sockets)
        self.bus_name = "vfio-user:%s" % self.folder
        self.last: ModeChange | None = None

    def bus(self) -> VfioUserBus:
        """A bus of its own, as every run has."""
        return VfioUserBus(self.folder)

    def prepare(self, mode: str | None = None, only_plan: bool = False, bus: Any = None, **desired: Any) -> ModeChange:
        """A run that has not begun."""
        options = {name: desired.pop(name) for name in ("tools_path", "clock") if name in desired}
        request = Request(mode=mode, **{"boot_timeout_s": BOOT_TIMEOUT_S, **desired})
        self.last = ModeChange(request, bus or self.bus(), **options)
        return self.last

    def change(self, mode: str | None = None, only_plan: bool = False, **desired: Any) -> dict[str, Any]:
        """Ask for a mode; returns the result."""
        run = self.prepare(mode, **desired)
        run.run(only_plan)
        return {"changed": run.is_change, **run.result(only_plan)}

    def refused(self, mode: str | None = None, **desired: Any) -> ExplainedError:
        """Ask for a mode that cannot be had; returns the error."""
        only_plan = desired.pop("only_plan", False)
        with pytest.raises(ExplainedError) as caught:
            self.prepare(mode, **desired).run(only_plan)
        return caught.value

    def info(self, *addresses: str) -> dict[str, Any]:
        """What is read, by address."""
        found = report.read(self.bus(), addresses, boot_timeout_s=BOOT_TIMEOUT_S)
        return {device["address"]: device for device in found["devices"]}

    def state(self, address: str) -> dict[str, Any]:
        """A device as the emulator knows it."""
        state: dict[str, Any] = self.control.state(address)
        return state

    def modes(self) -> dict[str, str]:
        """The active mode of every device, as the emulator knows it."""
        return {address: state["mode"] for address, state in self.control.state().items()}

    def touched(self) -> dict[str, tuple[int, int]]:
        """How many knobs were written and how many resets done, for the devices where that is not none."""
        counts = {
            address: (state["counters"]["knob_writes"], state["counters"]["resets"])
            for address, state in self.control.state().items()
        }
        return {address: count for address, count in counts.items() if count != (0, 0)}

    @contextlib.contextmanager
    def held(self, address: str) -> Iterator[Any]:
        """Another client on a device's socket."""
        (function,) = [one for one in self.bus().find() if one.address == address]
        function.open()
        try:
            yield function
        finally:
            function.close()


@pytest.fixture(scope="session")
def running() -> Iterator[Callable[[str], Any]]:
    """Nodes by name, started once."""
    nodes: dict[str, str | Mapping[str, Any]] = {"peculiar": PECULIAR, "sparse": SPARSE}
    started: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:

        def node(name: str) -> Any:
            if name not in started:
                emulator = launch(nodes.get(name, name), boot_s=0.05, flr_s=0.005, rpc_s=0.0002)
                started[name] = stack.enter_context(emulator)
            started[name].control.restore()
            for kept in ("unproven", "seen"):
                (started[name].sockets / (".confidential-gpu.%s" % kept)).unlink(missing_ok=True)
            return Site(started[name])

        yield node


@pytest.fixture
def h100(running: Callable[[str], Site]) -> Site:
    return running("h100-pcie")


@pytest.fixture
def hgx(running: Callable[[str], Site]) -> Site:
    return running("hgx-h100")


@pytest.fixture
def mixed(running: Callable[[str], Site]) -> Site:
    return running("mixed")


@pytest.fixture
def peculiar(running: Callable[[str], Site]) -> Site:
    return running("peculiar")


@pytest.fixture
def sparse(running: Callable[[str], Site]) -> Site:
    return running("sparse")


@pytest.fixture
def told() -> Callable[..., None]:
    """Check that an error says in one sentence what was seen, in the next what to do, and about which device."""

    def check(error: ExplainedError, kind: str, device: str | None, *words: str, **seen: Any) -> None:
        assert not isinstance(error, Several), str(error)
        assert type(error).__name__ == kind, str(error)
        for sentence in (error.cause, error.remedy):
            assert sentence.endswith(".")
            assert len(sentence) > 20
        assert str(error) == " ".join(filter(None, [error.cause, error.state, error.remedy]))
        if device is not None:
            assert device in error.cause
            assert error.seen["device"] == device
        for word in words:
            assert word in str(error)
        assert {name: error.seen.get(name) for name in seen} == seen
        assert error.as_dict()["kind"] == kind

    return check
