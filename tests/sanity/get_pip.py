# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Stands in for the get-pip.py that ansible-test would download: the Python's own pip does."""

from __future__ import annotations

import ensurepip
import sys

sys.argv = sys.argv[:1]
ensurepip.bootstrap(upgrade=True, default_pip=True)
