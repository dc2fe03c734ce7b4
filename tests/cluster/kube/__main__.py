# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""For people: python -m tests.cluster.kube build | run | show, from the repository's root."""

from __future__ import annotations

import argparse
import signal
import sys
import time

from tools.needs import NotPossible

from .cluster import running
from .programs import EVERY, OF_THE_SUITE, check_machine
from .show import show


def main() -> int:
    """Run one command."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.kube", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="build the programs into .cache/cluster: ten minutes, once")
    build.add_argument(
        "names", nargs="*", choices=[[], *EVERY], metavar="NAME", help="some of them: " + ", ".join(EVERY)
    )
    commands.add_parser("run", help="start a cluster and say how to reach it, until Ctrl-C")
    commands.add_parser("show", help="a change of the mode, as kubectl shows it")
    options = parser.parse_args()
    try:
        check_machine()
        if options.command == "build":
            for name in options.names or [program.name for program in OF_THE_SUITE]:
                began = time.monotonic()
                path = EVERY[name].path()
                print(f"{name}: {time.monotonic() - began:.1f} s, {path.stat().st_size >> 20} MiB", flush=True)
        elif options.command == "show":
            show()
        else:
            serve()
    except NotPossible as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1
    return 0


def serve() -> None:
    """A cluster until Ctrl-C or a signal to end."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    try:
        with running() as cluster:
            print(f"ready after {time.monotonic() - began:.1f} s, in {cluster.folder}")
            kubectl = [str(EVERY["kubectl"].path()), "--kubeconfig", cluster.settings.path("admin.kubeconfig")]
            print(f"kubectl: {' '.join(cluster.space.entered(kubectl))}", flush=True)
            signal.pause()
    except KeyboardInterrupt:
        print("ended")


if __name__ == "__main__":
    sys.exit(main())
