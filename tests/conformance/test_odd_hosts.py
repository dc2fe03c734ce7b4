# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's command line on devices that reset, sleep and answer as odd hosts' devices do: what it makes of them is what
it makes of hardware."""

from __future__ import annotations

from typing import Any

import pytest
from emulator.launch import launch
from families import FAST, Family
from subject import Answer, Subject

H100 = "0000:17:00.0"
PLAIN = Family("odd", ("h100-pcie",), has_cc=True, has_ppcie=True)


def run(device: dict[str, Any], *options: str) -> tuple[Answer, str]:
    """The answer and the mode that the device ends in."""
    node = {"name": "odd", "devices": [{"address": H100, "model": "h100-pcie", **device}]}
    with launch(node, **FAST) as emulator:
        answer = Subject(PLAIN, emulator).nvidia("--devices", H100, *options)
        return answer, emulator.control.state(H100)["mode"]


@pytest.mark.parametrize(
    "device",
    [
        {"virtual_functions": 2},
        {"during_reset": "ones"},
        {"during_reset": "data"},
        {"no_soft_reset": False},
        {"unknown_knobs": ["PPCIE", "PPCIE_ALLOW_INB", "CECA"]},
    ],
    ids="-".join,
)
def test_it_sets_the_mode(device: dict[str, Any]) -> None:
    answer, mode = run(device, "--set-cc-mode=on", "--reset-after-cc-mode-switch")
    assert answer.status == 0, answer.text
    assert mode == "on"


def test_a_knob_that_the_mode_needs_and_the_firmware_does_not_know() -> None:
    answer, mode = run({"unknown_knobs": ["CCD"]}, "--set-cc-mode=on", "--reset-after-cc-mode-switch")
    assert answer.status != 0
    assert "FSP-RPC failed with error 0x1e3" in answer.text
    assert mode == "off"


def test_a_switch_that_it_does_not_know() -> None:
    answer, _mode = run({"model": "unknown-nvswitch"}, "--query-ppcie-mode")
    assert "Unknown Nvidia device" in answer.text
    assert "PPCIe mode is" not in answer.text


def test_a_gpu_without_power() -> None:
    answer, _mode = run({"power": "d3cold"}, "--query-cc-mode")
    assert "Broken device" in answer.text
    assert "CC mode is" not in answer.text
