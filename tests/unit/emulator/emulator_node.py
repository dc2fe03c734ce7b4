# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The node that the tests of this folder share: one device of each kind, with short times."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
HOPPER, SWITCH, B200, RTX, OLD, ASLEEP, A100 = (f"0000:{bus:02x}:00.0" for bus in range(0x10, 0x17))
SOFT, COLD, NO_BAR0, NO_BARS, ALL_ONES, AT_ONCE, NO_CCD, NEW_SWITCH = (
    f"0000:{bus:02x}:00.0" for bus in range(0x20, 0x28)
)
PHYSICAL = "0000:30:00.0"
VIRTUAL = ("0000:30:00.4", "0000:30:00.5")
DEVICES: list[dict[str, object]] = [
    {"address": HOPPER, "model": "h100-sxm", "module_id": 3},
    {"address": SWITCH, "model": "nvswitch-ls10"},
    {"address": B200, "model": "b200", "timing": {"firewall_s": 0.01}},
    {"address": RTX, "model": "rtx-pro-6000", "timing": {"firewall_s": 0.01}},
    {"address": OLD, "model": "h100-pcie", "firmware": "old", "locked": ["CCM"], "flr": False},
    {"address": ASLEEP, "model": "h200", "power": "d3hot", "memory_decode": False, "knobs": {"CCM": 1, "CCD": 1}},
    {"address": A100, "model": "a100"},
    {"address": SOFT, "model": "h100-pcie", "power": "d3hot", "no_soft_reset": False, "knobs": {"CCM": 1}},
    {"address": COLD, "model": "h100-pcie", "power": "d3cold", "knobs": {"CCM": 1}},
    {"address": NO_BAR0, "model": "h100-pcie", "unassigned_bars": [0]},
    {"address": NO_BARS, "model": "b200", "unassigned_bars": [0, 1]},
    {"address": ALL_ONES, "model": "h100-pcie", "during_reset": "ones"},
    {"address": AT_ONCE, "model": "h100-pcie", "during_reset": "data"},
    {"address": NO_CCD, "model": "h100-pcie", "unknown_knobs": ["CCD", 34]},
    {"address": NEW_SWITCH, "model": "unknown-nvswitch"},
    {"address": PHYSICAL, "model": "h100-pcie", "virtual_functions": 2},
]
NODE = {
    "name": "unit",
    "timing": {"flr_s": 0.02, "boot_s": 0.02, "rpc_s": 0.001},
    "devices": DEVICES,
}
# The same with times in which a test can look at what goes on, on a busy machine too.
UNHURRIED = {
    "name": "unhurried",
    "timing": {"flr_s": 0.4, "boot_s": 0.4, "rpc_s": 0.001, "firewall_s": 0.2},
    "devices": [{key: value for key, value in device.items() if key != "timing"} for device in DEVICES],
}
