#!/bin/bash
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
#
# Install the Debian packages that the suites need, those that are missing; with nothing missing, do nothing.

set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
command -v git > /dev/null || missing+=(git)
command -v make > /dev/null || missing+=(make)
command -v shellcheck > /dev/null || missing+=(shellcheck)
# Signs a release.
command -v gpg > /dev/null || missing+=(gnupg)
# Containers for molecule. runc, because crun refuses machines with two versions of control groups at once.
command -v podman > /dev/null || missing+=(podman)
PATH="$PATH:/usr/sbin:/sbin" command -v runc > /dev/null || missing+=(runc)
# Programs of the virtual machines, and of the containers' images.
while read -r program package; do
  PATH="$PATH:/usr/sbin:/sbin" command -v "$program" > /dev/null || missing+=("$package")
done < <(grep '^[a-z]' tests/vm/packages.txt)
# A Python that was not installed as a Debian package may be there; then nothing is missing.
python3 -c 'import venv, ensurepip' 2> /dev/null || missing+=(python3 python3-venv)
# What the cluster of tests/cluster is made of: a program, and the package that it is in.
while read -r program package; do
    PATH="$PATH:/usr/sbin:/sbin" command -v "$program" > /dev/null || [ -f "$program" ] || missing+=("$package")
done < <(grep -v -e '^#' -e '^$' "$(dirname "$0")/../tests/cluster/packages.txt")
# Programs of boot loaders that tests/loaders runs.
while read -r program package; do
  PATH="$PATH:/usr/sbin:/sbin" command -v "$program" > /dev/null || missing+=("$package")
done < <(grep '^[a-z]' tests/loaders/packages.txt)
# What ansible-rulebook runs on.
while read -r program package; do
  command -v "$program" > /dev/null || missing+=("$package")
done < <(grep '^[a-z]' tests/eda/packages.txt)
# What opens the report's page.
while read -r program package; do
  command -v "$program" > /dev/null || missing+=("$package")
done < <(grep '^[a-z]' tests/browser/packages.txt)
# What builds the driver's fake library. A header is there, or it is not.
while read -r program package; do
  command -v "$program" > /dev/null || [ -e "$program" ] || missing+=("$package")
done < <(grep '^[a-z/]' tests/fake_nvml/packages.txt)

[ ${#missing[@]} -gt 0 ] || exit 0
command -v apt-get > /dev/null || { echo "system-deps: install these by your package manager: ${missing[*]}" >&2; exit 1; }

sudo=()
[ "$(id -u)" = 0 ] || sudo=(sudo)
echo "system-deps: installing ${missing[*]}"
"${sudo[@]}" apt-get -qq update
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "${missing[@]}" < /dev/null > /dev/null
