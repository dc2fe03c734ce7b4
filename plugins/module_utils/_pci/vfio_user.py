# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""PCI functions behind vfio-user sockets: a folder of ``<PCI address>.sock``, any device server behind each.

Protocol: libvfio-user, docs/vfio-user.rst. A message is a 16-byte header (u16 id, u16 command, u32 size of the whole
message, u32 flags, u32 errno) and a payload; all little-endian. Everything about a device is learned over its socket.
"""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import struct
import tempfile
import time
from hashlib import sha256
from typing import Optional, Sequence

from .._core.errors import ExplainedError, InvalidRequest, NotPermitted, errno_words
from .._core.wait import SYSTEM_CLOCK, Clock, poll
from . import bus
from .errors import Bar0Unreadable, DeviceBusy, DeviceGone
from .sysfs import no_bar, no_reset_method, reset_refused

VERSION = 1
DEVICE_GET_INFO = 4
DEVICE_GET_REGION_INFO = 5
REGION_READ = 9
REGION_WRITE = 10
DEVICE_RESET = 13

TYPE_MASK = 0xF
TYPE_COMMAND = 0
TYPE_REPLY = 1
FLAG_ERROR = 0x20

REGION_CONFIG = 7
REGION_COUNT_OF_BARS = 6
# PCI Local Bus: the registers of the BARs and the low bits of each
BAR_IS_IO = 0x1
BAR_TYPE = 0x6
BAR_IS_64BIT = 0x4
DEVICE_INFO_FLAG_RESET = 1

HEADER = struct.Struct("<HHIII")
REGION_ACCESS = struct.Struct("<QII")
LARGEST_REPLY_BYTES = 1 << 20

# The answer to VERSION comes at once from a server that is free; one that serves another client leaves us waiting.
GREETING_TIMEOUT_S = 2.0
ANSWER_TIMEOUT_S = 10.0
# The kernel gives a device up to a minute to answer config reads after a reset (pci_dev_wait).
RESET_TIMEOUT_S = 60.0
# PCI Express Base, 6.6.2: a function may take 100 ms to complete a function-level reset.
FLR_TIME_S = 0.1

_SOCKET_NAME = re.compile(r"^([0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])\.sock$", re.IGNORECASE)


class VfioUserBus(bus.Bus):
    """A folder of device sockets."""

    def __init__(self, folder: str, clock: Clock = SYSTEM_CLOCK) -> None:
        self.folder = os.path.abspath(folder)
        self.name = "vfio-user:%s" % folder
        self._clock = clock

    def find(self, takes: bus.Takes = bus.anything) -> list[bus.Function]:
        """Every function with a socket, by address, whatever ``takes`` says: what they are is known once open."""
        try:
            names = sorted(os.listdir(self.folder))
        except OSError as error:
            kind = NotPermitted if isinstance(error, PermissionError) else InvalidRequest
            raise kind(
                "The folder of device sockets %s cannot be listed: %s." % (self.folder, errno_words(error)),
                "Start the device servers first, and give the folder in which their sockets are.",
                errno=error.errno,
            ) from error
        matches = [_SOCKET_NAME.match(name) for name in names]
        return [VfioUserFunction(self.folder, match.group(1), self._clock) for match in matches if match]

    def lock_path(self) -> str:
        """In the folder itself; where that is not writable, in the system's folder for temporary files."""
        if os.access(self.folder, os.W_OK):
            return os.path.join(self.folder, ".confidential-gpu.lock")
        digest = sha256(os.path.realpath(self.folder).encode()).hexdigest()[:16]
        return os.path.join(tempfile.gettempdir(), "confidential-gpu-%s.lock" % digest)


