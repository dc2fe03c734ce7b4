# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""GRUB's settings as a chain of files that a shell reads one after the other, as grub-mkconfig does.

Files of plain assignments are read here. Where one of them reads another file, decides by a condition, or appends, a
shell is asked what comes out, and again, before anything is written, what would come out after the change.
"""

from __future__ import annotations

from typing import Mapping, Optional

from .cmdline import Desired
from .errors import NotUnderstood, Shadowed
from .grub import DEFAULT, Change, Settings
from .host import Host


def change(
    host: Host, files: Mapping[str, str], desired: Desired, home: Optional[str] = None, variable: str = DEFAULT
) -> Change:
    """Make the settings meet the request. What is added goes to ``variable``, in the file ``home`` if it is given.

    Raises NotUnderstood or Shadowed, naming the file and line that keeps the request from being met.
    """
    for path, text in files.items():
        if text.startswith("\ufeff"):
            raise NotUnderstood(
                "%s starts with a byte order mark, which a shell takes for a part of the first word." % path,
                "Remove it: sed -i '1s/^\\xef\\xbb\\xbf//' %s" % path,
                path=path,
                line=1,
            )
    try:
        settings = Settings(files)
        changed = settings.rewritten(desired, variable, home)
    except (NotUnderstood, Shadowed) as refusal:
        from .grub_shell import Asked  # noqa: PLC0415 - for a few hosts only

        return Asked(host, files, desired, home, variable, refusal).change()
    new = Settings({**files, **changed}).tokens() if changed else settings.tokens()
    return Change(tuple(settings.tokens()), tuple(new), changed)
