# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The sources that there are: a name, and what makes one from the text of a configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .gpu import source as gpu
from .machine import Machine
from .source import Source
from .tee import source as tee

# Text, its file's name for messages, the machine. Raises BadConfig.
Make = Callable[[str, str, Machine], Source]
SOURCES: Mapping[str, Make] = {"tee": tee.make, "gpu": gpu.make}
