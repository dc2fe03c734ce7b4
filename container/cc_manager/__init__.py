# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The CC manager: follows a node label and brings the GPUs of its node into the mode that the label names."""
