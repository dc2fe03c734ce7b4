# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Helm as a program: charts fetched and rendered, releases upgraded, repaired and uninstalled.

Values go through Helm's standard input, because a command line is there for everybody to see.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import re
import subprocess
import tarfile
from typing import Any, Mapping, NamedTuple, Optional, Sequence

from .._core.errors import InvalidRequest
from .errors import ChartRefused, HelmFailed
from .kubectl import Api, Place
from .release import MARK, Release, latest, objects

SELECTOR = "labelSelector=owner%3Dhelm%2Cname%3D"


class Chart(NamedTuple):
    """A chart: a folder, an archive, oci://..., or a name with a repository's address; '' leaves a thing open."""

    ref: str
    version: str = ""
    repository: str = ""
    digest: str = ""


class Ready(NamedTuple):
    """A chart on this host."""

    path: str
    name: str
    version: str
    digest: str


class Helm:
    """One release in one cluster."""

    def __init__(self, place: Place, api: Api, name: str, namespace: str) -> None:
        self._place = place
        self._api = api
        self.name = name
        self.namespace = namespace

    def history(self) -> list[Release]:
        """Every revision, the newest first."""
        path = "/api/v1/namespaces/%s/secrets?%s%s" % (self.namespace, SELECTOR, self.name)
        return latest(self._api.list(path) or ())

    def fetch(self, chart: Chart, folder: str) -> Ready:
        """The chart on this host, its digest and version checked. Raises ChartRefused, HelmFailed."""
        path = chart.ref
        if not os.path.exists(path):
            path = self._pull(chart, folder)
        digest = _digest(path) if os.path.isfile(path) else ""
        wanted = chart.digest.rpartition(":")[2].lower()
        if wanted and digest != wanted:
            raise ChartRefused(
                "The chart %s has the SHA-256 %s, not %s."
                % (chart.ref, digest or "of no file: it is a folder", wanted),
                "Give the archive that this digest is of, or the digest of this one if you trust it.",
                digest=digest,
            )
        name, version = _metadata(_chart_file(path))
        if chart.version and version != chart.version.lstrip("v") and version != chart.version:
            raise ChartRefused(
                "The chart %s is version %s, not %s." % (chart.ref, version, chart.version),
                "Give the version that it is, or another chart.",
                version=version,
            )
        return Ready(path, name, version, digest)

    def render(
        self, chart: Ready, values: Mapping[str, Any], take_ownership: bool, first: bool, valid: bool
    ) -> Release:
        """What an upgrade would install; nothing is written.

        It is rendered against what the cluster knows now, but for a ``first`` install: then Helm would want the cluster
        to know the chart's own kinds, which the install brings. ``valid``: and held against the server's schemas, which
        takes longer than all the rest.
        """
        dry = ["--dry-run=client" if first else "--dry-run=server", "--output", "json"]
        dry += [] if valid else ["--disable-openapi-validation"]
        done = self._run([*self._upgrade(chart, take_ownership), *dry], json.dumps(values))
        try:
            found = json.loads(done[done.index("{") :])
        except ValueError as error:
            raise HelmFailed(
                "Helm rendered something that is no JSON: %s." % error, "Use Helm 3.17 or later."
            ) from error
        hooks = [str(hook.get("manifest", "")) for hook in found.get("hooks") or []]
        return Release(
            self.name,
            self.namespace,
            0,
            "wanted",
            chart.name,
            chart.version,
            values,
            found.get("manifest", ""),
            hooks,
            "",
            chart.digest,
        )

    def upgrade(self, chart: Ready, values: Mapping[str, Any], take_ownership: bool, timeout_s: int) -> None:
        """Install or upgrade; waits for the objects to be ready unless the time is 0. Raises HelmFailed."""
        wait = ["--wait", "--timeout", "%ds" % timeout_s] if timeout_s > 0 else []
        mark = ["--description", "%s %s" % (MARK, chart.digest)] if chart.digest else []
        command = [*self._upgrade(chart, take_ownership), "--create-namespace", *mark, *wait]
        self._run(command, json.dumps(values))

    def uninstall(self, newest: Release, timeout_s: int) -> list[str]:
        """Take the release away, with what its hooks left. Returns warnings. Raises HelmFailed."""
        warnings = []
        command = ["uninstall", self.name, "--ignore-not-found", "--wait", "--timeout", "%ds" % max(timeout_s, 1)]
        try:
            self._run(command)
        except HelmFailed as error:
            # A hook whose image cannot be pulled must not keep the rest. Helm has deleted the objects before it runs
            # a post-delete hook, so this ends what it began.
            warnings.append(
                "%s It was uninstalled without hooks: what they clean up on nodes may be left." % error.cause
            )
            self._run([*command, "--no-hooks"])
        for secret in self.history():
            self.forget(secret.revision)
        leftover = "\n---\n".join(text for text in objects(newest.hooks).values() if text)
        if leftover:
            self._kubectl(["delete", "--ignore-not-found", "--wait=false", "-f", "-"], leftover)
        return warnings

    def forget(self, revision: int) -> None:
        """Let Helm not know of a revision. What it installed stays, and counts as this release's still."""
        path = "/api/v1/namespaces/%s/secrets/sh.helm.release.v1.%s.v%d" % (self.namespace, self.name, revision)
        self._api.delete(path)

    def _pull(self, chart: Chart, folder: str) -> str:
        if chart.ref.startswith((".", "/")):
            raise InvalidRequest("There is no chart %s." % chart.ref, "Give the path of a folder or an archive.")
        if not chart.ref.startswith("oci://") and not chart.repository:
            raise InvalidRequest(
                "%r is neither a file nor oci://..., and no repository is given." % chart.ref,
                "Give a path, an OCI reference, or the address of a Helm repository.",
            )
        command = ["pull", chart.ref, "--destination", folder]
        command += ["--version", chart.version] if chart.version else []
        command += ["--repo", chart.repository] if chart.repository else []
        self._run(command)
        (name,) = os.listdir(folder)
        return os.path.join(folder, name)

    def _upgrade(self, chart: Ready, take_ownership: bool) -> list[str]:
        # --reset-values: without it Helm keeps old values when it is given none.
        command = ["upgrade", "--install", self.name, chart.path, "--values", "-", "--reset-values"]
        return command + (["--take-ownership"] if take_ownership else [])

    def _run(self, arguments: Sequence[str], text: str = "") -> str:
        command = [self._place.helm, *arguments, "--namespace", self.namespace]
        command += ["--kubeconfig", self._place.kubeconfig] if self._place.kubeconfig else []
        command += ["--kube-context", self._place.context] if self._place.context else []
        return _run(command, text)

    def _kubectl(self, arguments: Sequence[str], text: str) -> str:
        command = [self._place.kubectl, "--namespace", self.namespace]
        command += ["--kubeconfig", self._place.kubeconfig] if self._place.kubeconfig else []
        command += ["--context", self._place.context] if self._place.context else []
        return _run([*command, *arguments], text)


