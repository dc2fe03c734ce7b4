# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""A recorded device: its words at rest, where the family's model has its own; all that moves is the model's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .config_space import BAR0, BAR1, BAR_FLAGS, Capability, ConfigSpace, Express, Header, PowerManagement
from .extended import HealthDvsec, HealthVsec, SerialNumber
from .knobs import KnobStore
from .mode import ActiveMode, knobs_for
from .recording import Recording
from .recording.bar0_words import CONDITION, MODE
from .recording.config_words import BAR_KIND, DESIGNATED, EXPRESS, POWER, SERIAL_NUMBER
from .spec import DeviceSpec

NO_SOFT_RESET = 1 << 3
FLR = 1 << 28


@dataclass(frozen=True, slots=True)
class Link(Capability):
    """A capability of which the recorded words are all there is."""

    id: int
    offset: int
    extended: bool = False

    def place(self, space: ConfigSpace) -> None:
        if self.extended:
            space.chain_extended(self.id, 0, self.offset)
        else:
            space.chain(self.id, self.offset)


@dataclass(frozen=True, slots=True)
class Recorded(Capability):
    """The recorded bits over those of the model; software cannot change them."""

    words: Mapping[int, int]
    masks: Mapping[int, int]

    def place(self, space: ConfigSpace) -> None:
        for offset, word in self.words.items():
            space.fix(offset, word, self.masks[offset])


def config_space(spec: DeviceSpec, recording: Recording) -> ConfigSpace:
    """As it is right after a reset, with the recorded capabilities in their places."""
    bar0_bytes, bar1_bytes = recording.bars
    chain: list[Capability] = [
        Header(spec.device_id, spec.subsystem_id, spec.product.class_code, bar0_bytes, bar1_bytes)
    ]
    words = recording.config.words
    for capability, at in recording.config.capabilities:
        if capability == POWER:
            chain.append(PowerManagement(bool(words[at + 4] & NO_SOFT_RESET), at))
        elif capability == EXPRESS:
            chain.append(Express(bool(words[at + 4] & FLR), at))
        else:
            chain.append(Link(capability, at))
    healthy = recording.config.health(recording.family)
    for found in recording.config.extended:
        if found.id == SERIAL_NUMBER:
            chain.append(SerialNumber(spec.pdi, found.offset))
        elif found == healthy and (shown := health(spec, recording)) is not None:
            chain.append(shown)
        else:
            chain.append(Link(found.id, found.offset, extended=True))
    space = ConfigSpace()
    space.seal([*chain, Recorded(words, recording.config.masks)])
    return space


def health(spec: DeviceSpec, recording: Recording) -> HealthVsec | HealthDvsec | None:
    """The capability of health in its recorded place, where the device has one."""
    found = recording.config.health(recording.family)
    if found is None:
        return None
    if found.id == DESIGNATED:
        return HealthDvsec(found.offset)
    return HealthVsec(firewall=spec.product.family.is_blackwell, offset=found.offset)


def bar_flags(recording: Recording | None) -> tuple[int, int]:
    """What BAR0 and BAR1 say of themselves."""
    if recording is None:
        return BAR_FLAGS, BAR_FLAGS
    words = recording.config.words
    return words[BAR0] & BAR_KIND, words.get(BAR1, 0) & BAR_KIND


def registers(recording: Recording, shown: Mapping[int, int], at_rest: bool) -> dict[int, int]:
    """What BAR0 shows: the recorded words, but the model's of all that tells of a state, unless it is at rest.

    The bits of the mode are always the model's, those beside them the recording's.
    """
    family = recording.family
    moving = () if at_rest else (*CONDITION[family], MODE[family])
    values = {**shown, **{at: word for at, word in recording.registers.items() if at not in moving}}
    mode = MODE[family]
    if at_rest:
        values[mode] = recording.registers[mode] & ~ActiveMode.mask(family) | shown[mode]
    return values


def first_mode(recording: Recording, store: KnobStore) -> ActiveMode:
    """The recorded mode; whether BAR0 is filtered is for the knobs to say where no register does."""
    family = recording.family
    latched = ActiveMode.latched(family, store)
    return ActiveMode.shown(family, recording.registers[MODE[family]], latched.bar0_filter)


def first_knobs(recording: Recording) -> dict[int, int]:
    """The recorded knobs; of a recording without, those that lead to its mode."""
    if recording.knobs is not None:
        return dict(recording.knobs)
    mode = ActiveMode.shown(recording.family, recording.registers[MODE[recording.family]])
    return knobs_for(recording.family, mode.name)
