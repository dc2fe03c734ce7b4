# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Stand-ins with real semantics: a clock, a sysfs and /proc tree on disk, a device server on a socket, devices."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import importlib
import os
import shutil
import socket
import struct
import sys
import termios
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from emulator.launch import launch
from hypothesis import settings

from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import ExplainedError
from ansible_collections.confidential.gpu.plugins.module_utils._core.wait import Clock
from ansible_collections.confidential.gpu.plugins.module_utils._gpu import admin_tools, kind
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.admin_tools import Boot
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.errors import InvalidKnob
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.families import HOPPER
from ansible_collections.confidential.gpu.plugins.module_utils._pci import bus, vfio_user
from ansible_collections.confidential.gpu.plugins.module_utils._pci.processes import FIRST_PID_NAMESPACE

# No deadline: other work on the machine is no failure. No database: nothing is left in the working directory.
# The same examples each time: what fails, fails for who changed the code. New ones are for the long look.
settings.register_profile("plain", deadline=None, database=None, derandomize=True)
# For a long look: pytest --hypothesis-profile=long
settings.register_profile("long", deadline=None, database=None, max_examples=100_000)
settings.load_profile("plain")

ADDRESS = "0000:17:00.0"
NOBODY = 65534


class FakeClock(Clock):
    """Time passes only in sleep; what was planned for a moment happens when that moment is passed."""

    def __init__(self) -> None:
        self.time = 0.0
        self.sleeps: list[float] = []
        self._planned: list[tuple[float, Callable[[], Any]]] = []

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.time += seconds
        due = [action for when, action in self._planned if when <= self.time]
        self._planned = [(when, action) for when, action in self._planned if when > self.time]
        for action in due:
            action()

    def at(self, when: float, action: Callable[[], Any]) -> None:
        """Let something happen at a moment."""
        self._planned.append((when, action))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def unprivileged() -> Callable[[], contextlib.AbstractContextManager[None]]:
    """A way to be nobody for a while; a process that is not root is nobody already."""

    @contextlib.contextmanager
    def nobody() -> Iterator[None]:
        root = os.geteuid() == 0
        if root:
            os.seteuid(NOBODY)
        try:
            yield
        finally:
            if root:
                os.seteuid(0)

    return nobody


@pytest.fixture
def busy_file() -> Iterator[str]:
    """A file that the kernel answers with EBUSY, unless root asks: a terminal that somebody has for himself."""
    first, second = os.openpty()
    try:
        os.chmod(os.ttyname(second), 0o666)
        fcntl.ioctl(second, termios.TIOCEXCL)
        yield os.ttyname(second)
    finally:
        os.close(first)
        os.close(second)