def age_s(stamp: str, now: datetime.datetime) -> Optional[float]:
    """Seconds since Helm's time stamp, which may have nanoseconds; None where it is none."""
    match = re.match(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)$", stamp)
    if not match:
        return None
    zone = "+00:00" if match.group(2) == "Z" else match.group(2)
    return (now - datetime.datetime.fromisoformat(match.group(1) + zone)).total_seconds()


def _run(command: Sequence[str], text: str) -> str:
    try:
        # No module runs here: _coco knows nothing of Ansible.
        done = subprocess.run(  # pylint: disable=ansible-bad-function
            command, input=text, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise InvalidRequest(
            "%s cannot be run: %s." % (command[0], error.strerror),
            "Install it on the host that this runs on, or give its path.",
        ) from error
    if done.returncode:
        words = " ".join(line for line in done.stderr.split("\n") if line.strip())[-1500:]
        raise HelmFailed(
            "%s %s ended with status %d: %s."
            % (os.path.basename(command[0]), command[1], done.returncode, words.rstrip(".")),
            "Look at the pods and Events of the namespace, then run this again.",
            status=done.returncode,
        )
    return done.stdout


def _chart_file(path: str) -> str:
    """Chart.yaml of a folder or an archive, whose only folder is the chart. Raises InvalidRequest."""
    try:
        if os.path.isdir(path):
            with open(os.path.join(path, "Chart.yaml"), encoding="utf-8") as file:
                return file.read()
        with tarfile.open(path) as archive:
            # Charts that it depends on lie deeper.
            name = next(name for name in archive.getnames() if re.match(r"(\./)?[^/]+/Chart\.yaml$", name))
            member = archive.extractfile(name)
            return member.read().decode("utf-8", "replace") if member else ""
    except (OSError, StopIteration, tarfile.TarError) as error:
        raise InvalidRequest(
            "%s is no chart: it has no Chart.yaml that can be read." % path,
            "Give the folder or the archive of a chart.",
        ) from error


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def _metadata(text: str) -> tuple[str, str]:
    """Name and version in a Chart.yaml as Helm prints it: keys of the first level are not indented."""
    fields = dict(re.findall(r'^(name|version): *["\']?([^\s"\']+)', text, re.MULTILINE))
    return fields.get("name", ""), fields.get("version", "")
