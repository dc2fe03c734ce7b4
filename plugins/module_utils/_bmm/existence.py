# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Whether an instance is gone, for who would delete something because of it: only a proof counts."""

from __future__ import annotations

from typing import NamedTuple, Optional

from .client import Client
from .errors import ApiError, NotFound
from .pages import Record
from .records import TERMINATED

# The API's words about an instance; a route that is not there, and a thing of another kind, have other words.
NO_INSTANCE = "could not find instance with specified id"


class Existence(NamedTuple):
    """``gone`` is true only when it is proven; then ``why`` says by what. ``instance`` where the API gave one."""

    gone: bool
    why: str
    instance: Optional[Record] = None


def look(client: Client, instance_id: str, tenant_id: str, site_id: str = "") -> Existence:
    """Ask for the instance, and where it is not found, whether the same API still serves this tenant and site.

    Raises ApiError when nothing can be told, which is never a reason to delete.
    """
    try:
        instance = client.instance(instance_id)
    except NotFound as error:
        if error.message.lower().rstrip(".") != NO_INSTANCE:
            raise
        _probe(client, tenant_id, site_id, error)
        return Existence(True, "the API finds no instance %s, and serves tenant %s" % (instance_id, tenant_id))
    if instance.get("status") == TERMINATED:
        return Existence(True, "instance %s is %s" % (instance_id, TERMINATED), instance)
    return Existence(False, "instance %s is %s" % (instance_id, instance.get("status")), instance)


def _probe(client: Client, tenant_id: str, site_id: str, cause: NotFound) -> None:
    """Raise unless the API serves this tenant, and this site where one is given."""
    tenant = client.tenant()
    if not tenant_id or tenant.get("id") != tenant_id:
        raise ApiError(
            "%s But the token belongs to tenant %s, not to %s." % (cause.cause, tenant.get("id"), tenant_id or "any"),
            "Give a token and a tenant id that belong together: nothing is deleted until then.",
            status=cause.status,
        )
    if site_id:
        client.site(site_id)
