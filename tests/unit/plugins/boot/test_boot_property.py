# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""For any file that a loader accepts: what boots has the old tokens in their order, with the request applied."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from boot_property import KINDS, holds
from boot_property_others import OTHERS
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.mark.parametrize("kind", [*KINDS, *OTHERS])
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_exactly_the_request_is_applied(kind: str, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        holds(data.draw((KINDS | OTHERS)[kind]), Path(folder), data.draw)
