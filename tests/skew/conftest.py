# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""etcd and an API server of each release; each test brings the program that asks it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.cloud.server import Server, running  # noqa: E402
from tests.cluster.kube.programs import RELEASES  # noqa: E402
from tools.needs import NotPossible  # noqa: E402


@pytest.fixture(scope="module", params=RELEASES)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """An API server of this release."""
    try:
        with running(request.param) as made:
            assert made.request("GET", "/version")["gitVersion"].startswith(f"v{request.param}.")
            yield made
    except NotPossible as reason:
        if os.environ.get("REQUIRE_ALL"):
            raise
        pytest.skip(str(reason))
