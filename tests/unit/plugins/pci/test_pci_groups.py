# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Functions that share an IOMMU group: they move together or not at all, and the host keeps what it needs."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from fake_pci_kernel import FakeKernel, Killed
from test_pci_binding import ONE, OTHER, SOUND, bring, fails, state

from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import InvalidRequest
from ansible_collections.confidential.gpu.plugins.module_utils._pci.errors import BindRefused, DeviceBusy, GroupShared

AT_HOST = {ONE: ("nvidia", None), SOUND: ("snd_hda_intel", None)}
AT_VFIO = {ONE: ("vfio-pci", "vfio-pci"), SOUND: ("vfio-pci", "vfio-pci")}
BESIDE = "0000:18:00.0"


def card(kernel: FakeKernel) -> dict[str, tuple[str | None, str | None]]:
    return {address: had for address, had in state(kernel).items() if address in (ONE, SOUND)}


def is_mixed(kernel: FakeKernel) -> bool:
    """Whether a driver of the host's has one of the card's functions and vfio another."""
    drivers = {driver for driver, _override in card(kernel).values()} - {None}
    return "vfio-pci" in drivers and drivers != {"vfio-pci"}


def watch(kernel: FakeKernel) -> list[dict[str, tuple[str | None, str | None]]]:
    """What the card was after each write."""
    seen: list[dict[str, tuple[str | None, str | None]]] = []
    write = kernel.write

    def watched(path: Path, text: str) -> None:
        try:
            write(path, text)
        finally:
            assert not is_mixed(kernel)
            seen.append(card(kernel))

    kernel.write = watched  # type: ignore[method-assign]
    return seen


def refuse(kernel: FakeKernel, name: str, address: str) -> None:
    """The kernel refuses one attribute for one function."""
    write = kernel.write

    def refusing(path: Path, text: str) -> None:
        if path.name == name and address in (text.strip(), path.parent.name):
            raise OSError(errno.EIO, "refused")
        write(path, text)

    kernel.write = refusing  # type: ignore[method-assign]


def test_on_no_write_vfio_and_a_driver_of_the_hosts_share_the_card(kernel, clock):
    seen = watch(kernel)
    bring(kernel, clock, ONE)
    assert len(seen) == 6
    bring(kernel, clock, ONE, state="default")
    assert len(seen) == 12
    assert card(kernel) == AT_HOST
    # The companion came first, both ways.
    assert [one[SOUND][0] for one in seen[4:6]] == ["vfio-pci", "vfio-pci"]
    assert [one[ONE][0] for one in seen[4:6]] == [None, "vfio-pci"]
    assert [one[SOUND][0] for one in seen[10:12]] == ["snd_hda_intel", "snd_hda_intel"]
    assert [one[ONE][0] for one in seen[10:12]] == [None, "nvidia"]


@pytest.mark.parametrize("writes", range(6))
@pytest.mark.parametrize("way", ["there", "back"])
def test_a_kill_at_any_write_leaves_no_mixed_card_and_the_next_run_finishes_either_way(kernel, clock, writes, way):
    if way == "back":
        bring(kernel, clock, ONE)
    options: dict[str, dict[str, Any]] = {"there": {}, "back": {"state": "default"}}
    for after in ("there", "back"):
        kernel.writes.clear()
        kernel.kill_before = writes
        with pytest.raises(Killed):
            bring(kernel, clock, ONE, **options[way])
        kernel.kill_before = None
        assert not is_mixed(kernel)
        bring(kernel, clock, ONE, **options[after])
        assert card(kernel) == {"there": AT_VFIO, "back": AT_HOST}[after]
        bring(kernel, clock, ONE, **options["there" if way == "back" else "back"])


@pytest.mark.parametrize("address", [ONE, SOUND])
@pytest.mark.parametrize("attribute", ["driver_override", "unbind", "bind"])
def test_a_function_that_is_refused_puts_the_group_back(kernel, clock, address, attribute):
    kernel.probe_errors["vfio-pci", address] = errno.EBUSY if attribute == "bind" else 0
    if attribute != "bind":
        refuse(kernel, attribute, address)
    watch(kernel)
    error = fails(kernel, clock, BindRefused, ONE, OTHER)
    assert card(kernel) == AT_HOST
    assert error.cause.startswith(address)
    if (address, attribute) != (SOUND, "driver_override"):
        assert "%s now has driver nvidia and driver_override none" % ONE in error.state
    assert "%s now has driver snd_hda_intel and driver_override none" % SOUND in error.state
    assert kernel.driver_of(OTHER) == "vfio-pci"  # another group does not suffer


