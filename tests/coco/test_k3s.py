# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""K3s, whose containerd has to import kata-deploy's folder: a node of which nothing says so is refused.

The cluster is a folder of objects behind a stand-in of kubectl.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tools.cache import ROOT

UNIT = ROOT / "tests/unit/plugins/coco"
sys.path.insert(0, str(UNIT))

from cluster_objects import NODE, Cluster  # noqa: E402

IMPORTS = 'version = 3\nimports = [\n  "/x/config-v3.toml.d/*.toml",\n]\n'
COMMENT = '# imports = ["/x/config-v3.toml.d/*.toml"]\n'


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    """Of a cluster of K3s on which nothing is installed."""
    bare = Cluster()
    bare.node["metadata"].update(labels={}, annotations={})
    bare.system["kubeletVersion"] = "v1.34.2+k3s1"
    del bare.node["status"]["runtimeHandlers"]
    root = tmp_path / "cluster"
    for path in ("apis/node.k8s.io/v1/runtimeclasses", "apis/apps/v1/daemonsets", "api/v1/pods", "api/v1/secrets"):
        (root / path).mkdir(parents=True)
    (root / "api/v1/nodes").mkdir()
    (root / f"api/v1/nodes/{NODE}.json").write_text(json.dumps(bare.node))
    (root / "version.json").write_text(json.dumps({"gitVersion": "v1.34.2+k3s1"}))
    return root


def preflight(kubeconfig: Path, containerd: Path) -> tuple[int, str]:
    """Status and words of the preflight."""
    kubectl = kubeconfig.parent / "kubectl"
    kubectl.write_text(f"#!{sys.executable} -SE\n" + (UNIT / "fake_kubectl.py").read_text())
    kubectl.chmod(0o755)
    given: dict[str, Any] = {
        "confidential_containers_hosts": "all",
        "confidential_containers_become": False,
        "confidential_containers_distribution": "k3s",
        "confidential_containers_containerd_file": str(containerd),
        "confidential_containers_kubectl": str(kubectl),
        "confidential_containers_kubeconfig": str(kubeconfig),
        "ansible_python_interpreter": sys.executable,
    }
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache/collections")}
    environment["ANSIBLE_HOME"] = str(kubeconfig.parent / "home")
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", f"{NODE},", "-c", "local"]
    command += ["-e", json.dumps(given), "--tags", "preflight", "confidential.gpu.confidential_containers"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("text", [None, "version = 3\n", COMMENT], ids=["no file", "no import", "a comment"])
def test_it_is_refused_where_nothing_says_that_it_imports(kubeconfig: Path, tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "config.toml"
    if text is not None:
        file.write_text(text)
    status, words = preflight(kubeconfig, file)
    assert status == 2, words
    assert "Refused; nothing was changed." in words, words
    assert "nothing says that its containerd imports config-v3.toml.d" in words


def test_it_is_taken_where_the_file_imports(kubeconfig: Path, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(IMPORTS)
    status, words = preflight(kubeconfig, tmp_path / "config.toml")
    assert status == 0, words
