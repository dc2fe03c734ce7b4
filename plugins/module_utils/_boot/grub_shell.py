# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""GRUB's settings where they read another file, decide by a condition, or append: a shell is asked what comes out.

It is asked again, before anything is written, what would come out after the change.
"""

from __future__ import annotations

import re
from typing import Mapping, NoReturn, Optional, Sequence

from .cmdline import Desired, normal, split
from .errors import BootError, CommandTimeout, NotUnderstood, Shadowed
from .grub import COMMON, DEFAULT, Change, Settings, with_line
from .host import Host

# Per file: its name and its text; after each the two variables. A file that ends the shell leaves out what follows.
_SCRIPT = """\
while [ $# -gt 1 ]; do
  confidential_gpu_text=$2
  cd / && eval "$confidential_gpu_text" > /dev/null 2>&1 < /dev/null
  printf '%s\\0%s\\0%s\\0' "$1" "$GRUB_CMDLINE_LINUX" "$GRUB_CMDLINE_LINUX_DEFAULT"
  shift 2
done
"""
_ENVIRONMENT = ("LC_ALL=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin")


class Asked:
    """A chain that a shell has to be asked about."""

    def __init__(
        self,
        host: Host,
        files: Mapping[str, str],
        desired: Desired,
        home: Optional[str],
        variable: str,
        refusal: BootError,
    ) -> None:
        self.host = host
        self.files = dict(files)
        self.desired = desired
        self.home = home
        self.variable = variable
        self.refusal = refusal

    def change(self) -> Change:
        """What the request makes of it. Raises NotUnderstood or Shadowed with the file and line that is in the way."""
        old = self._last(self.files)
        missing = self.desired.unmet(old)
        if not missing:
            return Change(old, old, {})
        files = self._without(old)
        new = self._last(files)
        fate = self.desired.fate(new)
        left = [token for token, kept in zip(new, fate.kept) if kept != token]
        if left:
            self._refuse_left(files, left[0])
        if fate.added:
            files = self._with(files, fate.added)
            new = self._last(files)
            if self.desired.unmet(new):
                self._refuse_shadowed(files, fate.added[0])
        return Change(old, new, {path: text for path, text in files.items() if text != self.files[path]})

    def _without(self, tokens: Sequence[str]) -> dict[str, str]:
        """The files without the tokens that have to go, as far as these stand in plain assignments."""
        fate = self.desired.fate(tokens)
        gone = {normal(token) for token, kept in zip(tokens, fate.kept) if kept != token}
        files = {}
        for path, text in self.files.items():
            settings = Settings({path: text}, plain_only=True)
            files[path] = settings.without(gone).get(path, text)
        return files

    def _with(self, files: Mapping[str, str], tokens: Sequence[str]) -> dict[str, str]:
        """The files with tokens: in the last plain assignment if that does, else in a new line at the end."""
        path = self.home or next(iter(files))
        desired = Desired(add=tuple(tokens))
        one = Settings({path: files[path]}, plain_only=True)
        if one.defines(self.variable):
            tried = {**files, path: one.rewritten(desired, self.variable, path)[path]}
            if not self.desired.unmet(self._last(tried)):
                return tried
        return {**files, path: with_line(files[path], self.variable, tokens)}

    def _last(self, files: Mapping[str, str]) -> tuple[str, ...]:
        return self._values(files)[-1][1]

    def _values(self, files: Mapping[str, str]) -> list[tuple[str, tuple[str, ...]]]:
        """After each file, the tokens. Raises NotUnderstood when the shell does not come to the end."""
        arguments = [word for pair in files.items() for word in pair]
        argv = ["env", "-i", *_ENVIRONMENT, "sh", "-c", _SCRIPT, "sh", *arguments]
        try:
            fields = self.host.commands.run(argv, self.host.timeout_s).out.split("\0")
        except TimeoutError as error:
            raise CommandTimeout(
                "A shell did not come to the end of %s within %g s." % (", ".join(files), self.host.timeout_s),
                "Look for what waits there; or give it more time with the option timeout.",
            ) from error
        found = []
        for path, common, default in zip(fields[::3], fields[1::3], fields[2::3]):
            found.append((path, (*split(common), *split(default))))
        if len(found) < len(files):
            path = list(files)[len(found)]
            raise NotUnderstood(
                "%s ends the shell that reads it, so grub-mkconfig would end there too." % path,
                "Look for exit, or for a mistake in it: sh -n %s" % path,
                path=path,
            )
        return found

    def _refuse_left(self, files: Mapping[str, str], token: str) -> NoReturn:
        before = 0
        for path, tokens in self._values(files):
            if tokens.count(token) > before:
                line = _line_with(files[path], token)
                raise NotUnderstood(
                    "%s, line %d: %s is set there, in a way that cannot be changed safely." % (path, line, token),
                    "Remove it there by hand, then run again.",
                    path=path,
                    line=line,
                    token=token,
                )
            before = tokens.count(token)
        raise self.refusal

    def _refuse_shadowed(self, files: Mapping[str, str], token: str) -> NoReturn:
        was_there = False
        for path, tokens in self._values(files):
            is_there = token in tokens
            if was_there and not is_there:
                line = _line_with(files[path], DEFAULT)
                raise Shadowed(
                    "%s, line %d: the command line is set again there, and %s is lost." % (path, line, token),
                    'Let it append: %s="${%s} ...", or give the file a name that sorts earlier.' % (DEFAULT, DEFAULT),
                    path=path,
                    line=line,
                )
            was_there = is_there
        raise self.refusal


def _line_with(text: str, word: str) -> int:
    """The line that brings a token: that with its name; else one that sets a variable or reads a file."""
    name = re.escape(word.partition("=")[0])
    for pattern in (
        r"^[^#\n]*(?<![\w.])%s(?!\w)" % name,
        "^[^#\n]*(?:%s|%s)" % (DEFAULT, COMMON),
        r"^[^#\n]*(?:\.|source)\s",
    ):
        match = re.search(pattern, text, re.MULTILINE)
        if match:
            return text.count("\n", 0, match.end()) + 1
    return 1
