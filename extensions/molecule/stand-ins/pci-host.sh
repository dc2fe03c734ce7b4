#!/bin/sh
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

# A container with the PCI devices of a small GPU server, and a stand-in for what builds an initramfs: the first argument.
# A second argument is a driver that is built into the kernel.

set -eu

mkdir -p /stand-ins-log
for name in "$1" modprobe; do
  printf '#!/bin/sh\necho "$*" >> "/stand-ins-log/${0##*/}"\n' > "/usr/sbin/$name"
  chmod +x "/usr/sbin/$name"
done
cat >> /usr/sbin/modprobe <<'MODPROBE'
[ "$1" != -r ] || exec python3 /stand-ins/pci_kernel.py unload "$2"
exec python3 /stand-ins/pci_kernel.py load "$1"
MODPROBE
# A systemd that has none of the services that it is asked for.
printf '#!/bin/sh\n[ "$1" = show ] || exit 1\necho LoadState=not-found\necho ActiveState=inactive\n' > /usr/bin/systemctl
chmod +x /usr/bin/systemctl
# What the packages kmod, udev and dracut bring along.
mkdir -p /etc/modprobe.d /etc/modules-load.d /etc/udev/rules.d
[ "$1" != dracut ] || mkdir -p /etc/dracut.conf.d
if [ $# -gt 1 ]; then
  mkdir -p "/lib/modules/$(uname -r)"
  echo "kernel/drivers/vfio/pci/$2.ko" > "/lib/modules/$(uname -r)/modules.builtin"
fi
shift
exec python3 /stand-ins/pci_kernel.py serve "$@"
