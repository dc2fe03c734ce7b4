# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The rights and mounts of the chart's pod as files, for the suite in virtual machines, which runs without Helm.

``python -m tests.chart.pods`` writes them again.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml

from tests.cluster.kube.programs import HELM

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "tests/vm/pods"
VALUES = {"chart": "true", "chart-without-host-processes": "false"}
OF_POD = ("hostPID", "hostNetwork", "hostIPC", "securityContext", "volumes")
OF_CONTAINER = ("securityContext", "volumeMounts")
HEADER = """\
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

# Rights and mounts of the pod in container/charts/cc-manager, made by python -m tests.chart.pods.
"""


def text(name: str) -> str:
    """What the file of this name holds."""
    command = [str(HELM.path()), "template", "cc-manager", str(ROOT / "container/charts/cc-manager")]
    command += ["--set", f"security.hostProcesses={VALUES[name]}"]
    command += ["--kube-version", "1.36.0", "--show-only", "templates/daemonset.yaml"]
    rendered = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    pod = yaml.safe_load(rendered)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    chosen = {key: pod[key] for key in OF_POD if key in pod}
    chosen["containers"] = [{key: container[key] for key in OF_CONTAINER}]
    return HEADER + yaml.safe_dump(chosen)


def file(name: str) -> Path:
    """Where it lies."""
    return FOLDER / f"{name}.yaml"


if __name__ == "__main__":
    for one in VALUES:
        file(one).write_text(text(one))
