# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""kubectl cc: the confidential-computing modes of a cluster's nodes, asked for, waited for, explained, rolled out."""
