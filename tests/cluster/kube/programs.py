# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The programs that are built from Go modules. Each is built once, and again when its go.mod or go.sum changes."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tools.cache import ROOT, finished
from tools.needs import NotPossible, check_programs

CACHE = ROOT / ".cache" / "cluster"
GO = Path(__file__).resolve().parent.parent / "go"
PACKAGES = GO.parent / "packages.txt"
# Without a version the server calls itself v0.0.0-master+$Format:%H$, which Helm and the GPU Operator refuse.
VERSION = "k8s.io/component-base/version"


@dataclass(frozen=True)
class Program:
    """A Go program: the folder with its go.mod, and its package. ``c``: it has parts in C, which gcc compiles."""

    name: str
    module: str
    package: str
    c: bool = False
    tags: str = ""

    def path(self) -> Path:
        """The executable; built when it is not in the cache. Raises NotPossible."""
        return finished(self.name, self._ingredients(), self._build, CACHE) / self.name

    def _ingredients(self) -> list[str]:
        folder = GO / self.module
        files = ((folder / name).read_text() for name in ("go.mod", "go.sum"))
        return [self.package, *self._flags(), *files, *(["C"] if self.c else [])]

    def _flags(self) -> list[str]:
        return [*_flags(self.module), *(["-tags", self.tags] if self.tags else [])]

    def _build(self, folder: Path) -> None:
        if shutil.which("go") is None:
            raise NotPossible("there is no Go: install Go 1.26 or later (go.dev/dl), and put it on PATH")
        command = ["go", "build", *self._flags(), "-o", str(folder / self.name), self.package]
        environment = {**os.environ, "CGO_ENABLED": str(int(self.c)), "GOFLAGS": "-buildvcs=false -mod=readonly"}
        environment["CGO_CFLAGS"] = "-O2 -Wno-deprecated-declarations"  # NVML's header deprecates what it offers
        done = subprocess.run(command, cwd=GO / self.module, env=environment, check=False)
        if done.returncode:
            raise NotPossible(f"go could not build {self.package} (its words are above)")


def _flags(module: str) -> list[str]:
    version = _version("k8s.io/kubernetes", module if module.startswith("kubernetes") else "kubernetes")
    major, minor = version.lstrip("v").split(".")[:2]
    names = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    return ["-trimpath", "-ldflags", " ".join(["-s -w", *(f"-X {VERSION}.{key}={names[key]}" for key in names)])]


def _version(module: str, folder: str) -> str:
    """The version that a folder's go.mod requires of a module."""
    for line in (GO / folder / "go.mod").read_text().splitlines():
        words = line.removeprefix("require").split()
        if words[:1] == [module]:
            return words[1]
    raise NotPossible(f"tests/cluster/go/{folder}/go.mod does not require {module}")


KUBERNETES = [
    Program(name, "kubernetes", f"k8s.io/kubernetes/cmd/{name}")
    for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl")
]
# Other releases: the API servers, and the kubelet of the newest.
RELEASES = ("1.32", "1.34", "1.37")
OTHERS = [
    Program(f"{name}-{release}", f"kubernetes-{release}", f"k8s.io/kubernetes/cmd/{name}")
    for name, release in [*(("kube-apiserver", release) for release in RELEASES), ("kubelet", RELEASES[-1])]
]
ETCD = Program("etcd", "kubernetes", "go.etcd.io/etcd/server/v3")
HELM = Program("helm", "helm", "helm.sh/helm/v4/cmd/helm")
KWOK = Program("kwok", "kwok", "sigs.k8s.io/kwok/cmd/kwok")
# Debian's containerd gives no device by the Container Device Interface. Parts that are not used are left out.
_CONTAINERD = "github.com/containerd/containerd/v2/cmd"
_LEFT_OUT = "no_zfs no_devmapper no_tracing"
CONTAINERD = [
    Program(name, "containerd", f"{_CONTAINERD}/{name}", tags=_LEFT_OUT)
    for name in ("containerd", "containerd-shim-runc-v2", "ctr")
]
RUNC = Program("runc", "containerd", "github.com/opencontainers/runc", c=True, tags="seccomp")
RUNTIME = [*CONTAINERD, RUNC]
NVIDIA_CTK = Program("nvidia-ctk", "nvidia-ctk", "github.com/NVIDIA/nvidia-container-toolkit/cmd/nvidia-ctk", c=True)
# What each cluster is made of, and what the suite's tests need beside it.
NEEDED = [*KUBERNETES, ETCD]
OF_THE_SUITE = [*NEEDED, *RUNTIME, NVIDIA_CTK]
EVERY = {program.name: program for program in [*NEEDED, *OTHERS, HELM, KWOK, *RUNTIME, NVIDIA_CTK]}


def built_runtime() -> str:
    """For PATH: the folders of containerd 2 with its shim and ctr, and of runc. Raises NotPossible."""
    return ":".join(str(program.path().parent) for program in RUNTIME)


def check_machine() -> None:
    """Raises NotPossible with what to do about it."""
    if os.geteuid() != 0:
        raise NotPossible("a cluster needs root: run the suite as root")
    check_programs(PACKAGES)
