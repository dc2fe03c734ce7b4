# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""Which capabilities a device's config space has, and how firmware leaves it: BARs, COMMAND, virtual functions."""

from __future__ import annotations

from . import replay
from .config_space import BAR0, BAR1, COMMAND, Capability, ConfigSpace, Express, Header, PowerManagement
from .extended import AlternativeRouting, HealthDvsec, HealthVsec, SerialNumber, SingleRootIov
from .models import MIB, VF_OFFSET, VF_STRIDE, Family
from .spec import DeviceSpec

# Where firmware would have put the BARs: one 64 GiB window per device above 128 GiB, BAR1 first.
WINDOW_BASE = 0x20_0000_0000
WINDOW_BYTES = 0x10_0000_0000
D3HOT = 3


def bar_sizes(spec: DeviceSpec) -> tuple[int, int]:
    """Bytes of BAR0 and BAR1."""
    if spec.recording is not None:
        return spec.recording.bars
    return spec.product.bar0_mib * MIB, spec.bar1_mib * MIB


def health(spec: DeviceSpec) -> HealthVsec | HealthDvsec | None:
    """The capability that shows security faults and the BAR firewall, where the family has one."""
    if spec.recording is not None:
        return replay.health(spec, spec.recording)
    family = spec.product.family
    if family is Family.BLACKWELL_1XX:
        return HealthDvsec()
    if family in (Family.HOPPER, Family.BLACKWELL_2XX):
        return HealthVsec(firewall=family.is_blackwell)
    return None


def virtualization(spec: DeviceSpec) -> SingleRootIov | None:
    """The SR-IOV capability of a device that has virtual functions."""
    if not spec.virtual_functions:
        return None
    return SingleRootIov(spec.device_id, spec.virtual_functions, VF_OFFSET, VF_STRIDE, bar_sizes(spec)[0])


def config_space(spec: DeviceSpec) -> ConfigSpace:
    """As it is right after a reset.

    A virtual function's ids and BARs are those that VFIO shows its user: its own registers read ffff:ffff and 0 on
    hardware (PCI Express Base, 9.3.4), and the kernel puts what it knows in their place.
    """
    if spec.recording is not None:
        return replay.config_space(spec, spec.recording)
    header = Header(spec.device_id, spec.subsystem_id, spec.product.class_code, *bar_sizes(spec))
    if spec.physical_function is not None:
        chain: list[Capability | None] = [header, Express(flr=True), AlternativeRouting()]
    else:
        chain = [header, PowerManagement(spec.no_soft_reset), Express(spec.flr), SerialNumber(spec.pdi)]
        chain += [health(spec), virtualization(spec)]
    space = ConfigSpace()
    space.seal([capability for capability in chain if capability is not None])
    return space


def program(space: ConfigSpace, spec: DeviceSpec) -> None:
    """What firmware writes at power-on; the power state is the description's."""
    space.reset()
    bar0_bytes, bar1_bytes = bar_sizes(spec)
    bar1 = WINDOW_BASE + spec.index * WINDOW_BYTES
    bar0 = bar1 + max(bar1_bytes, bar0_bytes)
    flags = replay.bar_flags(spec.recording)
    for number, register, address, size in ((0, BAR0, bar0, bar0_bytes), (1, BAR1, bar1, bar1_bytes)):
        assigned = 0 if number in spec.unassigned_bars or not size else address
        space.data[register : register + 8] = (assigned | flags[number]).to_bytes(8, "little")
    space.data[COMMAND : COMMAND + 2] = (0x0006 if spec.memory_decode else 0).to_bytes(2, "little")
    if space.pm is not None:
        space.pm.set_state(space, D3HOT if spec.power == "d3hot" else 0)


def enable_virtual_functions(space: ConfigSpace, spec: DeviceSpec) -> None:
    """What an administrator does after that: `echo N > sriov_numvfs`."""
    if (capability := virtualization(spec)) is not None:
        address = space.get(BAR0, 8) & ~0xF
        capability.enable(space, address + bar_sizes(spec)[0])
