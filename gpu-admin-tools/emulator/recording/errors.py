# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""What goes wrong between a device and a recording of it."""

from __future__ import annotations


class RecordingError(ValueError):
    """A device that is not recorded, or a file that is no recording; the message says what to do."""
