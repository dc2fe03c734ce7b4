# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""A libnvidia-ml.so.1 in C, and a node whose driver it is."""
