# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What keeps us from a cluster or from a Helm release."""

from __future__ import annotations

from .._core.errors import ExplainedError


class ClusterUnreachable(ExplainedError):
    """The API server did not answer, or the way to it could not be opened."""

    retryable = True


class ApiRefused(ExplainedError):
    """The API server answered that it will not; ``seen['status']`` is the HTTP status."""


class HelmFailed(ExplainedError):
    """Helm ended with an error."""


class ReleaseWedged(ExplainedError):
    """A release that an interrupted Helm left half done."""


class ChartRefused(ExplainedError):
    """The chart is not what was asked for: its digest, its version, or the images that it names."""
