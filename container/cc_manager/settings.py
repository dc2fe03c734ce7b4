# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Settings from the environment and the command line, which wins. Each variable has a flag of the same name.

Those without the prefix CC_MANAGER_ are the ones of NVIDIA's k8s-cc-manager, with its meanings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kube import settings
from kube.settings import BadSetting, Option, count, flag, is_json, one_of, port, seconds, text

NAMESPACE_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
DEFAULT_NAMESPACE = "gpu-operator"
# Of the host, for locks and the note of unproven settings; Ansible's runs on the host use the same.
DEFAULT_STATE_FOLDER = "/run/nvidia/cc-manager"
REFUSE, WAIT, DRAIN = "refuse", "wait", "drain"


@dataclass(frozen=True)
class Settings:
    """What this process was told. Times in seconds."""

    node_name: str
    default_cc_mode: str
    evict_operator_components: bool
    operator_namespace: str
    kubeconfig: str
    readiness_file: str
    bus: str
    state_folder: str
    busy: str
    busy_timeout_s: float
    eviction_timeout_s: float
    boot_timeout_s: float
    drift_interval_s: float
    drift_repair: bool
    retry_limit: int
    retry_delay_s: float
    metrics_port: int
    log_json: bool
    audit_folder: str
    debug: bool
    own_namespace: str = ""  # of the pod that this process is in; empty: in none
    pod_name: str = ""

    @property
    def lock_folder(self) -> str:
        """Of the host, and of these devices: the sockets' folder, or the state folder."""
        kind, _colon, folder = self.bus.partition(":")
        return folder if kind == "vfio-user" and folder else self.state_folder


def folder(value: str) -> str:
    """An absolute path, or none."""
    if value and not value.startswith("/"):
        raise ValueError("an absolute path, or nothing")
    return value


OPTIONS = (
    Option("NODE_NAME", "node_name", "", text, "the node to look after; required"),
    Option("DEFAULT_CC_MODE", "default_cc_mode", "", text, "the mode of a node without the label", ("-m",)),
    Option("EVICT_OPERATOR_COMPONENTS", "evict_operator_components", "true", flag, "pause the GPU Operator's pods"),
    Option("OPERATOR_NAMESPACE", "operator_namespace", "", text, "where they run; default: this pod's namespace"),
    Option("POD_NAME", "pod_name", "", text, "this pod (fieldRef: metadata.name); empty: any of its namespace"),
    Option("KUBECONFIG", "kubeconfig", "", text, "default: the pod's service account"),
    Option(
        "CC_READINESS_FILE",
        "readiness_file",
        "/run/nvidia/validations/.cc-manager-ctr-ready",
        text,
        "written when the mode is verified; empty for none",
    ),
    Option("CC_MANAGER_BUS", "bus", "sysfs", text, "sysfs, or vfio-user:FOLDER"),
    Option("CC_MANAGER_STATE_FOLDER", "state_folder", DEFAULT_STATE_FOLDER, text, "of the host; lock and note"),
    Option("CC_MANAGER_BUSY", "busy", REFUSE, one_of(REFUSE, WAIT, DRAIN), "when something uses a GPU"),
    Option("CC_MANAGER_BUSY_TIMEOUT", "busy_timeout_s", "300", seconds, "seconds to wait, or to drain"),
    Option("CC_MANAGER_EVICTION_TIMEOUT", "eviction_timeout_s", "300", seconds, "seconds for paused pods to go"),
    Option("CC_MANAGER_BOOT_TIMEOUT", "boot_timeout_s", "30", seconds, "seconds for a GPU's firmware to boot"),
    Option("CC_MANAGER_DRIFT_INTERVAL", "drift_interval_s", "300", seconds, "seconds between readings; 0: none"),
    Option("CC_MANAGER_DRIFT_REPAIR", "drift_repair", "false", flag, "set the mode again where it differs"),
    Option("CC_MANAGER_RETRY_LIMIT", "retry_limit", "8", count, "attempts before giving up until something changes"),
    Option("CC_MANAGER_RETRY_DELAY", "retry_delay_s", "10", seconds, "seconds before the first retry; then doubled"),
    Option("CC_MANAGER_METRICS_PORT", "metrics_port", "9403", port, "of /metrics, /healthz, /readyz; 0: none"),
    Option("CC_MANAGER_AUDIT_FOLDER", "audit_folder", "", folder, "of the host; a record of each change; empty: none"),
    Option("CC_MANAGER_LOG_FORMAT", "log_json", "text", is_json, "text or json lines"),
)


def parse(arguments: Sequence[str], environment: Mapping[str, str], namespace_file: str = NAMESPACE_FILE) -> Settings:
    """The settings. Raises BadSetting; ends the process as argparse does for --help and unknown flags."""
    values = settings.parse("k8s-cc-manager", __doc__.splitlines()[0], OPTIONS, arguments, environment)
    if not values["node_name"]:
        raise BadSetting("NODE_NAME is not set. Set it to the name of the node (fieldRef: spec.nodeName).")
    values["own_namespace"] = _own_namespace(namespace_file)
    values["operator_namespace"] = values["operator_namespace"] or values["own_namespace"] or DEFAULT_NAMESPACE
    return Settings(**values)


def _own_namespace(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except OSError:
        return ""
