# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Which lines of modprobe's files win over ours. The order and the winners are those that kmod 30 showed."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.confidential.gpu.plugins.module_utils._host.modprobe import OURS, read, rivals

BOUND = "options vfio-pci ids=10de:2331 disable_idle_d3=1\nsoftdep nvidia pre: vfio-pci\nblacklist nouveau\n"


class Host:
    """A root folder with files of modprobe and a kernel command line."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.put(OURS, BOUND)

    def put(self, path: str, text: str) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def rivals(self, driver: str = "vfio-pci") -> list[tuple[str, int, str, str]]:
        return [(one.file, one.line, one.text, one.why) for one in rivals(self.root, driver)]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_files_are_read_by_name_and_the_first_folder_wins_a_name(host):
    host.put(OURS, "")
    host.put("/etc/modprobe.d/m.conf", "options vfio-pci ids=1 \\\n disable_idle_d3=1\n")
    host.put("/run/modprobe.d/a.conf", "options vfio-pci ids=0\n")
    host.put("/usr/lib/modprobe.d/a.conf", "options vfio-pci ids=masked\n")
    host.put("/lib/modprobe.d/b.conf", "options vfio-pci ids=L\n")
    host.put("/usr/local/lib/modprobe.d/c.conf", "options vfio-pci ids=UL\n")
    host.put("/etc/modprobe.d/d.txt", "options vfio-pci ids=no\n")
    host.put("/etc/modprobe.d/d.alias", "options vfio-pci ids=alias\n")
    host.put("/etc/modprobe.d/e.conf", "# c\n\n  options\tvfio-pci   ids=ws\nblacklist\n")
    assert [(one.file, one.line, one.words[2:]) for one in read(host.root)] == [
        ("/run/modprobe.d/a.conf", 1, ("ids=0",)),
        ("/lib/modprobe.d/b.conf", 1, ("ids=L",)),
        ("/usr/local/lib/modprobe.d/c.conf", 1, ("ids=UL",)),
        ("/etc/modprobe.d/d.alias", 1, ("ids=alias",)),
        ("/etc/modprobe.d/e.conf", 3, ("ids=ws",)),
        ("/etc/modprobe.d/m.conf", 1, ("ids=1", "disable_idle_d3=1")),
    ]


@pytest.mark.parametrize(
    "text",
    [
        BOUND,
        "options vfio-pci disable_vga=1\n",
        "options nvidia NVreg_x=1\nsoftdep nvidia pre: vfio_pci\n",
        "blacklist nvidia\nalias pci:v000010DE* vfio-pci\nalias vfio_pci vfio-pci\ninstall nvidia /bin/false\n",
        "#blacklist vfio-pci\n",
    ],
)
@pytest.mark.parametrize("name", ["a.conf", "z.conf"])
def test_what_does_not_contradict_is_no_rival(host, name, text):
    host.put("/usr/lib/modprobe.d/" + name, text)
    host.put("/proc/cmdline", "quiet vfio-pci.ids=10de:2331 modprobe.blacklist=nouveau -- modprobe.blacklist=vfio-pci")
    assert host.rivals() == []


def test_options_that_come_later_win(host):
    text = "options vfio_pci ids=10de:2330 disable-idle-d3=1\n"
    host.put("/usr/lib/modprobe.d/a.conf", text)
    assert host.rivals() == []
    host.put("/usr/lib/modprobe.d/z.conf", "\n" + text)
    why = "it comes after %s, and its ids counts" % OURS
    assert host.rivals() == [("/usr/lib/modprobe.d/z.conf", 2, text.strip(), why)]
    host.put("/etc/modprobe.d/z.conf", "")  # masks it
    assert host.rivals() == []


def test_options_on_the_kernel_command_line_win_over_all_files(host):
    host.put("/proc/cmdline", "quiet vfio_pci.disable_idle_d3=0 vfio-pci.ids=10de:2331 vfio_pci.disable_vga=1\n")
    why = "its disable_idle_d3 counts, and not that of %s" % OURS
    assert host.rivals() == [("/proc/cmdline", 1, "vfio_pci.disable_idle_d3=0", why)]


def test_a_softdep_that_comes_first_wins(host):
    host.put("/usr/lib/modprobe.d/z.conf", "softdep nvidia pre: drm\n")
    assert host.rivals() == []
    host.put("/usr/lib/modprobe.d/a.conf", "softdep nvid* pre: drm\n")
    why = "it comes before %s, and only the first softdep of nvidia counts" % OURS
    assert host.rivals() == [("/usr/lib/modprobe.d/a.conf", 1, "softdep nvid* pre: drm", why)]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("blacklist vfio-pci", "vfio_pci is not loaded at boot"),
        ("install vfio-pci /bin/false", "modprobe runs this in place of loading vfio_pci"),
        ("install vfio_p* x; modprobe -i vfio-pci", "modprobe runs this in place of loading vfio_pci, vfio_pci_core"),
        ("alias vfio off", "modprobe loads this in place of vfio"),
    ],
)
def test_modules_that_are_not_loaded(host, line, why):
    host.put("/run/modprobe.d/z.conf", "options a b=1\n%s\n" % line)
    assert host.rivals() == [("/run/modprobe.d/z.conf", 2, line, why)]
    (host.root / OURS.lstrip("/")).unlink()
    assert len(host.rivals()) == 1


def test_every_blacklist_and_the_first_install_count(host):
    host.put("/etc/modprobe.d/x.conf", "install vfio-pci a\ninstall vfio-pci b\nblacklist vfio\nblacklist vfio\n")
    assert [one[1] for one in host.rivals()] == [1, 3, 4]


@pytest.mark.parametrize(
    ("line", "token", "why"),
    [
        (
            "modprobe.blacklist=x,vfio-pci modprobe.blacklist=y",
            "modprobe.blacklist=x,vfio-pci",
            "vfio_pci is not loaded at boot",
        ),
        (
            "module_blacklist=x module_blacklist=vfio_pci,y",
            "module_blacklist=vfio_pci,y",
            "the kernel does not load vfio_pci",
        ),
        ("module_blacklist=vfio_pci module_blacklist=x", "", ""),
        ("module_blacklist=vfio-pci", "", ""),
    ],
)
def test_lists_on_the_kernel_command_line(host, line, token, why):
    host.put("/proc/cmdline", "quiet %s\n" % line)
    assert host.rivals() == ([("/proc/cmdline", 1, token, why)] if token else [])


def test_another_driver_and_one_that_is_built_in(host):
    host.put("/etc/modprobe.d/x.conf", "blacklist nvgrace-gpu-vfio-pci\n")
    assert host.rivals() == []
    assert len(host.rivals("nvgrace_gpu_vfio_pci")) == 1
    host.put("/etc/modprobe.d/x.conf", "blacklist vfio-pci\noptions vfio-pci ids=x\n")
    assert len(host.rivals()) == 2
    host.put("/proc/sys/kernel/osrelease", "6.17\n")
    host.put("/lib/modules/6.17/modules.builtin", "kernel/drivers/vfio/pci/vfio-pci.ko\n")
    assert host.rivals() == []
