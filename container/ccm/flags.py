# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The command line: flags as Kubernetes' cloud controller managers have them. An unknown one is refused."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from kube.lease import Times
from kube.settings import BadSetting, count, is_json, port, text

from .names import COMPONENT

PROVIDER = "nvidia-bmm"
# What there is, by all its names in use.
CONTROLLERS = {
    "cloud-node-controller": "node",
    "cloud-node": "node",
    "cloud-node-lifecycle-controller": "lifecycle",
    "cloud-node-lifecycle": "lifecycle",
}
# What other cloud controller managers have beside: may be turned off, and not on.
NOT_HERE = ("service-lb-controller", "service", "node-route-controller", "route")
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Settings:
    """What this process was told. Times in seconds."""

    cloud_config: str
    kubeconfig: str
    controllers: frozenset[str]
    leader_elect: bool
    times: Times
    lease_name: str
    lease_namespace: str
    monitor_period_s: float
    update_period_s: float
    workers: int
    qps: float
    burst: int
    bind_address: str
    port: int
    certificate: str
    key: str
    deletion_share: float
    deletion_window_s: float
    log_json: bool
    debug: bool


class Flag(NamedTuple):
    """``read`` makes the value of the text; ValueError: what is possible. ``bare``: the text of a flag without one."""

    name: str
    default: str
    read: Callable[[str], Any]
    help: str
    bare: str | None = None


def duration(value: str) -> float:
    """Seconds of 15s, 1m30s, 100ms."""
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)", value)
    if value == "0" or (parts and "".join(number + unit for number, unit in parts) == value):
        return sum(float(number) * UNITS[unit] for number, unit in parts)
    raise ValueError("a time such as 15s, 1m30s or 100ms")


def _some_time(value: str) -> float:
    found = duration(value)
    if found < 0.1:
        raise ValueError("a time of 100ms or more")
    return found


def truth(value: str) -> bool:
    """As Go reads one."""
    if value in ("true", "True", "TRUE", "t", "T", "1"):
        return True
    if value in ("false", "False", "FALSE", "f", "F", "0"):
        return False
    raise ValueError("true or false")


def _off(value: str) -> bool:
    if truth(value):
        raise ValueError("false: there is no such controller here")
    return False


def number(value: str) -> float:
    """Zero or more."""
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", value):
        raise ValueError("a number, 0 or more")
    return float(value)


def share(value: str) -> float:
    """A part of all, in percent."""
    found = number(value.removesuffix("%"))
    if not 0 < found <= 100:
        raise ValueError("percent, from more than 0 to 100")
    return found / 100


def provider(value: str) -> str:
    """The one that there is."""
    if value != PROVIDER:
        raise ValueError(PROVIDER)
    return value


def controllers(value: str) -> frozenset[str]:
    """Those that run: * for all, a name, -name for not this one; the first that names one counts."""
    words = [one.strip() for one in value.split(",") if one.strip()]
    for one in words:
        name = one.removeprefix("-")
        if one != "*" and name not in CONTROLLERS and not (name in NOT_HERE and one != name):
            raise ValueError(f"*, or of {', '.join(sorted(CONTROLLERS))}, with - before what is not to run")
    chosen = set(CONTROLLERS.values()) if "*" in words else set()
    for one in reversed(words):
        if one in CONTROLLERS:
            chosen.add(CONTROLLERS[one])
        elif one.removeprefix("-") in CONTROLLERS:
            chosen.discard(CONTROLLERS[one.removeprefix("-")])
    return frozenset(chosen)


