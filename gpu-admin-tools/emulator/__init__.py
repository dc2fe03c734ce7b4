# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""NVIDIA GPUs and NVSwitches emulated at register level, so that NVIDIA's own tool can be tested without hardware.

The public way in is `Node`, `Server` and `launch`; nothing here imports the code under test.
"""

from .control import ControlClient, ControlError
from .launch import Emulator, launch
from .node import Node, NodeError
from .server import Server

__all__ = ["ControlClient", "ControlError", "Emulator", "Node", "NodeError", "Server", "launch"]
