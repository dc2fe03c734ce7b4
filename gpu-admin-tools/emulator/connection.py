# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""One device's socket: accepts one client at a time and answers its vfio-user messages.

The hot path is a read or write of one register: it decodes with one call, touches the device, and encodes with one
call. File descriptors that ride on DMA_MAP or SET_IRQS are never taken up: the kernel closes what a plain `recv` has
no room for.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import struct
from collections.abc import Callable
from pathlib import Path

from . import protocol as vfio
from .config_space import SIZE as CONFIG_BYTES
from .device import Device, ResetRefused
from .faults import Access, FaultSet
from .journal import Journal
from .layout import bar_sizes
from .listening import listen
from .loop import EPOLLIN, EPOLLOUT, EventLoop
from .protocol import Command
from .trace import Trace

UCRED = struct.Struct("iII")
RECEIVE_BYTES = 1 << 17
HEADER_UNPACK = vfio.HEADER.unpack_from
# Plain integers: comparing with an enumeration's member costs more than the rest of the dispatch.
REGION_READ, REGION_WRITE = int(Command.REGION_READ), int(Command.REGION_WRITE)
# A message id that no client is at.
STRAY_MESSAGE = 0xFFFF
BAR_REGIONS = (vfio.REGION_BAR0, vfio.REGION_BAR1)
# A client that does not read its answers is dropped rather than buffered for without end.
MAX_UNSENT = 1 << 24


class Dropped(Exception):
    """The connection is gone; the access it was about must not be applied."""


class Malformed(Exception):
    """A message that no well-behaved client sends."""


class Refused(Exception):
    """A message that is answered with an errno."""

    def __init__(self, number: int) -> None:
        super().__init__(os.strerror(number))
        self.number = number