@pytest.mark.parametrize("address", [ONE, SOUND])
def test_a_function_that_is_refused_on_the_way_back_keeps_the_group_at_vfio(kernel, clock, address):
    bring(kernel, clock, ONE)
    refuse(kernel, "unbind", address)
    watch(kernel)
    fails(kernel, clock, BindRefused, ONE, state="default")
    assert card(kernel) == AT_VFIO


def test_a_companion_that_a_virtual_machine_took_meanwhile_is_left_to_it(kernel, clock):
    kernel.probe_errors["vfio-pci", ONE] = errno.EBUSY
    write = kernel.write

    def taken(path: Path, text: str) -> None:
        if path.name == "bind" and text.strip() == ONE:
            kernel.hold(4711, "/dev/vfio/1")
        write(path, text)

    kernel.write = taken
    error = fails(kernel, clock, BindRefused, ONE)
    assert card(kernel) == {ONE: (None, "vfio-pci"), SOUND: ("vfio-pci", "vfio-pci")}
    assert "%s now has driver none and driver_override vfio-pci" % ONE in error.state


# address beside the GPU, id, class, driver, what the message calls it
HOSTS = [
    ("8086:a0ed", 0x0C0330, "xhci_hcd", "USB controller"),
    ("1022:1486", 0x108000, "ccp", "encryption controller"),
    ("1a03:2000", 0x030000, "ast", "display, such as a BMC's"),
    ("8086:a13d", 0x070002, "serial", "serial port"),
    ("8086:2020", 0x050000, "skx_edac", "memory controller"),
    ("1022:1481", 0x080600, "amd_iommu", "system peripheral"),
    ("15b3:1021", 0x020700, "mlx5_core", "network"),
    ("1d0f:0061", 0x010802, "nvme", "mass storage"),
    ("8086:a123", 0x0C0500, "i801_smbus", "serial bus"),
    ("10ee:5000", 0x120000, "xclmgmt", "class 120000"),
    ("10de:0057", 0x020000, "forcedeth", "network"),
]


@pytest.mark.parametrize(("id", "class_code", "driver", "words"), HOSTS)
def test_what_the_host_has_a_driver_for_needs_a_word(kernel, clock, id, class_code, driver, words):
    kernel.driver(driver, [id], refcnt=0)
    kernel.device(BESIDE, id, class_code, group=2, driver=driver)
    for wanted in ("bound", "unbound"):
        error = fails(kernel, clock, GroupShared, OTHER, state=wanted)
        assert "%s (%s" % (BESIDE, words) in error.cause
        assert "driver %s) in group 2" % driver in error.cause
        assert "name the function in companions" in error.remedy
    assert kernel.writes == []
    bring(kernel, clock, OTHER, companions=["18:00.0", "99:00.0"])
    assert kernel.driver_of(BESIDE) == "vfio-pci"
    assert not bring(kernel, clock, OTHER).is_change
    bring(kernel, clock, OTHER, state="default")
    assert (kernel.driver_of(BESIDE), kernel.driver_of(OTHER)) == (driver, "nvidia")


@pytest.mark.parametrize(("id", "class_code", "driver", "words"), [one for one in HOSTS if one[1] != 0x120000])
def test_what_the_host_may_need_and_has_no_driver_for_is_left(kernel, clock, id, class_code, driver, words):
    kernel.device(BESIDE, id, class_code, group=2)
    result = bring(kernel, clock, OTHER).result()
    assert (result["left"], result["added"]) == ([BESIDE], [])
    assert state(kernel)[BESIDE] == (None, None)
    assert bring(kernel, clock, OTHER, companions=[BESIDE]).result()["added"] == [BESIDE]
    assert kernel.driver_of(BESIDE) == "vfio-pci"


@pytest.mark.parametrize(
    ("address", "id", "class_code"),
    [
        ("0000:3d:00.2", "10de:1ad6", 0x0C0330),  # USB of the card
        ("0000:3d:00.1", "10b5:1234", 0x0C0330),  # another maker's part on the card
        ("0000:18:00.0", "10de:2331", 0x030200),  # another GPU
        ("0000:18:00.0", "10de:22a3", 0x068000),  # an NVSwitch
        ("0000:18:00.1", "10de:22b8", 0x040300),
    ],
)
def test_what_is_nvidias_or_of_the_same_card_comes_along(kernel, clock, address, id, class_code):
    kernel.driver("hosts", [id], refcnt=0)
    kernel.device(address, id, class_code, group=2, driver="hosts")
    assert bring(kernel, clock, OTHER).result()["added"] == [address]
    assert kernel.driver_of(address) == "vfio-pci"


