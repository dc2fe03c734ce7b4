# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""Helm, for the tests of each chart."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.cluster.kube.programs import HELM
from tools.needs import NotPossible


@pytest.fixture(scope="session")
def helm_path() -> str:
    """Helm, built from its Go module."""
    try:
        return str(HELM.path())
    except NotPossible as reason:
        if os.environ.get("REQUIRE_ALL"):
            raise
        pytest.skip(str(reason))


@pytest.fixture
def helm(helm_path: str, tmp_path: Path) -> Any:
    """Runs Helm without a cluster and without the user's settings; gives the process that has ended."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "KUBECONFIG": "/nonexistent"}
        return subprocess.run([helm_path, *arguments], env=environment, capture_output=True, text=True, check=False)

    return run
