# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Command line: describe a fleet, get its API."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import yaml

from .errors import DataError
from .server import Emulator
from .world import load, world_of

EXIT_USAGE = 2


def build_parser() -> argparse.ArgumentParser:
    """All options."""
    parser = argparse.ArgumentParser(
        prog="python -m bmm_emulator",
        description="Emulate the REST API of NVIDIA's bare-metal manager.",
    )
    parser.add_argument(
        "data", metavar="DATA.yml", nargs="?", type=Path, help="what there is; without it, four instances"
    )
    parser.add_argument(
        "--listen", default="127.0.0.1:0", metavar="HOST:PORT", help="default 127.0.0.1 and a free port"
    )
    parser.add_argument("--faults", type=Path, metavar="FILE.yml", help="fault rules in force from the start")
    parser.add_argument("--log", type=Path, metavar="FILE.jsonl", help="write every request here")
    parser.add_argument("--tls-cert", type=Path, metavar="FILE.pem", help="serve HTTPS with this certificate")
    parser.add_argument("--tls-key", type=Path, metavar="FILE.pem", help="its key")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT."""
    options = build_parser().parse_args(arguments)
    host, _, port = options.listen.rpartition(":")
    tls = (options.tls_cert, options.tls_key or options.tls_cert) if options.tls_cert else None
    try:
        world = load(options.data) if options.data else world_of({"instances": [SAMPLE]})
        emulator = Emulator(world, host.strip("[]"), int(port), options.log, tls)
        if options.faults:
            emulator.add_faults(yaml.safe_load(options.faults.read_text(encoding="utf-8")))
    except (DataError, yaml.YAMLError, OSError, ValueError) as error:
        print(f"bmm_emulator: {error}", file=sys.stderr)
        return EXIT_USAGE
    for number in (signal.SIGTERM, signal.SIGINT):
        # Not in the handler's own thread: it is the one that serves.
        signal.signal(number, lambda _number, _frame: threading.Thread(target=emulator.stop).start())
    token = world.tokens[0] if world.tokens else "from /oidc/token"
    print(f"ready: {emulator.url} org {world.org} api {world.api} token {token}", flush=True)
    emulator.run()
    return 0


SAMPLE = {"name": "gpu-{n}", "count": 4, "type": "gpu.8xh100", "addresses": ["10.0.0.0/24"]}

if __name__ == "__main__":
    sys.exit(main())
