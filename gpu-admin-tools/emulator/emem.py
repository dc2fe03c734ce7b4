# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The EMEM transport of Hopper and LS10: packets in a shared memory, queue registers as doorbells.

The FSP's external memory (EMEM) is 8 KiB, seen by the host through eight ports (an offset register that can count up
by itself, and a data register). Channel c owns bytes [1024 c, 1024 c + 1024); request and response share that area,
so a command that waits behind another is kept aside when its doorbell rings.
"""

from __future__ import annotations

from collections.abc import Callable

from . import registers as reg
from .fsp import Fsp

EMEM_BYTES = 8192
CHANNEL_BYTES = 1024
PORTS = 8
CHANNELS = (1, 2)


class _Channel:
    """One pair of queues: head and tail of the commands, head and tail of the responses."""

    def __init__(self, number: int) -> None:
        self.base = number * CHANNEL_BYTES
        self.queue_head = self.queue_tail = 0
        self.msgq_head = self.msgq_tail = 0
        self.held: list[int] | None = None
        self.unsent: list[int] | None = None


class EmemTransport:
    """Registers of the transport, as maps from offset to accessor that the device merges into its own."""

    def __init__(self, fsp: Fsp, clock: Callable[[], float]) -> None:
        self._fsp = fsp
        self._clock = clock
        fsp.deliver = self._deliver
        fsp.claim = self.claim
        fsp.has_room = lambda number: self._channels[number].unsent is None
        self.readers: dict[int, Callable[[], int]] = {}
        # The registers whose reading changes something, read without the change.
        self.peekers: dict[int, Callable[[], int]] = {}
        self.writers: dict[int, Callable[[int], None]] = {}
        for port in range(PORTS):
            self._map_port(port)
        for number in CHANNELS:
            self._map_channel(number)
        self.reset()

    def reset(self) -> None:
        """Memory, ports and queues lose their content."""
        self._memory = [0] * (EMEM_BYTES // 4)
        self._offsets = [0] * PORTS
        self._count_reads = [False] * PORTS
        self._count_writes = [False] * PORTS
        self._channels = {number: _Channel(number) for number in CHANNELS}

    def _map_port(self, port: int) -> None:
        def read_control() -> int:
            return (
                self._offsets[port]
                | reg.PFSP_EMEMC_AINCW.put(self._count_writes[port])
                | reg.PFSP_EMEMC_AINCR.put(self._count_reads[port])
            )

        def write_control(value: int) -> None:
            self._offsets[port] = value & reg.PFSP_EMEMC_OFFSET_MASK
            self._count_writes[port] = bool(reg.PFSP_EMEMC_AINCW.get(value))
            self._count_reads[port] = bool(reg.PFSP_EMEMC_AINCR.get(value))

        def peek_data() -> int:
            offset = self._offsets[port]
            return self._memory[offset // 4] if offset < EMEM_BYTES else reg.BUS_ERROR

        def read_data() -> int:
            word, offset = peek_data(), self._offsets[port]
            if self._count_reads[port]:
                self._offsets[port] = (offset + 4) & reg.PFSP_EMEMC_OFFSET_MASK
            return word

        def write_data(value: int) -> None:
            offset = self._offsets[port]
            if self._count_writes[port]:
                self._offsets[port] = (offset + 4) & reg.PFSP_EMEMC_OFFSET_MASK
            if offset < EMEM_BYTES:
                self._memory[offset // 4] = value

        self.readers[reg.PFSP_EMEMC[port]] = read_control
        self.writers[reg.PFSP_EMEMC[port]] = write_control
        self.readers[reg.PFSP_EMEMD[port]] = read_data
        self.peekers[reg.PFSP_EMEMD[port]] = peek_data
        self.writers[reg.PFSP_EMEMD[port]] = write_data

    def _map_channel(self, number: int) -> None:
        def write_queue_head(value: int) -> None:
            self._channels[number].queue_head = value
            self._ring(number)

        def write_queue_tail(value: int) -> None:
            self._channels[number].queue_tail = value

        def write_msgq_head(value: int) -> None:
            self._channels[number].msgq_head = value
            self._acknowledged()

        def write_msgq_tail(value: int) -> None:
            self._channels[number].msgq_tail = value
            self._acknowledged()

        self.readers[reg.PFSP_QUEUE_HEAD[number]] = lambda: self._channels[number].queue_head
        self.readers[reg.PFSP_QUEUE_TAIL[number]] = lambda: self._channels[number].queue_tail
        self.readers[reg.PFSP_MSGQ_HEAD[number]] = lambda: self._channels[number].msgq_head
        self.readers[reg.PFSP_MSGQ_TAIL[number]] = lambda: self._channels[number].msgq_tail
        self.writers[reg.PFSP_QUEUE_HEAD[number]] = write_queue_head
        self.writers[reg.PFSP_QUEUE_TAIL[number]] = write_queue_tail
        self.writers[reg.PFSP_MSGQ_HEAD[number]] = write_msgq_head
        self.writers[reg.PFSP_MSGQ_TAIL[number]] = write_msgq_tail

    def _ring(self, number: int) -> None:
        """The doorbell: head and tail delimit the packet; equal pointers withdraw one that still waits."""
        channel = self._channels[number]
        size = channel.queue_tail - channel.queue_head + 4
        channel.held = None
        if channel.queue_head == channel.queue_tail:
            return
        first = channel.queue_head // 4
        in_area = channel.base <= channel.queue_head and 0 < size <= CHANNEL_BYTES
        in_area = in_area and channel.queue_head + size <= channel.base + CHANNEL_BYTES
        channel.held = self._memory[first : first + size // 4] if in_area else []
        self.pump(self._clock())

    def pump(self, now: float) -> None:
        """Give the firmware the next packet that waits, if it can take one."""
        for number, channel in self._channels.items():
            if channel.held is None or channel.unsent is not None or not self._fsp.idle:
                continue
            if channel.msgq_head != channel.msgq_tail:
                continue
            packet, channel.held = channel.held, None
            channel.queue_tail = channel.queue_head
            self._fsp.accept(number, packet, now)

    def _acknowledged(self) -> None:
        for number, channel in self._channels.items():
            if channel.unsent is not None and channel.msgq_head == channel.msgq_tail:
                words, channel.unsent = channel.unsent, None
                self._deliver(number, words)
        self.pump(self._clock())

    def claim(self, words: int) -> None:
        """Let the response queues say that so many words wait for the host."""
        for channel in self._channels.values():
            channel.msgq_head = channel.base
            channel.msgq_tail = channel.base + 4 * (words - 1) & reg.ALL_ONES

    def _deliver(self, number: int, words: list[int]) -> None:
        """Put a response where the host looks for it; it stays until the host moves the tail."""
        channel = self._channels[number]
        if channel.msgq_head != channel.msgq_tail:
            channel.unsent = words
            return
        first = channel.base // 4
        self._memory[first : first + len(words)] = words
        channel.msgq_head = channel.base
        channel.msgq_tail = channel.base + 4 * (len(words) - 1)
