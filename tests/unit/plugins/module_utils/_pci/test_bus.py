# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""PCI addresses, config space and capabilities."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import InvalidRequest
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.kind import is_gpu, is_nvswitch
from ansible_collections.confidential.gpu.plugins.module_utils._pci import bus

numbers = st.tuples(st.integers(0, 0xFFFFFFFF), st.integers(0, 255), st.integers(0, 255), st.integers(0, 7))


@given(numbers, st.booleans(), st.sampled_from(["", " ", "\n"]))
def test_an_address_is_parsed_to_itself_in_lower_case(
    number: tuple[int, int, int, int], upper: bool, around: str
) -> None:
    text = "%04x:%02x:%02x.%d" % number
    given_text = around + (text.upper() if upper else text) + around
    assert bus.parse_address(given_text) == text
    assert bus.parse_address(bus.parse_address(given_text)) == text


@given(numbers)
def test_without_a_domain_it_is_domain_0(number: tuple[int, int, int, int]) -> None:
    short = "%02x:%02x.%d" % number[1:]
    assert bus.parse_address(short) == "0000:" + short


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("00000000:17:00.0", "0000:17:00.0"),  # nvidia-smi's
        ("0000:17:00.0", "0000:17:00.0"),
        ("10000:E1:00.0", "10000:e1:00.0"),  # behind Intel's VMD
        ("00010000:e1:00.0", "10000:e1:00.0"),
    ],
)
def test_every_spelling_is_the_kernels(text: str, expected: str) -> None:
    assert bus.parse_address(text) == expected


@given(st.text(max_size=20))
def test_anything_is_an_address_or_refused(text: str) -> None:
    refused: list[InvalidRequest] = []
    try:
        full = bus.parse_address(text)
    except InvalidRequest as error:
        refused.append(error)
    if refused:
        assert refused[0].seen["value"] == text
    else:
        assert bus.parse_address(full) == full


@pytest.mark.parametrize(
    "text",
    [
        "",
        "17:00",
        "17:00.8",
        "0000:17:00",
        "gpu0",
        "000:17:00.0",
        "17:00.0 x",
        1020,
        "123456789:17:00.0",
        "\uff117:00.0",
    ],
)
def test_what_is_no_address_is_refused_with_an_example(text: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        bus.parse_address(text)
    assert "is not a PCI address" in caught.value.cause
    assert "0000:17:00.0" in caught.value.remedy


def test_spaces_read_and_write_little_endian_in_three_widths(fakes: Any) -> None:
    space = fakes.Memory(bytearray(16))
    space.write32(0, 0x44332211)
    space.write16(4, 0x6655)
    space.write8(6, 0x77)
    assert space.data[:7] == bytes([0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77])
    assert (space.read8(1), space.read16(1), space.read32(1)) == (0x22, 0x3322, 0x55443322)


def test_capabilities_are_found_along_the_chain(fakes: Any) -> None:
    config = fakes.Function().config
    assert bus.capability(config, bus.CAPABILITY_PM) == 0x40
    assert bus.capability(config, bus.CAPABILITY_EXPRESS) == 0x60
    assert bus.capability(config, 0x05) is None


def test_a_chain_that_bites_its_tail_ends(fakes: Any) -> None:
    function = fakes.Function()
    function.memory.data[0x61] = 0x40
    assert bus.capability(function.config, 0x05) is None


def test_a_dead_device_has_no_capabilities(fakes: Any) -> None:
    assert bus.capability(fakes.Memory(bytearray(b"\xff" * 4096)), bus.CAPABILITY_PM) is None


def test_flr_is_a_bit_of_the_express_capability(fakes: Any) -> None:
    assert bus.has_flr(fakes.Function().config)
    assert not bus.has_flr(fakes.Function(flr=False).config)
    assert not bus.has_flr(fakes.Memory(bytearray(4096)))


def test_a_function_knows_what_it_is() -> None:
    function = bus.Function()
    for code, gpu, switch in (
        (0x030000, True, False),
        (0x030200, True, False),
        (0x068000, False, True),
        (0x020000, False, False),
    ):
        function.class_code = code
        assert (is_gpu(function), is_nvswitch(function)) == (gpu, switch)


def test_a_function_without_a_kernel_has_no_power_control_driver_or_group() -> None:
    function = bus.Function()
    function.set_power_control("on")
    assert (function.power_control(), function.driver(), function.iommu_group()) == (None, None, None)


@pytest.mark.parametrize(
    "call",
    [
        lambda: bus.Space().read8(0),
        lambda: bus.Space().write8(0, 0),
        lambda: bus.Function().open(),
        lambda: bus.Function().close(),
        lambda: bus.Function().config,
        lambda: bus.Function().bars(),
        lambda: bus.Function().map_bar(0),
        lambda: bus.Function().reset_method(),
        lambda: bus.Function().reset(),
        lambda: bus.Bus().find(),
        lambda: bus.Bus().lock_path(),
    ],
)
def test_what_a_bus_must_provide_has_no_default(call: Any) -> None:
    with pytest.raises(NotImplementedError):
        call()
