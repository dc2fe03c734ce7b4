# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Signatures by ssh-keygen.

OpenSSH is on every machine that runs Ansible, and on every host that it manages; people have keys for it, on hardware
too, and it signs files since version 8.0 (2019). GPG and minisign would have to be installed.
"""

from __future__ import annotations

import os
import subprocess
from typing import Sequence

from .._core.errors import ExplainedError, InvalidRequest

NAMESPACE = "confidential-gpu-report"
TIMEOUT_S = 60


class NotSigned(ExplainedError):
    """The file has no signature."""


def check_key(key: str) -> None:
    """Raise InvalidRequest for what is no file, before anything is made that would have to be signed."""
    if not os.path.isfile(key):
        raise InvalidRequest(
            "There is no key %s." % key,
            "Give the file of a private key (ssh-keygen -t ed25519 -f FILE makes one), or the public one of a key that "
            "ssh-agent holds.",
            path=key,
        )


def sign(path: str, key: str) -> str:
    """Sign a file, as PATH.sig, and have the signature checked; the signature's path. Raises NotSigned."""
    signature = path + ".sig"
    with open(path, "rb") as content:
        _run(["ssh-keygen", "-Y", "sign", "-f", key, "-n", NAMESPACE], content.read(), signature)
    with open(path, "rb") as content:
        _run(["ssh-keygen", "-Y", "check-novalidate", "-n", NAMESPACE, "-s", signature], content.read())
    return signature


def _run(command: Sequence[str], data: bytes, out: str = "") -> None:
    # No terminal and no window: a passphrase is asked for nowhere, and the key is one of the agent's or has none.
    environment = {**os.environ, "SSH_ASKPASS_REQUIRE": "never"}
    try:
        done = subprocess.run(  # pylint: disable=ansible-bad-function
            command,
            input=data,
            capture_output=True,
            check=False,
            timeout=TIMEOUT_S,
            start_new_session=True,
            env=environment,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotSigned(
            "%s cannot be run: %s." % (command[0], error), "Install OpenSSH's client on the controller."
        ) from error
    if done.returncode:
        words = " ".join(done.stderr.decode("utf-8", "replace").split())[:500]
        raise NotSigned(
            "%s failed (status %d): %s." % (" ".join(command[:3]), done.returncode, words.rstrip(".")),
            "Give a key that needs no passphrase, or the public key of one that ssh-agent holds.",
            status=done.returncode,
        )
    if out:
        with open(out, "wb") as file:
            file.write(done.stdout)