@pytest.fixture
def reachable(tmp_path: Path) -> None:
    """Let nobody into the folders of the test, which pytest keeps closed."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and folder.stat().st_mode & 0o55 != 0o55:
            folder.chmod(folder.stat().st_mode | 0o55)


# --- sysfs and /proc --------------------------------------------------------------------------------------------------


def config_space(device_id: int = 0x2331, class_code: int = 0x030200, flr: bool = True, pm_state: int = 0) -> bytearray:
    """4096 bytes with a PM capability at 0x40 and a PCI Express capability at 0x60."""
    data = bytearray(4096)
    struct.pack_into("<HH", data, 0x00, 0x10DE, device_id)
    struct.pack_into("<H", data, 0x04, 0x0006)
    struct.pack_into("<I", data, 0x08, class_code << 8 | 0xA1)
    struct.pack_into("<IIII", data, 0x10, 0x0000000C, 0x00000020, 0x1000000C, 0x00000020)
    data[0x34] = 0x40
    struct.pack_into("<BBHH", data, 0x40, 0x01, 0x60, 0x0003, pm_state)
    struct.pack_into("<BBHI", data, 0x60, 0x10, 0x00, 0x0002, 1 << 28 if flr else 0)
    return data


class HostTree:
    """A machine's /sys, /proc, /dev and /run below a folder, laid out as the kernel does."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in (
            "sys/bus/pci/devices",
            "sys/bus/pci/drivers",
            "sys/devices/pci0000:00",
            "proc",
            "dev/vfio",
            "run",
        ):
            (root / folder).mkdir(parents=True, exist_ok=True)
        self.pid_namespace(FIRST_PID_NAMESPACE)
        (root / "proc/1/fd").mkdir(parents=True)

    def pid_namespace(self, name: str) -> None:
        """In which process namespace this process is."""
        link = self.root / "proc/self/ns/pid"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        os.symlink(name, link)

    def write(self, path: str, content: str | bytes) -> Path:
        """A file of the tree."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file

    def device(
        self,
        address: str = ADDRESS,
        *,
        vendor: int = 0x10DE,
        device_id: int = 0x2331,
        class_code: int = 0x030200,
        driver: str | None = None,
        group: int | None = None,
        reset: bool = True,
        reset_method: str | None = "flr bus",
        power: str | None = "on",
        bar0_bytes: int = 4096,
        enable: int | None = 0,
        group_file: bool = True,
    ) -> Path:
        """A PCI device; returns its real folder. At vfio its group has a file in /dev, if ``group_file``."""
        name = "sys/devices/pci0000:00/%s" % address
        folder = self.root / name
        files: dict[str, str | bytes | None] = {
            "vendor": "0x%04x\n" % vendor,
            "device": "0x%04x\n" % device_id,
            "class": "0x%06x\n" % class_code,
            "config": bytes(config_space(device_id, class_code)),
            "resource": "0x0000002000000000 0x%016x 0x000000000014220c\n" % (0x2000000000 + bar0_bytes - 1)
            + "0x0000000000000000 0x0000000000000000 0x0000000000000000\n"
            + "0x0000002010000000 0x000000201fffffff 0x000000000014220c\n"
            + "0x0000000000000000 0x0000000000000000 0x0000000000000000\n"
            + "0x0000000000003000 0x000000000000307f 0x0000000000040101\n"
            + "0x0000000000000000 0x0000000000000000 0x0000000000000000\n",
            "resource0": bytes(bar0_bytes),
            "reset": "" if reset else None,
            "reset_method": reset_method + "\n" if reset_method else None,
            "power/control": power + "\n" if power else None,
            "enable": "%d\n" % enable if enable is not None else None,
        }
        for file, content in files.items():
            if content is not None:
                self.write("%s/%s" % (name, file), content)
        os.symlink("../../../devices/pci0000:00/%s" % address, self.root / "sys/bus/pci/devices" / address)
        if driver is not None:
            (self.root / "sys/bus/pci/drivers" / driver).mkdir(exist_ok=True)
            os.symlink("../../../bus/pci/drivers/%s" % driver, folder / "driver")
        if group is not None:
            (self.root / "sys/kernel/iommu_groups" / str(group)).mkdir(parents=True, exist_ok=True)
            os.symlink("../../../kernel/iommu_groups/%d" % group, folder / "iommu_group")
            if driver == "vfio-pci" and group_file:
                self.write("dev/vfio/%d" % group, "")
        return folder

    def process(self, pid: int, command: str, *files: str) -> None:
        """A process with files open; those that are in this tree are the tree's."""
        self.write("proc/%d/comm" % pid, command + "\n")
        descriptors = self.root / "proc" / str(pid) / "fd"
        descriptors.mkdir(exist_ok=True)
        for number, file in enumerate(files):
            mine = self.root / file.lstrip("/")
            os.symlink(str(mine) if file.startswith("/") and mine.exists() else file, descriptors / str(number))


@pytest.fixture
def host(tmp_path: Path) -> HostTree:
    return HostTree(tmp_path / "host")


# --- a device server on a socket --------------------------------------------------------------------------------------

HEADER = struct.Struct("<HHIII")
Handler = Callable[[bytes], bytes]


class Refuse(Exception):
    """A handler's way to answer with an errno."""


