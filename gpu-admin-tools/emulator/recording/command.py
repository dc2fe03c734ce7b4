# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""`python -m emulator record`: a device of this machine, or one behind a socket, to a file."""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from .answer import with_knobs
from .errors import RecordingError
from .form import Recording, replayable
from .socket_source import SocketSource
from .source import Source
from .sysfs_source import SysfsSource
from .take import take

NAME = "record"
EXIT_USAGE, EXIT_REFUSED = 2, 1
ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")


def build_parser() -> argparse.ArgumentParser:
    """All options."""
    parser = argparse.ArgumentParser(
        prog=f"python -m emulator {NAME}",
        description="Record a GPU or an NVSwitch without a write to it, as a device that the emulator can be.",
    )
    parser.add_argument("address", metavar="ADDRESS", help="full PCI address, such as 0000:17:00.0")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="where the recording goes")
    parser.add_argument("--knobs", type=Path, metavar="FILE", help="the JSON answer of the module cc_mode_info")
    parser.add_argument("--socket", type=Path, metavar="FILE", help="a vfio-user socket instead of this machine's bus")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Record; nothing is written where nothing could be recorded."""
    options = build_parser().parse_args(arguments)
    if not ADDRESS.fullmatch(options.address):
        wrong = f'ADDRESS must be a full PCI address such as "0000:17:00.0", not {options.address!r}'
        print(f"record: {wrong}", file=sys.stderr)
        return EXIT_USAGE
    try:
        recording = record(options.address, options.socket, options.knobs)
    except RecordingError as error:
        print(f"record: {options.address}: {error}", file=sys.stderr)
        return EXIT_REFUSED
    try:
        recording.save(options.output)
    except OSError as error:
        print(f"record: {options.output} cannot be written: {error.strerror}; name another file", file=sys.stderr)
        return EXIT_USAGE
    count = len(recording.config.words), len(recording.registers)
    print(f"recorded: {count[0]} words of config space and {count[1]} registers in {options.output}")
    if why := replayable(recording):
        print(f"note: the emulator cannot replay it yet: {why}")
    return 0


def record(address: str, server: Path | None = None, knobs: Path | None = None, root: Path = Path("/")) -> Recording:
    """A recording of a device. Raises RecordingError."""
    source: Source = SysfsSource(address, root) if server is None else SocketSource(server)
    with contextlib.closing(source):
        recording = take(source)
    return recording if knobs is None else with_knobs(recording, knobs, address)
