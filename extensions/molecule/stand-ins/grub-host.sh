#!/bin/sh
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

# A container that looks like an installed Debian to GRUB's own tools. Two things are stand-ins: the kernel's files, and
# grub-probe, which would look for the disk below / and finds none in a container.

set -eu

cat > /usr/sbin/grub-probe <<'PROBE'
#!/bin/sh
for word in "$@"; do
  case "$word" in
    --target=device) echo /dev/vda1 ;;
    --target=fs_uuid) echo 0a1b2c3d-0000-4000-8000-000000000001 ;;
    --target=fs) echo ext2 ;;
    --target=partmap) echo gpt ;;
    --target=hints_string | --target=compatibility_hint | --target=bios_hints) echo hd0,gpt1 ;;
    --target=drive) echo "(hd0,gpt1)" ;;
    --target=abstraction) ;;
    --target=partuuid) exit 1 ;;
  esac
done
PROBE
chmod +x /usr/sbin/grub-probe

mkdir -p /boot/grub
for name in vmlinuz initrd.img config; do echo "$name" > "/boot/$name-6.12.1-amd64"; done
cat > /etc/default/grub <<'SETTINGS'
# If you change this file, run 'update-grub' afterwards to update /boot/grub/grub.cfg.
GRUB_DEFAULT=0
GRUB_TIMEOUT=5
GRUB_DISTRIBUTOR=`( . /etc/os-release && echo ${NAME} )`
GRUB_CMDLINE_LINUX_DEFAULT="quiet iommu=pt"
GRUB_CMDLINE_LINUX="console=ttyS0,115200n8 amd_iommu=off"
SETTINGS
update-grub
# What else this machine is: another stand-in and its arguments.
[ $# -eq 0 ] || exec "$@"
touch /run/ready
exec sleep infinity
