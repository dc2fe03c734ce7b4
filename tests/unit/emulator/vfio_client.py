# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""A vfio-user client of its own, so that server and client cannot share a misunderstanding; and the FSP's two
transports as a driver would use them."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

BAR0, CONFIG = 0, 7
INVALID_KNOB = 0x1E3


class Refused(OSError):
    """An error reply."""


class Client:
    """One connection."""

    def __init__(self, path: Path, timeout: float = 5.0, greet: bool = True) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        self.socket.connect(str(path))
        self._number = 0
        if greet:
            self.greeting = self.call(1, struct.pack("<HH", 0, 0) + b'{"capabilities": {}}\0')

    def send(self, command: int, body: bytes = b"", flags: int = 0) -> int:
        self._number += 1
        self.socket.sendall(struct.pack("<HHIII", self._number, command, 16 + len(body), flags, 0) + body)
        return self._number

    def receive(self) -> tuple[int, int, bytes]:
        number, command, size, flags, errno = struct.unpack("<HHIII", self._exactly(16))
        body = self._exactly(size - 16)
        assert flags & 0xF == 1
        if flags & 0x20:
            raise Refused(errno, f"command {command}")
        return number, command, body

    def call(self, command: int, body: bytes = b"") -> bytes:
        number = self.send(command, body)
        got, echoed, answer = self.receive()
        assert (got, echoed) == (number, command)
        return answer

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise EOFError("the server closed the connection")
            data += part
        return data

    def read(self, region: int, offset: int, count: int = 4) -> int:
        return int.from_bytes(self.read_bytes(region, offset, count), "little")

    def read_bytes(self, region: int, offset: int, count: int) -> bytes:
        return self.call(9, struct.pack("<QII", offset, region, count))[16:]

    def write(self, region: int, offset: int, value: int, count: int = 4) -> None:
        self.call(10, struct.pack("<QII", offset, region, count) + value.to_bytes(count, "little"))

    def reset(self) -> None:
        self.call(13)

    def greeted_with(self) -> dict[str, dict[str, int]]:
        parsed: dict[str, dict[str, int]] = json.loads(self.greeting[4:].rstrip(b"\0"))
        return parsed

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def poll(what: Callable[[], object], timeout: float = 5.0) -> None:
    """Until it is true; no fixed sleeps."""
    deadline = time.monotonic() + timeout
    while not what():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.001)


def capabilities(client: Client) -> dict[int, int]:
    """Offsets of the capabilities by id."""
    found, at = {}, client.read(CONFIG, 0x34, 1)
    while at:
        found[client.read(CONFIG, at, 1)] = at
        at = client.read(CONFIG, at + 1, 1)
    return found


def extended_capabilities(client: Client) -> dict[int, int]:
    """The same from 0x100 up."""
    found, at = {}, 0x100
    while at:
        header = client.read(CONFIG, at)
        found[header & 0xFFFF] = at
        at = header >> 20
    return found


class Emem:
    """The FSP of a Hopper GPU or an LS10."""

    def __init__(self, client: Client, channel: int = 2) -> None:
        self.client = client
        self.base = 1024 * channel
        self.control, self.data = 0x8F2AC0 + 8 * channel, 0x8F2AC4 + 8 * channel
        self.queue, self.answers = 0x8F2C00 + 8 * channel, 0x8F2C80 + 8 * channel

    def post(self, words: list[int]) -> None:
        self.client.write(BAR0, self.control, self.base | 1 << 24 | 1 << 25)
        for word in words:
            self.client.write(BAR0, self.data, word)
        self.client.write(BAR0, self.queue + 4, self.base + 4 * (len(words) - 1))
        self.client.write(BAR0, self.queue, self.base)

    def queue_empty(self) -> bool:
        return self.client.read(BAR0, self.queue) == self.client.read(BAR0, self.queue + 4)

    def answered(self) -> bool:
        return self.client.read(BAR0, self.answers) != self.client.read(BAR0, self.answers + 4)

    def fetch(self, timeout: float = 5.0) -> list[int]:
        poll(self.answered, timeout)
        head, tail = self.client.read(BAR0, self.answers), self.client.read(BAR0, self.answers + 4)
        self.client.write(BAR0, self.control, self.base | 1 << 24 | 1 << 25)
        words = [self.client.read(BAR0, self.data) for _ in range((tail - head) // 4 + 1)]
        self.client.write(BAR0, self.answers + 4, head)
        return words


class Mnoc:
    """The FSP of a Blackwell GPU."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def post(self, words: list[int]) -> None:
        poll(lambda: self.client.read(BAR0, 0x8F1F84) >> 24 & 1)
        self.client.write(BAR0, 0x8F1F84, 4 * len(words) | 1 << 20)
        for index, word in enumerate(words):
            if index % 16 == 0:
                poll(lambda: self.client.read(BAR0, 0x8F1F84) >> 26 & 1)
            self.client.write(BAR0, 0x8F1F88, word)
        assert not self.error()

    def error(self) -> bool:
        return bool(self.client.read(BAR0, 0x8F1F84) >> 25 & 1)

    def answered(self) -> bool:
        return bool(self.client.read(BAR0, 0x8F1F04) >> 24 & 1)

    def fetch(self, timeout: float = 5.0) -> list[int]:
        poll(self.answered, timeout)
        size = self.client.read(BAR0, 0x8F1F04) & 0xFFFFF
        return [self.client.read(BAR0, 0x8F1F08) for _ in range(size // 4)]


def message(payload: list[int], nvdm: int = 0x13, header: int = 0xC0000000) -> list[int]:
    return [header, nvdm << 24 | 0x10DE << 8 | 0x7E, *payload]


def read_command(knob: int) -> list[int]:
    return message([0x0C | 0x2 << 8 | knob << 16])


def write_command(knob: int, value: int) -> list[int]:
    return message([0x0D | 0x2 << 8 | knob << 16, value])


def exchange(port: Emem | Mnoc, words: list[int]) -> list[int]:
    """One request, its response checked and reduced to error code and data."""
    port.post(words)
    answer = port.fetch()
    assert answer[1] >> 24 == 0x15
    return answer[4:]


def read_knob(port: Emem | Mnoc, knob: int) -> int:
    code, word = exchange(port, read_command(knob))
    assert code == 0
    return word & 0xFFFF


def write_knob(port: Emem | Mnoc, knob: int, value: int) -> int:
    return exchange(port, write_command(knob, value))[0]
