# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The whole cluster: started, looked at, hurt and ended."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tools.needs import PATH

from . import images
from .api import Api, ApiError, Object
from .programs import EVERY, NEEDED
from .settings import HANDLERS, NODE, SERVER, Settings
from .space import Process, Space, SpaceError

CGROUPS = Path("/sys/fs/cgroup")
NODE_PATH = f"/api/v1/nodes/{NODE}"


class Cluster:
    """A running cluster of one node.

    ``runtime``: where the container runtime is, for PATH; empty: the machine's. ``release``: of the API server and the
    kubelet; empty: that of all other programs. ``provider_id``: of the node, which then waits for a cloud controller
    manager and has no network of pods yet. ``handlers``: names under which the runtime knows runc.
    """

    def __init__(
        self,
        folder: Path,
        runtime: str = "",
        release: str = "",
        provider_id: str = "",
        handlers: Sequence[str] = HANDLERS,
    ) -> None:
        self.folder = folder
        self._release = release
        self._path = f"PATH={runtime}:{PATH}" if runtime else f"PATH={PATH}"
        self.space = Space(folder)
        self.settings = Settings(folder / "k", provider_id, handlers)
        self.api = Api(folder / "api.sock")
        self.processes: dict[str, Process] = {}
        # Its own, so that it meets nobody else's pods and can be removed when it is empty.
        self.cgroup = folder.name
        self._programs: dict[str, str] = {}

    def start(self) -> None:
        """Everything, until the node is ready, or waits for the manager. Raises NotPossible, SpaceError, ApiError."""
        chosen = {program.name: EVERY.get(f"{program.name}-{self._release}", program) for program in NEEDED}
        self._programs = {name: str(program.path()) for name, program in chosen.items()}
        pause = images.archive()
        self._make_cgroup()
        self.settings.write(f"/{self.cgroup}")
        self.space.start()
        self.launch("etcd", self.settings.etcd())
        self.launch("kube-apiserver", self.settings.apiserver())
        settings = self.settings.path("containerd.toml")
        self.processes["containerd"] = self.space.launch("containerd", "env", self._path, "containerd", "-c", settings)
        self.wait_for_server()
        self._launch_clients()
        self.start_proxy()
        self.load(pause)
        self.until_node(is_registered if self.settings.provider_id else is_ready, 60)

    def end(self) -> None:
        """Take it all down."""
        self.space.end()
        self._remove_cgroup()

    def launch(self, name: str, arguments: list[str]) -> None:
        """Start one of the programs, again if it was stopped."""
        self.processes[name] = self.space.launch(name, self._programs[name], *arguments)

    def start_server(self) -> None:
        """The API server, after it was stopped."""
        self.launch("kube-apiserver", self.settings.apiserver())
        self.wait_for_server()

    def start_etcd(self) -> None:
        """etcd, after it was stopped."""
        self.launch("etcd", self.settings.etcd())

    def backup(self) -> Path:
        """A copy of what etcd holds now."""
        copy = self.folder / "backup"
        shutil.rmtree(copy, ignore_errors=True)
        self.processes["etcd"].stop()
        shutil.copytree(self.settings.path("etcd"), copy)
        self.start_etcd()
        self.wait_for_server()
        return copy

    def restore(self, copy: Path) -> None:
        """Let etcd hold what it held then, and start everything again that has seen newer things, pods excepted.

        So do the documents of Kubernetes; of a manager's pod they say nothing.
        """
        clients = ("kube-proxy", "kubelet", "kube-scheduler", "kube-controller-manager", "kube-apiserver")
        for name in (*clients, "etcd"):
            self.processes[name].stop(signal.SIGKILL)
        shutil.rmtree(self.settings.path("etcd"))
        shutil.copytree(copy, self.settings.path("etcd"))
        self.start_etcd()
        self.start_server()
        self._launch_clients()

    def _launch_clients(self) -> None:
        """All that asks the API server."""
        self.launch("kube-controller-manager", self.settings.controller_manager())
        self.launch("kube-scheduler", self.settings.scheduler())
        self.launch("kubelet", self.settings.kubelet())
        self.launch("kube-proxy", self.settings.proxy())

    def wait_for_server(self, timeout_s: float = 60.0) -> None:
        """Until it says that it is ready."""
        server = self.processes["kube-apiserver"]
        deadline = time.monotonic() + timeout_s
        while self.kubectl("get", "--raw", "/readyz", check=False) != "ok":
            server.check()
            if time.monotonic() > deadline:
                raise SpaceError(f"the API server is not ready after {timeout_s:.0f} s: {server.words()}")
            time.sleep(0.1)  # it announces its readiness to nobody

    def start_proxy(self, name: str = "api", kubeconfig: str = "") -> Api:
        """The way in for requests from outside, as the administrator unless a kubeconfig is given."""
        path = self.folder / f"{name}.sock"
        path.unlink(missing_ok=True)
        config = kubeconfig or self.settings.path("admin.kubeconfig")
        arguments = ["--kubeconfig", config, "proxy", f"--unix-socket={path}"]
        process = self.processes[f"{name} proxy"] = self.space.launch(
            f"{name}-proxy", self._programs["kubectl"], *arguments
        )
        deadline = time.monotonic() + 20
        while not path.exists():
            process.check()
            if time.monotonic() > deadline:
                raise SpaceError("kubectl proxy opens no socket")
            time.sleep(0.02)
        return Api(path)

    def kubectl(self, *arguments: str, check: bool = True, input: str | None = None, kubeconfig: str = "") -> str:
        """Run kubectl inside, as the administrator unless a kubeconfig is given; its output."""
        config = kubeconfig or self.settings.path("admin.kubeconfig")
        return self.space.run(self._programs["kubectl"], "--kubeconfig", config, *arguments, check=check, input=input)

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Create or change objects."""
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=yaml.safe_dump_all(objects))

    def helm(self, *arguments: str) -> str:
        """Run Helm inside."""
        helm = str(EVERY["helm"].path())
        return self.space.run(helm, "--kubeconfig", self.settings.path("admin.kubeconfig"), *arguments)

    def load(self, archive: Path) -> None:
        """Give the images of a docker archive to the node."""
        self.ctr("images", "import", str(archive))

    def ctr(self, *arguments: str) -> str:
        """containerd's own command line; its output."""
        address = self.settings.path("containerd.sock")
        return self.space.run("env", self._path, "ctr", "-a", address, "-n", "k8s.io", *arguments)

    def node(self) -> Object:
        """The node."""
        found: Object = self.api.get(NODE_PATH)
        return found

    def label(self, **labels: str | None) -> None:
        """Set labels of the node whose names are below nvidia.com/ (``cc__mode`` for cc.mode); None takes one away."""
        self.set_labels({f"nvidia.com/{key.replace('__', '.')}": value for key, value in labels.items()})

    def set_labels(self, labels: Mapping[str, str | None]) -> None:
        """Set labels of the node; None takes one away."""
        self.api.patch(NODE_PATH, {"metadata": {"labels": dict(labels)}})

    def until_node(self, good: Callable[[Object], bool], timeout_s: float) -> Object:
        """The node, once it is as it should be. Raises ApiError."""
        return self.api.until(f"/api/v1/nodes?fieldSelector=metadata.name={NODE}", good, timeout_s)

    def pods(self, namespace: str, selector: str = "") -> list[Object]:
        """Pods by label selector."""
        path = f"/api/v1/namespaces/{namespace}/pods"
        items: list[Object] = self.api.get(f"{path}?labelSelector={selector}" if selector else path)["items"]
        return items

    def kill_container(self, pod: Object, name: str = "") -> None:
        """kill -9 of a pod's container, as the kernel would."""
        states = pod["status"]["containerStatuses"]
        (found,) = [state["containerID"] for state in states if not name or state["name"] == name]
        self.ctr("task", "kill", "-s", "SIGKILL", found.split("//")[1])

    def container_pid(self, pod: Object) -> int:
        """The first process of a pod's only container, as this process sees it."""
        (state,) = pod["status"]["containerStatuses"]
        identifier = state["containerID"].split("//")[1]
        began: dict[int, int] = {}
        for path in Path("/proc").glob("[0-9]*/cgroup"):
            with contextlib.suppress(OSError):
                if identifier in path.read_text():
                    began[int(path.parent.name)] = _started_at((path.parent / "stat").read_text())
        if began:
            return min(began, key=began.__getitem__)
        raise ApiError(f"no process of container {identifier}")

    def memory_peak_bytes(self, pod: Object) -> int:
        """The most memory that a pod's container ever had, page cache included, as the kernel counts it."""
        return int(self._cgroup_file(pod, "memory", "memory.max_usage_in_bytes", "memory.peak").read_text())

    def forget_memory_peak(self, pod: Object) -> None:
        """Let the peak begin again at what the container has now."""
        self._cgroup_file(pod, "memory", "memory.max_usage_in_bytes", "memory.peak").write_text("0")

    def cpu_ns(self, pod: Object) -> int:
        """Processor time that a pod's container has had, in nanoseconds."""
        text = self._cgroup_file(pod, "cpuacct", "cpuacct.usage", "cpu.stat").read_text()
        return int(text) if text.strip().isdigit() else int(text.split()[1]) * 1000

    def _cgroup_file(self, pod: Object, controller: str, name: str, name_v2: str) -> Path:
        """A file of a container's cgroup, by its name in version 1 and in version 2."""
        for line in Path(f"/proc/{self.container_pid(pod)}/cgroup").read_text().splitlines():
            _number, controllers, path = line.split(":", 2)
            if controller in controllers.split(","):
                return CGROUPS / controller / path.lstrip("/") / name
            if not controllers and (CGROUPS / path.lstrip("/") / name_v2).exists():
                return CGROUPS / path.lstrip("/") / name_v2
        raise ApiError(f"no cgroup with {name} or {name_v2}")

    def _make_cgroup(self) -> None:
        for root in _cgroup_roots():
            group = root / self.cgroup
            group.mkdir(exist_ok=True)
            # A group of cpuset holds nothing until it has processors; its children take them from it.
            if (group / "cgroup.clone_children").exists() and (root / "cpuset.cpus").exists():
                (group / "cgroup.clone_children").write_text("1")
                for name in ("cpuset.cpus", "cpuset.mems"):
                    (group / name).write_text((root / name).read_text())

    def _remove_cgroup(self) -> None:
        deadline = time.monotonic() + 10
        for root in _cgroup_roots():
            while (root / self.cgroup).exists():
                for folder, _folders, _files in os.walk(root / self.cgroup, topdown=False):
                    with contextlib.suppress(OSError):
                        os.rmdir(folder)
                if time.monotonic() > deadline:
                    raise SpaceError(f"{root / self.cgroup} is still in use")
                time.sleep(0.02)  # a group empties a moment after its processes were killed


