# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Attributes that modules share."""

from __future__ import annotations


class ModuleDocFragment:
    """What Ansible wants to know of a module."""

    READS_ONLY = r"""
attributes:
  check_mode:
    support: full
    description: Nothing is changed in any mode.
  diff_mode:
    support: none
    description: There is nothing to show a difference of.
  idempotent:
    support: full
    description: Nothing is changed.
"""
