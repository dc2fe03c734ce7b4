# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The provider id of a node: which instance it runs on.

Four forms are met in clusters. All are read; which one is written is a setting, because a provider id never changes.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# Form to scheme and the parts that follow it.
FORMS = {
    "nvidia-bmm": ("nvidia-bmm", ("org", "tenant", "site", "instance")),
    "nvidia-bmm-short": ("nvidia-bmm", ("org", "site", "instance")),
    "nico": ("nico", ("org", "tenant", "site", "instance")),
    "nico-uuid": ("nico", ("instance",)),  # of NVIDIA's Cluster API provider
}
DEFAULT_FORM = "nvidia-bmm"
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")


class ProviderId(NamedTuple):
    """What one says; empty: it does not say that."""

    instance: str
    org: str = ""
    tenant: str = ""
    site: str = ""


class NotOurs(ValueError):
    """The provider id is another provider's, or one of ours that cannot be read (``is_broken``)."""

    def __init__(self, message: str, is_broken: bool = False) -> None:
        super().__init__(message)
        self.is_broken = is_broken


def read(text: str) -> ProviderId:
    """The parts of a provider id. Raises NotOurs."""
    scheme, separator, rest = text.partition("://")
    parts = rest.split("/")
    known = [names for one, names in FORMS.values() if one == scheme]
    if not separator or not known:
        raise NotOurs(f"{text!r} is another provider's id")
    for names in known:
        if len(names) == len(parts):
            found = dict(zip(names, parts, strict=True))
            found["instance"] = found["instance"].lower()
            if is_instance_id(found["instance"]) and all(map(PART.fullmatch, parts)):
                return ProviderId(**found)
    forms = ", ".join(f"{one}://{'/'.join(names)}" for one, names in FORMS.values())
    raise NotOurs(f"{text!r} is none of {forms}", is_broken=True)


def write(form: str, about: ProviderId) -> str:
    """The provider id in a form of FORMS. Raises ValueError for what could not be read again."""
    scheme, names = FORMS[form]
    parts = [getattr(about, name) for name in names]
    if not is_instance_id(about.instance) or not all(map(PART.fullmatch, parts)):
        raise ValueError(f"no provider id can be made of {about}")
    return f"{scheme}://{'/'.join(parts)}"


def is_instance_id(text: str) -> bool:
    """Whether this is an id as the API gives to instances."""
    return UUID.fullmatch(text) is not None
