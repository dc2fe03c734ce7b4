# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for the programs of loaders other than GRUB's own. Each does what the source does that is named at it.

They read and write the tree below ``root`` alone.
"""

from __future__ import annotations

import fnmatch
import json
import re
import struct
from pathlib import Path

from ansible_collections.confidential.gpu.plugins.module_utils._boot.host import Result


def image(cmdline: str, sections: int = 1) -> bytes:
    """A file in PE format with a section ``.cmdline``, behind some others."""
    text = cmdline.encode() + b"\0"
    count = sections + 1
    optional = b"\0" * 16
    start = 0x40 + 24 + len(optional) + 40 * count
    head = b"MZ" + b"\0" * 58 + struct.pack("<I", 0x40)
    head += b"PE\0\0" + struct.pack("<HHIIIHH", 0x8664, count, 0, 0, 0, len(optional), 0) + optional
    others = [(b".linux%d" % number, 4, start + 4 * number) for number in range(sections)]
    rows = [*others, (b".cmdline", len(text), start + 4 * sections)]
    for name, size, at in rows:
        head += struct.pack("<8sIIII16x", name, size, 0, size + 3, at)
    return head + b"code" * sections + text + b"\0\0\0"


def cmdline_of(content: bytes) -> str:
    """The command line that ``image`` put in."""
    return content[: -len(b"\0\0\0\0")].rpartition(b"code")[2].decode()


class OtherPrograms:
    """One method for each program, named after it."""

    root: Path

    def _read(self, name: str) -> str | None:
        path = self.root / name
        return path.read_text() if path.exists() else None

    # systemd's kernel-install and its plug-ins 90-loaderentry.install and 60-ukify.install, of release 252 and later.

    def _kernel_install(self, arguments: list[str]) -> str:
        version_of_systemd = int((self._read("systemd-version") or "257").strip())
        if arguments == ["--version"]:
            return "systemd %d (%d-1)\n+PAM\n" % (version_of_systemd, version_of_systemd)
        verb, version, kernel = arguments[:3]
        assert verb == "add"
        assert (self.root / kernel.lstrip("/")).exists()
        boot = next(name for name in ("efi", "boot", "boot/efi") if (self.root / name / "loader").exists())
        machine = (self._read("etc/machine-id") or "0a1b").strip()
        token = (self._read("etc/kernel/entry-token") or machine).strip()
        layout = dict(re.findall(r"(\w+)=(\w+)", self._read("etc/kernel/install.conf") or "")).get("layout")
        if layout is None:
            is_type1 = (self._read(boot + "/loader/entries.srel") or "").strip() == "type1"
            layout = "bls" if is_type1 or (self.root / boot / token).is_dir() else "other"
        text = self._read("etc/kernel/cmdline")
        text = self._read("usr/lib/kernel/cmdline") if text is None else text
        if text is None:
            words = [word for word in (self._read("proc/cmdline") or "").split() if not word.startswith("BOOT_IMAGE=")]
            text = " ".join(word for word in words if not word.startswith("initrd="))
        if version_of_systemd >= (261 if layout == "uki" else 254):
            text = re.sub(r"(?m)^\s*#.*$", "", text)
        options = " ".join(text.split())
        if token == machine and "systemd.machine_id=" not in options:
            options += " systemd.machine_id=%s" % machine
        if layout == "uki":
            (self.root / boot / "EFI/Linux" / ("%s-%s.efi" % (token, version))).write_bytes(image(options))
        if layout == "bls":
            self._entry(boot, token, version, options, arguments[3:])
        return ""

    def _entry(self, boot: str, token: str, version: str, options: str, initrds: list[str]) -> None:
        lines = ["title      Linux", "version    " + version, "options    " + options]
        lines += ["linux      /%s/%s/linux" % (token, version)]
        lines += ["initrd     /%s/%s/%s" % (token, version, name.rpartition("/")[2]) for name in initrds]
        path = self.root / boot / "loader/entries" / ("%s-%s.conf" % (token, version))
        path.write_text("\n".join(lines) + "\n")

    # openSUSE's sdbootutil: create_boot_options, sedrootflags, update_entry_conf.

    def _sdbootutil(self, arguments: list[str]) -> None:
        assert arguments in (["update-all-entries"], ["add-all-kernels"])
        mounted = re.search(
            r"^\S+ / \S+ \S*subvol=/(\S*\.snapshots\S*?)(?:,\S*)? ", self._read("proc/mounts") or "", re.M
        )
        places = ("etc/kernel/cmdline", "usr/lib/kernel/cmdline", "proc/cmdline")
        texts = [next(text for text in map(self._read, places) if text is not None)]
        own = {path.name for path in (self.root / "etc/kernel/cmdline.d").glob("*")}
        for path in sorted((self.root / "usr/kernel/cmdline.d").glob("*")):
            texts += [] if path.name in own else [path.read_text()]
        texts += [path.read_text() for path in sorted((self.root / "etc/kernel/cmdline.d").glob("*"))]
        # "while read -r line": what follows the last line end is lost.
        lines = [line.strip() for text in texts for line in text.split("\n")[:-1]]
        options = re.sub(r"[ \t]+", " ", " ".join(line for line in lines if not line.startswith("#"))).strip()
        options = re.sub(r"\b(BOOT_IMAGE|initrd)=\S* ?", "", options)
        root = "UUID=cc33"
        options = re.sub(r"\broot=\S*", "root=" + root, options) if "root=" in options else options + " root=" + root
        snapshot = ""
        if mounted is not None:
            flags = "rootflags=subvol=" + mounted.group(1)
            has_flags = "rootflags=subvol=" in options
            options = re.sub(r"\brootflags=subvol=\S*", flags, options) if has_flags else options + " " + flags
            snapshot = mounted.group(1).split("/")[2]
        entries = self.root / "boot/efi/loader/entries"
        if arguments == ["add-all-kernels"]:
            for kernel in (self.root / "usr/lib/modules").glob("*/vmlinuz"):
                self._add_kernel(entries, kernel.parent.name, snapshot, options)
        for path in entries.glob("*.conf") if arguments == ["update-all-entries"] else ():
            text = path.read_text()
            if mounted is None or flags + "\n" in text.replace(" ", "\n"):
                path.write_text(re.sub(r"(?m)^options\s*.*$", "options    " + options, text))

    def _add_kernel(self, entries: Path, version: str, snapshot: str, options: str) -> None:
        """install_kernel, entry_conf_file."""
        prefix = "system-" if 'LOADER_TYPE="grub2-bls"' in (self._read("etc/sysconfig/bootloader") or "") else ""
        name = "%sopensuse-tumbleweed-%s%s.conf" % (prefix, version, snapshot and "-" + snapshot)
        lines = ["# Boot Loader Specification type#1 entry", "title      openSUSE Tumbleweed"]
        lines += ["version    %s%s" % (snapshot and snapshot + "@", version), "options    " + options]
        lines += ["%s     /opensuse-tumbleweed/%s/%s-1" % (word, version, word) for word in ("linux ", "initrd")]
        (entries / name).write_text("\n".join(lines).replace("/linux -", "/linux-") + "\n")

    # Proxmox: bin/proxmox-boot-tool, proxmox-boot/zz-proxmox-boot. Partitions are folders below esp/.

    def _proxmox_boot_tool(self, arguments: list[str]) -> Result | None:
        assert arguments == ["refresh"]
        cmdline = self._read("etc/kernel/cmdline")
        line = cmdline.split("\n")[0] if cmdline is not None else (self._read("proc/cmdline") or "")
        if cmdline is not None and "root=" not in line:
            return Result(1, "", "No root= parameter in /etc/kernel/cmdline found!")
        for uuid in (self._read("etc/kernel/proxmox-boot-uuids") or "").split():
            partition = self.root / "esp" / uuid
            if not partition.exists():
                continue
            if (partition / "EFI/proxmox/grubx64.efi").exists() or not (self.root / "sys/firmware/efi").exists():
                self._generate("esp/%s/grub/grub.cfg" % uuid)
                continue
            for kernel in sorted((self.root / "boot").glob("vmlinuz-*")):
                version = kernel.name[len("vmlinuz-") :]
                text = (
                    "title    Proxmox Virtual Environment\nversion  %s\noptions  %s\nlinux    /EFI/proxmox/%s/vmlinuz\n"
                )
                path = partition / "loader/entries" / ("proxmox-%s.conf" % version)
                path.write_text(text % (version, line, version))
        return None

    def _generate(self, name: str) -> None:
        raise NotImplementedError(name)

    def _unshare(self, arguments: list[str]) -> Result:
        """util-linux: a shell of its own mounts, for reading alone. The mount is the folder below esp/."""
        device = arguments[-1]
        assert "-o ro," in arguments[-3]
        partition = self.root / "esp" / device.rpartition("/")[2]
        if not partition.exists():
            return Result(1, "", "mount: /mnt: special device %s does not exist." % device)
        out = ""
        for pattern in ("loader/loader.conf", "grub/grub.cfg", "loader/entries/*.conf"):
            for path in sorted(partition.glob(pattern)):
                out += "confidential.gpu file %s\n%s\n" % (path.relative_to(partition), path.read_text())
        if list(partition.glob("EFI/proxmox/grub*.efi")):
            out = "confidential.gpu file EFI/proxmox/grub.efi\n" + out
        return Result(0, out)

    # transactional-update, and btrfs subvolume get-default. The number of the default snapshot stands in a file.

    def _default(self) -> str:
        return (self._read("default-snapshot") or "1").strip()

    def _btrfs(self, arguments: list[str]) -> str:
        assert arguments == ["subvolume", "get-default", "/"]
        return "ID 270 gen 91 top level 267 path @/.snapshots/%s/snapshot\n" % self._default()

    def _transactional_update(self, arguments: list[str]) -> None:
        if arguments[0] == "rollback":
            (self.root / "default-snapshot").write_text(arguments[1] + "\n")
            return
        assert arguments == ["--non-interactive", "grub.cfg"]
        number = max(int(path.name) for path in (self.root / ".snapshots").iterdir()) + 1
        self._generate(".snapshots/%d/snapshot/boot/grub2/grub.cfg" % number)
        (self.root / "default-snapshot").write_text("%d\n" % number)

    # rpm-ostree: rpmostreed-transaction-types.cxx; libostree: ostree-kernel-args.c. A new deployment is staged.

    def _deployment(self) -> list[str]:
        staged = self._read("run/ostree/staged-deployment")
        if staged is not None:
            return staged.split()
        entries = sorted((self.root / "boot/loader/entries").glob("ostree-*.conf"))
        return re.findall(r"(?m)^options (.*)$", entries[-1].read_text())[0].split(" ")

    def _rpm_ostree(self, arguments: list[str]) -> Result:
        staged = self.root / "run/ostree/staged-deployment"
        if arguments == ["cleanup", "-p"]:
            staged.unlink(missing_ok=True)
            return Result(0)
        assert arguments[0] == "kargs"
        tokens = existing = self._deployment()
        if len(arguments) == 1:
            return Result(0, " ".join(tokens) + "\n")
        given = [argument[2:].split("=", 1) for argument in arguments[1:]]
        named = {option for option, _value in given}
        assert named <= {"delete-if-present", "delete", "replace", "append"}
        if {"delete", "replace"} <= named:
            return Result(1, "", "error: Cannot specify both --delete and --replace")
        tokens = list(tokens)
        for value in [value for option, value in given if option == "delete"]:
            if value not in tokens:
                return Result(1, "", "error: No karg '%s' found" % value)
            tokens.remove(value)
        for value in [value for option, value in given if option == "replace"]:
            key, old, new = value.split("=", 2)
            if "%s=%s" % (key, old) not in tokens:
                return Result(1, "", "error: No karg '%s=%s' found" % (key, old))
            tokens[tokens.index("%s=%s" % (key, old))] = "%s=%s" % (key, new)
        tokens += [value for option, value in given if option == "append"]
        for value in [value for option, value in given if option == "delete-if-present"]:
            if value in existing:
                tokens.remove(value)
        pointer = next(token for token in tokens if token.startswith("ostree="))
        tokens[tokens.index(pointer)] = pointer[:-1] + "1"
        staged.parent.mkdir(parents=True, exist_ok=True)
        staged.write_text(" ".join(tokens) + "\n")
        return Result(0, "Staging deployment...done\n")

    # Pop!_OS: kernelstub/application.py, config.py, installer.py.

    def _kernelstub(self, arguments: list[str]) -> Result | None:
        assert arguments == []
        path = self.root / "etc/kernelstub/configuration"
        configuration = json.loads(path.read_text())
        user = configuration.setdefault("user", dict(configuration["default"]))
        missing = [key for key in ("esp_path", "setup_loader", "manage_mode", "force_update") if key not in user]
        if missing:
            return Result(169, "", "Malformed configuration!")
        user["live_mode"] = False
        options = "root=UUID=1234 ro %s" % " ".join(user["kernel_options"])
        kernels = sorted((self.root / "boot").glob("vmlinuz-*"))
        if not kernels:
            return Result(0, "", "Can't find the kernel image")
        for name in ["current", "oldkern"][: len(kernels)] if user["setup_loader"] else []:
            entry = self.root / ("boot/efi/loader/entries/Pop_OS-%s.conf" % name)
            text = "title Pop!_OS\nlinux /EFI/Pop_OS-1234/vmlinuz.efi\ninitrd /EFI/Pop_OS-1234/initrd.img\noptions %s\n"
            entry.write_text(text % options)
        path.write_text(json.dumps(configuration, indent=2))
        return None


def is_reading(argv: list[str]) -> bool:
    """Whether a call of these programs changes nothing."""
    patterns = ("rpm-ostree kargs", "unshare *", "kernel-install --version", "btrfs subvolume get-default *")
    return any(fnmatch.fnmatchcase(" ".join(argv), pattern) for pattern in patterns)
