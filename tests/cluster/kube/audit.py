# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""What was asked of the API server."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .cluster import Cluster


class Audit:
    """The API server's log of what service accounts asked for."""

    def __init__(self, cluster: Cluster) -> None:
        self._path = Path(cluster.settings.path("audit.log"))

    def read(self, user: str) -> Counter[str]:
        """Requests of one user by verb and resource. A watch counts when it begins."""
        counted: Counter[str] = Counter()
        for event in self._events(user):
            about = event["objectRef"]
            verb = event["verb"]
            if event["stage"] == ("ResponseStarted" if verb == "watch" else "ResponseComplete"):
                counted[f"{verb} {about['resource']}"] += 1
        return counted

    def _events(self, user: str) -> Iterator[dict[str, Any]]:
        with self._path.open() as lines:
            for line in lines:
                if user in line and line.endswith("\n"):
                    event: dict[str, Any] = json.loads(line)
                    if event["user"]["username"] == user:
                        yield event
