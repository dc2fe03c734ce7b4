# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The files and arguments of every part of the cluster."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from .space import ADDRESS

NODE = "node0"
PODS = "10.244.0.0/16"
SERVICES = "10.96.0.0/16"
SERVER = f"https://{ADDRESS}:6443"
ETCD = "http://127.0.0.1:2379"
# The image of the cluster's own pods, also of the container that holds each pod's network.
BUSYBOX = "localhost/busybox:cluster"
# Kata's names for runc: a pod of such a class really runs, as a container.
HANDLERS = ("runc", "kata-qemu-nvidia-gpu", "kata-qemu-nvidia-gpu-snp", "kata-qemu-nvidia-gpu-tdx")
# Who may come in, by token, and the groups that RBAC gives rights to.
PEOPLE = {
    "admin": ("admin", "system:masters"),
    "manager": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "proxy": ("system:kube-proxy", ""),
    "kubelet": (f"system:node:{NODE}", "system:nodes"),
}
# Who asks what how often is counted from this log; bodies are not needed.
AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "Metadata", "userGroups": ["system:serviceaccounts"], "resources": [{"group": ""}]},
        {"level": "None"},
    ],
}


class Settings:
    """Everything in one folder. ``provider_id``: the node waits for a cloud controller manager and a network."""

    def __init__(self, folder: Path, provider_id: str = "", handlers: Sequence[str] = HANDLERS) -> None:
        self.folder = folder
        self.provider_id = provider_id
        self._handlers = handlers

    def path(self, name: str) -> str:
        """A file of the folder."""
        return str(self.folder / name)

    def write(self, cgroup: str) -> None:
        """All files that can be written before the API server has made its certificate."""
        self.folder.mkdir(parents=True, exist_ok=True)
        tokens = {name: secrets.token_hex(16) for name in PEOPLE}
        rows = [f'{tokens[name]},{user},{name},"{groups}"' for name, (user, groups) in PEOPLE.items()]
        (self.folder / "tokens.csv").write_text("\n".join(rows) + "\n")
        for name, token in tokens.items():
            self.write_kubeconfig(name, token)
        self._write_json("audit.json", AUDIT)
        self._write_json("kubelet.json", self._kubelet(cgroup))
        if not self.provider_id:
            self.write_network()
        (self.folder / "containerd.toml").write_text(self._containerd())
        self._write_key()

    def write_network(self) -> None:
        """Give pods a network; the container runtime sees it by itself."""
        self._write_json("cni/10-bridge.conflist", self._network())

    def write_kubeconfig(self, name: str, token: str, server: str = SERVER) -> str:
        """A kubeconfig that trusts the API server's own certificate, once there is one."""
        cluster = {"server": server, "certificate-authority": self.path("certificates/apiserver.crt")}
        self._write_json(
            f"{name}.kubeconfig",
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": name,
                "clusters": [{"name": name, "cluster": cluster}],
                "users": [{"name": name, "user": {"token": token}}],
                "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            },
        )
        return self.path(f"{name}.kubeconfig")

    def etcd(self) -> list[str]:
        """Arguments. What is written need not survive the machine."""
        return _flags(
            {
                "data-dir": self.path("etcd"),
                "listen-client-urls": ETCD,
                "advertise-client-urls": ETCD,
                "listen-peer-urls": "http://127.0.0.1:2380",
                "unsafe-no-fsync": "true",
            }
        )

    def apiserver(self) -> list[str]:
        """Arguments."""
        return _flags(
            {
                "etcd-servers": ETCD,
                "cert-dir": self.path("certificates"),
                "token-auth-file": self.path("tokens.csv"),
                "authorization-mode": "Node,RBAC",
                "enable-admission-plugins": "NodeRestriction",
                "allow-privileged": "true",
                "kubelet-preferred-address-types": "InternalIP",
                "advertise-address": ADDRESS,
                "service-cluster-ip-range": SERVICES,
                "service-account-issuer": "https://kubernetes.default.svc",
                "service-account-key-file": self.path("accounts.pem"),
                "service-account-signing-key-file": self.path("accounts.pem"),
                "audit-policy-file": self.path("audit.json"),
                "audit-log-path": self.path("audit.log"),
                "audit-log-mode": "batch",
                "audit-log-batch-max-wait": "1s",
                "shutdown-delay-duration": "0s",
            }
        )

    def controller_manager(self) -> list[str]:
        """Arguments. The root CA is what pods get to know the API server by."""
        return _flags(
            {
                "kubeconfig": self.path("manager.kubeconfig"),
                "authentication-kubeconfig": self.path("manager.kubeconfig"),
                "authorization-kubeconfig": self.path("manager.kubeconfig"),
                "root-ca-file": self.path("certificates/apiserver.crt"),
                "service-account-private-key-file": self.path("accounts.pem"),
                "use-service-account-credentials": "true",
                "cluster-cidr": PODS,
                "leader-elect": "false",
            }
        )

    def scheduler(self) -> list[str]:
        """Arguments."""
        kubeconfig = self.path("scheduler.kubeconfig")
        names = ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")
        return _flags({**dict.fromkeys(names, kubeconfig), "leader-elect": "false"})

    def proxy(self) -> list[str]:
        """Arguments."""
        return _flags(
            {
                "kubeconfig": self.path("proxy.kubeconfig"),
                "hostname-override": NODE,
                "cluster-cidr": PODS,
                "proxy-mode": "iptables",
                "conntrack-max-per-core": "0",
            }
        )

    def kubelet(self) -> list[str]:
        """Arguments."""
        return _flags(
            {
                "kubeconfig": self.path("kubelet.kubeconfig"),
                "config": self.path("kubelet.json"),
                "root-dir": self.path("kubelet"),
                "cert-dir": self.path("kubelet-certificates"),
                "hostname-override": NODE,
                "node-ip": ADDRESS,
                **({"cloud-provider": "external", "provider-id": self.provider_id} if self.provider_id else {}),
            }
        )

    def _kubelet(self, cgroup: str) -> dict[str, object]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "containerRuntimeEndpoint": f"unix://{self.path('containerd.sock')}",
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": cgroup,
            "failCgroupV1": False,
            "failSwapOn": False,
            "evictionHard": {},
            "imageGCHighThresholdPercent": 100,
            "enforceNodeAllocatable": [],
            "makeIPTablesUtilChains": False,
            "volumePluginDir": self.path("volume-plugins"),
            "podLogsDir": self.path("pods"),
            "resolvConf": "",
            "syncFrequency": "10s",
        }

    def _network(self) -> dict[str, object]:
        addresses = {"type": "host-local", "dataDir": self.path("addresses"), "ranges": [[{"subnet": "10.244.0.0/24"}]]}
        bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "hairpinMode": True}
        routes = {"routes": [{"dst": "0.0.0.0/0"}]}
        return {"cniVersion": "0.4.0", "name": "pods", "plugins": [{**bridge, "ipam": {**addresses, **routes}}]}

    def _containerd(self) -> str:
        place = 'plugins."io.containerd.grpc.v1.cri".containerd.runtimes'
        handlers = "".join(f'[{place}.{name}]\n  runtime_type = "io.containerd.runc.v2"\n' for name in self._handlers)
        return f"""version = 2
root = "{self.path("containerd")}"
state = "/run/containerd"
[grpc]
  address = "{self.path("containerd.sock")}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{BUSYBOX}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{self.path("cni")}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{self.path("opt")}"
{handlers}"""

    def _write_key(self) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        (self.folder / "accounts.pem").write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))

    def _write_json(self, name: str, value: object) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value, indent=1))


def _flags(values: Mapping[str, str]) -> list[str]:
    return [f"--{name}={value}" for name, value in values.items()]
