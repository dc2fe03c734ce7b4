#!/usr/bin/env python3
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Resolve the dependency groups of pyproject.toml into lock files with hashes, good for every Python from 3.11 on.

Needs the network. Versions that are locked already stay, unless pyproject.toml rules them out or their names are given:
``python3 tools/lock.py ruff mypy``; ``--upgrade`` takes the newest of all.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# In this order: all environments hold the same versions of what they share.
GROUPS = ("uv", "run", "cc-manager", "device-plugin", "cloud-controller", "test", "eda", "docs")
HEADER = """\
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
#
# Made by `make lock` from the group "%s" of pyproject.toml.

"""


def main() -> int:
    """Write a file for each group into requirements/."""
    (pin,) = re.findall(r'"(uv==[0-9.]+)"', (ROOT / "pyproject.toml").read_text())
    tools = ROOT / ".cache" / "lock" / pin
    if not (tools / "bin" / "uv").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", tools], check=True)
        subprocess.run([tools / "bin" / "python", "-m", "pip", "install", "--quiet", pin], check=True)
    upgrade = ["--upgrade"] if "--upgrade" in sys.argv else [f"--upgrade-package={name}" for name in sys.argv[1:]]
    for group in GROUPS:
        out = f"requirements/{group}.txt"
        command: list[str | Path] = [
            tools / "bin" / "uv",
            "pip",
            "compile",
            "--quiet",
            "--group",
            f"pyproject.toml:{group}",
        ]
        command += ["--universal", "--python-version", "3.11", "--generate-hashes"]
        command += ["--no-header", "--no-emit-index-url", "--no-emit-find-links", "--output-file", out, *upgrade]
        earlier = GROUPS[: GROUPS.index(group)]
        command += [word for one in earlier for word in ("--constraint", f"requirements/{one}.txt")]
        subprocess.run(command, cwd=ROOT, check=True)
        text = (ROOT / out).read_text()
        (ROOT / out).write_text(HEADER % group + text)
        print(f"{out}: {text.count('==')} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
