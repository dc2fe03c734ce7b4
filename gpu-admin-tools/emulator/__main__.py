# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""Command line: describe a node, get its sockets. `record` makes a device for a node's description."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from .faults import Fault, FaultError, parse_faults
from .node import Node, NodeError
from .recording import command
from .server import Server
from .state_file import StateError

EXIT_USAGE = 2


def build_parser() -> argparse.ArgumentParser:
    """All options."""
    parser = argparse.ArgumentParser(
        prog="python -m emulator",
        description="Emulate a node's NVIDIA GPUs and NVSwitches, each behind a vfio-user socket.",
    )
    parser.add_argument("node", metavar="NODE", help="a YAML file or the name of a shipped node")
    parser.add_argument("--sockets", required=True, type=Path, metavar="DIR", help="folder for the devices' sockets")
    parser.add_argument("--faults", type=Path, metavar="FILE.yaml", help="fault rules in force from the start")
    parser.add_argument("--log", type=Path, metavar="FILE.jsonl", help="write every access here")
    parser.add_argument("--state", type=Path, metavar="FILE.json", help="keep the knobs here between runs")
    parser.add_argument("--control", type=Path, metavar="SOCKET", help="socket for tests to steer the emulator")
    for name, what in (
        ("boot", "firmware boot after a reset"),
        ("flr", "a reset, until config space answers"),
        ("rpc", "one command to the security processor"),
    ):
        parser.add_argument(f"--{name}-s", type=float, metavar="X", help=f"seconds for {what}")
    return parser


def read_faults(path: Path | None, node: Node) -> list[Fault]:
    """The fault file, checked against the node."""
    if path is None:
        return []
    try:
        return parse_faults(yaml.safe_load(path.read_text(encoding="utf-8")), node.addresses)
    except (OSError, yaml.YAMLError) as error:
        raise FaultError(f"fault file {path} cannot be read: {' '.join(str(error).split())}") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM, SIGINT or a `quit` on the control socket."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == [command.NAME]:
        return command.main(given[1:])
    options = build_parser().parse_args(given)
    chosen = {key: getattr(options, key) for key in ("boot_s", "flr_s", "rpc_s")}
    timing = {key: value for key, value in chosen.items() if value is not None}
    try:
        node = Node.load(options.node, timing)
        server = Server(
            node,
            options.sockets,
            faults=read_faults(options.faults, node),
            log=options.log,
            state=options.state,
            control=options.control,
        )
    except (NodeError, FaultError, StateError, OSError) as error:
        print(f"emulator: {error}", file=sys.stderr)
        return EXIT_USAGE
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: server.stop())
    print(f"ready: {len(node.devices)} devices in {options.sockets}", flush=True)
    server.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
