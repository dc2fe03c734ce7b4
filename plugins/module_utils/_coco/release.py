# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Helm releases as data: what is installed, what is wanted, and what differs. No process is run here.

Releases are read from the Secrets in which Helm 3 and 4 keep them, not from ``helm get``: one request tells chart,
values, manifest, hooks and every revision, an interrupted one included, and a host that only looks needs no Helm.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import json
import re
from typing import Any, Iterable, Mapping, NamedTuple, Optional, Sequence

from .._core.errors import ExplainedError, InvalidRequest
from .errors import ReleaseWedged

PENDING = ("pending-install", "pending-upgrade", "pending-rollback")
# A release in this state is not one to upgrade: Helm says that it "has no deployed releases".
HALF_GONE = "uninstalling"
MARK = "chart sha256:"
HIDDEN = "(hidden)"
_SECRET = re.compile(r"secret|passw|token|credential|apikey|api_key|privatekey|\bkey\b", re.IGNORECASE)
_IMAGE = re.compile(r'^\s*(?:-\s+)?image:\s*["\']?([^\s"\']+)["\']?\s*$', re.MULTILINE)


class Release(NamedTuple):
    """One revision. ``updated`` is Helm's time stamp; ``digest``: the chart's, '' where nobody knows."""

    name: str
    namespace: str
    revision: int
    status: str
    chart: str
    version: str
    config: Mapping[str, Any]
    manifest: str
    hooks: Sequence[str]
    updated: str = ""
    digest: str = ""


class Change(NamedTuple):
    """One difference; ``before`` and ``after`` are for people."""

    what: str
    before: str
    after: str


def decode(secret: Mapping[str, Any]) -> Release:
    """The release in a Secret of type helm.sh/release.v1. Raises InvalidRequest."""
    name = secret.get("metadata", {}).get("name", "")
    try:
        packed = base64.b64decode(base64.b64decode(secret["data"]["release"]))
        found = json.loads(gzip.decompress(packed) if packed[:2] == b"\x1f\x8b" else packed)
        chart = found.get("chart", {}).get("metadata", {})
        info = found.get("info", {})
        description = str(info.get("description", ""))
        return Release(
            found["name"],
            found.get("namespace", ""),
            int(found["version"]),
            str(info.get("status", "unknown")),
            chart.get("name", ""),
            chart.get("version", ""),
            found.get("config") or {},
            found.get("manifest", ""),
            [str(hook.get("manifest", "")) for hook in found.get("hooks") or []],
            str(info.get("last_deployed", "")),
            description.partition(MARK)[2].strip(),
        )
    except (KeyError, ValueError, TypeError, OSError, EOFError, binascii.Error) as error:
        raise InvalidRequest(
            "The Secret %s is no Helm release that can be read: %s." % (name, error),
            "Look at it with: helm history, and delete it if nothing needs it.",
        ) from error


