# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Build the site into dist/docs: python -m tools.docs, from the repository's root.

Pages of modules, roles and plugins come from their own documentation (antsibull-docs), the guides from docs/. Every
warning is an error: a link to nothing, a page that no other leads to, an option that is not documented. The network is
needed only where the environment .cache/docs/venv is not made yet; --environment makes it and nothing else.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tools.docs.links import broken
from tools.docs.pages import BrokenLink, pages, rewritten

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / ".cache" / "docs"
VENV, SOURCE = HERE / "venv", HERE / "source"
OUT = ROOT / "dist" / "docs"
COLLECTION = "confidential.gpu"
MINE = Path(__file__).parent


def main() -> int:
    """Build and check; 0 when nothing was found wrong."""
    began = time.monotonic()
    environment: list[str | Path] = [sys.executable, "tools/venv.py", "--any-python", VENV, "requirements/docs.txt"]
    made = subprocess.run(environment, cwd=ROOT, check=False)
    if made.returncode != 0 or "--environment" in sys.argv:
        return made.returncode
    try:
        write_guides()
    except BrokenLink as error:
        print(f"docs: {error}", file=sys.stderr)
        return 1
    if not (write_reference() and build()):
        return 1
    wrong = broken(OUT)
    for line in wrong:
        print(f"docs: {line}", file=sys.stderr)
    if wrong:
        return 1
    count = sum(1 for _ in OUT.rglob("*.html"))
    print(
        f"docs: {count} pages in {OUT.relative_to(ROOT)}, no warning, no broken link ({time.monotonic() - began:.0f} s)"
    )
    return 0


def write_guides() -> None:
    """Copy the guides with their links led to pages of the site. Raises BrokenLink."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    SOURCE.mkdir(parents=True)
    found = re.search(r"^repository: (\S+)", (ROOT / "galaxy.yml").read_text(), re.MULTILINE)
    assert found, "galaxy.yml names no repository"
    names = pages(ROOT)
    for path, name in names.items():
        out = SOURCE / name
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(rewritten(ROOT, path, names, found[1]), encoding="utf-8")
    shutil.copytree(ROOT / "docs/images", SOURCE / "images")


def write_reference() -> bool:
    """Pages of everything that ansible-doc shows."""
    # A reference to an option or a plugin that is not there is found by the first, on the sources.
    run = VENV / "bin" / "antsibull-docs"
    lint: list[str | Path] = [
        run,
        "lint-collection-docs",
        "--plugin-docs",
        "--skip-rstcheck",
        "--disallow-unknown-collection-refs",
        ROOT,
    ]
    pages_of: list[str | Path] = [run, "collection", "--use-current", "--squash-hierarchy", "--fail-on-error"]
    pages_of += ["--dest-dir", SOURCE / "collection", COLLECTION]
    (SOURCE / "collection").mkdir()
    if not (succeeds(lint) and succeeds(pages_of)):
        return False
    for page in (SOURCE / "collection").glob("*.rst"):
        page.write_text(fitted(page.read_text(encoding="utf-8")), encoding="utf-8")
    return True


def fitted(text: str) -> str:
    """A page of antsibull-docs without a table of contents, which the theme has, and with short names in menus."""
    text = re.sub(r"^\.\. contents::\n(?: +.*\n)*", "", text, flags=re.MULTILINE)
    return re.sub(r"^( +)(\w+)_(module|role|filter|inventory)$", r"\1\2 (\3) <\2_\3>", text, flags=re.MULTILINE)


def build() -> bool:
    """HTML of all of it."""
    shutil.rmtree(OUT, ignore_errors=True)
    command: list[str | Path] = [
        VENV / "bin" / "sphinx-build",
        "-b",
        "html",
        "-c",
        MINE,
        "-d",
        HERE / "doctrees",
        "-E",
        "-q",
    ]
    return succeeds([*command, "-W", "--keep-going", SOURCE, OUT])


def succeeds(command: list[str | Path]) -> bool:
    """Run a command with this repository as the collection and nothing of the user's configuration."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "PYTHON"))}
    env.update(
        ANSIBLE_COLLECTIONS_PATH=str(ROOT / ".cache" / "collections"),
        ANSIBLE_HOME=str(HERE / "ansible"),
        PATH=f"{VENV / 'bin'}:{env['PATH']}",
    )
    if subprocess.run(command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, check=False).returncode != 0:
        print(f"docs: {Path(command[0]).name} found something wrong", file=sys.stderr)
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
