# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""Runs in the guest: holds a device as a program that drives virtual machines does, until it is killed.

hold.py HOW ADDRESS. HOW is one of
group    only the vfio group is open, as long as a virtual machine has not got further
machine  group, container and device are open, as QEMU has them
device   the device alone; group and container are closed again, and the kernel keeps them for it
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import time

# include/uapi/linux/vfio.h
SET_IOMMU, SET_CONTAINER, GET_DEVICE = 0x3B66, 0x3B68, 0x3B6A
TYPE1_V2 = 3

how, address = sys.argv[1:]
number = os.path.basename(os.readlink(f"/sys/bus/pci/devices/{address}/iommu_group"))
group = os.open(f"/dev/vfio/{number}", os.O_RDWR)
if how != "group":
    container = os.open("/dev/vfio/vfio", os.O_RDWR)
    fcntl.ioctl(group, SET_CONTAINER, struct.pack("i", container))
    fcntl.ioctl(container, SET_IOMMU, TYPE1_V2)
    device = fcntl.ioctl(group, GET_DEVICE, address.encode() + b"\0")
    if how == "device":
        os.close(container)
        os.close(group)
print(os.getpid(), flush=True)
time.sleep(3600)
