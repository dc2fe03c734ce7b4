#!/bin/sh
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

# A container with emulated devices, behind sockets: the model or node is the first argument.

set -eu

cd /emulator
python3 -m emulator "$1" --sockets /run/gpus > /run/emulator.log &
until grep -q ^ready: /run/emulator.log; do sleep 0.1; done
touch /run/ready
wait
