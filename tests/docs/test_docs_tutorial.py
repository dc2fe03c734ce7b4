# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The tutorial's commands, run as they are, one shell for each terminal of the reader."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from docs.texts import ROOT, blocks


def test_the_first_hour(tmp_path: Path) -> None:
    scripts = [block.text for block in blocks("sh") if block.where.startswith("docs/first-hour.md:")]
    # Two readers at once must not meet in /tmp; the rest is as written.
    scripts = [text.replace("/tmp/first-hour", str(tmp_path / "node")) for text in scripts]
    (node,) = [text for text in scripts if text.startswith("make node")]
    # The environment is that of the suite: set-up has suites of its own, so its target does nothing here.
    stand_in = tmp_path / "bin" / "make"
    stand_in.parent.mkdir()
    stand_in.write_text('#!/bin/sh\n[ "$1" = setup ] || exec /usr/bin/make -s -o setup "$@"\n')
    stand_in.chmod(0o755)
    env = {**os.environ, "PATH": f"{stand_in.parent}:{os.environ['PATH']}", "ANSIBLE_HOME": str(tmp_path / "ansible")}
    env |= {"ANSIBLE_LOCALHOST_WARNING": "0", "ANSIBLE_NOCOLOR": "1", "VENV": sys.prefix}
    with subprocess.Popen(
        ["sh", "-c", node], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as running:
        assert running.stdout is not None
        try:
            assert running.stdout.readline() == f"ready: 1 devices in {tmp_path / 'node'}\n"
            script = "set -e\n" + "".join(f"{text}echo '--- next'\n" for text in scripts if text != node)
            script = script.replace("$PWD/.venv/bin", f"{sys.prefix}/bin")
            done = subprocess.run(["sh", "-c", script], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
        finally:
            subprocess.run(["kill", "-TERM", "--", f"-{running.pid}"], check=True)
    assert done.returncode == 0, done.stdout + done.stderr
    _setup, read, changed, refused, back, _rest = done.stdout.split("--- next\n")
    assert answer(read)["devices"][0]["mode"] == "off"
    planned, made = re.split(r"(?<=\n\})\n(?=localhost|---)", changed.strip(), maxsplit=1)
    assert answer(planned)["changed"] is True
    assert answer(made)["devices"][0]["mode"] == "on"
    assert "FAILED" in refused + done.stderr
    assert "bogus" in refused + done.stderr
    assert answer(back)["devices"][0]["mode"] == "off"


def answer(text: str) -> dict[str, object]:
    """What a module said, of what the command ansible prints."""
    loaded: dict[str, object] = json.loads(text[text.index("=> {") + 3 :].strip())
    return loaded
