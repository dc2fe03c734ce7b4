# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What keeps a rollout from a host."""

from __future__ import annotations

from .._core.errors import ExplainedError


class RecordUnreadable(ExplainedError):
    """There is a record, and it cannot be told whose."""


class HeldByAnother(ExplainedError):
    """Another rollout has this host."""