class VfioUserFunction(bus.Function):
    """One device socket."""

    def __init__(self, folder: str, address: str, clock: Clock = SYSTEM_CLOCK) -> None:
        self.address = bus.parse_address(address)
        self._path = os.path.join(folder, address + ".sock")
        self._clock = clock
        self._connection: Optional[Connection] = None
        self._config: Optional[_Region] = None
        self._bars: list[bus.BarSpan] = []
        self._server_resets = False

    def open(self) -> None:
        """Connect, greet and learn the regions. Raises DeviceBusy, DeviceGone, NotPermitted."""
        if self._connection is not None:
            return
        self._connection = Connection(self._path, self.address)
        try:
            self._connection.greet()
            info = self._connection.call(DEVICE_GET_INFO, struct.pack("<IIII", 16, 0, 0, 0))
            _argsz, flags, regions, _irqs = struct.unpack_from("<IIII", info)
            self._server_resets = bool(flags & DEVICE_INFO_FLAG_RESET)
            sizes = [_region_size(self._connection, index) for index in range(min(regions, REGION_CONFIG + 1))]
            if len(sizes) <= REGION_CONFIG:
                raise _garbled(self.address, "the device has %d regions, so no config space" % regions)
            self._config = _Region(self._connection, REGION_CONFIG, sizes[REGION_CONFIG])
            spans = [_span(self._config, number, size) for number, size in enumerate(sizes[:REGION_COUNT_OF_BARS])]
            self._bars = [span for span in spans if span is not None]
            self.vendor_id = self._config.read16(bus.VENDOR_ID)
            self.device_id = self._config.read16(bus.DEVICE_ID)
            self.class_code = self._config.read32(bus.REVISION_AND_CLASS) >> 8
        except (OSError, struct.error) as error:
            self.close()
            words = errno_words(error) if isinstance(error, OSError) else "answers that cannot be taken apart"
            raise _garbled(self.address, "it opens with %s" % words) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            self._config = None

    @property
    def config(self) -> bus.Space:
        """The config space of an open function."""
        if self._config is None:
            raise RuntimeError("open() comes first")
        return self._config

    def bars(self) -> Sequence[bus.BarSpan]:
        """The memory BARs, with their addresses as config space told when the function was opened; 0: none."""
        return list(self._bars)

    def map_bar(self, number: int) -> bus.Space:
        """The BAR of that number. Raises Bar0Unreadable."""
        connection = self._connected()
        for span in self._bars:
            if span.number == number:
                if not span.start:
                    self._check_reachable(connection, number)
                return _Region(connection, number, span.size)
        raise no_bar(self.address, number)

    def _check_reachable(self, connection: Connection, number: int) -> None:
        """No address is none that a run was killed before writing again after its reset, or that there never was one.

        Behind a socket a BAR is reached by its number; the server refuses one that never had an address.
        """
        try:
            connection.call(REGION_READ, REGION_ACCESS.pack(0, number, 4))
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise no_bar(self.address, number) from error
            raise _refused(self.address, "read", number, 0, error) from error

    def _connected(self) -> Connection:
        if self._connection is None:
            raise RuntimeError("open() comes first")
        return self._connection

    def reset_method(self) -> Optional[str]:
        """'flr' when the function has it, else 'server' when its server offers a reset."""
        if bus.has_flr(self.config):
            return "flr"
        return "server" if self._server_resets else None

    def reset(self) -> None:
        """Reset as the kernel does: function-level reset with config space saved and restored, or by the server."""
        method = self.reset_method()
        if method is None:
            raise no_reset_method(self.address)
        header = bus.programmed(self.config)
        if method == "flr":
            self._function_level_reset(bus.capability(self.config, bus.CAPABILITY_EXPRESS) or 0)
        else:
            self._server_reset()
        self._wait_for_config_space()
        bus.program(self.config, header)

    def _server_reset(self) -> None:
        try:
            self._connected().call(DEVICE_RESET, b"", RESET_TIMEOUT_S)
        except socket.timeout as error:
            raise _silent_after_reset(self.address) from error
        except OSError as error:
            raise reset_refused(self.address, error, None) from error

    def _function_level_reset(self, express: int) -> None:
        register = express + bus.EXPRESS_DEVCTL
        control = self.config.read16(register) & ~bus.DEVCTL_FLR
        self.config.write16(register, control | bus.DEVCTL_FLR)
        self._clock.sleep(FLR_TIME_S)
        self._wait_for_config_space()
        if self.config.read16(register) != control:
            self.config.write16(register, control)

    def _wait_for_config_space(self) -> None:
        try:
            poll(self._answers, RESET_TIMEOUT_S, 0.005, self._clock)
        except TimeoutError as error:
            raise _silent_after_reset(self.address) from error

    def _answers(self) -> bool:
        # All ones, or an error: not there yet. 0x0001 as vendor: configuration request retry status (PCI Express Base,
        # 2.3.2).
        try:
            return self.config.read32(bus.VENDOR_ID) & 0xFFFF not in (0xFFFF, 0x0001)
        except DeviceGone as error:
            if "errno" not in error.seen:  # the server is gone, not only the device
                raise
            return False


