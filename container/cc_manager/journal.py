# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The journal: what the component labels were before they were paused, kept on the node until they are put back."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from .names import COMPONENT_LABELS, JOURNAL_ANNOTATION, PAUSED

LABEL_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")


@dataclass(frozen=True)
class Journal:
    """Component label to its original value."""

    originals: Mapping[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """The annotation's value."""
        return json.dumps(dict(self.originals), sort_keys=True)


def read(annotations: Mapping[str, str]) -> Journal | None:
    """The journal of a node, None if there is none. What is not ours in it is left out; it may have been edited."""
    text = annotations.get(JOURNAL_ANNOTATION)
    if text is None:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = {}
    entries = found.items() if isinstance(found, dict) else []
    return Journal({key: value for key, value in entries if key in COMPONENT_LABELS and _is_original(value)})


def _is_original(value: object) -> bool:
    return isinstance(value, str) and is_original(value)


def is_original(value: str) -> bool:
    """A value that the API takes for a label, and that pauses nothing: any other cannot be put back."""
    return PAUSED not in value and LABEL_VALUE.fullmatch(value) is not None