FLAGS = (
    Flag("cloud-provider", PROVIDER, provider, f"{PROVIDER}, the only one"),
    Flag("cloud-config", "", text, "the cloud config's file; without it the environment alone"),
    Flag("kubeconfig", "", text, "default: the pod's service account"),
    Flag("controllers", "*", controllers, "which run"),
    Flag("leader-elect", "true", truth, "let one of several processes work", "true"),
    Flag("leader-elect-lease-duration", "15s", duration, "how long a Lease holds that is not renewed"),
    Flag("leader-elect-renew-deadline", "10s", duration, "how long its holder leads without renewing it"),
    Flag("leader-elect-retry-period", "2s", duration, "between two tries"),
    Flag("leader-elect-resource-name", "cloud-controller-manager", text, "the Lease's name"),
    Flag("leader-elect-resource-namespace", "kube-system", text, "and its namespace"),
    Flag("leader-elect-resource-lock", "leases", text, "leases, the only kind"),
    Flag("node-monitor-period", "5s", _some_time, "between two looks at nodes that are not ready"),
    Flag("node-status-update-frequency", "5m", _some_time, "between two looks at the addresses of all nodes"),
    Flag("concurrent-node-syncs", "4", count, "nodes that are initialised at once"),
    Flag("kube-api-qps", "0", number, "requests a second to the API server; 0: as fast as it answers"),
    Flag("kube-api-burst", "30", count, "requests at once, where there is such a limit"),
    Flag("bind-address", "", text, "of the secure port; default: all"),
    Flag("secure-port", "10258", port, "HTTPS: /healthz, /readyz, and /metrics for who may; 0: none"),
    Flag("tls-cert-file", "", text, "its certificate; needed for the port"),
    Flag("tls-private-key-file", "", text, "and the key"),
    Flag("node-deletion-limit", "10%", share, "of the nodes may be deleted within the window, and at least one"),
    Flag("node-deletion-window", "10m", _some_time, "see there"),
    Flag("use-service-account-credentials", "false", truth, "taken, and of no effect: one account does all", "true"),
    Flag("configure-cloud-routes", "false", _off, "false, the only choice", "true"),
    Flag("allocate-node-cidrs", "false", _off, "false, the only choice", "true"),
    Flag("cluster-name", "kubernetes", text, "taken, and of no effect"),
    Flag("logging-format", "text", is_json, "text or json lines"),
    Flag("v", "0", number, "4 or more: log more"),
)


def parse(arguments: Sequence[str]) -> Settings:
    """The settings. Raises BadSetting; ends the process for --help and unknown flags."""
    parser = argparse.ArgumentParser(prog=COMPONENT, description=__doc__.splitlines()[0], allow_abbrev=False)
    for flag in FLAGS:
        more: dict[str, Any] = {"nargs": "?", "const": flag.bare} if flag.bare else {}
        names = [f"--{flag.name}", *(["-v"] if flag.name == "v" else [])]
        parser.add_argument(*names, dest=flag.name, metavar="VALUE", default=flag.default, help=_help(flag), **more)
    given = vars(parser.parse_args(arguments))
    return _settings({flag.name: _read(flag, given[flag.name]) for flag in FLAGS})


def _help(flag: Flag) -> str:
    return flag.help.replace("%", "%%") + (f" [{flag.default.replace('%', '%%')}]" if flag.default else "")


def _read(flag: Flag, value: str) -> Any:
    try:
        return flag.read(value)
    except ValueError as error:
        raise BadSetting(f"--{flag.name} is {value!r}. Give {error}.") from None


def _settings(found: Mapping[str, Any]) -> Settings:
    if found["leader-elect-resource-lock"] != "leases":
        raise BadSetting("--leader-elect-resource-lock: give leases, the only kind.")
    if found["secure-port"] and not (found["tls-cert-file"] and found["tls-private-key-file"]):
        raise BadSetting(
            "--secure-port needs a certificate. Give --tls-cert-file and --tls-private-key-file, or --secure-port=0."
        )
    try:
        times = Times(*(found[f"leader-elect-{one}"] for one in ("lease-duration", "renew-deadline", "retry-period")))
    except ValueError:
        raise BadSetting(
            "--leader-elect-retry-period < --leader-elect-renew-deadline < --leader-elect-lease-duration does not hold."
        ) from None
    return Settings(
        cloud_config=found["cloud-config"],
        kubeconfig=found["kubeconfig"],
        controllers=found["controllers"],
        leader_elect=found["leader-elect"],
        times=times,
        lease_name=found["leader-elect-resource-name"],
        lease_namespace=found["leader-elect-resource-namespace"],
        monitor_period_s=found["node-monitor-period"],
        update_period_s=found["node-status-update-frequency"],
        workers=found["concurrent-node-syncs"],
        qps=found["kube-api-qps"],
        burst=found["kube-api-burst"],
        bind_address=found["bind-address"],
        port=found["secure-port"],
        certificate=found["tls-cert-file"],
        key=found["tls-private-key-file"],
        deletion_share=found["node-deletion-limit"],
        deletion_window_s=found["node-deletion-window"],
        log_json=found["logging-format"],
        debug=found["v"] >= 4,
    )
