# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Binding and giving back, on a kernel that answers as Linux does."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_pci_kernel import GPU, NVME, FakeKernel, Killed

from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import (
    ExplainedError,
    InvalidRequest,
    NotPermitted,
    RunInProgress,
    Several,
)
from ansible_collections.confidential.gpu.plugins.module_utils._core.wait import Clock
from ansible_collections.confidential.gpu.plugins.module_utils._pci.binding import Binding
from ansible_collections.confidential.gpu.plugins.module_utils._pci.errors import (
    BindRefused,
    DeviceAbsent,
    DeviceBusy,
    DriverNotLoaded,
    GroupShared,
    HostDriverInUse,
    NoDevices,
    NoIommuGroup,
)
from ansible_collections.confidential.gpu.plugins.module_utils._pci.functions import Match
from ansible_collections.confidential.gpu.plugins.module_utils._pci.request import Request

ONE = "0000:17:00.0"
SOUND = "0000:17:00.1"
OTHER = "0000:3d:00.0"
NULL = os.stat("/dev/null").st_rdev


def bring(kernel: FakeKernel, clock: Clock, *devices: str, only_plan: bool = False, **options: Any) -> Binding:
    binding = Binding(Request(devices=devices, **options), str(kernel.root), kernel, clock)
    binding.run(only_plan)
    return binding


def fails(
    kernel: FakeKernel, clock: Clock, kind: type[ExplainedError], *devices: str, **options: Any
) -> ExplainedError:
    with pytest.raises(kind) as caught:
        bring(kernel, clock, *devices, **options)
    assert type(caught.value) is kind
    error = caught.value
    assert str(error) == " ".join(filter(None, [error.cause, error.state, error.remedy]))
    return error


def state(kernel: FakeKernel) -> dict[str, tuple[str | None, str | None]]:
    return {
        address: (kernel.driver_of(address), kernel.override_of(address))
        for address in sorted(os.listdir(kernel.pci / "devices"))
    }


def test_binds_the_device_and_what_shares_its_group(kernel, clock):
    binding = bring(kernel, clock, "17:00.0")
    assert binding.is_change
    result = binding.result()
    assert result["added"] == [SOUND]
    assert result["bridges"] == ["0000:16:00.0"]
    assert result["driver"] == {"name": "vfio-pci", "loaded": True, "built_in": False}
    assert result["devices"][0] == {
        "address": ONE,
        "id": "10de:2331",
        "class": "030200",
        "group": 1,
        "added": False,
        "driver_before": "nvidia",
        "driver_after": "vfio-pci",
        "override_before": None,
        "override_after": "vfio-pci",
    }
    assert state(kernel) == {
        "0000:16:00.0": ("pcieport", None),
        ONE: ("vfio-pci", "vfio-pci"),
        SOUND: ("vfio-pci", "vfio-pci"),
        OTHER: ("nvidia", None),
    }


def test_a_second_run_writes_nothing(kernel, clock):
    bring(kernel, clock, ONE)
    kernel.writes.clear()
    binding = bring(kernel, clock, ONE)
    assert not binding.is_change
    assert binding.result()["plan"] == []
    assert binding.result()["diff"] == {"before": "", "after": ""}
    assert kernel.writes == []


def test_without_whole_group_only_the_device(kernel, clock):
    assert bring(kernel, clock, ONE, whole_group=False).result()["added"] == []
    assert kernel.driver_of(SOUND) == "snd_hda_intel"


def test_a_device_bound_by_ids_needs_no_override(kernel, clock):
    kernel.device("0000:5d:00.0", group=3, driver="vfio-pci")
    assert not bring(kernel, clock, "0000:5d:00.0").is_change
    assert kernel.override_of("0000:5d:00.0") is None


