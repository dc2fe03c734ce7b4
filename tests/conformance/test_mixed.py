# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Devices of several chips in one machine.

The tool keeps its register tables in a class (gpu/regs/core.py, RegisterInterface), so in a process of its own the
chip that was opened last wins for all. This collection keeps one table for each device, and must not be affected.
"""

from __future__ import annotations

import pytest
from emulator.launch import launch
from families import FAST, Family
from subject import Subject

from ansible_collections.confidential.gpu.plugins.module_utils._gpu.change import ModeChange, Request

H100, H200, B200, RTX = "0000:17:00.0", "0000:2a:00.0", "0000:3b:00.0", "0000:65:00.0"
MODELS = {H100: "h100-pcie", H200: "h200", B200: "b200", RTX: "rtx-pro-6000"}
MIXED = Family("mixed", tuple(MODELS.values()), has_cc=True)


def _node(order: list[str]) -> dict[str, object]:
    """The models in this order of addresses: which is opened last decides whose table the tool uses."""
    devices = [
        {"address": address, "model": MODELS[model]} for address, model in zip(sorted(MODELS), order, strict=True)
    ]
    return {"name": "mixed", "devices": devices}


@pytest.mark.parametrize("order", [[H100, H200, B200, RTX], [RTX, B200, H200, H100], [B200, RTX, H100, H200]])
def test_each_device_is_read_by_its_own_table(order: list[str]) -> None:
    """Every mode on all four at once, and NVIDIA's tool, asked for one device at a time, agrees."""
    with launch(_node(order), **FAST) as emulator:
        subject = Subject(MIXED, emulator)
        for mode in ("on", "devtools", "off"):
            ModeChange(Request(mode=mode), subject.bus).run()
            assert {entry["mode"] for entry in subject.our_devices().values()} == {mode}
            assert {state["mode"] for state in emulator.control.state().values()} == {mode}
            for address in MODELS:
                answer = subject.nvidia("--devices", address, "--query-cc-mode")
                assert answer.status == 0, answer.text
                assert "CC mode is %s\n" % mode in answer.text


def test_the_tool_still_mixes_its_tables_up() -> None:
    """When this fails, the tool was mended: the table for each device in admin_tools.py can go."""
    with launch(_node([H100, H200, B200, RTX]), **FAST) as emulator:
        answer = Subject(MIXED, emulator).nvidia("--devices", "gpus", "--query-cc-mode")
        assert answer.status != 0
        assert "reg 0xad00bc" in answer.text  # a register of GB202, asked of an H100
