# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""python -m cc_manager, and the image's entry point."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

from kube import signals


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run the CC manager; the exit status."""
    signals.end_at_once()
    from .process import main as work  # noqa: PLC0415  (a stop while this is imported is heard)

    return work(arguments, environment)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
