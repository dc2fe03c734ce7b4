# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Settings of the process, from the environment and the command line, which wins.

Each variable has a flag of the same name, without DEVICE_PLUGIN. What is offered stands in the configuration file,
which is read anew when it changes; these here hold until the end.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from .refusal import BadSetting

KUBELET = "/var/lib/kubelet"


@dataclass(frozen=True)
class Settings:
    """What this process was told."""

    source: str
    config: Path
    plugins_folder: Path
    pod_resources: Path
    host_root: Path
    sys: Path
    sees_nodes: bool
    pod: tuple[str, str] | None
    metrics_port: int
    log_json: bool
    debug: bool
    register: bool = True


class Option(NamedTuple):
    """One setting: the environment variable, its default, and how its text is read."""

    variable: str
    field: str
    default: str
    parse: Callable[[str], Any]
    help: str

    @property
    def flag(self) -> str:
        """--metrics-port for DEVICE_PLUGIN_METRICS_PORT."""
        return "--" + self.variable.removeprefix("DEVICE_PLUGIN_").lower().replace("_", "-")


def _path(value: str) -> Path:
    if not value.startswith("/"):
        raise ValueError("an absolute path")
    return Path(value)


def _pod(value: str) -> tuple[str, str] | None:
    namespace, slash, name = value.partition("/")
    if value and not (namespace and slash and name):
        raise ValueError("namespace/name of the pod, or nothing")
    return (namespace, name) if value else None


def _port(value: str) -> int:
    if value.isdecimal() and int(value) < 65536:
        return int(value)
    raise ValueError("a port, or 0 for none")


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value.strip() not in choices:
            raise ValueError("one of " + ", ".join(choices))
        return value.strip()

    return parse


def options(sources: Sequence[str]) -> tuple[Option, ...]:
    """All of them, for sources of these names."""
    return (
        Option("DEVICE_PLUGIN_SOURCE", "source", "tee", _one_of(*sources), "where devices come from"),
        Option(
            "DEVICE_PLUGIN_REGISTER",
            "register",
            "true",
            _one_of("true", "false"),
            "false: only metrics, beside another plugin that offers the same GPUs",
        ),
        Option("DEVICE_PLUGIN_CONFIG", "config", "/etc/device-plugin/config.yaml", _path, "what is offered"),
        Option("DEVICE_PLUGIN_FOLDER", "plugins_folder", f"{KUBELET}/device-plugins", _path, "of kubelet.sock"),
        Option(
            "DEVICE_PLUGIN_POD_RESOURCES",
            "pod_resources",
            f"{KUBELET}/pod-resources/kubelet.sock",
            _path,
            "the kubelet's socket that tells which container has what",
        ),
        Option("DEVICE_PLUGIN_POD", "pod", "", _pod, "this pod, NAMESPACE/NAME: lists without it are not believed"),
        Option("DEVICE_PLUGIN_HOST_ROOT", "host_root", "/", _path, "where the host's folders are mounted"),
        Option("DEVICE_PLUGIN_SYS", "sys", "/sys", _path, "where the kernel tells of devices"),
        Option(
            "DEVICE_PLUGIN_DEVICES",
            "sees_nodes",
            "nodes",
            _one_of("nodes", "kernel"),
            "whether devices are there: by the host's /dev, or where that cannot be mounted, by the kernel's list",
        ),
        Option("DEVICE_PLUGIN_METRICS_PORT", "metrics_port", "2112", _port, "of /metrics, /healthz, /readyz; 0: none"),
        Option("DEVICE_PLUGIN_LOG_FORMAT", "log_json", "text", _one_of("text", "json"), "text or json lines"),
    )


def parse(arguments: Sequence[str], environment: Mapping[str, str], sources: Sequence[str]) -> Settings:
    """The settings. Raises BadSetting; ends the process as argparse does for --help and unknown flags."""
    parser = argparse.ArgumentParser(prog="device-plugin", description=__doc__.splitlines()[0], allow_abbrev=False)
    every = options(sources)
    for option in every:
        parser.add_argument(option.flag, dest=option.field, metavar="VALUE", help=option.help)
    parser.add_argument("--no-register", dest="register", action="store_const", const="false", help="--register false")
    parser.add_argument("--debug", action="store_true", help="log more")
    given = vars(parser.parse_args(arguments))
    values: dict[str, Any] = {"debug": given["debug"]}
    for option in every:
        values[option.field] = _value(option, given[option.field], environment)
    values["log_json"] = values["log_json"] == "json"
    values["sees_nodes"] = values["sees_nodes"] == "nodes"
    values["register"] = values["register"] == "true"
    if values["source"] == "tee" and not values["register"]:
        raise BadSetting(
            "DEVICE_PLUGIN_REGISTER is 'false' with the source tee, whose devices no other plugin offers. Give true."
        )
    return Settings(**values)


def _value(option: Option, given: str | None, environment: Mapping[str, str]) -> Any:
    text = environment.get(option.variable, option.default) if given is None else given
    try:
        return option.parse(text)
    except ValueError as error:
        raise BadSetting(f"{option.variable} is {text!r}. Give {error}.") from error
