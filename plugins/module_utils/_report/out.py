# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The files of a report. Each report has a folder of its own, named by its time; ``latest`` is a link to the last.

A folder is made under another name and takes its own when all is in it, so that one that is there is whole.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import re
import shutil
import tempfile
from typing import Any, Mapping, Optional, Sequence

from .._core.errors import ExplainedError, InvalidRequest, NotPermitted, errno_words
from .._core.files import settle
from . import sign
from .page import page
from .report import FORMAT

HTML, JSON, CSV, ANCHORS, SUMS = "report.html", "report.json", "report.csv", "anchors.json", "SHA256SUMS"
LATEST = "latest"
NAME = re.compile(r"[0-9]{8}T[0-9]{6}Z(?:-[0-9]+)?")
# A cell that begins like this is a formula to programs for tables: what a host says shall not be run there.
FORMULA = ("=", "+", "-", "@", "\t", "\r")
COLUMNS = (
    *("host", "address", "kind", "name", "verdict", "mode", "pending", "knobs", "firmware", "driver", "holders"),
    *("read_at", "read_by", "asked_by", "asked_at", "asked_known_by", "published", "provider_id", "why"),
)


class BadPrevious(ExplainedError):
    """The previous report cannot be compared with."""


def previous(path: str) -> tuple[Optional[dict[str, Any]], dict[str, Any]]:
    """The data of an earlier report and which file that is; None without one. Raises BadPrevious for another file."""
    try:
        with open(path, "rb") as file:
            content = file.read()
        found = json.loads(content)
        if found["format"] != FORMAT or not isinstance(found["devices"], list):
            raise ValueError("it is no report")
    except FileNotFoundError:
        return None, {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadPrevious(
            "The previous report %s cannot be read: %s." % (path, error),
            "Give the report.json of an earlier run, or none: then nothing is compared.",
            path=path,
        ) from error
    about = {"file": path, "sha256": hashlib.sha256(content).hexdigest(), "made_at": found["made_at"]}
    return found, about


def write(report: Mapping[str, Any], folder: str, key: str) -> str:
    """All files in a new folder below ``folder``; its path. Raises NotPermitted, InvalidRequest, NotSigned."""
    if key:
        sign.check_key(key)
    try:
        os.makedirs(folder, mode=0o750, exist_ok=True)
        draft = tempfile.mkdtemp(prefix=".draft-", dir=folder)
        try:
            _fill(draft, report, key)
            made = _named(draft, folder, report["made_at"])
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        _point(folder, os.path.basename(made))
        settle(folder)
    except OSError as error:
        raise NotPermitted(
            "The report cannot be written to %s: %s." % (folder, errno_words(error)),
            "Give a folder that this user may write to.",
            path=folder,
        ) from error
    return made


def _fill(draft: str, report: Mapping[str, Any], key: str) -> None:
    contents = {
        HTML: page(report).encode(),
        JSON: (json.dumps(report, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode(),
        CSV: table(report["devices"]).encode(),
        ANCHORS: (json.dumps(report["anchors"], indent=1, sort_keys=True) + "\n").encode(),
    }
    sums = "".join("%s  %s\n" % (hashlib.sha256(content).hexdigest(), name) for name, content in contents.items())
    for name, content in {**contents, SUMS: sums.encode()}.items():
        _write(os.path.join(draft, name), content)
    if key:
        sign.sign(os.path.join(draft, SUMS), key)
    os.chmod(draft, 0o750)


def _write(path: str, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _named(draft: str, folder: str, made_at: str) -> str:
    name = re.sub(r"[-:]", "", made_at)
    if not NAME.fullmatch(name):
        raise InvalidRequest("%r is no moment." % made_at, "Write it as 2026-11-27T06:00:00Z.")
    for number in range(1, 1000):
        path = os.path.join(folder, name if number == 1 else "%s-%d" % (name, number))
        with contextlib.suppress(OSError):
            os.rename(draft, path)  # onto a folder that is not empty it fails
            return path
    raise OSError("no name is left for the report of %s" % made_at)


def _point(folder: str, name: str) -> None:
    """Let ``latest`` lead to the report, at once."""
    link = os.path.join(folder, ".latest-%d" % os.getpid())
    with contextlib.suppress(FileNotFoundError):
        os.unlink(link)
    os.symlink(name, link)
    os.replace(link, os.path.join(folder, LATEST))


def table(devices: Sequence[Mapping[str, Any]]) -> str:
    """The devices as CSV (RFC 4180), one line each."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for device in devices:
        writer.writerow([_cell(device.get(name)) for name in COLUMNS])
    return out.getvalue()


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        value = " ".join("%s=%s" % one for one in sorted(value.items()))
    text = "; ".join(map(str, value)) if isinstance(value, (list, tuple)) else str("" if value is None else value)
    return "'" + text if text.startswith(FORMULA) else text
