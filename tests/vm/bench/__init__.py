# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""A virtual machine with emulated GPUs: how it is built and run, from nothing but Debian packages.

places    -- where this suite keeps what it made, and what it needs of the machine
qemu      -- a QEMU that speaks vfio-user, in a folder of its own
image     -- the guest: a stock Debian with the files that let a test in
disk      -- partitions, file system and boot loader, without loop devices
ssh       -- the way into the guest
machine   -- start, stop, kill
guest     -- what is done inside a guest again and again; hold.py is what it runs there
container -- the CC manager's image in a guest, run by runc
control   -- Ansible on this machine, with the guest as its host

Each file imports only those above it.
"""
