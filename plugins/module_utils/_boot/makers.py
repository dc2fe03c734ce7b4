# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The loaders that there are. Each is loaded only on a host that may be one of its own: that costs time at each run."""

from __future__ import annotations

from typing import Callable, NamedTuple

from .cmdline_file import CMDLINE
from .firmware import has_stub, loader
from .host import Host
from .loader import Loader


class Maker(NamedTuple):
    """A loader: its name, its class, and what its hosts have in any case (``may_be``), at which a look costs little."""

    name: str
    load: Callable[[], type[Loader]]
    may_be: Callable[[Host], bool]

    @property
    def looked_for(self) -> str:
        """What its hosts have, in words."""
        return self.load().looked_for


def _has(*commands: str) -> Callable[[Host], bool]:
    return lambda host: any(host.commands.has(command) for command in commands)


def _is_flatcar(host: Host) -> bool:
    return any("flatcar" in (host.text(name) or "") for name in ("/etc/os-release", "/usr/lib/os-release"))


def _has_kernel_install(host: Host) -> bool:
    boots = "systemd-boot" in loader(host) or has_stub(host) or host.exists(CMDLINE)
    return boots and host.commands.has("kernel-install")


def _flatcar() -> type[Loader]:
    from .loaders.flatcar import Flatcar  # noqa: PLC0415

    return Flatcar


def _rpm_ostree() -> type[Loader]:
    from .loaders.rpm_ostree import RpmOstree  # noqa: PLC0415

    return RpmOstree


def _bootc() -> type[Loader]:
    from .loaders.bootc import Bootc  # noqa: PLC0415

    return Bootc


def _proxmox() -> type[Loader]:
    from .loaders.proxmox import Proxmox  # noqa: PLC0415

    return Proxmox


def _proxmox_grub() -> type[Loader]:
    from .proxmox_grub import ProxmoxGrub  # noqa: PLC0415

    return ProxmoxGrub


def _sdbootutil() -> type[Loader]:
    from .loaders.sdbootutil import Sdbootutil  # noqa: PLC0415

    return Sdbootutil


def _transactional_update() -> type[Loader]:
    from .loaders.transactional_update import TransactionalUpdate  # noqa: PLC0415

    return TransactionalUpdate


def _kernelstub() -> type[Loader]:
    from .loaders.kernelstub import Kernelstub  # noqa: PLC0415

    return Kernelstub


def _kernel_install() -> type[Loader]:
    from .loaders.kernel_install import KernelInstall  # noqa: PLC0415

    return KernelInstall


def _grubby() -> type[Loader]:
    from .loaders.grubby import Grubby  # noqa: PLC0415

    return Grubby


def _grub_dropin() -> type[Loader]:
    from .loaders.grub_dropin import GrubDropin  # noqa: PLC0415

    return GrubDropin


def _grub_defaults() -> type[Loader]:
    from .loaders.grub_defaults import GrubDefaults  # noqa: PLC0415

    return GrubDefaults


FLATCAR = Maker("flatcar", _flatcar, _is_flatcar)
RPM_OSTREE = Maker("rpm-ostree", _rpm_ostree, _has("rpm-ostree"))
BOOTC = Maker("bootc", _bootc, _has("bootc"))
PROXMOX = Maker("proxmox-boot-tool", _proxmox, _has("proxmox-boot-tool"))
PROXMOX_GRUB = Maker("proxmox-boot-tool", _proxmox_grub, _has("proxmox-boot-tool"))
SDBOOTUTIL = Maker("sdbootutil", _sdbootutil, _has("sdbootutil"))
TRANSACTIONAL_UPDATE = Maker("transactional-update", _transactional_update, _has("transactional-update"))
KERNELSTUB = Maker("kernelstub", _kernelstub, _has("kernelstub"))
KERNEL_INSTALL = Maker("kernel-install", _kernel_install, _has_kernel_install)
GRUBBY = Maker("grubby", _grubby, _has("grubby"))
GRUB_DROPIN = Maker("grub-dropin", _grub_dropin, _has("update-grub"))
GRUB_DEFAULTS = Maker("grub", _grub_defaults, _has("grub2-mkconfig", "grub-mkconfig"))
