# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Requests to the API server, through kubectl proxy on a socket file that only this user can open.

kubectl knows every way to log in (certificates, tokens, plug-ins of clouds); one proxy serves all requests of a run.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import tempfile
from typing import Any, Iterator, NamedTuple, Optional, Sequence

from .._core.errors import InvalidRequest
from .errors import ApiRefused, ClusterUnreachable

MERGE = "application/merge-patch+json"
# Names are enough where the server can give them alone; some cannot for custom resource definitions.
METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=1,application/json"
PAGE = 500


class Place(NamedTuple):
    """Which cluster: the programs and what they are to be told. Empty strings leave the choice to the programs."""

    kubectl: str = "kubectl"
    helm: str = "helm"
    kubeconfig: str = ""
    context: str = ""


class _Socket(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Api:
    """The API server while the context lasts. ``lists`` counts the LISTs that were sent."""

    def __init__(self, place: Place, timeout_s: float = 30.0) -> None:
        self._place = place
        self._timeout_s = timeout_s
        self._folder = ""
        self._proxy: Optional[subprocess.Popen[str]] = None
        self.lists = 0

    def __enter__(self) -> Api:
        # Short, because the path of a socket has at most 107 characters; mkdtemp makes it this user's alone.
        self._folder = tempfile.mkdtemp(prefix="kubectl-")
        command = [self._place.kubectl]
        command += ["--kubeconfig", self._place.kubeconfig] if self._place.kubeconfig else []
        command += ["--context", self._place.context] if self._place.context else []
        command += ["proxy", "--unix-socket", self._path]
        try:
            # It runs on while the module works, which run_command cannot do.
            self._proxy = subprocess.Popen(  # pylint: disable=ansible-bad-function
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        except OSError as error:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise InvalidRequest(
                "kubectl cannot be run as %r: %s." % (self._place.kubectl, error.strerror),
                "Install kubectl on the host that this runs on, or give its path.",
            ) from error
        if self._proxy.stdout is None or not self._proxy.stdout.readline():
            words = self._proxy.communicate()[1].strip()
            self.__exit__()
            raise ClusterUnreachable(
                "kubectl cannot open a way to the cluster: %s." % words.rstrip("."),
                "Check kubeconfig and context with: kubectl get nodes.",
            )
        return self

    def __exit__(self, *_error: object) -> None:
        if self._proxy is not None:
            self._proxy.terminate()
            self._proxy.wait()
            for stream in (self._proxy.stdout, self._proxy.stderr):
                if stream is not None:
                    stream.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _path(self) -> str:
        return os.path.join(self._folder, "s")

    def request(
        self, method: str, path: str, body: Optional[object] = None, kind: str = "application/json", accept: str = ""
    ) -> Any:
        """One request; its JSON, or its text where it is none. Raises ApiRefused, ClusterUnreachable."""
        connection = _Socket(self._path, self._timeout_s)
        headers = {"Content-Type": kind, "Accept": accept or "application/json"}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            text = response.read().decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            raise ClusterUnreachable(
                "The API server did not answer %s %s: %s." % (method, path, error or type(error).__name__),
                "Check that it runs, then run this again.",
            ) from error
        finally:
            connection.close()
        if response.status >= 400:
            raise _refused(method, path, response.status, text)
        try:
            return json.loads(text)
        except ValueError:
            return text

    def get(self, path: str) -> Any:
        """An object; None where there is none."""
        try:
            return self.request("GET", path)
        except ApiRefused as error:
            if error.seen["status"] == 404:
                return None
            raise

    def delete(self, path: str) -> None:
        """Delete an object; one that is not there is no error."""
        try:
            self.request("DELETE", path)
        except ApiRefused as error:
            if error.seen["status"] != 404:
                raise

    def patch(self, path: str, change: object) -> Any:
        """Merge a change."""
        return self.request("PATCH", path, change, MERGE)

    def list(self, path: str, metadata_only: bool = False) -> Optional[Sequence[Any]]:
        """All objects of a collection, page by page; None where the cluster does not know the kind."""
        self.lists += 1
        try:
            return list(self._pages(path, METADATA if metadata_only else ""))
        except ApiRefused as error:
            if error.seen["status"] == 404:
                return None
            raise

    def _pages(self, path: str, accept: str) -> Iterator[Any]:
        mark = "&" if "?" in path else "?"
        more = ""
        while True:
            page = self.request("GET", "%s%slimit=%d%s" % (path, mark, PAGE, more), accept=accept)
            yield from page.get("items") or []
            token = page.get("metadata", {}).get("continue", "")
            if not token:
                return
            more = "&continue=" + token


def _refused(method: str, path: str, status: int, text: str) -> Exception:
    try:
        words = str(json.loads(text).get("message", text))
    except (ValueError, AttributeError):
        words = text
    words = words.strip()[:500].rstrip(".")
    if status in (502, 503, 504):
        return ClusterUnreachable(
            "The API server did not answer %s %s: %d %s." % (method, path, status, words),
            "Check that it runs, then run this again.",
        )
    remedy = "Give the user of this kubeconfig the right to do so." if status in (401, 403) else "See the message."
    return ApiRefused(
        "The API server refused %s %s: %d %s." % (method, path, status, words), remedy, status=status, path=path
    )
