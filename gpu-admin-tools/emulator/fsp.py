# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The FSP's firmware: puts MCTP packets together, carries out PRC commands, answers after the RPC's latency.

Layer: between the transports (`emem.py`, `mnoc.py`), which move packets of words, and the knobs.
Sources: DMTF DSP0236 for the packet header, `docs/hardware.md` section 5 for the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from .faults import Fault
from .knobs import NAMES, KnobStore
from .registers import Field

NEVER = float("inf")

# MCTP transport header.
MCTP_VERSION = Field(3, 0)
MCTP_TAG = Field(26, 24)
MCTP_SEQUENCE = Field(29, 28)
MCTP_EOM = Field(30, 30)
MCTP_SOM = Field(31, 31)
# MCTP message header.
MESSAGE_TYPE = Field(6, 0)
MESSAGE_VENDOR = Field(23, 8)
MESSAGE_NVDM = Field(31, 24)
TYPE_VENDOR_PCI = 0x7E
VENDOR_NVIDIA = 0x10DE
NVDM_PRC = 0x13
NVDM_FSP_RESPONSE = 0x15
# First word of a PRC command.
PRC_COMMAND = Field(7, 0)
PRC_SCOPE = Field(15, 8)
PRC_KNOB = Field(31, 16)
PRC_SCOPE_KNOB = 0x2
PRC_KNOB_READ = 0x0C
PRC_KNOB_WRITE = 0x0D
# ECC, reset coupling and NVLink blocking: answered with success, without an effect that could be observed here.
PRC_ACCEPTED = frozenset({0x01, 0x04, 0x0A})

SUCCESS = 0
# Documented: a knob that this firmware does not have.
ERROR_INVALID_KNOB = 0x1E3
# The emulator's own choices; hardware answers such requests with codes that are not public.
ERROR_NOT_IN_BAND = 0x1EA
ERROR_BAD_HEADER = 0x1EB
ERROR_BAD_SEQUENCE = 0x1EC
ERROR_BAD_LENGTH = 0x1ED
ERROR_UNKNOWN_COMMAND = 0x1EE
ERROR_UNKNOWN_MESSAGE = 0x1EF


@dataclass(frozen=True, slots=True)
class RpcRecord:
    """One finished command, for the counters and the log."""

    channel: int
    command: str
    knob: str | None
    value: int | None
    code: int


class Owner(Protocol):
    """What the firmware needs of the device around it."""

    def fire(self, event: str, knob: str | None = None) -> list[Fault]:
        """Count an event and return the faults that strike on it."""

    def rpc_done(self, record: RpcRecord) -> None:
        """Count and log a command."""


@dataclass(slots=True)
class _Assembly:
    """A request of several packets, half received."""

    words: list[int]
    sequence: int


@dataclass(slots=True)
class _Outcome:
    """What a command led to, before it is a response."""

    code: int
    data: list[int]
    command: str
    knob: int | None = None
    value: int | None = None


@dataclass(frozen=True, slots=True)
class _Reply:
    """A response on its way to the host: one packet, or with `endless` the first of packets none of which is last."""

    channel: int
    words: list[int]
    claimed_words: int = 0
    endless: bool = False


def _next_part(words: list[int]) -> list[int]:
    """A packet that goes on with the message and does not end it."""
    sequence = (MCTP_SEQUENCE.get(words[0]) + 1) % 4
    return [MCTP_SEQUENCE.put(sequence) | MCTP_TAG.put(MCTP_TAG.get(words[0])), *words[1:]]


