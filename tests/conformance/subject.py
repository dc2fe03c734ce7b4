# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""An emulated node and three views of it: NVIDIA's command line, this collection's code, the emulator itself."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emulator.launch import Emulator
from families import OFF, ON, PPCIE, Family

from ansible_collections.confidential.gpu.plugins.module_utils._gpu import report
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.change import ModeChange, Request
from ansible_collections.confidential.gpu.plugins.module_utils._pci.vfio_user import VfioUserBus

CLI = Path(__file__).resolve().parent / "nvidia_cli.py"
TIMEOUT_S = 120
_MODE = re.compile(r"(?:GPU|NvSwitch) (\S+) .* (CC|PPCIe) mode is (\S+)$", re.MULTILINE)
_SETTING = re.compile(r"INFO       (.+) = (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Answer:
    """What NVIDIA's command line said."""

    status: int
    text: str

    @property
    def settings(self) -> dict[str, str]:
        """The lines 'name = value' of a query of settings or knobs."""
        return dict(_SETTING.findall(self.text))


@dataclass
class Subject:
    """One family's node."""

    family: Family
    emulator: Emulator
    ran: list[str] = field(default_factory=list)

    @property
    def bus(self) -> VfioUserBus:
        """The way of this collection's code to it."""
        return VfioUserBus(str(self.emulator.sockets))

    def nvidia(self, *options: str) -> Answer:
        """Run NVIDIA's command line."""
        names = [option[2:].partition("=")[0] for option in options if option.startswith("--")]
        self.ran += [name for name in names if not name.startswith(("devices", "gpu-bdf", "reset-after"))]
        done = subprocess.run(
            [sys.executable, str(CLI), str(self.emulator.sockets), "--", *options],
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
        return Answer(done.returncode, done.stdout + done.stderr)

    def nvidia_modes(self) -> dict[str, str]:
        """Address to mode, as NVIDIA's queries of CC and PPCIe tell."""
        seen: dict[str, dict[str, str]] = {}
        for able, devices, what in (
            (self.family.has_cc, "gpus", "cc"),
            (self.family.has_ppcie, self.family.all_devices, "ppcie"),
        ):
            if able:
                answer = self.nvidia("--devices", devices, "--query-%s-mode" % what)
                assert answer.status == 0, answer.text
                for address, kind, mode in _MODE.findall(answer.text):
                    seen.setdefault(address, {})[kind] = mode
        return {address: PPCIE if by.get("PPCIe") == ON else by.get("CC", OFF) for address, by in seen.items()}

    def our_devices(self) -> dict[str, Any]:
        """Address to what this collection's information module tells."""
        return {entry["address"]: entry for entry in report.read(self.bus)["devices"]}

    def agreed_modes(self) -> dict[str, str]:
        """Address to mode; fails unless NVIDIA, this collection and the emulator tell the same of every device."""
        ours = {address: entry["mode"] for address, entry in self.our_devices().items()}
        assert ours == self.nvidia_modes()
        assert ours == {address: state["mode"] for address, state in self.emulator.control.state().items()}
        return ours

    def expected(self, mode: str) -> dict[str, str]:
        """Address to mode when the node is in this mode."""
        states = self.emulator.control.state()
        return {address: self.family.expected(state["model"], mode) for address, state in states.items()}

    def put(self, mode: str) -> None:
        """Make it so, behind everybody's back."""
        for address, wanted in self.expected(mode).items():
            self.emulator.control.set(address, mode=wanted)

    def change(self, mode: str) -> ModeChange:
        """Set the mode with this collection's code."""
        change = ModeChange(Request(mode=mode), self.bus)
        change.run()
        return change

    def stage(self, mode: str) -> None:
        """Write the knobs with this collection's code, without the reset."""
        ModeChange(Request(mode=mode, reset=False), self.bus).run()

    def written(self) -> int:
        """How many knobs were written since the node was restored."""
        return sum(state["counters"]["knob_writes"] for state in self.emulator.control.state().values())
