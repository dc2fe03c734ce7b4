# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Short folders for the device plugin's tests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_nvml.driver import build


@pytest.fixture
def folder() -> Iterator[Path]:
    """One whose path leaves room for a socket's name, of which the kernel takes 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="dp") as name:
        yield Path(name)


@pytest.fixture(scope="session")
def libnvidia_ml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fake library, built for this session."""
    return build(tmp_path_factory.mktemp("nvml"))
