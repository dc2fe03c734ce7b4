# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Settings of the process, from the environment and the command line, which wins.

Each variable has a flag of the same name, without DEVICE_PLUGIN. What is offered stands in the configuration file,
which is read again when it changes; these here hold until the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from kube import settings
from kube.settings import BadSetting, Option, flag, is_json, one_of, path, port, text

PROGRAM = "device-plugin"
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
    node: str = ""
    kubeconfig: str = ""
    configs: Path | None = None
    default_config: str = ""


def _pod(value: str) -> tuple[str, str] | None:
    namespace, slash, name = value.partition("/")
    if value and not (namespace and slash and name):
        raise ValueError("namespace/name of the pod, or nothing")
    return (namespace, name) if value else None


def _folder(value: str) -> Path | None:
    return path(value) if value else None


def _sees_nodes(value: str) -> bool:
    return one_of("nodes", "kernel")(value) == "nodes"


def options(sources: Sequence[str]) -> tuple[Option, ...]:
    """All of them, for sources of these names."""
    option = partial(Option, prefix="DEVICE_PLUGIN_")
    return (
        option("DEVICE_PLUGIN_SOURCE", "source", "tee", one_of(*sources), "where devices come from"),
        option(
            "DEVICE_PLUGIN_REGISTER",
            "register",
            "true",
            flag,
            "false, or --no-register: only metrics, beside another plugin that offers the same GPUs",
        ),
        option("DEVICE_PLUGIN_CONFIG", "config", "/etc/device-plugin/config.yaml", path, "what is offered"),
        option("DEVICE_PLUGIN_FOLDER", "plugins_folder", f"{KUBELET}/device-plugins", path, "of kubelet.sock"),
        option(
            "DEVICE_PLUGIN_POD_RESOURCES",
            "pod_resources",
            f"{KUBELET}/pod-resources/kubelet.sock",
            path,
            "the kubelet's socket that tells which container has what",
        ),
        option("DEVICE_PLUGIN_POD", "pod", "", _pod, "this pod, NAMESPACE/NAME: lists without it are not believed"),
        option("DEVICE_PLUGIN_HOST_ROOT", "host_root", "/", path, "where the host's folders are mounted"),
        option("DEVICE_PLUGIN_SYS", "sys", "/sys", path, "where the kernel tells of devices"),
        option(
            "DEVICE_PLUGIN_DEVICES",
            "sees_nodes",
            "nodes",
            _sees_nodes,
            "whether devices are there: by the host's /dev, or where that cannot be mounted, by the kernel's list",
        ),
        option("DEVICE_PLUGIN_NODE", "node", "", text, "gpu: this node, whose labels count; empty: no API is asked"),
        option("DEVICE_PLUGIN_KUBECONFIG", "kubeconfig", "", text, "default: the pod's service account"),
        option(
            "DEVICE_PLUGIN_CONFIGS",
            "configs",
            "",
            _folder,
            "gpu: a folder of configurations, of which a label of the node names one; goes before DEVICE_PLUGIN_CONFIG",
        ),
        option("DEVICE_PLUGIN_DEFAULT_CONFIG", "default_config", "", text, "which of them holds without the label"),
        option("DEVICE_PLUGIN_METRICS_PORT", "metrics_port", "2112", port, "of /metrics, /healthz, /readyz; 0: none"),
        option("DEVICE_PLUGIN_LOG_FORMAT", "log_json", "text", is_json, "text or json lines"),
    )


def parse(arguments: Sequence[str], environment: Mapping[str, str], sources: Sequence[str]) -> Settings:
    """The settings. Raises BadSetting; ends the process as argparse does for --help and unknown flags."""
    words = ["--register=false" if one == "--no-register" else one for one in arguments]
    values = settings.parse(PROGRAM, __doc__.splitlines()[0], options(sources), words, environment)
    return _checked(Settings(**values))


def _checked(found: Settings) -> Settings:
    """Raises BadSetting for what does not go together."""
    if found.source == "tee" and not found.register:
        raise BadSetting(
            "DEVICE_PLUGIN_REGISTER is 'false' with the source tee, whose devices no other plugin offers. Give true."
        )
    if found.node and found.source != "gpu":
        raise BadSetting(
            f"DEVICE_PLUGIN_NODE is {found.node!r}, and the source {found.source} asks nothing of the API server. "
            "Remove it, or set DEVICE_PLUGIN_SOURCE to gpu."
        )
    if found.configs is not None and not found.node:
        raise BadSetting(
            f"DEVICE_PLUGIN_CONFIGS is '{found.configs}', and no node is known whose label could choose one of them. "
            "Set DEVICE_PLUGIN_NODE to the node's name (fieldRef: spec.nodeName)."
        )
    if found.default_config and found.configs is None:
        raise BadSetting(
            f"DEVICE_PLUGIN_DEFAULT_CONFIG is {found.default_config!r}, and there is no folder of configurations. "
            "Set DEVICE_PLUGIN_CONFIGS."
        )
    return found
