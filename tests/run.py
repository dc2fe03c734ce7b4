# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Run the suites, fast ones first, and end with a table of what ran and what did not: python tests/run.py [suite ...]

Which suites there are stands in ``suites``. A suite whose needs are not met does not run, and the table says what would
enable it; with REQUIRE_ALL=1 in the environment that is a failure. Lines go to standard output as they come.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.prefix) / "bin"
PASSED, FAILED, NOT_RUN = "passed", "FAILED", "did not run"
# Names that stand for several suites.
GROUPS = {"lint": ("layers", "ruff", "mypy", "ansible-lint"), "sanity": ("sanity-*",)}
# Seconds of a whole run on two cores with nothing built, 17 minutes before the time-out of the workflow.
BUDGET_S = 73 * 60
# The Pythons that an ansible-core of the lock runs on.
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
# What breaks during a change, which takes long, is for `make test-cluster`.
TESTS_IN_CLUSTER = (
    "drop_in",
    "policy",
    "chart_install",
    "device_plugin",
    "device_plugin_gpu",
    "device_plugin_node",
    "device_cdi",
)
# Beside the release of the clusters, whose table is in tests/cluster/kube/programs.py.
RELEASES = ("1.32", "1.34", "1.37")
# Tests of integration that are suites of their own.
APART = ("bmm", "test_rollout.py")
# Debian 12 has no package of it.
GO = "install Go 1.26 or later from go.dev/dl"


@dataclass(frozen=True)
class Suite:
    """One suite: commands that must all succeed, one after the other, and what has to be there for them to run."""

    name: str
    commands: Sequence[Sequence[str]]
    files: str = ""  # a pattern; until a file matches, there is nothing to run
    tools: Sequence[str] = ()
    enable: str = ""
    as_root: bool = False
    on_request: bool = False  # takes long: runs only when it is named
    budget_s: float = 60.0  # on two cores, with nothing built; taking longer is a warning
    prepare: Sequence[str] = ()  # builds beforehand what the suite would build itself, into .cache


@dataclass(frozen=True)
class Outcome:
    """How a suite went."""

    suite: Suite
    status: str
    seconds: float = 0.0
    why: str = ""


