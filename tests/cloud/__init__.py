# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The cloud controller manager against a real API server and an emulated bare-metal manager; beside it, Kubernetes' own."""
