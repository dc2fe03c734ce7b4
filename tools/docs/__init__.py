# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The documentation's pages as HTML: ``python -m tools.docs`` builds and checks them."""
