# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Soak the CC manager: SOAK_S=3600 SOAK_SEED=1 python -m tests.soak

The CC manager's process, with its playbooks, follows a node of two emulated GPUs in a real API server. By chance users,
pods, the API's weather and devices make trouble; after each round all is well again, the node must come to rest, and
the CC manager is measured. In the end no quantity may have grown by more than its limit. A seed gives the same row of
troubles again; where in a change each of them strikes is the machine's chance. Everything that was said and sampled
lies in tests/output/soak. 0: all kept; 1: something grew, or was seen that must not be; 2: it could not run.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
for extra in (ROOT / "tests", ROOT / "container", ROOT / "gpu-admin-tools"):
    sys.path.insert(0, str(extra))

from tests.cloud.server import running  # noqa: E402
from tests.soak import measure, slopes  # noqa: E402
from tests.soak.run import Soak, soaking  # noqa: E402
from tests.soak.watchman import Broken  # noqa: E402
from tools.needs import NotPossible  # noqa: E402

DEFAULT_S = 3600.0
OUTPUT = ROOT / "tests/output/soak"


def main() -> int:
    """Run, print, write; the exit status."""
    try:
        seconds = float(os.environ.get("SOAK_S") or DEFAULT_S)
        seed = int(os.environ.get("SOAK_SEED") or random.SystemRandom().randrange(1 << 32))
    except ValueError as error:
        print(f"soak: SOAK_S is a number of seconds and SOAK_SEED a whole number: {error}", file=sys.stderr)
        return 2
    OUTPUT.mkdir(parents=True, exist_ok=True)
    print(f"soak: {seconds:.0f} s, SOAK_SEED={seed}", flush=True)
    try:
        with running() as server, tempfile.TemporaryDirectory(prefix="soak") as name:
            with (OUTPUT / "rounds.log").open("w") as log:
                began = time.monotonic()

                def say(line: str) -> None:
                    print(f"{time.monotonic() - began:7.1f} {line}", file=log, flush=True)

                with soaking(server, Path(name), seed, say) as soak:
                    try:
                        soak.run(seconds)
                    except (Broken, RuntimeError) as error:
                        print(f"BROKEN after {time.monotonic() - began:.0f} s: {error}\n--- the CC manager says:")
                        print(f"{soak.manager.words()}\nagain: SOAK_SEED={seed} SOAK_S={seconds:.0f} make soak")
                        return 1
                    finally:
                        (OUTPUT / "cc_manager.log").write_bytes(soak.manager.log.read_bytes())
                    status = soak.end()
            return concluded(soak, status, seed)
    except NotPossible as error:
        print(f"soak: {error}", file=sys.stderr)
        return 2


def concluded(soak: Soak, status: int, seed: int) -> int:
    """The table and what was looked at; 0 when nothing grew and the CC manager ended as it should."""
    if len(soak.samples) <= slopes.SAMPLES_MIN:
        print(f"{len(soak.samples)} rounds are too few for a slope: let it last longer (SOAK_S)")
        return 1
    hours = soak.times[-1] / slopes.HOUR_S
    found = slopes.rows(measure.quantities(soak.attempts / hours, soak.asked / hours), soak.times, soak.samples)
    print("\n".join(slopes.table(found)))
    looked = soak.watchman
    print(
        f"{len(soak.samples)} rounds, {soak.done} troubles, {soak.asked} requests for a mode, {soak.attempts} attempts"
    )
    print(
        f"{looked.looked} looks: {looked.compared} times the label and the devices, {looked.guarded} times those in use"
    )
    (OUTPUT / "samples.json").write_text(json.dumps({"seed": seed, "times": soak.times, "samples": soak.samples}))
    if status:
        print(f"the CC manager ended with status {status}: {soak.manager.words()}")
    return 0 if all(row.kept for row in found) and status == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
