# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What was seen of the GPUs of a machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

# Nothing has to be done; and a reset has to.
NOTHING, RESET = "nothing", "a reset"


@dataclass(frozen=True)
class Gpu:
    """One GPU. ``numa``: the node of memory that it is near to, if it is near to any; ``minor``: of /dev/nvidiaN."""

    uuid: str
    index: int
    minor: int
    name: str
    numa: tuple[int, ...] = ()


class Seen(NamedTuple):
    """All GPUs of the driver, and what it says of confidential computing. ``ready``: whether they take work.

    ``recovery``: UUID to what the driver says has to be done with the GPU, where it says something (nvml.RECOVERY).
    """

    gpus: tuple[Gpu, ...]
    confidential: bool
    ready: bool
    recovery: Mapping[str, str] = {}
