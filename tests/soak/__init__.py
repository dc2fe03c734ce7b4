# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The CC manager for an hour in bad company: what grows, and what must never be seen from the outside."""
