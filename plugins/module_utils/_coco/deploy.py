# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""From what is asked of a Helm release to what was, or would be, changed."""

from __future__ import annotations

import concurrent.futures
import datetime
import json
import tempfile
from typing import Any, Mapping, Optional

from .._core.errors import ExplainedError, InvalidRequest
from .errors import ChartRefused
from .helm import Chart, Helm, age_s
from .kubectl import Api, Place
from .release import Change, Release, differences, images, leaves, merged, outside, unpinned, wedged
from .versions import older


def run(given: Mapping[str, Any], check: bool) -> dict[str, Any]:
    """The answer of the module helm_release, whose arguments these are. Raises ExplainedError."""
    hidden = _hidden(given.get("secret_values") or "{}")
    with Api(_place(given)) as api:
        return _one(api, given, hidden, check)


def plan(given: Mapping[str, Any]) -> dict[str, Any]:
    """The answer of the module helm_release_info: what would change in each release, or why nobody can say.

    All are compared at once: Helm spends its time on a process, a chart and a way to the cluster for each.
    Raises ClusterUnreachable.
    """
    wanted = [{**given, "state": "present", "timeout": 0, **one} for one in given["releases"]]
    with Api(_place(given)) as api, concurrent.futures.ThreadPoolExecutor(max(len(wanted), 1)) as pool:
        found = list(pool.map(lambda one: _planned(api, one), wanted))
    return {"releases": found, "images": sorted({image for one in found for image in one["images"]})}


def _planned(api: Api, given: Mapping[str, Any]) -> dict[str, Any]:
    answer = {key: given[key] for key in ("name", "namespace")}
    try:
        found = _one(api, given, _hidden(given.get("secret_values") or "{}"), True)
    except ExplainedError as error:
        return {**answer, "changed": False, "changes": [], "images": [], "error": error.as_dict()}
    return {**answer, **{key: found[key] for key in ("changed", "changes", "images", "chart", "installed")}}


def _place(given: Mapping[str, Any]) -> Place:
    return Place(given["kubectl"], given["helm"], given["kubeconfig"], given["context"])


def _one(api: Api, given: Mapping[str, Any], hidden: Mapping[str, Any], check: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        helm = Helm(_place(given), api, given["name"], given["namespace"])
        history = helm.history()
        if given["state"] == "absent":
            return _absent(helm, history[0] if history else None, given["timeout"], check)
        return _present(helm, history, given, hidden, check, folder)


def _present(
    helm: Helm, history: list[Release], given: Mapping[str, Any], hidden: Mapping[str, Any], check: bool, folder: str
) -> dict[str, Any]:
    newest = history[0] if history else None
    now = datetime.datetime.now(datetime.timezone.utc)
    problem = wedged(newest, age_s(newest.updated, now) if newest else None, given["patience"])
    if problem and (problem.retryable or not given["repair"]):
        raise problem
    chart = helm.fetch(Chart(given["chart"], given["version"], given["repository"], given["digest"]), folder)
    installed = newest
    if installed and not problem and older(chart.version, installed.version) and not given["downgrade"]:
        raise ChartRefused(
            "The release %s/%s has %s %s; %s is older."
            % (helm.namespace, helm.name, installed.chart, installed.version, chart.version),
            "Nobody tries downgrades of these charts: ask for the installed version or a newer one, or allow it with "
            "downgrade: true.",
        )
    values = merged(given["values"], hidden)
    if given["keep_values"] and newest:
        values = merged(newest.config, values)
    if problem and newest and not check:
        # Helm would refuse the dry run, too.
        helm.forget(newest.revision)
    wanted = None
    if not (problem and check):
        wanted = helm.render(chart, values, given["take_ownership"], installed is None, False)
    changes = [Change("repair", newest.status, "deployed")] if problem and newest else []
    if wanted:
        refuse_images(wanted, given["registry"])
        changes += differences(installed, wanted, [path for path, _value in leaves(hidden)])
    if changes and wanted and check:
        # As the real run would be refused: what is held against the schemas is only what would be sent.
        helm.render(chart, values, given["take_ownership"], installed is None, True)
    if changes and not check:
        helm.upgrade(chart, values, given["take_ownership"], given["timeout"])
    return {
        "images": images(wanted) if wanted else [],
        "chart": {"name": chart.name, "version": chart.version, "digest": chart.digest},
        **_answer(installed, changes),
    }


def _absent(helm: Helm, newest: Optional[Release], timeout_s: int, check: bool) -> dict[str, Any]:
    if newest is None:
        return _answer(None, [])
    warnings = [] if check else helm.uninstall(newest, timeout_s)
    return {**_answer(newest, [Change("release", "%s %s" % (newest.chart, newest.version), "")]), "warnings": warnings}


def _answer(installed: Optional[Release], changes: list[Change]) -> dict[str, Any]:
    names = ("revision", "status", "chart", "version", "digest")
    return {
        "changed": bool(changes),
        "changes": [change._asdict() for change in changes],
        "installed": {name: getattr(installed, name) for name in names} if installed else None,
        "warnings": [],
        "diff": {
            "before": "".join("%s: %s\n" % (one.what, one.before) for one in changes if one.before),
            "after": "".join("%s: %s\n" % (one.what, one.after) for one in changes if one.after),
        },
    }


def refuse_images(wanted: Release, registry: str) -> None:
    """With a registry, every image is below it and pinned. Raises ChartRefused."""
    if not registry:
        return
    names = images(wanted)
    about = "The chart %s %s names images " % (wanted.chart, wanted.version)
    remedy = "Set the values of the chart that name them; nothing was changed."
    strange = outside(names, registry)
    if strange:
        raise ChartRefused(
            about + "that are not below %s: %s." % (registry, ", ".join(strange)), remedy, images=strange
        )
    loose = unpinned(names)
    if loose:
        raise ChartRefused(
            about + "without a tag, or with the tag latest: %s." % ", ".join(loose), remedy, images=loose
        )


def _hidden(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        # Not the text itself: it holds secrets.
        raise InvalidRequest("secret_values is no JSON.", "Give a mapping through to_json.") from error
    if not isinstance(found, dict):
        raise InvalidRequest("secret_values is no mapping.", "Give a mapping through to_json.")
    return found
