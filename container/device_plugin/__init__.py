# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The device plugin: offers devices of its node to the kubelet, and tells the truth about them."""