class HangUp(Exception):
    """A handler's way to end the connection."""


class DeviceServer:
    """A small vfio-user device: config space, BAR0 (region 0) and BAR1 (region 2).

    ``handlers`` replaces the answer to a command; ``prelude`` is sent before the next answer, in the same segment.
    """

    def __init__(self, folder: Path, address: str = ADDRESS, **config: Any) -> None:
        self.path = folder / (address + ".sock")
        self.config = config_space(**config)
        self.regions: dict[int, bytearray] = {0: bytearray(4096), 2: bytearray(256), 7: self.config}
        self.region_count = 9
        self.refused: set[int] = set()  # regions of BARs without an address
        self.flags = 0x3
        self.handlers: dict[int, Handler] = {}
        self.prelude = b""
        self.writes: list[tuple[int, int, bytes]] = []
        self.refusals: list[tuple[int, int, int]] = []
        self.flr_count = 0
        self.dark_reads = 0
        self.commands: list[int] = []
        self.client_left = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.path))
        self._listener.listen(4)
        self._client: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError, AttributeError):
            self._client.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                self._client, _ = self._listener.accept()
            except OSError:
                return
            with self._client, contextlib.suppress(OSError, HangUp):
                self._talk(self._client)
            self.client_left.set()

    def _talk(self, client: socket.socket) -> None:
        stream = client.makefile("rb")
        with stream:
            while len(head := stream.read(HEADER.size)) == HEADER.size:
                number, command, size, flags, code = HEADER.unpack(head)
                body = stream.read(size - HEADER.size)
                if flags & 0xF == 1:
                    self.refusals.append((number, command, code))
                    continue
                self.commands.append(command)
                try:
                    answer = self.handlers.get(command, lambda body, command=command: self._answer(command, body))(body)
                    reply = HEADER.pack(number, command, HEADER.size + len(answer), 1, 0) + answer
                except Refuse as refusal:
                    reply = HEADER.pack(number, command, HEADER.size, 0x21, refusal.args[0])
                prelude, self.prelude = self.prelude, b""
                client.sendall(prelude + reply)

    def _answer(self, command: int, body: bytes) -> bytes:
        if command == vfio_user.VERSION:
            return struct.pack("<HH", 0, 0) + b"{}\0"
        if command == vfio_user.DEVICE_GET_INFO:
            return struct.pack("<IIII", 16, self.flags, self.region_count, 5)
        if command == vfio_user.DEVICE_GET_REGION_INFO:
            index = struct.unpack_from("<IIII", body)[2]
            return struct.pack("<IIIIQQ", 32, 3, index, 0, len(self.regions.get(index, b"")), 0)
        if command == vfio_user.REGION_READ:
            return body[:16] + self._read(*struct.unpack("<QII", body))
        if command == vfio_user.REGION_WRITE:
            offset, region, _count = struct.unpack_from("<QII", body)
            self._write(offset, region, body[16:])
            return body[:16]
        if command == vfio_user.DEVICE_RESET:
            return b""
        raise Refuse(errno.ENOTSUP)

    def _read(self, offset: int, region: int, count: int) -> bytes:
        if region in self.refused:
            raise Refuse(errno.EINVAL)
        if region == 7 and self.dark_reads:
            self.dark_reads -= 1
            return b"\x01\x00\xff\xff"[:count]
        return bytes(self.regions[region][offset : offset + count])

    def _write(self, offset: int, region: int, data: bytes) -> None:
        self.writes.append((region, offset, data))
        if region == 7 and offset == 0x68 and int.from_bytes(data, "little") & 0x8000:
            self.flr_count += 1
            self.config[0x10:0x20] = bytes(16)
            self.config[0x04:0x06] = bytes(2)
            self.config[0x68:0x6A] = bytes(2)
            self.dark_reads = 3
            return
        self.regions[region][offset : offset + len(data)] = data


