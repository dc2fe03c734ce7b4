#!/usr/bin/env python3
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Make a virtual environment that holds what the given lock files name, and what it was asked for before.

    python3 tools/venv.py .venv requirements/run.txt

pip installs uv, uv the rest. A stamp is written when all is done. So a second call has nothing to do, and what a killed
call left is thrown away. The same happens when a lock file changes. An index, a folder of wheels or a certificate that
pip is set to holds for uv as well. Runs on old Pythons too, far enough to say that they are too old.
"""

from __future__ import annotations

import argparse
import ast
import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from typing import Any

OLDEST = (3, 11)
INSTALLER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "requirements", "uv.txt")
# pip's settings, and the variables of uv that mean the same.
SETTINGS = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "no-index": "UV_NO_INDEX",
    "cert": "SSL_CERT_FILE",
}
SEPARATORS = {"UV_FIND_LINKS": ","}
STAMP = "complete.json"


def main() -> int:
    """Bring the environment up to date; return the exit status."""
    parser = argparse.ArgumentParser(description="Make a virtual environment from lock files with hashes.")
    parser.add_argument("venv", help="folder of the environment")
    parser.add_argument("locks", nargs="+", metavar="lock", help="requirements file with hashes")
    parser.add_argument(
        "--any-python", action="store_true", help="keep an environment that is complete but of another Python"
    )
    arguments = parser.parse_args()
    venv = os.path.abspath(arguments.venv)
    os.makedirs(os.path.dirname(venv), exist_ok=True)
    with open(venv + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return bring_up_to_date(venv, arguments.locks, arguments.any_python, lock.fileno())


def bring_up_to_date(venv: str, locks: list[str], any_python: bool, held: int) -> int:
    """Do nothing, or start over.

    ``held`` is the lock. Children get it too: when a call is killed, the next waits for what it left behind.
    """
    found = read_stamp(venv, any_python)
    asked = {os.path.basename(path): digest(path) for path in locks}
    if found and all(found["locks"].get(name) == hashed for name, hashed in asked.items()):
        return 0
    locks = with_others(locks, found["locks"] if found else {})
    wanted = {os.path.basename(path): digest(path) for path in locks}
    refusal = unfit_python()
    if refusal:
        print("setup: " + refusal, file=sys.stderr)
        return 1
    began = time.monotonic()
    shutil.rmtree(venv, ignore_errors=True)
    if subprocess.run([sys.executable, "-m", "venv", venv], check=False, pass_fds=[held]).returncode != 0:
        print("setup: python -m venv failed; its message is above.", file=sys.stderr)
        return 1
    python = os.path.join(venv, "bin", "python")
    # The locks are complete, so nothing is resolved; only wheels, so no code of a package runs.
    pip = [python, "-m", "pip", "install", "--quiet", "--require-hashes", "--no-deps", "--only-binary", ":all:"]
    pip += ["--no-input", "--disable-pip-version-check", "--no-warn-script-location", "-r", INSTALLER]
    uv = [os.path.join(venv, "bin", "uv"), "pip", "sync", "--quiet", "--require-hashes", "--no-build"]
    # As pip does. With PYTHONDONTWRITEBYTECODE, which many images set, each start would compile all that it imports.
    uv += ["--compile-bytecode", "--python", python, *locks]
    for command, environment in ((pip, None), (uv, settings(python))):
        if subprocess.run(command, env=environment, check=False, pass_fds=[held]).returncode != 0:
            names = INSTALLER if command is pip else " and ".join(locks)
            print("setup: %s could not be installed; the message is above." % names, file=sys.stderr)
            return 1
    stamp = os.path.join(venv, STAMP)
    with open(stamp + ".new", "w") as file:
        json.dump({"python": this_python(), "venv": venv, "locks": wanted}, file)
    os.replace(stamp + ".new", stamp)
    print("setup: %s holds %s (%.0f s)" % (os.path.relpath(venv), ", ".join(locks), time.monotonic() - began))
    return 0


def with_others(locks: list[str], held: dict[str, str]) -> list[str]:
    """The locks, and those that the environment holds already: one target does not undo the set-up of another."""
    names = [os.path.basename(path) for path in locks]
    others = [os.path.join(os.path.dirname(locks[0]), name) for name in held if name not in names]
    return [*locks, *(path for path in others if os.path.isfile(path))]


def settings(python: str) -> dict[str, str]:
    """The environment for uv: what is set there, and for the rest what pip is set to."""
    # pip reads its files and variables; later lines win.
    listed = subprocess.run([python, "-m", "pip", "config", "list"], stdout=subprocess.PIPE, text=True, check=False)
    found: dict[str, str] = {}
    for line in listed.stdout.splitlines():
        name, _, value = line.partition("=")
        variable = SETTINGS.get(name.rpartition(".")[2])
        if variable:
            found[variable] = SEPARATORS.get(variable, " ").join(ast.literal_eval(value).split())
    return {"UV_PYTHON_DOWNLOADS": "never", **found, **os.environ}


def read_stamp(venv: str, any_python: bool) -> dict[str, Any] | None:
    """The stamp of a complete, usable environment, or None."""
    try:
        with open(os.path.join(venv, STAMP)) as file:
            stamp: dict[str, Any] = json.load(file)
        python, place, _locks = stamp["python"], stamp["venv"], stamp["locks"]
    except (OSError, ValueError, KeyError):
        return None
    # Scripts in the environment carry its path; its Python is a link to one that may be gone.
    usable = place == venv and os.access(os.path.join(venv, "bin", "python"), os.X_OK)
    return stamp if usable and (any_python or python == this_python()) else None


def this_python() -> str:
    """What tells one Python from another; minor versions differ in what a lock gives them."""
    return "%d.%d %s" % (sys.version_info[0], sys.version_info[1], getattr(sys, "_base_executable", sys.executable))


def unfit_python() -> str | None:
    """Why this Python cannot be used, with the remedy, or None."""
    if sys.version_info < OLDEST:
        versions = "%d.%d, but %d.%d" % (*sys.version_info[:2], *OLDEST)
        return "%s is Python %s or later is needed: PYTHON=python3.12 make setup" % (sys.executable, versions)
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        return "%s has no venv with ensurepip: apt install python3-venv" % sys.executable
    return None


def digest(path: str) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