class Port:
    """A device's listening socket and the client connected to it, if any."""

    def __init__(self, loop: EventLoop, faults: FaultSet, journal: Journal | None, device: Device, path: Path) -> None:
        self._loop = loop
        self._faults = faults
        self._journal = journal
        self.device = device
        self.path = path
        self.trace = Trace()
        self.client_pid: int | None = None
        self._client: socket.socket | None = None
        self._received = bytearray()
        self._unsent = bytearray()
        self._greeted = False
        self._resetting = False
        self._generation = 0
        # Seconds between two bytes of an answer, while the answers drip; whether stray answers come instead.
        self._drip_s: float | None = None
        self._babbles = False
        bar0_bytes, bar1_bytes = bar_sizes(device.spec)
        self._sizes = {vfio.REGION_BAR0: bar0_bytes, vfio.REGION_BAR1: bar1_bytes, vfio.REGION_CONFIG: CONFIG_BYTES}
        # VFIO tells the size of a BAR that has no address, and refuses every access to it.
        missing = {BAR_REGIONS[number] for number in device.spec.unassigned_bars}
        self.reach = {region: size for region, size in self._sizes.items() if region not in missing}
        self._listener = listen(path)
        loop.watch(self._listener.fileno(), self._on_connect)

    # --- connection -----------------------------------------------------------------------------------------------

    def _on_connect(self, _events: int) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        client.setblocking(False)
        pid, _, _ = UCRED.unpack(client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size))
        self._client, self.client_pid = client, pid
        self._generation += 1
        self._received.clear()
        self._unsent.clear()
        self._greeted = self._resetting = self._babbles = False
        self._drip_s = None
        # The next client waits in the backlog, unanswered, until this one is gone.
        self._loop.unwatch(self._listener.fileno())
        self._loop.watch(client.fileno(), self._on_ready)
        with contextlib.suppress(Dropped):
            self.device.fire("connect")

    def drop(self) -> None:
        """Close the connection and let the next client in."""
        if self._client is None:
            return
        self._loop.unwatch(self._client.fileno())
        self._client.close()
        self._client = None
        self.client_pid = None
        self._resetting = False
        if not self.device.hung:
            self._loop.watch(self._listener.fileno(), self._on_connect)

    def kill_client(self) -> None:
        """SIGKILL the process at the other end, as a crash of the tool would."""
        pid = self.client_pid
        if pid is not None and pid > 1 and pid != os.getpid():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.drop()

    def misbehave(self, action: str, seconds: float) -> None:
        """For the rest of the connection: answers byte by byte (drip), or answers that nobody asked for (babble)."""
        self._drip_s = seconds if action == "drip" else None
        if action == "babble" and not self._babbles:
            self._babbles = True
            self._later(seconds, lambda: self._babble(seconds))

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        """Run something on this connection, if it is still there then."""
        generation = self._generation

        def run() -> None:
            if generation == self._generation and self._client is not None:
                try:
                    action()
                except Dropped:
                    self.drop()

        self._loop.call_at(self._loop.clock() + seconds, run)

    def _babble(self, seconds: float) -> None:
        self._send(vfio.reply(STRAY_MESSAGE, REGION_READ, b"\0" * 20))
        self._later(seconds, lambda: self._babble(seconds))

    def _drip(self) -> None:
        """One byte, and the next one later."""
        if self._client is None or self._drip_s is None:
            return
        try:
            del self._unsent[: self._client.send(self._unsent[:1])]
        except BlockingIOError:
            pass
        except OSError:
            raise Dropped from None
        if self._unsent:
            self._later(self._drip_s, self._drip)

    def hang(self) -> None:
        """Stop listening to client and backlog, without closing anything."""
        self.device.hung = True
        self._loop.unwatch(self._listener.fileno())
        if self._client is not None:
            self._loop.unwatch(self._client.fileno())

    def wake(self) -> None:
        """End a hang; what the client sent meanwhile is answered now."""
        if not self.device.hung:
            return
        self.device.hung = False
        if self._client is None:
            self._loop.watch(self._listener.fileno(), self._on_connect)
        else:
            self._loop.watch(self._client.fileno(), self._on_ready)
            self._serve()

    def close(self) -> None:
        """Close everything and remove the socket file."""
        self.drop()
        self._loop.unwatch(self._listener.fileno())
        self._listener.close()
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()

    # --- bytes ----------------------------------------------------------------------------------------------------

    def _on_ready(self, events: int) -> None:
        if events & EPOLLOUT:
            self._flush()
        if events & ~EPOLLOUT and self._client is not None:
            try:
                data = self._client.recv(RECEIVE_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.drop()
                return
            # The usual case: exactly one message, nothing left over.
            if not self._received and not self._resetting and len(data) >= vfio.HEADER.size:
                message_id, command, size, flags, _ = HEADER_UNPACK(data)
                if size == len(data) <= vfio.MAX_MESSAGE and not flags & vfio.TYPE_MASK:
                    try:
                        self._answer(message_id, command, flags, data)
                    except (Malformed, Dropped):
                        self._give_up()
                    return
            self._received += data
            self._serve()

    def _serve(self) -> None:
        """Answer every complete message; a malformed one ends the connection."""
        try:
            while len(self._received) >= vfio.HEADER.size and not self._resetting and not self.device.hung:
                message_id, command, size, flags, _ = vfio.HEADER.unpack_from(self._received)
                if not vfio.HEADER.size <= size <= vfio.MAX_MESSAGE:
                    raise Malformed(f"message of {size} bytes")
                if flags & vfio.TYPE_MASK != vfio.TYPE_COMMAND:
                    raise Malformed("a reply from a client")
                if len(self._received) < size:
                    return
                message = bytes(self._received[:size])
                del self._received[:size]
                self._answer(message_id, command, flags, message)
        except (Malformed, Dropped):
            self._give_up()

    def _give_up(self) -> None:
        """The end of a connection, unless the access was swallowed by a hang, which closes nothing."""
        if not self.device.hung:
            self.drop()

    def _send(self, data: bytes) -> None:
        if self._client is None:
            raise Dropped
        if self._drip_s is not None:
            if not self._unsent:
                self._later(self._drip_s, self._drip)
        elif not self._unsent:
            try:
                sent = self._client.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                raise Dropped from None
            if sent == len(data):
                return
            data = data[sent:]
            self._loop.watch(self._client.fileno(), self._on_ready, EPOLLIN | EPOLLOUT)
        self._unsent += data
        if len(self._unsent) > MAX_UNSENT:
            raise Dropped

    def _flush(self) -> None:
        if self._client is None:
            return
        try:
            del self._unsent[: self._client.send(self._unsent)]
        except BlockingIOError:
            return
        except OSError:
            self.drop()
            return
        if not self._unsent:
            self._loop.watch(self._client.fileno(), self._on_ready)

    # --- messages -------------------------------------------------------------------------------------------------

    def _answer(self, message_id: int, command: int, flags: int, message: bytes) -> None:
        if not self._greeted and command != int(Command.VERSION):
            raise Malformed("no VERSION first")
        try:
            if command == REGION_READ:
                reply = self._region_read(message_id, message)
            elif command == REGION_WRITE:
                reply = self._region_write(message_id, message)
            elif command == Command.DEVICE_RESET:
                self._device_reset(message_id, flags)
                return
            else:
                reply = vfio.reply(message_id, command, self._inform(command, message[vfio.HEADER.size :]))
        except Refused as refusal:
            reply = vfio.error_reply(message_id, command, refusal.number)
        if not flags & vfio.NO_REPLY and not self._babbles:
            self._send(reply)

    def _region_read(self, message_id: int, message: bytes) -> bytes:
        if len(message) != vfio.READ_REQUEST.size:
            raise Malformed("REGION_READ of another length")
        _, _, _, _, _, offset, region, count = vfio.READ_REQUEST.unpack(message)
        device = self.device
        self._check_range(region, offset, count)
        now = self._loop.clock()
        if now >= device.deadline:
            device.advance(now)
        device.counters.reads += 1
        if "read" in self._faults.watched or device.bar0_errno or device.config_errno:
            self._strike("read", region, offset, count)
        if region == vfio.REGION_BAR0:
            data = device.read_bar0(offset, count)
        elif region == vfio.REGION_CONFIG:
            data = device.read_config(offset, count)
        else:
            data = device.read_bar1(count)
        if self._journal is not None:
            self._note(self._journal, "read", region, offset, data)
        size = vfio.READ_REQUEST.size + count
        head = vfio.READ_REQUEST.pack(message_id, REGION_READ, size, vfio.TYPE_REPLY, 0, offset, region, count)
        return head + data

    def _region_write(self, message_id: int, message: bytes) -> bytes:
        head = vfio.READ_REQUEST.size
        if len(message) < head:
            raise Malformed("REGION_WRITE without an address")
        _, _, _, _, _, offset, region, count = vfio.READ_REQUEST.unpack_from(message)
        if len(message) != head + count:
            raise Malformed("REGION_WRITE whose data is not as long as it says")
        device = self.device
        self._check_range(region, offset, count)
        now = self._loop.clock()
        if now >= device.deadline:
            device.advance(now)
        device.counters.writes += 1
        data = message[head:]
        self.trace.append((now, self.client_pid, region, offset, data))
        if self._journal is not None:
            self._note(self._journal, "write", region, offset, data)
        if "write" in self._faults.watched or device.bar0_errno or device.config_errno:
            self._strike("write", region, offset, count)
        if region == vfio.REGION_BAR0:
            device.write_bar0(offset, data)
        elif region == vfio.REGION_CONFIG:
            device.write_config(offset, data)
        return vfio.READ_REQUEST.pack(message_id, REGION_WRITE, head, vfio.TYPE_REPLY, 0, offset, region, count)

    def _check_range(self, region: int, offset: int, count: int) -> None:
        if count > vfio.MAX_DATA:
            raise Malformed("an access longer than negotiated")
        if count == 0 or offset + count > self.reach.get(region, 0):
            raise Refused(errno.EINVAL)

    def _strike(self, event: str, region: int, offset: int, count: int) -> None:
        """Faults that answer an access; those that last are looked at first."""
        name = vfio.REGION_NAMES.get(region, "")
        lasting = {"bar0": self.device.bar0_errno, "config": self.device.config_errno}.get(name, 0)
        if lasting:
            raise Refused(lasting)
        for fault in self.device.fire(event, access=Access(name, offset, count)):
            if fault.action in ("bar0_error", "config_error"):
                raise Refused(fault.errno)

    def _device_reset(self, message_id: int, flags: int) -> None:
        """The answer is sent when config space answers again; later messages wait for it."""
        device = self.device
        device.advance(self._loop.clock())
        device.counters.writes += 1
        try:
            if "write" in self._faults.watched:
                device.fire("write", access=Access("reset", 0, 0))
            device.bus_reset()
        except ResetRefused as refusal:
            if not flags & vfio.NO_REPLY and not self._babbles:
                self._send(vfio.error_reply(message_id, Command.DEVICE_RESET, refusal.errno))
            return
        self._resetting = True

        def finish() -> None:
            self._resetting = False
            if not flags & vfio.NO_REPLY and not self._babbles:
                self._send(vfio.reply(message_id, Command.DEVICE_RESET))
            self._serve()

        self._later(device.spec.timing.flr_s, finish)

    def _inform(self, command: int, body: bytes) -> bytes:
        """Everything that is not an access to the device."""
        try:
            if command == Command.VERSION:
                return self._greet(body)
            if command == Command.DEVICE_GET_INFO:
                _need(body, 4)
                flags = vfio.DeviceFlag.RESET | vfio.DeviceFlag.PCI
                return vfio.DEVICE_INFO.pack(vfio.DEVICE_INFO.size, flags, vfio.REGION_COUNT, vfio.IRQ_COUNT)
            if command == Command.DEVICE_GET_REGION_INFO:
                _, _, index, _, _, _ = vfio.REGION_INFO.unpack(_need(body, vfio.REGION_INFO.size))
                if index >= vfio.REGION_COUNT:
                    raise Refused(errno.EINVAL)
                size = self._sizes.get(index, 0)
                access = vfio.RegionFlag.READ | vfio.RegionFlag.WRITE if size else vfio.RegionFlag(0)
                return vfio.REGION_INFO.pack(vfio.REGION_INFO.size, access, index, 0, size, 0)
            if command == Command.DEVICE_GET_IRQ_INFO:
                _, _, index, _ = vfio.IRQ_INFO.unpack(_need(body, vfio.IRQ_INFO.size))
                if index >= vfio.IRQ_COUNT:
                    raise Refused(errno.EINVAL)
                # No interrupts: nothing in the control path of these devices raises one.
                return vfio.IRQ_INFO.pack(vfio.IRQ_INFO.size, 0, index, 0)
            if command == Command.DEVICE_SET_IRQS:
                return b""
            if command == Command.DMA_MAP:
                return b""
            if command == Command.DMA_UNMAP:
                return _need(body, 24)[:24]
        except (struct.error, ValueError, RecursionError) as error:
            raise Malformed(str(error)) from None
        raise Refused(errno.ENOTSUP)

    def _greet(self, body: bytes) -> bytes:
        major, _minor = vfio.VERSION.unpack_from(_need(body, vfio.VERSION.size))
        if major != vfio.MAJOR:
            raise Refused(errno.EINVAL)
        if text := body[vfio.VERSION.size :].rstrip(b"\0"):
            json.loads(text)
        self._greeted = True
        offered = {"capabilities": {"max_msg_fds": vfio.MAX_FDS, "max_data_xfer_size": vfio.MAX_DATA}}
        return vfio.VERSION.pack(vfio.MAJOR, vfio.MINOR) + json.dumps(offered).encode() + b"\0"

    def _note(self, journal: Journal, op: str, region: int, offset: int, data: bytes) -> None:
        value: int | str = int.from_bytes(data, "little") if len(data) <= 8 else data[:64].hex()
        name = vfio.REGION_NAMES.get(region, str(region))
        journal.add(self.device.address, self.client_pid, op, region=name, offset=offset, size=len(data), value=value)


def _need(body: bytes, size: int) -> bytes:
    if len(body) < size:
        raise ValueError("message too short")
    return body
