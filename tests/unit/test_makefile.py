# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Targets that only a person calls: they run as `make help` says."""

from __future__ import annotations

import os
import re
import shutil
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


def test_the_device_plugin_is_demonstrated() -> None:
    done = demonstrated(os.environ["PATH"])
    assert done.returncode == 0, done.stderr
    rows = [line.rsplit(maxsplit=3) for line in done.stdout.splitlines() if re.search(r" \d+ +\d+ +[\d.]+$", line)]
    assert [(int(healthy), int(every)) for _what, healthy, every, _seconds in rows] == [
        *((110, 110), (0, 110), (110, 110), (110, 110)),
        *((8, 8), (4, 8), (4, 8), (4, 8), (8, 8), (0, 0)),
    ]
    assert "a pod with nvidia.com/gpu: 1 gets NVIDIA_VISIBLE_DEVICES=GPU-" in done.stdout
    assert "gets /dev/tdx_guest (rw), folder /run/ccnp/uds" in done.stdout


def test_a_demonstration_without_a_compiler_says_what_is_missing(tmp_path: Path) -> None:
    for name in ("make", "bash"):
        (tmp_path / name).symlink_to(shutil.which(name) or name)
    done = demonstrated(str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "GPUs are not shown" in done.stdout
    assert "apt install gcc" in done.stdout
    assert "XID" not in done.stdout


def demonstrated(path: str) -> subprocess.CompletedProcess[str]:
    """What `make demo-device-plugin` says with this PATH, once its set-up is done."""
    command = ["make", "-s", "-o", "setup-plugin", "demo-device-plugin"]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False, timeout=60
    )