def test_check_shows_what_a_real_run_then_does(kernel, clock):
    before = state(kernel)
    planned = bring(kernel, clock, ONE, only_plan=True)
    assert planned.is_change
    assert state(kernel) == before
    assert kernel.writes == []
    made = bring(kernel, clock, ONE)
    assert planned.result() == made.result()
    assert planned.result()["plan"] == [
        {"device": SOUND, "step": "override", "before": None, "after": "vfio-pci"},
        {"device": ONE, "step": "override", "before": None, "after": "vfio-pci"},
        {"device": SOUND, "step": "unbind", "driver": "snd_hda_intel"},
        {"device": ONE, "step": "unbind", "driver": "nvidia"},
        {"device": SOUND, "step": "probe"},
        {"device": ONE, "step": "probe"},
        {"device": SOUND, "step": "verify", "driver": "vfio-pci"},
        {"device": ONE, "step": "verify", "driver": "vfio-pci"},
    ]
    assert planned.result()["diff"] == {
        "before": "%s: driver nvidia, driver_override none\n%s: driver snd_hda_intel, driver_override none\n"
        % (ONE, SOUND),
        "after": "%s: driver vfio-pci, driver_override vfio-pci\n%s: driver vfio-pci, driver_override vfio-pci\n"
        % (ONE, SOUND),
    }


@pytest.mark.parametrize("writes", range(6))
def test_a_killed_run_is_finished_by_the_next(kernel, clock, writes):
    kernel.kill_before = writes
    with pytest.raises(Killed):
        bring(kernel, clock, ONE)
    kernel.kill_before = None
    assert bring(kernel, clock, ONE).is_change
    assert {kernel.driver_of(one) for one in (ONE, SOUND)} == {"vfio-pci"}
    assert not bring(kernel, clock, ONE).is_change


@pytest.mark.parametrize("writes", range(6))
def test_a_killed_undo_is_finished_by_the_next(kernel, clock, writes):
    bring(kernel, clock, ONE)
    kernel.writes.clear()
    kernel.kill_before = writes
    with pytest.raises(Killed):
        bring(kernel, clock, ONE, state="default")
    kernel.kill_before = None
    assert bring(kernel, clock, ONE, state="default").is_change
    assert state(kernel)[ONE] == ("nvidia", None)
    assert state(kernel)[SOUND] == ("snd_hda_intel", None)
    kernel.writes.clear()
    assert not bring(kernel, clock, ONE, state="default").is_change
    assert kernel.writes == []


def test_default_says_that_the_kernel_chooses(kernel, clock):
    bring(kernel, clock, OTHER)
    planned = bring(kernel, clock, OTHER, state="default", only_plan=True).result()
    assert planned["devices"][0]["driver_after"] is None
    assert "driver the kernel's choice, driver_override none" in planned["diff"]["after"]
    assert bring(kernel, clock, OTHER, state="default").result()["devices"][0]["driver_after"] == "nvidia"


def test_default_leaves_a_device_without_a_driver_of_its_own_alone(kernel, clock):
    kernel.device("0000:5d:00.0", "10de:ffff", group=3)
    assert not bring(kernel, clock, "5d:00.0", state="default", only_plan=True).is_change
    assert not bring(kernel, clock, "5d:00.0", state="default").is_change


def test_unbound_leaves_no_driver_and_no_override(kernel, clock):
    bring(kernel, clock, ONE)
    binding = bring(kernel, clock, ONE, state="unbound")
    assert binding.is_change
    assert state(kernel)[ONE] == (None, None)
    assert binding.result()["devices"][0]["driver_after"] is None
    assert not bring(kernel, clock, ONE, state="unbound").is_change


def test_match_takes_gpus_and_nvswitches(kernel, clock):
    kernel.device("0000:05:00.0", "10de:22a3", 0x068000, group=9)
    request = Request(match=Match(devices=["0x2331", "22A3"], classes=["03", "0680"]))
    binding = Binding(request, str(kernel.root), kernel, clock)
    binding.run()
    assert [one["address"] for one in binding.result()["devices"]] == ["0000:05:00.0", ONE, SOUND, OTHER]


def test_match_that_finds_nothing(kernel, clock):
    with pytest.raises(NoDevices, match="vendor 10de, devices any, classes 12"):
        Binding(Request(match=Match(classes=["12"])), str(kernel.root), kernel, clock).run()


def test_a_host_without_a_pci_bus(tmp_path, clock):
    with pytest.raises(DeviceAbsent):
        Binding(Request(devices=[ONE]), str(tmp_path), clock=clock).run()


