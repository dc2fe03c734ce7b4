# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""GPUs, whole and shared in time, with the configuration, names and ids of NVIDIA's device plugin."""
