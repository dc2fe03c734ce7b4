# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Buses by name, for the modules that reach devices; the others need not carry them to the host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional

from ._core.errors import InvalidRequest

# A bus is imported where it is asked for: a host compiles again at each run what a module imports.
if TYPE_CHECKING:
    from ._pci.bus import Bus

VFIO_USER = "vfio-user:"


def bus_named(name: str, state_folder: Optional[str] = None) -> Bus:
    """'sysfs' or 'vfio-user:<folder>' as a bus. Raises InvalidRequest.

    ``state_folder`` is where a sysfs bus keeps its lock, instead of STATE_FOLDER.
    """
    if "\0" in name:
        raise InvalidRequest("%r is not a bus." % name, "Leave out the NUL character.")
    if name == "sysfs":
        from ._pci.sysfs import STATE_FOLDER, SysfsBus  # noqa: PLC0415

        return SysfsBus(state_folder=state_folder or STATE_FOLDER)
    if name.startswith(VFIO_USER) and len(name) > len(VFIO_USER):
        from ._pci.vfio_user import VfioUserBus  # noqa: PLC0415

        return VfioUserBus(name[len(VFIO_USER) :])
    raise InvalidRequest("%r is not a bus." % name, "Use sysfs, or vfio-user: followed by a folder of sockets.")