@pytest.mark.parametrize(
    ("match", "words"),
    [
        (Match(vendor="10"), "vendor id"),
        (Match(devices=["10de:2331"]), "device id"),
        (Match(classes=["192"]), "PCI class"),
    ],
)
def test_match_that_cannot_be_meant(kernel, clock, match, words):
    with pytest.raises(InvalidRequest, match=words):
        Binding(Request(match=match), str(kernel.root), kernel, clock).run()


@pytest.mark.parametrize(
    "options",
    [
        {"state": "gone"},
        {"driver": ""},
        {"driver": "../x"},
        {"driver": ".."},
        {"timeout_s": -1},
        {"busy_timeout_s": -1},
    ],
)
def test_requests_that_cannot_be_meant(kernel, clock, options):
    fails(kernel, clock, InvalidRequest, ONE, **options)


def test_neither_or_both_of_devices_and_match(kernel, clock):
    fails(kernel, clock, InvalidRequest)
    fails(kernel, clock, InvalidRequest, ONE, match=Match())


def test_a_bridge_is_refused(kernel, clock):
    assert "0000:16:00.0 is a bridge" in fails(kernel, clock, InvalidRequest, "16:00.0").cause


def test_a_device_that_is_not_there(kernel, clock):
    assert fails(kernel, clock, DeviceAbsent, ONE, "99:00.0").seen == {"missing": ["0000:99:00.0"]}
    assert kernel.writes == []


def test_a_driver_that_is_not_loaded(kernel, clock):
    error = fails(kernel, clock, DriverNotLoaded, ONE, driver="nvgrace_gpu_vfio_pci")
    assert "modprobe nvgrace_gpu_vfio_pci" in error.remedy


def test_load_loads_it(kernel, clock):
    kernel.modules["nvgrace_gpu_vfio_pci"] = []
    planned = bring(kernel, clock, ONE, driver="nvgrace_gpu_vfio_pci", load=True, only_plan=True)
    assert planned.result()["plan"][0] == {"step": "load", "driver": "nvgrace_gpu_vfio_pci"}
    assert planned.result()["diff"]["after"].startswith("driver nvgrace_gpu_vfio_pci: loaded\n")
    assert kernel.loads == []
    bring(kernel, clock, ONE, driver="nvgrace_gpu_vfio_pci", load=True)
    assert kernel.driver_of(ONE) == "nvgrace_gpu_vfio_pci"
    assert kernel.loads == ["nvgrace_gpu_vfio_pci"]


def test_a_driver_that_takes_the_device_while_it_is_loaded(kernel, clock):
    kernel.device("0000:5d:00.0", "10de:2bb5", group=3)
    kernel.modules["other_vfio_pci"] = ["10de:2bb5"]
    assert bring(kernel, clock, "5d:00.0", driver="other_vfio_pci", load=True).is_change
    assert kernel.writes == []


def test_a_driver_that_cannot_be_loaded(kernel, clock):
    error = fails(kernel, clock, DriverNotLoaded, ONE, driver="absent", load=True)
    assert "Module absent not found" in error.cause
    assert kernel.writes == []


def test_no_iommu_group_is_refused_before_the_first_write(kernel, clock):
    kernel.device("0000:5d:00.0", group=None, driver="nvidia")
    error = fails(kernel, clock, NoIommuGroup, OTHER, "5d:00.0")
    assert error.seen == {"devices": ["0000:5d:00.0"], "errno": errno.EINVAL}
    assert kernel.writes == []


def test_no_iommu_group_with_another_driver_or_noiommu_is_for_the_driver_to_say(kernel, clock):
    kernel.device("0000:5d:00.0", "10de:1234", group=None)
    kernel.driver("pci-stub")
    bring(kernel, clock, "5d:00.0", driver="pci-stub")
    switch = kernel.root / "sys/module/vfio/parameters/enable_unsafe_noiommu_mode"
    switch.parent.mkdir(parents=True)
    switch.write_text("Y\n")
    error = fails(kernel, clock, BindRefused, "5d:00.0")
    assert error.seen["errno"] == errno.EINVAL
    assert "EINVAL" in error.cause
    assert state(kernel)["0000:5d:00.0"] == ("pci-stub", "pci-stub")


