#!/bin/sh
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
#
# mmdebstrap's hook, when the packages are unpacked: trim.sh LEFT-OUT-FILE PACKAGES-FILE ROOT
# No package's script has run; what the scripts would have done and the image needs is done here.

set -eu
left_out=$1 packages=$2 root=$3

# A list of the packages for the SBOM and for scanners of vulnerabilities, which look for this file.
mkdir -p "$root/var/lib/dpkg/info"
{
    for deb in "$root"/var/cache/apt/archives/*.deb; do
        dpkg-deb -f "$deb" Package Version Architecture Source Maintainer Description | sed '/^Package:/a Status: install ok installed'
        echo
    done
} > "$root/var/lib/dpkg/status"
{
    echo '['
    separator=
    for deb in "$root"/var/cache/apt/archives/*.deb; do
        dpkg-deb -W --showformat="$separator"'{"name": "${Package}", "version": "${Version}", "architecture": "${Architecture}", "source": "${source:Package}"}\n' "$deb"
        separator=,
    done
    echo ']'
} > "$packages"

cp "$root/usr/share/base-passwd/passwd.master" "$root/etc/passwd"
cp "$root/usr/share/base-passwd/group.master" "$root/etc/group"
[ ! -e "$root/usr/bin/dash" ] || [ -e "$root/bin/sh" ] || ln -s dash "$root/usr/bin/sh"

grep -v -e '^#' -e '^$' "$left_out" | while read -r pattern; do
    # shellcheck disable=SC2086 # a pattern is to become the paths it stands for
    (cd "$root" && rm -rf -- $pattern)
done
# The copyright files are all that is kept of a package's documentation.
find "$root/usr/share/doc" -mindepth 2 ! -name copyright -delete 2> /dev/null || true

PYTHONHASHSEED=0 chroot "$root" python3 -m compileall -q -f --invalidation-mode unchecked-hash /usr/lib/python3 "/usr/lib/$(cd "$root/usr/lib" && echo python3.*)"