@pytest.fixture
def device_server(tmp_path: Path) -> Iterator[Callable[..., DeviceServer]]:
    """Start device servers in one folder (``tmp_path``)."""
    with contextlib.ExitStack() as stack:

        def start(address: str = ADDRESS, **config: Any) -> DeviceServer:
            server = DeviceServer(tmp_path, address, **config)
            stack.callback(server.close)
            return server

        yield start


# --- devices without a bus --------------------------------------------------------------------------------------------


class Memory(bus.Space):
    """Registers kept in bytes; writes are noted."""

    def __init__(self, data: bytearray) -> None:
        self.data = data
        self.size = len(data)
        self.written: list[tuple[int, int, int]] = []

    def read(self, offset: int, size: int) -> int:
        return int.from_bytes(self.data[offset : offset + size], "little")

    def write(self, offset: int, data: int, size: int) -> None:
        self.written.append((offset, data, size))
        self.data[offset : offset + size] = data.to_bytes(size, "little")


class FakeFunction(bus.Function):
    """A PCI function in memory."""

    def __init__(self, address: str = ADDRESS, class_code: int = 0x030200, **config: Any) -> None:
        self.address = address
        self.vendor_id = kind.NVIDIA_VENDOR_ID
        self.device_id = 0x2331
        self.class_code = class_code
        self.memory = Memory(config_space(class_code=class_code, **config))
        self.power: str | None = None
        self.powers: list[str] = []
        self.method: str | None = "flr"
        self.is_open = False
        self.open_error: ExplainedError | None = None
        self.driver_name: str | None = None
        self.group: int | None = None

    def open(self) -> None:
        if self.open_error is not None:
            raise self.open_error
        self.is_open = True

    def close(self) -> None:
        self.is_open = False

    @property
    def config(self) -> bus.Space:
        return self.memory

    def reset_method(self) -> str | None:
        return self.method

    def power_control(self) -> str | None:
        return self.power

    def set_power_control(self, setting: str) -> None:
        self.power = setting
        self.powers.append(setting)

    def driver(self) -> str | None:
        return self.driver_name

    def iommu_group(self) -> int | None:
        return self.group


class FakeTool:
    """A device as the tool shows it: knobs that a reset turns into a mode, and things that go wrong when told to.

    ``journal`` is shared by the devices of a test, so that the order among them can be looked at.
    """

    def __init__(self, address: str, journal: list[tuple[Any, ...]], knobs: dict[int, int] | None = None) -> None:
        self.address = address
        self.journal = journal
        self.name, self.chip, self.family = "H100", "GH100", HOPPER
        self.has_modes = True
        self.module_id = "SXM_1"
        self.stored = dict.fromkeys((2, 4, 6, 8, 10, 34, 45), 0)
        self.stored.update(dict.fromkeys((1, 3, 5, 7, 9, 33, 44), 1))
        self.stored.update(knobs or {})
        self.active = dict(self.stored)
        self.write_errors: dict[int, ExplainedError] = {}
        self.write_loses: set[int] = set()
        self.read_errors: dict[int, ExplainedError] = {}
        self.reset_error: ExplainedError | None = None
        self.latches = True
        self.booted = True
        self.silent: ExplainedError | None = None
        self.boots_after_reset = True
        self.recovering = False

    def boot(self) -> Boot:
        return Boot(self.booted, 0x200BC, 0xFF if self.booted else 0x1)

    def in_recovery(self) -> bool:
        return self.recovering

    def check_answers(self) -> None:
        if self.silent is not None:
            raise self.silent

    def diagnostics(self) -> dict[str, str]:
        return {"0x20120": "0x40000000" if self.recovering else "0x0"}

    def cc_mode(self) -> str:
        return {0: "off", 1: "on", 2: "invalid", 3: "devtools"}[self.active[8] | self.active[6] << 1]

    def ppcie_is_on(self) -> bool:
        return self.active[45] == 1

    def mode_register(self) -> tuple[int, int]:
        return 0x1182CC, self.active[8] | self.active[6] << 1 | self.active[45] << 5

    def read_knob(self, number: int) -> int:
        if number in self.read_errors:
            raise self.read_errors[number]
        if number not in self.stored:
            raise InvalidKnob("%s: no such knob." % self.address, "Update.", device=self.address)
        return self.stored[number]

    def write_knob(self, number: int, value: int) -> None:
        self.journal.append((self.address, "write", int(number), value))
        if number in self.write_errors:
            if number in self.write_loses:
                self.stored[number] = value
            raise self.write_errors.pop(number)
        self.stored[number] = value

    def reset(self) -> None:
        self.journal.append((self.address, "reset"))
        if self.reset_error is not None:
            raise self.reset_error
        if self.latches:
            self.active = dict(self.stored)
        self.booted = self.boots_after_reset