class Fsp:
    """One security processor; handles one command at a time, for whichever channel it came from."""

    def __init__(self, knobs: KnobStore, owner: Owner, rpc_s: float, seed: int) -> None:
        self._knobs = knobs
        self._owner = owner
        self._rpc_s = rpc_s
        self._noise = seed & 0xFFFFFFFF
        self.deliver: Callable[[int, list[int]], None] = lambda _channel, _words: None
        # Whether the host has taken enough of what was delivered for more.
        self.has_room: Callable[[int], bool] = lambda _channel: True
        # Make the response that waits for the host look longer than it is.
        self.claim: Callable[[int], None] = lambda _words: None
        self.booted = False
        self.deadline = NEVER
        self._reply: _Reply | None = None
        self._partial: dict[int, _Assembly] = {}

    def reset(self) -> None:
        """Everything but the knobs is volatile."""
        self.booted = False
        self.deadline = NEVER
        self._reply = None
        self._partial = {}

    @property
    def idle(self) -> bool:
        """Takes a packet now; otherwise it has to wait in its queue."""
        return self.booted and self._reply is None

    def advance(self, now: float) -> None:
        """Hand over the response whose time has come."""
        if self._reply is None or now < self.deadline:
            return
        reply = self._reply
        if reply.endless:
            self.deadline = now + self._rpc_s
            if not self.has_room(reply.channel):
                return
            # The next part is on its way when this one is handed over; the firmware takes no other command.
            self._reply = _Reply(reply.channel, _next_part(reply.words), endless=True)
        else:
            self._reply = None
            self.deadline = NEVER
        self.deliver(reply.channel, reply.words)
        if reply.claimed_words:
            self.claim(reply.claimed_words)

    def accept(self, channel: int, packet: Sequence[int], now: float) -> None:
        """Take one packet; the last one of a message starts the command."""
        header = packet[0] if packet else 0
        if not packet or MCTP_VERSION.get(header) != 0:
            self._refuse(channel, ERROR_BAD_HEADER, now)
            return
        sequence = MCTP_SEQUENCE.get(header)
        if MCTP_SOM.get(header):
            self._partial[channel] = _Assembly(list(packet[1:]), sequence)
        else:
            partial = self._partial.get(channel)
            if partial is None or sequence != (partial.sequence + 1) % 4:
                self._refuse(channel, ERROR_BAD_SEQUENCE, now)
                return
            partial.words += packet[1:]
            partial.sequence = sequence
        if MCTP_EOM.get(header):
            self._execute(channel, self._partial.pop(channel).words, MCTP_TAG.get(header), now)

    def _refuse(self, channel: int, code: int, now: float) -> None:
        self._partial.pop(channel, None)
        self._respond(channel, 0, 0, _Outcome(code, [], "malformed"), [], now)

    def _execute(self, channel: int, message: list[int], tag: int, now: float) -> None:
        header = message[0] if message else 0
        nvdm = MESSAGE_NVDM.get(header)
        faults = self._owner.fire("rpc")
        if MESSAGE_TYPE.get(header) != TYPE_VENDOR_PCI or MESSAGE_VENDOR.get(header) != VENDOR_NVIDIA:
            outcome = _Outcome(ERROR_BAD_HEADER, [], "malformed")
        elif nvdm != NVDM_PRC:
            outcome = _Outcome(ERROR_UNKNOWN_MESSAGE, [], f"nvdm-{nvdm:#x}")
        else:
            outcome = self._prc(message[1:], faults)
        self._respond(channel, tag, nvdm, outcome, faults, now)

    def _prc(self, payload: list[int], faults: list[Fault]) -> _Outcome:
        if not payload:
            return _Outcome(ERROR_BAD_LENGTH, [], "malformed")
        command = PRC_COMMAND.get(payload[0])
        if command in PRC_ACCEPTED:
            return _Outcome(SUCCESS, [], f"prc-{command:#x}")
        if command not in (PRC_KNOB_READ, PRC_KNOB_WRITE) or PRC_SCOPE.get(payload[0]) != PRC_SCOPE_KNOB:
            return _Outcome(ERROR_UNKNOWN_COMMAND, [], f"prc-{command:#x}")
        name = "knob_read" if command == PRC_KNOB_READ else "knob_write"
        knob = PRC_KNOB.get(payload[0])
        if len(payload) != (1 if command == PRC_KNOB_READ else 2):
            return _Outcome(ERROR_BAD_LENGTH, [], name, knob)
        faults += self._owner.fire(name, NAMES.get(knob, str(knob)))
        for fault in faults:
            if fault.action == "rpc_error":
                return _Outcome(fault.code, [], name, knob)
        if knob not in self._knobs:
            return _Outcome(ERROR_INVALID_KNOB, [], name, knob)
        if command == PRC_KNOB_READ:
            value = self._knobs[knob]
            return _Outcome(SUCCESS, [value | self._next_noise() << 16], name, knob, value)
        return self._write_knob(knob, payload[1] & 0xFFFF, faults)

    def _write_knob(self, knob: int, value: int, faults: list[Fault]) -> _Outcome:
        if self._knobs.is_locked(knob):
            return _Outcome(ERROR_NOT_IN_BAND, [], "knob_write", knob, value)
        if not any(fault.action == "stick" for fault in faults):
            self._knobs.store({knob: value})
        return _Outcome(SUCCESS, [], "knob_write", knob, value)

    def _next_noise(self) -> int:
        """The upper half of a value read is not initialised on hardware; a client must mask it."""
        self._noise = (self._noise * 1103515245 + 12345) & 0xFFFFFFFF
        return self._noise >> 16 | 1

    def _respond(self, channel: int, tag: int, nvdm: int, outcome: _Outcome, faults: list[Fault], now: float) -> None:
        knob = None if outcome.knob is None else NAMES.get(outcome.knob, str(outcome.knob))
        delay = self._rpc_s
        response_type = NVDM_FSP_RESPONSE
        length: int | None = None
        claimed_words, endless = 0, False
        code = outcome.code
        for fault in faults:
            if fault.action == "rpc_timeout":
                self._owner.rpc_done(RpcRecord(channel, outcome.command, knob, outcome.value, outcome.code))
                return
            if fault.action == "rpc_error":
                code = fault.code
            elif fault.action == "rpc_late":
                delay = fault.seconds
            elif fault.action == "rpc_garble":
                response_type = NVDM_FSP_RESPONSE + 1
            elif fault.action == "rpc_short":
                length = 3
            elif fault.action == "rpc_huge":
                claimed_words = fault.words
            elif fault.action == "rpc_drip":
                endless = True
        data = outcome.data if code == SUCCESS else []
        words = [
            MCTP_SOM.mask | (0 if endless else MCTP_EOM.mask) | MCTP_TAG.put(tag),
            MESSAGE_TYPE.put(TYPE_VENDOR_PCI) | MESSAGE_VENDOR.put(VENDOR_NVIDIA) | MESSAGE_NVDM.put(response_type),
            0,
            nvdm,
            code,
            *data,
        ]
        self._owner.rpc_done(RpcRecord(channel, outcome.command, knob, outcome.value, code))
        self._reply = _Reply(channel, words[:length], claimed_words, endless)
        self.deadline = now + delay
