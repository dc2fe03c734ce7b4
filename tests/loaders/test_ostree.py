# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""libostree's own deployments: which one boots next, with what, and whether it is the running one."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ansible_collections.confidential.gpu.plugins.module_utils._boot import ostree
from ansible_collections.confidential.gpu.plugins.module_utils._boot.host import Host


class Sysroot:
    """A folder with deployments; ``host`` is a host that was booted from the one that ``boot`` was called for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.host = Host(root)
        (root / "sysroot").mkdir()
        (root / "boot").symlink_to("sysroot/boot")
        self._run("init-fs", "--modern", str(root / "sysroot"))
        self._run("os-init", "--sysroot=%s" % (root / "sysroot"), "os")
        for name, text in (("lib/modules/6.1/vmlinuz", "k"), ("lib/modules/6.1/initramfs.img", "i"), ("etc/x", "")):
            (root / "tree/usr" / name).parent.mkdir(parents=True, exist_ok=True)
            (root / "tree/usr" / name).write_text(text)
        (root / "tree/usr/lib/os-release").write_text("ID=os\n")
        repository = "--repo=%s" % (root / "sysroot/ostree/repo")
        owner = ("--owner-uid=0", "--owner-gid=0")
        self._call("ostree", repository, "commit", "-b", "os", "--tree=dir=%s" % (root / "tree"), *owner)

    def _run(self, *words: str) -> None:
        self._call("ostree", "admin", *words)

    def _call(self, *words: str) -> None:
        # Without this, each deployment is made immutable, and nobody but root can remove it.
        environment = {**os.environ, "OSTREE_SYSROOT_DEBUG": "mutable-deployments"}
        user = () if os.geteuid() == 0 else ("unshare", "--map-root-user")
        subprocess.run((*user, *words), check=True, env=environment, stdin=subprocess.DEVNULL, capture_output=True)

    def deploy(self, *options: str) -> None:
        self._run("deploy", "--sysroot=%s" % (self.root / "sysroot"), "--os=os", *options, "os")

    def boot(self) -> None:
        """What the kernel's mounts say after a boot into what comes first."""
        entry = ostree.first(self.host)
        assert entry is not None
        text = self.host.text(entry.path) or ""
        pointer = next(word for word in text.split() if word.startswith("ostree="))
        folder = os.path.realpath(str(self.root / "sysroot") + pointer[len("ostree=") :])
        (self.root / "proc/self").mkdir(parents=True, exist_ok=True)
        shown = folder[len(str(self.root / "sysroot")) :]
        (self.root / "proc/self/mountinfo").write_text("21 1 8:4 %s / rw - xfs /dev/sda4 rw\n" % shown)

    def tokens(self) -> tuple[str, ...]:
        entry = ostree.first(self.host)
        assert entry is not None
        return entry.tokens


@pytest.fixture
def sysroot(tmp_path: Path) -> Sysroot:
    return Sysroot(tmp_path)


def test_the_deployment_that_boots_next(sysroot: Sysroot) -> None:
    assert ostree.first(sysroot.host) is None
    sysroot.deploy("--karg=root=LABEL=r", "--karg=console=tty0")
    sysroot.boot()
    assert sysroot.tokens() == ("root=LABEL=r", "console=tty0")
    assert not ostree.is_pending(sysroot.host)
    sysroot.deploy("--karg-append=console=ttyS0")
    assert sysroot.tokens() == ("root=LABEL=r", "console=tty0", "console=ttyS0")
    assert ostree.is_pending(sysroot.host)


def test_pointers_are_written_anew_with_every_deployment(sysroot: Sysroot) -> None:
    """After two more deployments, the newest has the pointer that the running one was booted with."""
    sysroot.deploy("--karg=a")
    sysroot.boot()
    running = ostree.first(sysroot.host)
    assert running is not None
    pointer = next(word for word in (sysroot.host.text(running.path) or "").split() if word.startswith("ostree="))
    for number in range(2):
        sysroot.deploy("--karg-append=b%d" % number)
    newest = ostree.first(sysroot.host)
    assert newest is not None
    assert pointer in (sysroot.host.text(newest.path) or "").split()
    assert newest.tokens == ("a", "b0", "b1")
    assert ostree.is_pending(sysroot.host)


def test_append_if_missing_looks_at_the_name_alone(sysroot: Sysroot) -> None:
    """The reason for which it is not relied upon."""
    sysroot.deploy("--karg=console=tty0")
    option = "--append-if-missing=console=ttyS0"
    sysroot._run("kargs", "--sysroot=%s" % (sysroot.root / "sysroot"), "edit-in-place", option)
    assert sysroot.tokens() == ("console=tty0",)
