# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Targets that only a person calls: they run as `make help` says."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_a_node_of_emulated_devices_starts_and_ends(tmp_path: Path) -> None:
    sockets = tmp_path / "sockets"
    # Set-up is other suites' to try: -o takes it for done.
    command = ["make", "-s", "-o", "setup", "node", "NODE=h100-pcie", f"SOCKETS={sockets}"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == f"ready: 1 devices in {sockets}\n"
            assert [path.suffix for path in sockets.iterdir()] == [".sock"]
        finally:
            subprocess.run(["kill", "-TERM", "--", f"-{process.pid}"], check=True)
