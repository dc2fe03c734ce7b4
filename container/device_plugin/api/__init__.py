# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What is said between the kubelet and device plugins: gRPC messages, made from the .proto files by tools/api.py."""
