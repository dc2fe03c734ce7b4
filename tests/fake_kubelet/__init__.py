# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""A kubelet's device manager in the test's event loop: real gRPC on real sockets, with what plugins trip over."""
