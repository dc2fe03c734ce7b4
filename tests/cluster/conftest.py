# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""One cluster for all tests, with the CC manager's image in it; each test brings its own devices."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.cluster.kube import plugin, workloads  # noqa: E402
from tests.cluster.kube.bed import FIGURES, Bed, bed  # noqa: E402
from tests.cluster.kube.cluster import Cluster, running  # noqa: E402
from tests.cluster.kube.programs import RELEASES, built_runtime, check_machine  # noqa: E402
from tools import image  # noqa: E402
from tools.needs import NotPossible  # noqa: E402


def pytest_addoption(parser: pytest.Parser) -> None:
    """For people who run tests again and again."""
    parser.addoption("--image", type=Path, help="a docker archive to test, instead of one built from the working tree")
    parser.addoption("--release", default="", choices=["", RELEASES[-1]], help="of the API server and the kubelet")


@pytest.fixture(scope="session")
def archive(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image of this working tree."""
    check()
    if given := request.config.getoption("--image"):
        return Path(given).resolve()
    path = tmp_path_factory.mktemp("image") / "cc-manager.tar"
    began = time.monotonic()
    compressed = image.build(workloads.IMAGE, path)
    FIGURES.append(f"image: {compressed / 1e6:.1f} MB compressed, built in {time.monotonic() - began:.0f} s")
    return path


@pytest.fixture(scope="session")
def plugin_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The device plugin's image of this working tree."""
    check()
    path = tmp_path_factory.mktemp("plugin-image") / "device-plugin.tar"
    compressed = image.build(plugin.IMAGE, path, image=image.DEVICE_PLUGIN)
    FIGURES.append(f"device plugin's image: {compressed / 1e6:.1f} MB compressed")
    return path


@pytest.fixture(scope="session")
def cluster(archive: Path, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A running cluster that knows the image."""
    began = time.monotonic()
    with running(keep=ROOT / "tests/output/cluster", release=request.config.getoption("--release")) as made:
        FIGURES.append(f"cluster: node ready after {time.monotonic() - began:.1f} s")
        made.load(archive)
        made.apply(workloads.namespace())
        yield made


@pytest.fixture(scope="module")
def containerd_2(plugin_archive: Path, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Another cluster, with containerd 2 and runc from their Go modules, that knows the device plugin's image."""
    began = time.monotonic()
    keep, release = ROOT / "tests/output/cluster-containerd-2", request.config.getoption("--release")
    with running(keep=keep, runtime=built_runtime(), release=release) as made:
        about = made.node()["status"]["nodeInfo"]
        versions = f"{about['containerRuntimeVersion']}, kubelet {about['kubeletVersion']}"
        FIGURES.append(f"cluster with {versions}: node ready after {time.monotonic() - began:.1f} s")
        made.load(plugin_archive)
        yield made


@pytest.fixture
def node(cluster: Cluster) -> Iterator[Bed]:
    """An HGX board with quick devices; nothing of it is there after the test."""
    with bed(cluster) as made:
        yield made


@pytest.fixture
def small(cluster: Cluster) -> Iterator[Bed]:
    """One H100 with quick devices."""
    with bed(cluster, "h100-pcie") as made:
        yield made


def check() -> None:
    """Without what a cluster needs the suite is left out, unless nothing may be."""
    try:
        check_machine()
    except NotPossible as reason:
        if os.environ.get("REQUIRE_ALL"):
            raise
        pytest.skip(str(reason))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The figures of the run."""
    for line in FIGURES:
        terminalreporter.write_line(line)
