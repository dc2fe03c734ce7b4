# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""For people: python -m tests.vm.bench build | run, from the repository's root."""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
import tempfile
import time
from pathlib import Path

from tools import cache
from tools.needs import NotPossible

from . import container, control, guest, image, qemu
from .machine import Gpu, Machine, node

sys.path.insert(0, str(cache.ROOT / "gpu-admin-tools"))
from emulator.launch import launch


def main() -> int:
    """Run one command."""
    parser = argparse.ArgumentParser(prog="python -m tests.vm.bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="fetch QEMU and NVIDIA's tool, build the guest's image and the CC manager's")
    run = commands.add_parser("run", help="boot a machine and say how to reach it, until Ctrl-C")
    run.add_argument("--gpus", type=int, default=1, metavar="N", help="how many devices")
    run.add_argument("--model", default="h100-pcie", help="which model of the emulator")
    run.add_argument("--iommu", action="store_true", help="with the IOMMU on; the stock image has it off")
    options = parser.parse_args()
    try:
        build()
        if options.command == "run":
            serve([options.model] * options.gpus, options.iommu)
    except NotPossible as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


def build() -> None:
    """Everything that the tests use, with the seconds that each took."""
    for name, make in (
        ("qemu", qemu.fetch),
        ("image", image.build),
        ("wheels", control.wheels),
        ("cc-manager", container.disk),
    ):
        started = time.monotonic()
        made = make()
        print(f"{name}: {time.monotonic() - started:.1f} s, {made}", flush=True)


def serve(models: list[str], iommu: bool) -> None:
    """Boot a machine and wait for Ctrl-C or a signal to end."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="vm-") as name:
        folder = Path(name)
        with launch(node(models), sockets=folder / "s") as emulator:
            gpus = [Gpu(one, folder / "s" / f"{one}.sock") for one in emulator.control.state()]
            machine = Machine(image.build(), folder / "m", gpus)
            try:
                machine.boot()
                if iommu:
                    guest.switch_iommu_on(machine.ssh)
                guest.install_tool(machine.ssh, control.wheels(), folder)
                inventory = folder / "inventory.json"
                inventory.write_text(json.dumps({"all": {"hosts": {control.HOST: dict(machine.variables())}}}))
                print(f"shell:     {shlex.join(machine.ssh.command())}")
                print(f"inventory: {inventory}")
                print(f"console:   {machine.console}")
                print(
                    f"tool:      python3 {guest.TOOL_FOLDER}/nvidia_gpu_tools.py --query-cc-mode (in the guest)",
                    flush=True,
                )
                while machine.is_running():
                    time.sleep(1)
            except KeyboardInterrupt:
                print("ended")
            finally:
                machine.discard()


if __name__ == "__main__":
    sys.exit(main())