def suites() -> list[Suite]:
    """Every suite, in the order in which they run."""
    python, pytest = sys.executable, (sys.executable, "-m", "pytest")
    in_cluster = [f"tests/cluster/test_{name}.py" for name in TESTS_IN_CLUSTER]
    in_vm = [f"tests/vm/test_{name}.py" for name in ("smoke", "site", "container")]
    coverage = ("--cov", "--cov-report=term", "--cov-fail-under=90")
    # They wait more than they compute: three workers for two cores. A file's tests stay together, with their fixtures.
    workers = ("-n", "3", "--dist", "loadfile")
    return [
        Suite("layers", [(python, "tools/layers.py")], budget_s=10),
        Suite("ruff", [("ruff", "check", "."), ("ruff", "format", "--check", ".")], tools=["ruff"], budget_s=20),
        Suite("mypy", [("mypy",)], tools=["mypy"], budget_s=120),
        Suite(
            "unit", [(*pytest, "tests/unit", "-q", *workers, *coverage)], files="tests/unit/**/test_*.py", budget_s=380
        ),
        Suite("ansible-lint", [("ansible-lint",)], tools=["ansible-lint"], budget_s=120),
        Suite(
            "docs",
            [(*pytest, "tests/docs", "-q"), (python, "-m", "tools.docs")],
            budget_s=80,
            prepare=(python, "-m", "tools.docs", "--environment"),
        ),
        Suite("galaxy-importer", [(python, "tests/importer.py")], budget_s=100),
        Suite(
            "integration",
            [(*pytest, "tests/integration", "-q", *(f"--ignore=tests/integration/{one}" for one in APART), *workers)],
            files="tests/integration/**/test_*.py",
            budget_s=160,
        ),
        *sanity(),
        # After those, whose environments have other releases of ansible-core.
        Suite(
            "inventory",
            [(*pytest, "tests/integration/bmm", "-q", "-n", "3")],
            files="tests/integration/bmm/test_*.py",
            budget_s=80,
        ),
        Suite(
            "molecule",
            [(python, "-m", "tests.molecule.run")],
            files="extensions/molecule/*/molecule.yml",
            tools=["podman", "runc", "mmdebstrap"],
            enable="make system-deps",
            as_root=True,  # containers of an ordinary user need more of a machine than every one has
            budget_s=650,
            prepare=(python, "-m", "tests.molecule.images"),
        ),
        Suite(
            "loaders",
            [(*pytest, "tests/loaders", "-q")],
            files="tests/loaders/test_*.py",
            tools=["grub-mkconfig", "update-grub", "kernel-install", "objcopy", "ostree", "unshare"],
            enable="make system-deps",
            budget_s=30,
        ),
        Suite(
            "conformance",
            [(*pytest, "tests/conformance", "-q", *workers)],
            files="tests/conformance/**/test_*.py",
            budget_s=180,
        ),
        # Power cuts and check mode, which take long, are for `make test-vm`.
        Suite(
            "vm",
            [(*pytest, *in_vm, "-q", "--durations=10")],
            files="tests/vm/test_*.py",
            tools=["mmdebstrap", "sfdisk", "mke2fs", "ssh", "ssh-keygen", "fakeroot", "buildah"],
            enable="make system-deps",
            budget_s=850,
            prepare=(python, "-m", "tests.vm.bench", "build"),
        ),
        Suite(
            "eda",
            [(*pytest, "tests/eda", "-q")],
            files="tests/eda/test_*.py",
            tools=["java"],
            enable="make system-deps",
            on_request=True,
            budget_s=120,
            prepare=(python, "tools/venv.py", ".cache/eda/venv", "requirements/eda.txt"),
        ),
        Suite(
            "images",
            [(*pytest, "tests/images", "-q")],
            files="tests/images/test_*.py",
            tools=["buildah", "mmdebstrap"],
            enable="make system-deps",
            as_root=True,
            on_request=True,
            budget_s=600,
        ),
        Suite(
            "browser",
            [(*pytest, "tests/browser", "-q", "-s")],
            files="tests/browser/test_*.py",
            tools=["chromium"],
            enable="make system-deps",
            on_request=True,
            budget_s=120,
        ),
        Suite("explore", [(python, "tests/cuts/explore_cc_manager.py")], on_request=True, budget_s=660),
        Suite(
            "cuts",
            [(python, f"tests/cuts/run{name}.py") for name in ("_plugin", "_cc_manager", "")],
            files="tests/cuts/run.py",
            budget_s=480,
        ),
        Suite(
            "chart",
            [(*pytest, "tests/chart", "-q")],
            files="tests/chart/**/test_*.py",
            tools=["go"],
            enable=GO,
            budget_s=60,
            prepare=(python, "-m", "tests.cluster.kube", "build", "helm"),
        ),
        # Kubernetes' own controllers beside ours, which takes a build of them: on request.
        Suite(
            "cloud",
            [(*pytest, "tests/cloud/test_ours.py", "tests/cloud/test_kubectl_cc.py", "-q", "--durations=5")],
            files="tests/cloud/test_*.py",
            tools=["go"],
            enable=GO,
            budget_s=110,
            prepare=(python, "-m", "tests.cluster.kube", "build", "etcd", "kube-apiserver", "helm"),
        ),
        Suite(
            "cloud-oracle",
            [(*pytest, "tests/cloud/test_oracle.py", "-q")],
            files="tests/cloud/test_*.py",
            tools=["go"],
            enable=GO,
            on_request=True,
        ),
        # Builds an API server for each release: on request.
        Suite(
            "skew",
            [(*pytest, "tests/skew", "-q", "--durations=5")],
            files="tests/skew/test_*.py",
            tools=["go", "gcc"],
            enable=GO,
            on_request=True,
            budget_s=120,
            prepare=(
                python,
                "-m",
                "tests.cluster.kube",
                "build",
                "etcd",
                "helm",
                *(f"kube-apiserver-{one}" for one in RELEASES),
            ),
        ),
        # Ten minutes of what `make soak` does for an hour.
        Suite(
            "soak",
            [("env", "SOAK_S=600", python, "-m", "tests.soak")],
            tools=["go"],
            enable=GO,
            on_request=True,
            budget_s=720,
            prepare=(python, "-m", "tests.cluster.kube", "build", "etcd", "kube-apiserver", "helm"),
        ),
        Suite(
            "rollout",
            [(*pytest, "tests/integration/test_rollout.py", "-q", "--durations=5")],
            files="tests/integration/test_rollout.py",
            on_request=True,
            budget_s=180,
        ),
        Suite(
            "fleet",
            [(*pytest, "tests/fleet", "-q", "--durations=5")],
            files="tests/fleet/test_*.py",
            tools=["go", "nsenter", "unshare", "update-grub"],
            enable=f"make system-deps; {GO}",
            as_root=True,
            on_request=True,
            budget_s=600,
            prepare=(python, "-m", "tests.cluster.kube", "build", "etcd", "kube-apiserver", "helm", "kubectl"),
        ),
        Suite(
            "coco",
            [(*pytest, "tests/coco", "-q", "--durations=10")],
            files="tests/coco/**/test_*.py",
            tools=["go", "buildah", "containerd", "iptables"],
            enable=f"make system-deps; {GO}",
            as_root=True,
            on_request=True,
            budget_s=600,
        ),
        Suite(
            "cluster",
            [(*pytest, *in_cluster, "-q", "--durations=10")],
            files="tests/cluster/**/test_*.py",
            tools=["go", "buildah", "busybox", "containerd", "iptables", "mmdebstrap", "runc"],
            enable=f"make system-deps; {GO}",
            as_root=True,
            budget_s=600,
            prepare=(python, "-m", "tests.cluster.kube", "build"),
        ),
    ]