def latest(secrets: Iterable[Mapping[str, Any]]) -> list[Release]:
    """All revisions of a release, the newest first."""
    return sorted((decode(one) for one in secrets), key=lambda one: -one.revision)


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Values as Helm merges them: mappings key by key, anything else as a whole."""
    answer = dict(below)
    for key, value in above.items():
        under = answer.get(key)
        answer[key] = merged(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return answer


def differences(
    installed: Optional[Release], wanted: Release, secret_paths: Iterable[str] = (), by_rendering: bool = True
) -> list[Change]:
    """What an upgrade would change: chart, version, digest, values, objects and hooks.

    An installed chart whose digest nobody wrote down is judged by what it renders. Contents of objects and values that
    look like secrets, or are below ``secret_paths``, are not told.
    """
    if installed is None:
        return [Change("release", "", "%s %s" % (wanted.chart, wanted.version))]
    changes = []
    if installed.status != "deployed":
        changes.append(Change("status", installed.status, "deployed"))
    for what in ("chart", "version"):
        if getattr(installed, what) != getattr(wanted, what):
            changes.append(Change(what, getattr(installed, what), getattr(wanted, what)))
    if installed.digest and wanted.digest and installed.digest != wanted.digest:
        changes.append(Change("digest", installed.digest, wanted.digest))
    changes += _values(installed.config, wanted.config, tuple(secret_paths))
    if by_rendering:
        changes += _objects("object", objects([installed.manifest]), objects([wanted.manifest]))
        changes += _objects("hook", objects(installed.hooks), objects(wanted.hooks))
    return changes


def _values(before: Mapping[str, Any], after: Mapping[str, Any], secret: tuple[str, ...]) -> list[Change]:
    old, new = dict(leaves(before)), dict(leaves(after))
    changes = []
    for path in sorted(set(old) | set(new)):
        if old.get(path, ...) != new.get(path, ...):
            texts = ["" if path not in side else json.dumps(side[path], sort_keys=True) for side in (old, new)]
            if _SECRET.search(path) or any(path == one or path.startswith(one + ".") for one in secret):
                texts = [text and HIDDEN for text in texts]
            changes.append(Change("values." + path, *texts))
    return changes


def leaves(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """('a.b', value) for whatever is no mapping, or an empty one."""
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        path = prefix + str(key)
        found += leaves(value, path + ".") if isinstance(value, dict) and value else [(path, value)]
    return found


def objects(manifests: Iterable[str]) -> dict[str, str]:
    """'Kind namespace/name' to the text of each object in YAML as Helm prints it."""
    found: dict[str, str] = {}
    for manifest in manifests:
        for text in re.split(r"^---\s*$", manifest, flags=re.MULTILINE):
            lines = [line.rstrip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
            if lines:
                found[_name(lines, len(found))] = "\n".join(lines)
    return found


def _name(lines: Sequence[str], number: int) -> str:
    kind, fields, inside, indent = "", {}, False, 0
    for line in lines:
        depth = len(line) - len(line.lstrip())
        if depth == 0:
            inside, indent = line.startswith("metadata:"), 0
            if line.startswith("kind:"):
                kind = line.partition(":")[2].strip()
        elif inside:
            indent = indent or depth
            match = re.match(r'^ +(name|namespace): *["\']?([^\s"\']+)', line)
            if match and depth == indent:
                fields[match.group(1)] = match.group(2)
    name = fields.get("name", "number %d" % number)
    return "%s %s" % (kind or "object", "/".join(filter(None, [fields.get("namespace"), name])))


def _objects(what: str, before: Mapping[str, str], after: Mapping[str, str]) -> list[Change]:
    changes = []
    for name in sorted(set(before) | set(after)):
        if before.get(name) != after.get(name):
            states = ("there", "changed") if name in before and name in after else ("", "")
            changes.append(
                Change(
                    "%s %s" % (what, name),
                    states[0] or ("there" if name in before else ""),
                    states[1] or ("there" if name in after else ""),
                )
            )
    return changes


def images(release: Release) -> list[str]:
    """Every image that the objects name: of containers, and of NVIDIA's objects with repository, image, version."""
    text = "\n---\n".join([release.manifest, *release.hooks])
    found = {name for name in _IMAGE.findall(text) if "/" in name or ":" in name}
    triple = re.compile(
        r'^( +)repository: *["\']?([^\s"\']+)["\']? *\n\1image: *["\']?([^\s"\']+)["\']? *$'
        r'(?:\n\1version: *["\']?([^\s"\']+)["\']? *$)?',
        re.MULTILINE,
    )
    for _indent, repository, image, version in triple.findall(text):
        found.add("%s/%s%s" % (repository, image, _tagged(version)))
    return sorted(found)


def _tagged(version: str) -> str:
    if not version:
        return ""
    return "@" + version if version.startswith("sha256:") else ":" + version


def outside(names: Iterable[str], registry: str) -> list[str]:
    """Images that are not below the registry's prefix."""
    prefix = registry.rstrip("/") + "/"
    return [name for name in names if not name.startswith(prefix)]


def unpinned(names: Iterable[str]) -> list[str]:
    """Images without a tag or digest, or with the tag latest."""
    return [name for name in names if "@" not in name and name.rpartition("/")[2].partition(":")[2] in ("", "latest")]


def wedged(newest: Optional[Release], age_s: Optional[float], patience_s: float) -> Optional[ExplainedError]:
    """Why Helm would not touch this release, unless it would; ``age_s`` since its last change, None if not known."""
    if newest is None or newest.status not in (*PENDING, HALF_GONE):
        return None
    name = "%s/%s" % (newest.namespace, newest.name)
    if age_s is not None and age_s < patience_s:
        error = ReleaseWedged(
            "The release %s is %s since %.0f s: another Helm may be at work on it." % (name, newest.status, age_s),
            "Wait until it ends; after %.0f s it counts as interrupted." % patience_s,
            age_s=age_s,
        )
        error.retryable = True
        return error
    return ReleaseWedged(
        "The release %s is %s at revision %d: a Helm was interrupted." % (name, newest.status, newest.revision),
        "Allow its repair (repair: true), which forgets that revision and installs again over what is there.",
        revision=newest.revision,
        status=newest.status,
    )
