# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The admission policy for a manager that the GPU Operator deploys, as a file to apply alone; it is the chart's.

``python -m tests.chart.gpu_operator`` writes the file again.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.cluster.kube.programs import HELM

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "container/gpu-operator/policy.yaml"
# Nothing but rights and policy, for the account that the GPU Operator's own DaemonSet has.
VALUES = ("daemonSet.enabled=false", "serviceAccount.create=false", "serviceAccount.name=nvidia-cc-manager")
HEADER = """\
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

# For the manager that the GPU Operator deploys in the namespace gpu-operator, where ccManager.repository and image name
# this project's image. Made from container/charts/cc-manager by python -m tests.chart.gpu_operator.
"""


def manifest() -> str:
    """What the chart renders, without the labels by which Helm knows what is its own."""
    command = [
        str(HELM.path()),
        "template",
        "cc-manager",
        str(ROOT / "container/charts/cc-manager"),
        "--namespace",
        "gpu-operator",
    ]
    command += ["--set", ",".join((*VALUES, "fullnameOverride=nvidia-cc-manager"))]
    command += ["--kube-version", "1.36.0", "--show-only", "templates/admissionpolicy.yaml"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    text = re.sub(r"^  labels:\n(?:    .*\n)+", "", text, flags=re.MULTILINE)
    return HEADER + re.sub(r"^---\n# Source: .*\n", "---\n", text, flags=re.MULTILINE)


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(manifest())