def test_a_refused_bind_puts_override_and_driver_back(kernel, clock):
    kernel.probe_errors["vfio-pci", OTHER] = errno.EBUSY
    binding = Binding(Request(devices=[OTHER]), str(kernel.root), kernel, clock)
    with pytest.raises(BindRefused) as caught:
        binding.run()
    assert caught.value.seen == {"device": OTHER, "errno": errno.EBUSY, "driver": "vfio-pci"}
    assert "now has driver nvidia and driver_override none" in str(caught.value)
    assert state(kernel)[OTHER] == ("nvidia", None)
    assert not binding.touched()
    assert binding.result()["devices"][0]["driver_after"] == "nvidia"


def test_a_foreign_override_is_put_back(kernel, clock):
    kernel.write(kernel.pci / "devices" / OTHER / "driver_override", "nvidia\n")
    kernel.probe_errors["vfio-pci", OTHER] = errno.EIO
    assert "EIO" in fails(kernel, clock, BindRefused, OTHER).cause
    assert state(kernel)[OTHER] == ("nvidia", "nvidia")


def test_one_refusal_does_not_keep_the_others_back(kernel, clock):
    kernel.probe_errors["vfio-pci", ONE] = errno.EIO
    binding = Binding(Request(devices=[ONE, OTHER]), str(kernel.root), kernel, clock)
    with pytest.raises(BindRefused):
        binding.run()
    assert binding.touched()
    assert binding.is_change
    assert kernel.driver_of(OTHER) == "vfio-pci"
    kernel.probe_errors["vfio-pci", ONE] = errno.EIO
    kernel.device("0000:5d:00.0", group=3, driver="nvidia")
    kernel.probe_errors["vfio-pci", "0000:5d:00.0"] = errno.EIO
    error = fails(kernel, clock, Several, ONE, "5d:00.0")
    assert isinstance(error, Several)
    assert len(error.errors) == 2


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_without_rights(kernel, clock, code):
    kernel.write_errors["driver_override"] = code
    error = fails(kernel, clock, NotPermitted, OTHER)
    assert error.seen["errno"] == code
    assert state(kernel)[OTHER] == ("nvidia", None)


def test_an_unbind_that_is_refused(kernel, clock):
    kernel.write_errors["unbind"] = errno.EINTR
    assert "EINTR" in fails(kernel, clock, BindRefused, OTHER).cause
    assert state(kernel)[OTHER] == ("nvidia", None)


def test_an_unbind_that_somebody_else_did_first(kernel, clock):
    original = kernel.write

    def write(path, text):
        if path.name == "unbind":
            original(path, text)
        original(path, text)

    kernel.write = write
    bring(kernel, clock, OTHER)
    assert kernel.driver_of(OTHER) == "vfio-pci"


def test_an_unbind_without_effect(kernel, clock):
    kernel.deaf_unbind = True
    error = fails(kernel, clock, BindRefused, OTHER)
    assert "still bound to nvidia 10 s after" in error.cause
    assert clock.seconds >= 10
    assert kernel.override_of(OTHER) is None


def test_another_driver_that_takes_the_device_first(kernel, clock):
    original = kernel.write

    def write(path, text):
        if path.name == "drivers_probe":
            kernel._attach("pcieport", OTHER)
        original(path, text)

    kernel.write = write
    assert "bound to pcieport, not to vfio-pci" in fails(kernel, clock, BindRefused, OTHER).cause


def test_a_bind_that_the_probe_had_already_begun(kernel, clock):
    """drivers_probe may return before the driver is there; bind then finds it there."""
    original = kernel.write

    def write(path, text):
        if path.name == "bind":
            original(kernel.pci / "drivers_probe", text)
        if path.name != "drivers_probe":
            original(path, text)

    kernel.write = write
    bring(kernel, clock, OTHER)
    assert kernel.driver_of(OTHER) == "vfio-pci"


def test_a_held_device_is_not_touched(kernel, clock):
    bring(kernel, clock, ONE)
    kernel.writes.clear()
    kernel.hold(4711, "/dev/vfio/1")
    error = fails(kernel, clock, DeviceBusy, ONE, state="default")
    assert "process 4711 (qemu-system-x86) has /dev/vfio/1 open" in error.cause
    assert error.retryable
    assert kernel.writes == []


def test_a_held_device_that_needs_no_change_is_no_problem(kernel, clock):
    bring(kernel, clock, ONE)
    kernel.hold(4711, "/dev/vfio/1")
    assert not bring(kernel, clock, ONE).is_change


