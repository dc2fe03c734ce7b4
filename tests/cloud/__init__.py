# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Our cloud controller manager, and Kubernetes' own, against a real API server and an emulated bare-metal manager."""
