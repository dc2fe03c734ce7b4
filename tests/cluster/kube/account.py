# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""What a service account may do: requests with a token of it."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator

import pytest

from .api import MERGE, Api, ApiError, Object
from .cluster import NODE_PATH, Cluster

_NUMBERS = itertools.count(1)


class Account:
    """The owner of a token."""

    def __init__(self, cluster: Cluster, token: str) -> None:
        name = f"account{next(_NUMBERS)}"
        self.cluster = cluster
        self.api: Api = cluster.start_proxy(name, cluster.settings.write_kubeconfig(name, token))

    def patch(self, change: Object, path: str = NODE_PATH) -> None:
        """Change a node, or something else. Raises ApiError."""
        self.api.patch(path, change)

    def evict(self, name: str, namespace: str = "default") -> None:
        """Evict a pod. Raises ApiError."""
        evict(self.api, name, namespace)

    def may(self, change: Object) -> bool:
        """Whether it may change this of the node, which is left as it is."""
        try:
            self.api.request("PATCH", f"{NODE_PATH}?dryRun=All", change, MERGE)
        except ApiError as error:
            if "ValidatingAdmissionPolicy" not in str(error):
                raise
            return False
        return True

    def wait_until(self, change: Object, allowed: bool, timeout_s: float = 20) -> None:
        """Until it may change this, or may not: the API server compiles a new policy within seconds of being told."""
        deadline = time.monotonic() + timeout_s
        while self.may(change) != allowed:
            if time.monotonic() > deadline:
                raise ApiError(f"after {timeout_s:.0f} s still {'refused' if allowed else 'allowed'}: {change}")
            time.sleep(0.1)  # nothing tells when it has


def evict(api: Api, name: str, namespace: str = "default") -> None:
    """Evict a pod, as whoever asks this API. Raises ApiError."""
    metadata = {"name": name, "namespace": namespace}
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata}
    api.request("POST", f"/api/v1/namespaces/{namespace}/pods/{name}/eviction", eviction)


@contextlib.contextmanager
def refused(words: str = "") -> Iterator[None]:
    """A request that an admission policy refuses with 403, saying these words."""
    with pytest.raises(ApiError) as error:
        yield
    assert "ValidatingAdmissionPolicy" in str(error.value)
    assert error.value.status == 403
    assert words in str(error.value)
