# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""Recordings of devices: what may be read of one, how it is read without a write, and the file that comes of it."""

from .errors import RecordingError
from .form import Recording, load

__all__ = ["Recording", "RecordingError", "load"]
