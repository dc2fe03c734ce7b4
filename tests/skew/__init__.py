# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The programs of the cluster against the API servers of several releases of Kubernetes, without a kubelet."""
