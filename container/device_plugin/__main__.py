# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""python -m device_plugin, and the image's entry point."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run the plugin; the exit status.

    The kernel keeps a signal without a handler from a container's first process, and what is imported takes a while:
    until the plugin has its own handler, a stop ends the process, which has done nothing yet.
    """
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda *_: os._exit(0))
    from .process import main as work  # noqa: PLC0415  (see above)

    return work(arguments, environment)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
