# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Objects as a cluster with one confidential node really has them; each test changes what it is about."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cluster_objects import Cluster


@pytest.fixture
def cluster() -> Cluster:
    """A cluster in which everything is installed and well."""
    return Cluster()


@pytest.fixture
def objects() -> Any:
    """Deep copies of objects."""
    return copy.deepcopy
