# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""A server that says what it is told, whatever it is asked."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

from .waiting import SOON_S


@contextlib.contextmanager
def answering(*answers: bytes) -> Iterator[str]:
    """A server that gives these answers, one a connection, the last one for ever; its address."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        left = list(answers)
        with contextlib.suppress(OSError):  # the end of the test
            while True:
                client, _address = listener.accept()
                with client:
                    client.recv(65536)
                    client.sendall(left.pop(0) if len(left) > 1 else left[0])

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(SOON_S)


def http(status: int, body: str, *headers: str) -> bytes:
    """An answer after which the connection ends."""
    lines = (f"HTTP/1.1 {status} X", "Connection: close", f"Content-Length: {len(body)}", *headers, "", body)
    return "\r\n".join(lines).encode()