def test_a_vfio_group_that_another_namespace_has_open(kernel, clock, monkeypatch):
    bring(kernel, clock, OTHER)
    group = kernel.root / "dev/vfio/2"
    group.touch()
    with_code: list[Any] = []

    def refuse(path, flags, *rest, **named):
        if str(path) == str(group):
            raise OSError(with_code[0], "refused")
        return real(path, flags, *rest, **named)

    real = os.open
    monkeypatch.setattr(os, "open", refuse)
    with_code[:] = [errno.EBUSY]
    assert "vfio group 2 is open" in fails(kernel, clock, DeviceBusy, OTHER, state="unbound").cause
    with_code[:] = [errno.EACCES]
    (kernel.root / "proc/self/ns/pid").unlink()
    (kernel.root / "proc/self/ns/pid").symlink_to("pid:[4026532000]")
    assert "EACCES" in fails(kernel, clock, NotPermitted, OTHER, state="unbound").cause


def test_busy_wait_waits_and_looks_again(kernel, clock):
    bring(kernel, clock, OTHER)
    descriptor = kernel.hold(4711, "/dev/vfio/2")
    clock.then = (20.0, descriptor.unlink)
    assert bring(kernel, clock, OTHER, state="default", busy="wait").is_change
    assert 20 <= clock.seconds < 25


def test_busy_wait_gives_up(kernel, clock):
    bring(kernel, clock, OTHER)
    kernel.hold(4711, "/dev/vfio/2")
    fails(kernel, clock, DeviceBusy, OTHER, state="default", busy="wait", busy_timeout_s=30)
    assert clock.seconds >= 30


def test_a_virtual_machine_that_starts_while_others_are_bound(kernel, clock):
    bring(kernel, clock, ONE, OTHER)
    original = kernel.write

    def write(path, text):
        original(path, text)
        if path.name == "drivers_probe" and not (kernel.root / "proc/4711").exists():
            kernel.hold(4711, "/dev/vfio/2")

    kernel.write = write
    fails(kernel, clock, DeviceBusy, ONE, OTHER, state="default")
    assert kernel.driver_of(ONE) == "nvidia"
    assert state(kernel)[OTHER] == ("vfio-pci", "vfio-pci")


def test_the_hosts_driver_in_use(kernel, clock):
    (kernel.root / "sys/module/nvidia/refcnt").write_text("12\n")
    error = fails(kernel, clock, HostDriverInUse, ONE, OTHER)
    assert "through nvidia" in error.cause
    assert "its driver nvidia has 12 users" in error.cause
    assert error.seen["drivers"] == ["nvidia"]
    assert "vfio_remove_host_driver" in error.remedy
    assert state(kernel)[ONE] == ("nvidia", None)


def test_a_process_on_the_hosts_driver(kernel, clock):
    information = kernel.root / "proc/driver/nvidia/gpus" / OTHER / "information"
    information.parent.mkdir(parents=True)
    information.write_text("Model: H100\nDevice Minor: 1\n")
    kernel.hold(4711, "/dev/nvidia1", "nvidia-persiste")
    assert "process 4711 (nvidia-persiste) has /dev/nvidia1 open" in fails(kernel, clock, HostDriverInUse, OTHER).cause


def sound_card(kernel):
    """The companion's control device, as the kernel makes it."""
    node = kernel.pci / "devices" / SOUND / "sound/card0/controlC0"
    node.mkdir(parents=True)
    (node / "dev").write_text("%d:%d\n" % (os.major(NULL), os.minor(NULL)))
    (kernel.root / "sys/module/snd_hda_intel/refcnt").write_text("1\n")


def test_a_driver_whose_module_another_device_uses_lets_go(kernel, clock):
    sound_card(kernel)
    bring(kernel, clock, ONE)
    assert kernel.driver_of(SOUND) == "vfio-pci"


def test_a_driver_whose_device_is_open_is_busy(kernel, clock):
    sound_card(kernel)
    kernel.hold(4711, "/dev/null", "pipewire").unlink()
    (kernel.root / "proc/4711/fd/3").symlink_to("/dev/null")  # a node of any name with the card's number
    error = fails(kernel, clock, DeviceBusy, ONE)
    assert "process 4711 (pipewire) has /dev/controlC0 open" in error.cause
    assert kernel.driver_of(SOUND) == "snd_hda_intel"


