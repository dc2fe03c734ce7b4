#!/bin/sh
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

# A container with the PCI devices of a small GPU server, and a stand-in for what builds an initramfs: the first argument.

set -eu

mkdir -p /stand-ins-log
for name in "$1" modprobe; do
  printf '#!/bin/sh\necho "$*" >> "/stand-ins-log/${0##*/}"\n' > "/usr/sbin/$name"
  chmod +x "/usr/sbin/$name"
done
echo 'exec python3 /stand-ins/pci_kernel.py load "$1"' >> /usr/sbin/modprobe
# What the packages kmod, udev and dracut bring along.
mkdir -p /etc/modprobe.d /etc/modules-load.d /etc/udev/rules.d
[ "$1" != dracut ] || mkdir -p /etc/dracut.conf.d
exec python3 /stand-ins/pci_kernel.py serve