def _cgroup_roots() -> list[Path]:
    """One for each hierarchy of version 1, the one of version 2."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    return [path for path in sorted(CGROUPS.iterdir()) if path.is_dir() and not path.is_symlink()]


def _started_at(stat: str) -> int:
    """When a process began, in ticks, from /proc/PID/stat: the 22nd word, the second one being in brackets."""
    return int(stat.rpartition(")")[2].split()[19])


def is_ready(node: Object) -> bool:
    """Whether a node is ready for pods."""
    conditions = node.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def is_registered(node: Object) -> bool:
    """Whether its kubelet says what it has."""
    return bool(node.get("status", {}).get("conditions"))


@contextlib.contextmanager
def running(
    keep: Path | None = None,
    runtime: str = "",
    release: str = "",
    provider_id: str = "",
    handlers: Sequence[str] = HANDLERS,
) -> Iterator[Cluster]:
    """A cluster that is there for as long as the context is; its logs go to ``keep``. For the rest see Cluster."""
    # Short, because a socket's path has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="cluster-", ignore_cleanup_errors=True) as name:
        cluster = Cluster(Path(name), runtime, release, provider_id, handlers)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.end()
            if keep is not None and (Path(name) / "log").is_dir():
                shutil.rmtree(keep, ignore_errors=True)
                shutil.copytree(Path(name) / "log", keep)


__all__ = ["SERVER", "Cluster", "is_ready", "running"]