def sanity() -> Iterator[Suite]:
    """ansible-test sanity with each Python on this machine.

    The oldest and the newest run all of it. Between them only what asks the Python itself can differ.
    """
    found = pythons()
    for version, python in found.items():
        tests = () if version in (min(found, key=number), max(found, key=number)) else ("compile", "import")
        yield Suite(
            f"sanity-{version}",
            [(sys.executable, "tests/sanity/run.py", python, *tests)],
            tools=["shellcheck"],
            enable="make system-deps",
            budget_s=120,
        )


def number(version: str) -> tuple[int, ...]:
    """3.9 is older than 3.11."""
    return tuple(int(part) for part in version.split("."))


def pythons() -> dict[str, str]:
    """Version to path of the Pythons found: this one, those on PATH, those of pyenv. Only those that run."""
    folders = os.environ.get("PATH", "").split(":")
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    with suppress(PermissionError):  # another user's, as after `su`
        folders += sorted(str(folder) for folder in pyenv.glob("versions/*/bin"))
    found = {}
    for version in PYTHONS:
        if version == f"{sys.version_info[0]}.{sys.version_info[1]}":
            found[version] = sys.executable
            continue
        for folder in folders:
            path = os.path.join(folder, "python" + version)
            # A name on PATH may be a dead shim; and Debian's Python may lack ensurepip.
            probe = [path, "-c", "import venv, ensurepip, sys; print('%d.%d' % sys.version_info[:2])"]
            if os.access(path, os.X_OK) and said(probe) == version:
                found[version] = path
                break
    return found


def said(command: Sequence[str]) -> str:
    """What a command prints, or nothing if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def select(every: Sequence[Suite], names: Sequence[str]) -> list[Suite]:
    """The suites of these names and groups, in the order of ``every``; without a name those that need not be asked for.

    Raises KeyError for a name that is none.
    """
    if not names:
        return [suite for suite in every if not suite.on_request]
    patterns: list[str] = []
    for name in names:
        members = GROUPS.get(name, (name,))
        patterns += [re.escape(member).replace(r"\*", ".*") for member in members]
        if not any(re.fullmatch(pattern, suite.name) for pattern in patterns[-len(members) :] for suite in every):
            raise KeyError(name)
    return [suite for suite in every if any(re.fullmatch(pattern, suite.name) for pattern in patterns)]


def lacks(suite: Suite, root: Path = ROOT) -> str:
    """Why a suite cannot run, with what would enable it; empty if it can."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = [tool for tool in suite.tools if shutil.which(tool, path=path) is None]
    if missing:
        return f"no {' and no '.join(missing)}: {suite.enable or 'make setup-dev'}"
    if suite.as_root and os.geteuid() != 0:
        return "run it as root"
    if suite.files and not any(root.glob(suite.files)):
        return f"nothing there: {suite.files}"
    return ""


