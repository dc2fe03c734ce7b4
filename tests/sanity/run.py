# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Run ansible-test sanity with one interpreter: python tests/sanity/run.py /usr/bin/python3.12 [test ...]

ansible-test works only in a folder .../ansible_collections/confidential/gpu that is no link, and below a git
repository it looks only at files that git knows. So it gets a copy of what is shipped in a temporary folder; the
other suites look after the rest. It keeps environments in the user's home, so it gets a home of its own below .cache,
which makes the next run quick.
Each Python gets the newest ansible-core that the lock has for it. Without names all of its tests run.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = ROOT / ".cache" / "sanity"


def main() -> int:
    """Prepare and run; ansible-test's exit status."""
    python = sys.argv[1]
    version = output([python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]).strip()
    venv = environment(python, version)
    if venv is None:
        return 1
    env = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "PYTHON"))}
    env.update(HOME=str(home(venv)), PATH=f"{venv / 'bin'}:{env['PATH']}")
    command = ["ansible-test", "sanity", "--local", "--python", version, "--color", "no"]
    command += [word for name in sys.argv[2:] for word in ("--test", name)]
    with tempfile.TemporaryDirectory(prefix="confidential-gpu-sanity-") as folder:
        place = Path(folder, "ansible_collections", "confidential", "gpu")
        subprocess.run([sys.executable, "-m", "tools.artifact", "copy", place], cwd=ROOT, check=True)
        # Helm's templates are YAML only when rendered, and what is made of them is several documents: the suite chart
        # looks after both.
        for templates in (place / "container/charts").glob("*/templates"):
            shutil.rmtree(templates)
        shutil.rmtree(place / "container/gpu-operator")
        return subprocess.run(command, cwd=place, env=env, stdin=subprocess.DEVNULL, check=False).returncode


def environment(python: str, version: str) -> Path | None:
    """A virtual environment of this Python with ansible-core; the repository's own, if it is of this Python."""
    if version == f"{sys.version_info[0]}.{sys.version_info[1]}":
        return Path(sys.prefix)
    venv = HERE / version / "venv"
    made = subprocess.run([python, "tools/venv.py", str(venv), "requirements/run.txt"], cwd=ROOT, check=False)
    return venv if made.returncode == 0 else None


def home(venv: Path) -> Path:
    """A home with the stand-in for get-pip under the name that this ansible-test looks for."""
    folder = HERE / "home"
    cache = folder / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    for source in venv.glob("lib/python*/site-packages/ansible_test/_internal/python_requirements.py"):
        for pip in re.findall(r"\bpip='([0-9.]+)'", source.read_text()):
            shutil.copy(Path(__file__).with_name("get_pip.py"), cache / f"get_pip_{pip.replace('.', '_')}.py")
    # pip reads its configuration from the home: how packages are reached here is the user's to say.
    for name in (".config/pip", ".pip"):
        own = Path.home() / name
        if own.is_dir() and not (folder / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(own)
    return folder


def output(command: list[str]) -> str:
    """What a command prints; it must succeed."""
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main())