@pytest.mark.parametrize("class_code", [0x060000, 0x060100, 0x060400, 0x068000])
def test_bridges_of_any_kind_keep_their_driver(kernel, clock, class_code):
    kernel.driver("lpc", refcnt=0)
    kernel.device(BESIDE, "8086:a1c1", class_code, group=2, driver="lpc")
    result = bring(kernel, clock, OTHER, companions=[BESIDE]).result()
    assert (result["bridges"], result["added"], result["left"]) == ([BESIDE], [], [])
    assert kernel.driver_of(BESIDE) == "lpc"


def test_a_word_that_was_killed_on_its_way_is_kept(kernel, clock):
    kernel.driver("nvme", ["1d0f:0061"], refcnt=0)
    kernel.device(BESIDE, "1d0f:0061", 0x010802, group=2, driver="nvme")
    kernel.kill_before = 4
    with pytest.raises(Killed):
        bring(kernel, clock, OTHER, companions=[BESIDE])
    kernel.kill_before = None
    assert state(kernel)[BESIDE] == (None, "vfio-pci")
    bring(kernel, clock, OTHER)
    assert kernel.driver_of(BESIDE) == "vfio-pci"
    kernel.writes.clear()
    kernel.kill_before = 4
    with pytest.raises(Killed):
        bring(kernel, clock, OTHER, state="default")
    kernel.kill_before = None
    assert state(kernel)[BESIDE] == (None, None)
    bring(kernel, clock, OTHER, state="default")
    assert kernel.driver_of(BESIDE) == "nvme"


def test_default_does_not_touch_what_was_never_given_away(kernel, clock):
    kernel.driver("nvme", ["1d0f:0061"], refcnt=0)
    kernel.device(BESIDE, "1d0f:0061", 0x010802, group=2, driver="nvme")
    bring(kernel, clock, OTHER, whole_group=False)
    (kernel.pci / "devices" / BESIDE / "driver_override").write_text("nvme\n")  # an administrator's
    kernel.writes.clear()
    bring(kernel, clock, OTHER, state="default")
    assert state(kernel)[BESIDE] == ("nvme", "nvme")
    assert kernel.driver_of(OTHER) == "nvidia"


def test_a_driver_that_takes_a_companion_while_this_run_waits_is_not_overruled(kernel, clock):
    kernel.driver("xclmgmt", refcnt=0)
    kernel.device(BESIDE, "10ee:5000", 0x120000, group=2)
    descriptor = kernel.hold(4711, "/sys/devices/pci0000:00/%s/config" % OTHER)

    def taken() -> None:
        descriptor.unlink()
        kernel._attach("xclmgmt", BESIDE)

    clock.then = (20.0, taken)
    fails(kernel, clock, GroupShared, OTHER, busy="wait")
    assert kernel.writes == []


def test_a_companion_that_is_no_address(kernel, clock):
    fails(kernel, clock, InvalidRequest, ONE, companions=["nvme0"])


def test_what_has_no_driver_and_no_use_for_a_host_comes_along(kernel, clock):
    kernel.device(BESIDE, "1022:148a", 0x130000, group=2)  # a dummy function of the root complex
    assert bring(kernel, clock, OTHER).result()["added"] == [BESIDE]
    assert kernel.driver_of(BESIDE) == "vfio-pci"


def test_a_function_that_is_taken_after_the_first_write_is_not_touched_and_the_others_come_back(kernel, clock):
    bring(kernel, clock, ONE)
    write = kernel.write

    def taken(path: Path, text: str) -> None:
        write(path, text)
        if path.name == "unbind":
            kernel.hold(4711, "/sys/devices/pci0000:00/%s/config" % ONE)

    kernel.write = taken
    error = fails(kernel, clock, DeviceBusy, ONE, state="default")
    assert "process 4711" in error.cause
    assert card(kernel) == AT_VFIO


def test_a_refused_group_takes_twelve_writes(kernel, clock):
    """So many kills there are in the next test."""
    kernel.probe_errors["vfio-pci", ONE] = errno.EBUSY
    fails(kernel, clock, BindRefused, ONE)
    assert len(kernel.writes) == 12


@pytest.mark.parametrize("after", ["there", "back"])
@pytest.mark.parametrize("writes", range(12))
def test_a_kill_while_a_refused_group_is_put_back_is_mended_too(kernel, clock, writes, after):
    kernel.probe_errors["vfio-pci", ONE] = errno.EBUSY
    kernel.kill_before = writes
    with pytest.raises(Killed):
        bring(kernel, clock, ONE)
    assert len(kernel.writes) == writes
    kernel.kill_before = None
    assert not is_mixed(kernel)
    kernel.probe_errors.clear()
    bring(kernel, clock, ONE, state="bound" if after == "there" else "default")
    assert card(kernel) == {"there": AT_VFIO, "back": AT_HOST}[after]
