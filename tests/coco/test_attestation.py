# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The role attestation_check against a stand-in of a Key Broker Service, on loopback; no cluster takes part.

The stand-in knows the first request of the KBS's protocol 0.4.0 as its documents tell it: a challenge with a nonce and
a session's cookie, or 401 with a problem for another version.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools.cache import ROOT


class Kbs(BaseHTTPRequestHandler):
    """POST /kbs/v0/auth."""

    nonce = secrets.token_hex(16)

    def log_message(self, *_words: Any) -> None:
        pass

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        good = self.path == "/kbs/v0/auth" and asked.get("version") == "0.4.0" and isinstance(asked.get("tee"), str)
        problem = {"type": "https://github.com/confidential-containers/kbs/errors/ProtocolVersion", "detail": "no"}
        data = json.dumps({"nonce": self.nonce, "extra-params": ""} if good else problem).encode()
        self.send_response(200 if good else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if good:
            self.send_header("Set-Cookie", "kbs-session-id=1; Path=/")
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def address() -> Iterator[str]:
    """Of a stand-in that answers."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Kbs) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def finding(folder: Path, **variables: Any) -> dict[str, str]:
    """What the role says."""
    file = folder / "finding.json"
    tell = {
        "ansible.builtin.copy": {
            "content": "{{ attestation_check_findings | to_json }}",
            "dest": str(file),
            "mode": "0600",
        }
    }
    role = {"role": "confidential.gpu.attestation_check"}
    given = {"attestation_check_guest": False, "ansible_python_interpreter": sys.executable, **variables}
    play = {"hosts": "localhost", "gather_facts": False, "vars": given, "roles": [role], "tasks": [tell]}
    (folder / "play.yml").write_text(yaml.safe_dump([play]))
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache/collections"),
        "ANSIBLE_HOME": str(folder),
    }
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", "-c", "local"]
    done = subprocess.run(
        [*command, str(folder / "play.yml")], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: list[dict[str, str]] = json.loads(file.read_text())
    (one,) = found
    return one


def test_a_kbs_that_answers_with_a_challenge(address: str, tmp_path: Path) -> None:
    found = finding(tmp_path, attestation_check_kbs=address)
    assert (found["state"], found["step"]) == ("ok", "attestation")
    assert Kbs.nonce not in json.dumps(found)


def test_a_kbs_of_another_protocol(address: str, tmp_path: Path) -> None:
    found = finding(tmp_path, attestation_check_kbs=address, attestation_check_protocol="0.1.0")
    assert found["state"] == "failed"
    assert "ProtocolVersion" in found["seen"]
    assert "protocol version" in found["remedy"]


def test_no_kbs(tmp_path: Path) -> None:
    found = finding(tmp_path, attestation_check_kbs="http://127.0.0.1:1")
    assert found["state"] == "failed"
    assert "-1" in found["seen"]
