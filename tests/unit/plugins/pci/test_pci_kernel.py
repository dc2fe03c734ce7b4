# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The one class that changes the running kernel, on files of a temporary folder and a modprobe of the test's own."""

from __future__ import annotations

import pytest

from ansible_collections.confidential.gpu.plugins.module_utils._pci import kernel as kernel_module
from ansible_collections.confidential.gpu.plugins.module_utils._pci.kernel import Kernel, built_in, release


def test_write(tmp_path):
    attribute = tmp_path / "driver_override"
    attribute.touch()
    Kernel().write(attribute, "vfio-pci\n")
    assert attribute.read_text() == "vfio-pci\n"


def test_write_makes_no_files(tmp_path):
    with pytest.raises(FileNotFoundError):
        Kernel().write(tmp_path / "absent", "x")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("exit 0", ""),
        ("echo 'FATAL: no such module' >&2; exit 1", "FATAL: no such module"),
        ("exit 3", "exit status 3"),
    ],
)
def test_load(tmp_path, monkeypatch, script, words):
    modprobe = tmp_path / "modprobe"
    modprobe.write_text("#!/bin/sh\n%s\n" % script)
    modprobe.chmod(0o755)
    monkeypatch.setattr(kernel_module, "SBIN", str(tmp_path))
    assert Kernel().load("vfio-pci") == words


def test_load_without_modprobe(tmp_path, monkeypatch):
    monkeypatch.setattr(kernel_module, "SBIN", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "modprobe" in Kernel().load("vfio-pci")


def test_release_and_built_in(tmp_path):
    assert release(tmp_path) == ""
    assert not built_in(tmp_path, "vfio-pci")
    (tmp_path / "proc/sys/kernel").mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/osrelease").write_text("6.17.0-5-generic\n")
    folder = tmp_path / "lib/modules/6.17.0-5-generic"
    folder.mkdir(parents=True)
    (folder / "modules.builtin").write_text("kernel/drivers/vfio/vfio.ko\nkernel/drivers/vfio/pci/vfio-pci.ko\n")
    assert release(tmp_path) == "6.17.0-5-generic"
    assert built_in(tmp_path, "vfio_pci")
    assert built_in(tmp_path, "vfio-pci")
    assert not built_in(tmp_path, "nvidia")
