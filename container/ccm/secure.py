# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The secure port: HTTPS with a certificate that may be replaced, and metrics for those who may read them.

Who asks is told by the API server (TokenReview), and so is whether they may (SubjectAccessReview).
"""

from __future__ import annotations

import hashlib
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kube.client import NOT_AN_OBJECT, ApiError, Kube
from kube.settings import BadSetting

from .problems import Problems

OPEN = ("/healthz", "/livez", "/readyz")
TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
# As long as Kubernetes' own servers believe an answer.
BELIEVED_S = 10.0
MOST_KNOWN = 100


class Certificate:
    """The context of new connections, made again when one of the files is another. Raises BadSetting."""

    def __init__(self, certificate: str, key: str) -> None:
        self._files = (Path(certificate), Path(key))
        self._lock = threading.Lock()
        try:
            self._stamp, self._context = self._read()
        except (OSError, ssl.SSLError) as error:
            reason = getattr(error, "strerror", None) or getattr(error, "reason", None) or "unusable"
            raise BadSetting(f"--tls-cert-file {certificate}, --tls-private-key-file {key}: {reason}.") from None

    def _read(self) -> tuple[object, ssl.SSLContext]:
        stamp = self._now()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self._files, password=str)
        return stamp, context

    def _now(self) -> object:
        return [(one.stat().st_mtime_ns, one.stat().st_ino) for one in self._files]

    def __call__(self) -> ssl.SSLContext:
        """The context; the old one while the new files cannot be used."""
        with self._lock:
            try:
                if self._now() != self._stamp:
                    self._stamp, self._context = self._read()
            except (OSError, ssl.SSLError):
                pass
            return self._context


class Guard:
    """Whether a request may be answered. Threads share it."""

    def __init__(self, kube: Kube, problems: Problems, now: Callable[[], float] = time.monotonic) -> None:
        self._kube = kube
        self._problems = problems
        self._now = now
        self._known: dict[tuple[str, bytes], tuple[int, float]] = {}

    def __call__(self, path: str, authorization: str) -> int:
        """0, or the status to answer with."""
        if path in OPEN:
            return 0
        scheme, _space, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            return 403
        key = (path, hashlib.sha256(token.encode()).digest())
        status, until = self._known.get(key, (0, 0.0))
        if self._now() < until:
            return status
        try:
            status = self._asked(path, token)
        except (ApiError, *NOT_AN_OBJECT):
            return 503
        if len(self._known) >= MOST_KNOWN:
            self._known = {}
        self._known[key] = (status, self._now() + BELIEVED_S)
        return status

    def _asked(self, path: str, token: str) -> int:
        review = self._create("create tokenreviews", TOKEN_REVIEWS, {"token": token})
        if not review.get("authenticated"):
            return 401
        user: Mapping[str, Any] = review["user"]
        about = {
            key: user[field]
            for key, field in (("user", "username"), ("groups", "groups"), ("uid", "uid"))
            if field in user
        }
        access = {**about, "nonResourceAttributes": {"path": path, "verb": "get"}}
        if "extra" in user:
            access["extra"] = user["extra"]
        found = self._create("create subjectaccessreviews", ACCESS_REVIEWS, access)
        return 0 if found.get("allowed") is True else 403

    def _create(self, right: str, path: str, spec: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            found: Mapping[str, Any] = self._kube.request("POST", path, None, {"spec": spec})["status"]
        except ApiError as error:
            self._problems.refused(right, error)
            raise
        self._problems.over(right)
        return found