class Connection:
    """One client's side of a vfio-user socket: a question, its answer."""

    def __init__(self, path: str, address: str) -> None:
        self._address = address
        self._next_id = 0
        self._ahead = b""  # what has come since the last whole message
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._timeout_s = 0.0
        self._set_timeout(GREETING_TIMEOUT_S)
        try:
            self._socket.connect(path)
        except PermissionError as error:
            self._socket.close()
            raise NotPermitted(
                "%s: the device's socket cannot be opened: %s." % (address, errno_words(error)),
                "Run as the user who started the device server, or as root.",
                device=address,
                errno=error.errno,
            ) from error
        except BlockingIOError as error:
            self._socket.close()
            raise _held(address) from error
        except OSError as error:
            self._socket.close()
            raise DeviceGone(
                "%s: the device's server does not answer: %s." % (address, errno_words(error)),
                "Start the device server again, or remove its stale socket.",
                device=address,
                errno=error.errno,
            ) from error

    def greet(self) -> None:
        """Agree on protocol 0.x. Raises DeviceBusy when the server serves somebody else."""
        capabilities = json.dumps({"capabilities": {"max_msg_fds": 0, "max_data_xfer_size": LARGEST_REPLY_BYTES}})
        try:
            answer = self.call(
                VERSION, struct.pack("<HH", 0, 1) + capabilities.encode() + b"\0", timeout_s=GREETING_TIMEOUT_S
            )
        except socket.timeout as error:
            raise _held(self._address) from error
        if len(answer) < 4 or struct.unpack_from("<H", answer)[0] != 0:
            raise _garbled(self._address, "the server greets with %s" % answer[:8].hex())

    def call(self, command: int, payload: bytes, timeout_s: Optional[float] = None) -> bytes:
        """Send a command, return the payload of its answer.

        Raises OSError with the errno of an error answer, socket.timeout for none, DeviceGone when the server hangs up.
        """
        timeout_s = ANSWER_TIMEOUT_S if timeout_s is None else timeout_s
        self._set_timeout(timeout_s)
        deadline = time.monotonic() + timeout_s
        message_id = self._next_id = self._next_id + 1 & 0xFFFF
        size = HEADER.size + len(payload)
        try:
            self._socket.sendall(HEADER.pack(message_id, command, size, TYPE_COMMAND, 0) + payload)
            while True:
                answer = self._receive(deadline)
                got_id, got_command, _size, flags, code = HEADER.unpack_from(answer)
                if flags & TYPE_MASK == TYPE_REPLY and got_id == message_id:
                    break
                self._refuse(got_id, got_command, flags)
        except (BlockingIOError, socket.timeout) as error:
            raise socket.timeout("timed out") from error
        except OSError as error:
            raise DeviceGone(
                "%s: the device's server hung up: %s." % (self._address, error),
                "Look at the device server's log; start it again.",
                device=self._address,
            ) from error
        if flags & FLAG_ERROR:
            raise OSError(code, os.strerror(code))
        return answer[HEADER.size :]

    def _set_timeout(self, timeout_s: float) -> None:
        """For each send and receive, kept by the kernel: settimeout() would cost a poll() before each of them."""
        if timeout_s != self._timeout_s:
            timeval = struct.pack("@ll", int(timeout_s), int(timeout_s % 1 * 1e6))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
            self._timeout_s = timeout_s

    def _receive(self, deadline: float) -> bytes:
        """One whole message. What has come of it when the time is over is kept for the next call."""
        while True:
            if len(self._ahead) >= HEADER.size:
                size = HEADER.unpack_from(self._ahead)[2]
                if not HEADER.size <= size <= HEADER.size + LARGEST_REPLY_BYTES:
                    raise _garbled(self._address, "a message claims %d bytes" % size)
                if len(self._ahead) >= size:
                    message, self._ahead = self._ahead[:size], self._ahead[size:]
                    return message
            if time.monotonic() > deadline:
                raise socket.timeout("timed out")
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionResetError(errno.ECONNRESET, "connection closed")
            self._ahead += data

    def _refuse(self, message_id: int, command: int, flags: int) -> None:
        """A server may ask its client things (DMA, for one); this client has nothing to give."""
        if flags & TYPE_MASK == TYPE_COMMAND:
            refusal = HEADER.pack(message_id, command, HEADER.size, TYPE_REPLY | FLAG_ERROR, errno.ENOTSUP)
            self._socket.sendall(refusal)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def region_read(self, region: int, offset: int, size: int) -> int:
        """The value of ``size`` bytes of a region."""
        try:
            answer = self.call(REGION_READ, REGION_ACCESS.pack(offset, region, size))
        except OSError as error:
            raise _refused(self._address, "read", region, offset, error) from error
        if len(answer) != REGION_ACCESS.size + size:
            raise _garbled(self._address, "a read of %d bytes is answered with %d" % (size, len(answer) - 16))
        return int.from_bytes(answer[REGION_ACCESS.size :], "little")

    def region_write(self, region: int, offset: int, size: int, value: int) -> None:
        """Write the low ``size`` bytes of a value to a region."""
        data = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
        try:
            self.call(REGION_WRITE, REGION_ACCESS.pack(offset, region, size) + data)
        except OSError as error:
            raise _refused(self._address, "write", region, offset, error) from error


