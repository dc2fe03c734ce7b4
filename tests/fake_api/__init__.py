# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""A small Kubernetes API in memory, with the semantics that clients trip over; over HTTP on request."""
