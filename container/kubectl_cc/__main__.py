# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""python -m kubectl_cc, and the plugin kubectl-cc."""

from __future__ import annotations

import os
import sys

from .cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
