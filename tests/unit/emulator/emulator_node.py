# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The node that the tests of this folder share: one device of each kind, with short times."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
HOPPER, SWITCH, B200, RTX, OLD, ASLEEP, A100 = (f"0000:{bus:02x}:00.0" for bus in range(0x10, 0x17))
NODE = {
    "name": "unit",
    "timing": {"flr_s": 0.02, "boot_s": 0.02, "rpc_s": 0.001},
    "devices": [
        {"address": HOPPER, "model": "h100-sxm", "module_id": 3},
        {"address": SWITCH, "model": "nvswitch-ls10"},
        {"address": B200, "model": "b200", "timing": {"firewall_s": 0.01}},
        {"address": RTX, "model": "rtx-pro-6000", "timing": {"firewall_s": 0.01}},
        {"address": OLD, "model": "h100-pcie", "firmware": "old", "locked": ["CCM"], "flr": False},
        {"address": ASLEEP, "model": "h200", "power": "d3hot", "memory_decode": False, "knobs": {"CCM": 1, "CCD": 1}},
        {"address": A100, "model": "a100"},
    ],
}
