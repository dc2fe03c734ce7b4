#!/bin/sh
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

# A container as it is.

touch /run/ready
exec sleep infinity
