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
from typing import Any

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
    env |= {"ANSIBLE_LOCALHOST_WARNING": "0", "ANSIBLE_NOCOLOR": "1"}
    with subprocess.Popen(
        ["sh", "-c", node], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as running:
        assert running.stdout is not None
        try:
            assert running.stdout.readline() == f"ready: 1 devices in {tmp_path / 'node'}\n"
            script = "set -e\n" + "".join(text for text in scripts if text != node)
            script = script.replace("$PWD/.venv/bin", f"{sys.prefix}/bin")
            done = subprocess.run(["sh", "-c", script], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
        finally:
            subprocess.run(["kill", "-TERM", "--", f"-{running.pid}"], check=True)
    assert done.returncode == 0, done.stdout + done.stderr
    read, planned, made, refused, back = answers(done.stdout)
    assert read["devices"][0]["mode"] == "off"
    assert (planned["changed"], made["changed"]) == (True, True)
    assert (planned["devices"][0]["mode_after"], made["devices"][0]["mode_after"]) == ("on", "on")
    assert "bogus" in refused["msg"]
    assert back["devices"][0]["mode_after"] == "off"


def answers(text: str) -> list[dict[str, Any]]:
    """What the modules answered, in order, of what the command ansible prints."""
    found = [match.end() - 1 for match in re.finditer(r"=> \{", text)]
    return [json.JSONDecoder().raw_decode(text, place)[0] for place in found]