@contextmanager
def prepared(chosen: Sequence[Suite], log: Path) -> Iterator[None]:
    """Build what takes long while earlier suites run, which wait more than they compute; at the lowest priority.

    A suite whose turn comes first waits for what is being built, and builds itself what could not be.
    """
    commands = [shlex.join(suite.prepare) for suite in chosen if suite.prepare and not lacks(suite)]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as lines:
        builds = ["nice", "-n", "19", "sh", "-c", "; ".join([*commands, ":"])]
        process = subprocess.Popen(
            builds, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=lines, stderr=lines, start_new_session=True
        )
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait()


def run(suite: Suite, root: Path = ROOT) -> Outcome:
    """Run one suite, if what it needs is there."""
    if why := lacks(suite, root):
        return Outcome(suite, NOT_RUN, why=why)
    print(f"\n=== {suite.name} " + "=" * (115 - len(suite.name)), flush=True)
    began = time.monotonic()
    status, why = PASSED, ""
    for command in suite.commands:
        code = subprocess.run(command, cwd=root, stdin=subprocess.DEVNULL, check=False).returncode
        if code != 0:
            status, why = FAILED, f"status {code} of {' '.join(os.path.basename(word) for word in command[:3])}"
            break
    return Outcome(suite, status, time.monotonic() - began, why)


def table(outcomes: Sequence[Outcome], require_all: bool) -> tuple[str, int]:
    """The table, warnings of suites that took too long, the closing line; and the exit status."""
    lines = [f"{'suite':16} {'status':12} seconds  budget"]
    failed = 0
    for outcome in outcomes:
        fails = outcome.status == FAILED or (outcome.status == NOT_RUN and require_all)
        failed += fails
        seconds = f"{outcome.seconds:7.1f}" if outcome.status != NOT_RUN else "       "
        budget = f"{outcome.suite.budget_s:6.0f}"
        mark = " (REQUIRE_ALL)" if fails and outcome.status == NOT_RUN else ""
        lines.append(f"{outcome.suite.name:16} {outcome.status:12} {seconds}  {budget}  {outcome.why}{mark}".rstrip())
    lines += [f"{'all':29} {sum(one.seconds for one in outcomes):7.1f}  {BUDGET_S:6}", *slow(outcomes)]
    passed = sum(outcome.status == PASSED for outcome in outcomes)
    lines += ["", f"{passed} passed, {failed} failed"]
    # A run of nothing has shown nothing.
    return "\n".join(lines), 1 if failed or not passed else 0


def slow(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """A warning for each suite that took longer than its budget, and for all together."""
    for one in outcomes:
        if one.seconds > one.suite.budget_s:
            yield f"warning: {one.suite.name} took {one.seconds:.0f} s, its budget is {one.suite.budget_s:.0f} s"
    total = sum(one.seconds for one in outcomes)
    if total > BUDGET_S:
        yield f"warning: the suites took {total / 60:.0f} minutes, the budget is {BUDGET_S / 60:.0f}"


def main() -> int:
    """Run what was asked for; 0 if all of it passed."""
    try:
        chosen = select(suites(), sys.argv[1:])
    except KeyError as unknown:
        names = ", ".join([*GROUPS, *(suite.name for suite in suites())])
        print(f"There is no suite {unknown}. There are: {names}", file=sys.stderr)
        return 2
    # Not every user has the last two, where Debian keeps some of the programs.
    os.environ["PATH"] = f"{BIN}:{os.environ['PATH']}:/usr/sbin:/sbin"
    # Set in many images; then each of thousands of processes compiles this project's files again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # Nothing is left in the user's home, and no configuration of the user's takes part.
    os.environ["ANSIBLE_HOME"] = str(ROOT / ".cache" / "ansible")
    os.environ["ANSIBLE_COLLECTIONS_PATH"] = str(ROOT / ".cache" / "collections")
    with prepared(chosen, ROOT / ".cache" / "prepare.log"):
        outcomes = [run(suite) for suite in chosen]
    text, code = table(outcomes, os.environ.get("REQUIRE_ALL") == "1")
    print(f"\n=== suites {'=' * 109}\n{text}", flush=True)
    for suite in suites():
        if suite not in chosen and not sys.argv[1:]:
            print(f"{suite.name:16} takes long and was not asked for: make test SUITES={suite.name}")
    return code


if __name__ == "__main__":
    sys.exit(main())
