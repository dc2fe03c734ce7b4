#!/bin/sh
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
#
# What a kernel shows of its first NVIDIA device, for unit tests that imitate it: run as root, nothing is changed.

address=$(lspci -D -n -d 10de: | cut -d ' ' -f 1 | head -n 1)
device=/sys/bus/pci/devices/$address
show() {
  echo "\$ $*"
  sh -c "$*" 2>&1
  echo
}
show uname -r
show cat /proc/cmdline
show ls /sys/kernel/iommu_groups
show "ls -l $device/ | tail -n +2 | awk '{\$2=\$3=\$4=\$6=\$7=\$8=\"\"; print}' | tr -s ' '"
for name in vendor device class revision subsystem_vendor subsystem_device modalias resource reset_method enable \
  driver_override irq numa_node d3cold_allowed power_state power/control power/runtime_status; do
  show cat "$device/$name"
done
show "head -c 256 $device/config | xxd 2>/dev/null || od -A x -t x1z -N 256 $device/config"
show readlink "$device/driver" "$device/iommu_group" "$device/iommu" "$device/driver/module"
show ls "$device/vfio-dev" "$device/link" "$device/power"
show ls -l /dev/vfio /dev/vfio/devices /dev/iommu
show cat /sys/kernel/security/lockdown
show "lsmod | grep -e vfio -e iommu"
show "grep -H . /sys/module/vfio_pci/parameters/* /sys/module/vfio/parameters/* /sys/module/vfio_iommu_type1/parameters/*"
group=$(basename "$(readlink "$device/iommu_group")")
if [ -e "/dev/vfio/$group" ]; then
  exec 9<> "/dev/vfio/$group" && show "ls -l /proc/$$/fd/9 | sed 's/.*fd.9/fd 9/'; cat /proc/$$/fdinfo/9"
  show "echo | dd of=/dev/vfio/$group bs=1 count=1"
fi