def test_a_driver_whose_users_cannot_be_seen_is_not_taken_away(kernel, clock):
    sound_card(kernel)
    (kernel.root / "proc/self/ns/pid").unlink()
    (kernel.root / "proc/self/ns/pid").symlink_to("pid:[4026532000]")
    error = fails(kernel, clock, NotPermitted, ONE)
    assert "snd_hda_intel has 1 users, and which devices they use is not known" in error.cause


def test_a_disk_in_the_group_is_not_taken_along(kernel, clock):
    kernel.driver("nvme", ["1d0f:0061"], refcnt=0)
    kernel.device("0000:18:00.0", "1d0f:0061", NVME, group=2, driver="nvme")
    error = fails(kernel, clock, GroupShared, OTHER)
    assert "0000:18:00.0 (mass storage, driver nvme) in group 2" in error.cause
    assert kernel.writes == []
    bring(kernel, clock, OTHER, "18:00.0")
    assert kernel.driver_of("0000:18:00.0") == "vfio-pci"
    assert not bring(kernel, clock, OTHER).is_change
    bring(kernel, clock, OTHER, state="default")
    assert kernel.driver_of("0000:18:00.0") == "nvme"
    assert not bring(kernel, clock, OTHER, state="default").is_change


def test_another_run_keeps_this_one_away_but_not_its_plan(kernel, clock):
    lock = kernel.root / "run/nvidia/cc-manager/confidential-gpu.lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        fails(kernel, clock, RunInProgress, ONE)
        assert bring(kernel, clock, ONE, only_plan=True).is_change


def test_a_kernel_without_driver_override(kernel, clock):
    (kernel.pci / "devices" / OTHER / "driver_override").unlink()
    assert "ENOENT" in fails(kernel, clock, BindRefused, OTHER).cause


def test_a_result_before_anything_was_found(kernel, clock):
    binding = Binding(Request(devices=["99:00.0"]), str(kernel.root), kernel, clock)
    with pytest.raises(DeviceAbsent):
        binding.run()
    assert not binding.touched()
    assert binding.result()["devices"] == []


def test_a_group_is_named_once_for_two_of_its_devices(kernel, clock):
    kernel.device("0000:17:00.2", class_code=GPU, group=1, driver="nvidia")
    result = bring(kernel, clock, ONE, "17:00.2", ONE).result()
    assert [one["address"] for one in result["devices"]] == [ONE, SOUND, "0000:17:00.2"]


def before_write(kernel: FakeKernel, number: int, happens: Callable[[], None]) -> None:
    """Something happens right before the kernel sees the n-th write."""
    write = kernel.write

    def noticed(path: Path, text: str) -> None:
        if len(kernel.writes) == number:
            happens()
        write(path, text)

    kernel.write = noticed  # type: ignore[method-assign]


@pytest.mark.parametrize("wanted", ["bound", "unbound", "default"])
@pytest.mark.parametrize("number", range(5))
def test_a_device_that_goes_at_any_time_is_told_and_the_others_are_brought(kernel, clock, wanted, number):
    if wanted != "bound":
        bring(kernel, clock, ONE, OTHER, whole_group=False)
        kernel.writes.clear()

    def goes() -> None:
        (kernel.pci / "devices" / ONE).unlink()
        shutil.rmtree(kernel.root / "sys/devices/pci0000:00" / ONE)

    before_write(kernel, number if wanted != "unbound" else min(number, 3), goes)
    error = fails(kernel, clock, DeviceAbsent, ONE, OTHER, state=wanted, whole_group=False)
    assert ONE in error.cause
    assert "has gone from the bus" in error.cause
    assert kernel.driver_of(OTHER) == {"bound": "vfio-pci", "unbound": None, "default": "nvidia"}[wanted]


def test_a_device_that_somebody_takes_away_again_is_no_success(kernel, clock):
    def taken() -> None:
        (kernel.pci / "devices" / ONE / "driver").unlink()

    before_write(kernel, 4, taken)
    error = fails(kernel, clock, BindRefused, ONE, OTHER, whole_group=False)
    assert "0000:17:00.0: bound to no driver, not to vfio-pci: was bound, but somebody took it" in error.cause
