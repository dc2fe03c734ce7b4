# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""A gate before the first write: somebody else says when the devices may be changed.

The run connects to a unix socket, sends its plan as one line of JSON and waits for the line ``go``. Whoever listens
makes the devices free meanwhile. The connection is the permission: when it is closed before the word came, because the
other side changed its mind or died, nothing is written.
"""

from __future__ import annotations

import contextlib
import json
import socket
from typing import Any

from .._core.errors import errno_words
from .errors import GateClosed

GO = b"go\n"


class Gate:
    """One way through, at the unix socket ``path``; ``timeout_s`` for everything there, waiting included."""

    def __init__(self, path: str, timeout_s: float) -> None:
        self._path = path
        self._timeout_s = timeout_s

    def wait(self, plan: Any) -> None:
        """Return when the gate opens. Raises GateClosed when it is closed, not there, or not opened in time."""
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as connection:
            connection.settimeout(self._timeout_s)
            try:
                connection.connect(self._path)
                connection.sendall(json.dumps(plan).encode() + b"\n")
                said = _line(connection)
            except TimeoutError as error:
                raise self._closed("it was not opened within %g s" % self._timeout_s) from error
            except OSError as error:
                raise self._closed(errno_words(error)) from error
        if said != GO:
            raise self._closed("it was closed")

    def _closed(self, why: str) -> GateClosed:
        return GateClosed(
            "The gate %s did not open: %s." % (self._path, why),
            "Nothing was written. Run again.",
            path=self._path,
        )


def _line(connection: socket.socket) -> bytes:
    said = b""
    while len(said) < len(GO):
        part = connection.recv(len(GO) - len(said))
        if not part:
            break
        said += part
    return said
