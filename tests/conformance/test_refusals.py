# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What NVIDIA's tool refuses, this collection refuses, and neither writes a knob."""

from __future__ import annotations

import pytest
from families import OFF, ON, PPCIE
from subject import Subject

from ansible_collections.confidential.gpu.plugins.module_utils._gpu.errors import FirmwareTooOld, Unsupported

CC = {
    "--query-cc-mode": "Querying CC mode is not supported on",
    "--query-cc-settings": "Querying CC settings is not supported on",
    "--set-cc-mode=on": "Configuring CC not supported on",
    "--test-cc-mode-switch": "Configuring CC not supported on",
}
PPCIE_COMMANDS = {
    "--query-ppcie-mode": "Querying PPCIe mode is not supported on",
    "--query-ppcie-settings": "Querying PPCIe settings is not supported on",
    "--set-ppcie-mode=on": "Configuring PPCIe not supported on",
    "--test-ppcie-mode-switch": "Configuring PPCIE not supported on",
}
KNOBS = {"--query-prc-knobs": "Querying PRC knobs is not supported on"}
OLD = "does not support PPCIe on current FW. A FW update is required."
REFUSED = [
    *[("a100", command, words) for command, words in {**CC, **PPCIE_COMMANDS, **KNOBS}.items()],
    *[(name, *pair) for name in ("b200", "rtx-pro-6000") for pair in PPCIE_COMMANDS.items()],
    ("h100-old", "--set-ppcie-mode=on", OLD),
    ("h100-old", "--query-ppcie-settings", OLD),
    ("h100-old", "--reset-with-flr", "cannot reset with FLR as it is not supported"),
]


@pytest.mark.parametrize(("family", "command", "words"), REFUSED)
def test_nvidia_refuses(subject: Subject, command: str, words: str) -> None:
    """Exit status 1 and the tool's sentence; the modes are what they were."""
    answer = subject.nvidia("--devices", "gpus", command)
    assert answer.status == 1, answer.text
    assert words in answer.text
    assert "Traceback" not in answer.text
    assert {entry["mode"] for entry in subject.our_devices().values()} <= {OFF, "unsupported"}


@pytest.mark.parametrize("command", CC)
@pytest.mark.parametrize("family", ["ls10"])
def test_nvidia_passes_over_a_switch_that_has_no_cc(subject: Subject, command: str) -> None:
    """Its commands about CC are for GPUs: on a switch they do nothing and say nothing."""
    answer = subject.nvidia("--devices", "nvswitches", command)
    assert answer.status == 0, answer.text
    assert "CC" not in answer.text.partition("Topo:")[2]
    assert subject.written() == 0
    assert subject.agreed_modes() == subject.expected(OFF)


@pytest.mark.parametrize(
    ("family", "mode"),
    [("a100", ON), ("a100", PPCIE), ("b200", PPCIE), ("rtx-pro-6000", PPCIE), ("ls10", ON), ("ls10", "devtools")],
)
def test_we_refuse_too(subject: Subject, mode: str) -> None:
    """Before the first write, and naming the device."""
    with pytest.raises(Unsupported, match=r"0000:17:00\.0"):
        subject.change(mode)
    assert subject.written() == 0


@pytest.mark.parametrize("family", ["h100-old"])
def test_we_refuse_old_firmware_too(subject: Subject) -> None:
    """The same remedy as NVIDIA's: a firmware update."""
    with pytest.raises(FirmwareTooOld, match="Update the firmware"):
        subject.change(PPCIE)
    assert subject.written() == 0


@pytest.mark.parametrize("mode", [ON, "devtools"])
@pytest.mark.parametrize("family", ["h100-old"])
def test_old_firmware_does_cc(subject: Subject, mode: str) -> None:
    """Both sides set the CC mode of a device whose firmware has no PPCIe and which has no FLR."""
    subject.change(mode)
    assert subject.agreed_modes() == subject.expected(mode)
    answer = subject.nvidia("--devices", "gpus", "--set-cc-mode=off", "--reset-after-cc-mode-switch")
    assert answer.status == 0, answer.text
    assert subject.agreed_modes() == subject.expected(OFF)