class Fakes:
    """The classes above, for tests that make several."""

    ADDRESS = ADDRESS
    Clock = FakeClock
    Function = FakeFunction
    HangUp = HangUp
    Memory = Memory
    Refuse = Refuse
    Tool = FakeTool


@pytest.fixture
def fakes() -> type[Fakes]:
    return Fakes


# --- emulated devices -------------------------------------------------------------------------------------------------

BENCH = {
    "timing": {"flr_s": 0.005, "boot_s": 0.02, "rpc_s": 0.0002},
    "devices": [
        {"address": "0000:01:00.0", "model": "h100-sxm"},
        {"address": "0000:02:00.0", "model": "b200", "timing": {"firewall_s": 0.2, "boot_s": 0.25}},
        {"address": "0000:03:00.0", "model": "rtx-pro-6000", "timing": {"firewall_s": 0.2, "boot_s": 0.25}},
        {"address": "0000:04:00.0", "model": "nvswitch-ls10"},
        {"address": "0000:05:00.0", "model": "a100"},
        {"address": "0000:06:00.0", "model": "h100-pcie", "device_id": 0x237E},
        {"address": "0000:07:00.0", "model": "unknown"},
    ],
}


@pytest.fixture(scope="session")
def emulator() -> Iterator[Any]:
    """One of each kind, in a process of its own."""
    with launch(BENCH) as running:
        yield running


@pytest.fixture
def emulated(emulator: Any) -> Any:
    """The same, as after its start."""
    emulator.control.restore()
    (emulator.sockets / ".confidential-gpu.unproven").unlink(missing_ok=True)
    return emulator


@pytest.fixture
def emulator_of() -> Iterator[Callable[[dict[str, Any]], Any]]:
    """Start a node of one's own."""
    with contextlib.ExitStack() as stack:
        yield lambda node: stack.enter_context(launch({"timing": BENCH["timing"], **node}))


# --- releases of NVIDIA's tool ----------------------------------------------------------------------------------------


@pytest.fixture
def own_tool_imports() -> Iterator[None]:
    """Whatever a test imports as the tool, the next one finds what was there before."""

    def tool_modules() -> dict[str, Any]:
        return {name: module for name, module in sys.modules.items() if name.split(".")[0] in admin_tools.PACKAGES}

    before, path = tool_modules(), list(sys.path)
    yield
    for name in tool_modules():
        del sys.modules[name]
    sys.modules.update(before)
    sys.path[:] = path
    importlib.invalidate_caches()


@pytest.fixture
def newer_tool(tmp_path: Path, own_tool_imports: None) -> Callable[..., str]:
    """Copies the installed tool into a folder; it calls itself newer there, and some of its text can be replaced."""

    def copied(replacements: Mapping[str, tuple[str, str]] = MappingProxyType({})) -> str:
        installed = Path(admin_tools.load().folder)
        folder = tmp_path / "newer-tool"
        folder.mkdir()
        for name in admin_tools.PACKAGES:
            if (installed / name).is_dir():
                shutil.copytree(installed / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(installed / (name + ".py"), folder)
        for name, (before, after) in {**replacements, "cli/main.py": ("v2025.11.21", "v2031.01.02")}.items():
            text = (folder / name).read_text()
            assert before in text
            (folder / name).write_text(text.replace(before, after))
        return str(folder)

    return copied
