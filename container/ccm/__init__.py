# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""nvidia-bmm-cloud-controller-manager: the nodes of a cluster follow the instances of NVIDIA's bare-metal manager."""
