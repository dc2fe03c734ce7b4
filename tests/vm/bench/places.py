# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""Where this suite keeps what it made, and the list of programs that it needs of the machine."""

from __future__ import annotations

from pathlib import Path

from tools.cache import ROOT

CACHE = ROOT / ".cache" / "vm"
PROGRAMS = Path(__file__).resolve().parent.parent / "packages.txt"
