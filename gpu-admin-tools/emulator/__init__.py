# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""NVIDIA GPUs and NVSwitches emulated at register level, so that NVIDIA's own tool can be tested without hardware.

The public way in is `Node`, `Server` and `launch`; nothing here imports the code under test.
"""

from .control import ControlClient, ControlError
from .faults import Fault, FaultError, parse_fault, parse_faults
from .launch import Emulator, LaunchError, launch
from .node import Node, NodeError
from .server import Server

__all__ = [
    "ControlClient",
    "ControlError",
    "Emulator",
    "Fault",
    "FaultError",
    "LaunchError",
    "Node",
    "NodeError",
    "Server",
    "launch",
    "parse_fault",
    "parse_faults",
]
