# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The MNOC transport of Blackwell: two mailboxes, one word at a time, flow controlled by ready and credit bits.

Only port 0 of the FSP's mailbox exists here. A response is read out word by word, there is nothing to acknowledge; a
response that nobody reads stays, and later ones queue behind it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from . import registers as reg
from .fsp import Fsp

PORT = 0
MAX_PACKET = 4160


class MnocTransport:
    """Registers of the transport, as maps from offset to accessor that the device merges into its own."""

    def __init__(self, fsp: Fsp, clock: Callable[[], float]) -> None:
        self._fsp = fsp
        self._clock = clock
        fsp.deliver = self._deliver
        fsp.claim = self.claim
        fsp.has_room = lambda _channel: not self._outgoing
        self.readers: dict[int, Callable[[], int]] = {
            reg.MNOC_SEND_INFO[PORT]: self._read_send_info,
            reg.MNOC_SEND_DATA[PORT]: self._read_send_data,
            reg.MNOC_RECEIVE_INFO[PORT]: self._read_receive_info,
            reg.MNOC_RECEIVE_DATA[PORT]: lambda: 0,
        }
        # The register whose reading changes something, read without the change.
        self.peekers: dict[int, Callable[[], int]] = {reg.MNOC_SEND_DATA[PORT]: self._peek_send_data}
        self.writers: dict[int, Callable[[int], None]] = {
            reg.MNOC_RECEIVE_INFO[PORT]: self._start,
            reg.MNOC_RECEIVE_DATA[PORT]: self._push,
        }
        self.reset()

    def reset(self) -> None:
        """Mailboxes lose their content."""
        self._incoming: list[int] = []
        self._expected = 0
        self._receive_error = False
        # Each with how many words it claims to have.
        self._outgoing: deque[tuple[list[int], int]] = deque()
        self._read_words = 0
        self._send_error = False

    def pump(self, now: float) -> None:
        """Nothing waits here: a host that is not told to be ready does not send."""

    def _read_receive_info(self) -> int:
        """Ready between messages, credit within one."""
        receiving = self._expected > 0
        return (
            reg.MNOC_SIZE.put(self._expected)
            | reg.MNOC_READY.put(self._fsp.idle and not receiving)
            | reg.MNOC_ERROR.put(self._receive_error)
            | reg.MNOC_CREDIT.put(self._fsp.idle)
        )

    def _start(self, value: int) -> None:
        """Begin a message: clears an error, and drops a message that was not finished."""
        if not reg.MNOC_START.get(value):
            return
        size = reg.MNOC_SIZE.get(value)
        self._incoming = []
        self._expected = 0
        self._receive_error = self._send_error = False
        if not self._fsp.idle or size == 0 or size % 4 or size > MAX_PACKET:
            self._receive_error = True
            return
        self._expected = size

    def _push(self, value: int) -> None:
        if not self._expected:
            self._receive_error = True
            return
        self._incoming.append(value)
        if len(self._incoming) * 4 == self._expected:
            packet, self._incoming, self._expected = self._incoming, [], 0
            self._fsp.accept(PORT, packet, self._clock())

    def claim(self, words: int) -> None:
        """Let the last message claim so many words; the size field of the mailbox has 20 bits."""
        message, _ = self._outgoing.pop() if self._outgoing else ([], 0)
        self._outgoing.append((message, min(words, reg.MNOC_SIZE.mask // 4)))

    def _deliver(self, _channel: int, words: list[int]) -> None:
        self._outgoing.append((words, len(words)))

    def _read_send_info(self) -> int:
        """The size stays while the words are read out, ready drops with the last one."""
        size = 4 * self._outgoing[0][1] if self._outgoing else 0
        return reg.MNOC_SIZE.put(size) | reg.MNOC_READY.put(size > 0) | reg.MNOC_ERROR.put(self._send_error)

    def _peek_send_data(self) -> int:
        if not self._outgoing:
            return 0
        words = self._outgoing[0][0]
        return words[self._read_words] if self._read_words < len(words) else reg.BUS_ERROR

    def _read_send_data(self) -> int:
        word = self._peek_send_data()
        if not self._outgoing:
            self._send_error = True
            return word
        self._read_words += 1
        if self._read_words == self._outgoing[0][1]:
            self._outgoing.popleft()
            self._read_words = 0
        return word
