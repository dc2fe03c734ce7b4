# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Devices through which a confidential virtual machine asks for its own reports: TDX and SEV-SNP guests."""