class _Region(bus.Space):
    def __init__(self, connection: Connection, region: int, size: int) -> None:
        self._connection = connection
        self._region = region
        self.size = size

    def read(self, offset: int, size: int) -> int:
        return self._connection.region_read(self._region, offset, size)

    def write(self, offset: int, data: int, size: int) -> None:
        self._connection.region_write(self._region, offset, size, data)


def _span(config: bus.Space, number: int, size: int) -> Optional[bus.BarSpan]:
    register = bus.BAR_REGISTERS + 4 * number
    low = config.read32(register) if size else 0
    if low & BAR_IS_IO:
        return None
    is_64bit = low & BAR_TYPE == BAR_IS_64BIT
    high = config.read32(register + 4) if is_64bit and number < REGION_COUNT_OF_BARS - 1 else 0
    start = high << 32 | low & ~0xF
    return bus.BarSpan(start, size, is_64bit, number) if size else None


def _region_size(connection: Connection, index: int) -> int:
    try:
        answer = connection.call(DEVICE_GET_REGION_INFO, struct.pack("<IIIIQQ", 32, 0, index, 0, 0, 0))
    except OSError as error:
        if error.errno == errno.EINVAL and index != REGION_CONFIG:
            return 0  # how some servers say that a region does not exist
        raise
    size: int = struct.unpack_from("<IIIIQQ", answer)[4]
    return size


def _silent_after_reset(address: str) -> ExplainedError:
    return DeviceGone(
        "%s: config space did not answer within %g s after a reset." % (address, RESET_TIMEOUT_S),
        "Power-cycle the device.",
        device=address,
    )


def _held(address: str) -> ExplainedError:
    return DeviceBusy(
        "%s: the device's server does not greet: it serves another client (a virtual machine, another tool), or hangs."
        % address,
        "Stop the other client, or wait for it with busy: wait; if there is none, restart the server.",
        device=address,
    )


def _garbled(address: str, what: str) -> ExplainedError:
    return DeviceGone(
        "%s: the device's server breaks the vfio-user protocol: %s." % (address, what),
        "Check that the socket belongs to a vfio-user device server of protocol 0.x.",
        device=address,
    )


def _refused(address: str, verb: str, region: int, offset: int, error: OSError) -> ExplainedError:
    place = "config space" if region == REGION_CONFIG else "BAR0" if region == 0 else "region %d" % region
    if isinstance(error, socket.timeout):
        return DeviceGone(
            "%s: no answer to a %s of %s at 0x%x within %g s." % (address, verb, place, offset, ANSWER_TIMEOUT_S),
            "Look at the device server's log; restart it.",
            device=address,
            register=offset,
        )
    if error.errno in (errno.EPERM, errno.EACCES):
        return Bar0Unreadable(
            "%s: %s cannot be %s at 0x%x: %s."
            % (address, place, "read" if verb == "read" else "written", offset, errno_words(error)),
            "Kernel lockdown (Secure Boot) or missing rights forbid access to device registers: lift them.",
            device=address,
            register=offset,
            errno=error.errno,
        )
    return DeviceGone(
        "%s: a %s of %s at 0x%x fails: %s." % (address, verb, place, offset, errno_words(error)),
        "Check that the device is still on the bus; power-cycle it.",
        device=address,
        register=offset,
        errno=error.errno,
    )
