# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""A device behind a vfio-user socket, by a client that knows three messages: who it is, a region's size, and a read.

There is no method here that makes a write, a reset or anything else. A server serves one client at a time: whoever is
connected uses the device, and the next one gets no answer.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from .. import protocol as vfio
from ..config_space import SIZE as CONFIG_BYTES
from .errors import RecordingError

TIMEOUT_S = 5.0
GREETING = vfio.VERSION.pack(vfio.MAJOR, vfio.MINOR) + b'{"capabilities": {}}\0'


class SocketSource:
    """A connection for reading."""

    def __init__(self, path: Path, timeout_s: float = TIMEOUT_S) -> None:
        self._path = path
        self._number = 0
        self._sizes: dict[int, int] = {}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(str(path))
            self._ask(vfio.Command.VERSION, GREETING)
        except OSError as error:
            self.close()
            raise RecordingError(f"no device at {path}: {error.strerror}; start the server, give its socket") from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def config(self, offset: int) -> int:
        """The aligned dword of config space."""
        if offset + 4 > CONFIG_BYTES:
            raise RecordingError(f"config space ends before {offset:#x}")
        return self._read(vfio.REGION_CONFIG, offset)

    def register(self, offset: int) -> int:
        """The aligned dword of BAR0."""
        return self._read(vfio.REGION_BAR0, offset)

    def bar_bytes(self, number: int) -> int:
        """The size of the BAR whose register has this number; 0 for none."""
        if number not in self._sizes:
            body = vfio.REGION_INFO.pack(vfio.REGION_INFO.size, 0, number, 0, 0, 0)
            answer = self._ask(vfio.Command.DEVICE_GET_REGION_INFO, body)
            if len(answer) < vfio.REGION_INFO.size:
                raise self._broken("a region's size that is too short")
            self._sizes[number] = vfio.REGION_INFO.unpack_from(answer)[4]
        return self._sizes[number]

    def _read(self, region: int, offset: int) -> int:
        answer = self._ask(vfio.Command.REGION_READ, vfio.REGION_ACCESS.pack(offset, region, 4))
        if len(answer) != vfio.REGION_ACCESS.size + 4:
            raise self._broken(f"{len(answer)} bytes instead of a word")
        return int.from_bytes(answer[vfio.REGION_ACCESS.size :], "little")

    def _ask(self, command: vfio.Command, body: bytes) -> bytes:
        self._number += 1
        head = vfio.HEADER.pack(self._number, command, vfio.HEADER.size + len(body), vfio.TYPE_COMMAND, 0)
        try:
            self._socket.sendall(head + body)
            number, echoed, size, flags, refusal = vfio.HEADER.unpack(self._exactly(vfio.HEADER.size))
            if (number, echoed, flags & vfio.TYPE_MASK) != (self._number, command, vfio.TYPE_REPLY):
                raise self._broken("an answer to another question")
            if not vfio.HEADER.size <= size <= vfio.MAX_MESSAGE:
                raise self._broken(f"an answer of {size} bytes")
            answer = self._exactly(size - vfio.HEADER.size)
        except TimeoutError:
            raise RecordingError(
                f"{self._path}: no answer in {self._socket.gettimeout():g} s; another client may have the device: end "
                "it, or look whether the server runs"
            ) from None
        if flags & vfio.ERROR:
            raise RecordingError(
                f"{self._path}: the server refuses {command.name} with {os.strerror(refusal)}; "
                "does the BAR have an address?"
            )
        return answer

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self._socket.recv(count - len(data))
            if not part:
                raise self._broken("nothing more: it closed the connection")
            data += part
        return data

    def _broken(self, what: str) -> RecordingError:
        return RecordingError(f"{self._path}: the server sent {what}; is it a vfio-user server?")
