# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The client, the watch and the whole process against an API server on loopback."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import signal
import socket
import threading
import time
import traceback
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_api.daemon_sets import NODES, PODS, PREFIX, DaemonSets
from fake_api.daemon_sets import node as new_node
from fake_api.server import ApiServer, serving
from fake_api.store import Refusal, Request, Store
from operand import connection, settings
from operand.alone import Alone
from operand.cluster import Cluster
from operand.connection import Connection, NoConnection
from operand.health import Health
from operand.kube import ApiError, Kube
from operand.messages import Message, RunEnded, RunPlanned
from operand.node import Node, Patch
from operand.pod import Pod
from operand.process import Process, main
from operand.run import Job
from operand.watch import Delay, Watch

NODE = "node-1"
SOON_S = 10.0


@pytest.fixture
def store() -> Store:
    made = Store()
    made.create(NODES, new_node(NODE, **{PREFIX + "vfio-manager": "true"}))
    made.create(NODES, new_node("node-2"))
    return made


@pytest.fixture
def server(store: Store) -> Iterator[ApiServer]:
    with serving(store) as running:
        yield running


@pytest.fixture
def kube(server: ApiServer) -> Iterator[Kube]:
    made = Kube(Connection(server.url))
    yield made
    made.close()
    eventually(lambda: not any(thread.name.startswith("watch ") for thread in threading.enumerate()))


def eventually(condition: Callable[[], Any], timeout_s: float = SOON_S) -> None:
    """Wait for what other threads do."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


# --- requests ---------------------------------------------------------------------------------------------------------


def test_a_node_is_read_and_patched(kube: Kube, store: Store) -> None:
    cluster = Cluster(kube, NODE)
    node = cluster.node()
    assert node.labels == {PREFIX + "vfio-manager": "true"}
    patched = cluster.patch(Patch({"a": "1"}, {"b": "2"}), node.resource_version)
    assert (patched.labels["a"], patched.annotations["b"]) == ("1", "2")
    with pytest.raises(ApiError, match="409 the object has been modified") as caught:
        cluster.patch(Patch({"a": "2"}), node.resource_version)
    assert caught.value.is_conflict
    assert "a" not in cluster.patch(Patch({"a": None})).labels


def test_pods_are_evicted_and_events_made(kube: Kube, store: Store) -> None:
    cluster = Cluster(kube, NODE)
    DaemonSets(store, NODE, grace_s=0.01)
    name = store.list(PODS, {})[0][0]["metadata"]["name"]
    cluster.evict(Pod("gpu-operator", name))
    assert "deletionTimestamp" in store.get(PODS, name)["metadata"]
    cluster.event("Warning", "CCModeFailed", "words")
    (event,) = store.list("/api/v1/namespaces/default/events", {})[0]
    assert event["involvedObject"]["name"] == NODE
    assert (event["type"], event["reason"], event["message"]) == ("Warning", "CCModeFailed", "words")


def test_errors_say_what_was_asked_and_answered(kube: Kube, server: ApiServer, store: Store) -> None:
    with pytest.raises(ApiError, match="GET /api/v1/nodes/other: 404 /api/v1/nodes/other not found") as caught:
        Cluster(kube, "other").node()
    assert caught.value.status == 404
    server.stop()
    with pytest.raises(ApiError) as caught:
        Cluster(kube, NODE).node()
    assert caught.value.status == 0
    assert not caught.value.is_forbidden


def test_an_answer_that_is_not_json() -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for status in (200, 500):
            client, _address = listener.accept()
            client.recv(65536)
            client.sendall(b"HTTP/1.1 %d X\r\nConnection: close\r\nContent-Length: 3\r\n\r\nno!" % status)
            client.close()

    threading.Thread(target=serve, daemon=True).start()
    kube = Kube(Connection(f"http://127.0.0.1:{listener.getsockname()[1]}"))
    with pytest.raises(ApiError, match="not JSON"):
        kube.request("GET", "/")
    with pytest.raises(ApiError, match="500 no!"):
        kube.request("GET", "/")
    kube.close()
    listener.close()


@contextlib.contextmanager
def answering(*answers: bytes) -> Iterator[str]:
    """A server that gives these answers, one a connection, the last one for ever; its address."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        left = list(answers)
        with contextlib.suppress(OSError):  # the end of the test
            while True:
                client, _address = listener.accept()
                with client:
                    client.recv(65536)
                    client.sendall(left.pop(0) if len(left) > 1 else left[0])

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(SOON_S)


def http(status: int, body: str, *headers: str) -> bytes:
    """An answer after which the connection ends."""
    lines = (f"HTTP/1.1 {status} X", "Connection: close", f"Content-Length: {len(body)}", *headers, "", body)
    return "\r\n".join(lines).encode()


NOT_THE_API = ["[]", "null", '"x"', "{}", '{"metadata": 5}', '{"metadata": {"labels": 3, "name": "n"}}', "[" * 100_000]


@pytest.mark.parametrize("body", NOT_THE_API)
def test_json_of_somebody_else_is_an_error_of_the_api(body: str) -> None:
    with answering(http(200, body)) as url:
        kube = Kube(Connection(url))
        with pytest.raises(ApiError) as caught:
            Cluster(kube, NODE).node()
        assert caught.value.status == 0
        kube.close()


def test_the_servers_wish_for_patience_is_kept_within_bounds() -> None:
    with answering(http(429, "", "Retry-After: 7"), http(429, "", "Retry-After: 99999"), http(429, "")) as url:
        kube = Kube(Connection(url))
        waits = []
        for _number in range(3):
            with pytest.raises(ApiError) as caught:
                kube.request("GET", "/")
            waits.append(caught.value.retry_after_s)
        assert waits == [7, 60, 0]
        kube.close()


# --- watches ----------------------------------------------------------------------------------------------------------


class Told:
    """What a watch tells."""

    def __init__(self) -> None:
        self.seen: list[list[dict[str, Any]]] = []
        self.errors: list[ApiError] = []
        self.fresh: list[bool] = []

    def take(self, objects: list[dict[str, Any]], fresh: bool) -> None:
        """What the watch calls."""
        self.seen.append(objects)
        self.fresh.append(fresh)

    def watch(self, kube: Kube, server: str = NODE, pods: bool = False) -> Watch:
        cluster = Cluster(kube, server)
        resource = cluster.pods_resource("gpu-operator") if pods else cluster.this_node()
        watch = Watch(kube, resource, self.take, self.errors.append, Delay(0.01, 0.05))
        watch.start()
        return watch

    def label(self, name: str) -> str | None:
        """Of the node as it was told last."""
        found = self.seen[-1] if self.seen else []
        return found[0]["metadata"]["labels"].get(name) if found else None


def label(store: Store, **labels: str) -> None:
    store.patch(NODES, NODE, {"metadata": {"labels": labels}})


def test_a_watch_tells_the_node_and_each_change(kube: Kube, store: Store) -> None:
    told = Told()
    watch = told.watch(kube)
    eventually(lambda: told.seen)
    assert [one["metadata"]["name"] for one in told.seen[-1]] == [NODE]
    assert "status" not in told.seen[-1][0]
    label(store, a="1")
    eventually(lambda: told.label("a") == "1")
    store.patch(NODES, "node-2", {"metadata": {"labels": {"a": "2"}}})
    store.delete(NODES, NODE)
    eventually(lambda: told.seen[-1] == [])
    watch.end()
    assert told.errors == []


def test_pods_come_and_go(kube: Kube, store: Store) -> None:
    sets = DaemonSets(store, NODE, grace_s=0.01)
    told = Told()
    watch = told.watch(kube, pods=True)
    eventually(lambda: told.seen and len(told.seen[-1]) == 1)
    label(store, **{PREFIX + "vfio-manager": "false"})
    eventually(lambda: told.seen[-1] == [])
    assert sets.pods("vfio-manager") == []
    watch.end()


@pytest.mark.parametrize("how", ["cut", "stop and start", "compacted", "compacted while away", "etcd answers 500"])
def test_13_a_watch_survives_every_error(how: str, kube: Kube, server: ApiServer, store: Store) -> None:
    told = Told()
    watch = told.watch(kube)
    label(store, a="1")
    eventually(lambda: told.label("a") == "1")
    if how == "cut":
        server.cut()
    elif how == "stop and start":
        server.stop()
        label(store, b="1")
        server.start()
        eventually(lambda: told.label("b") == "1")
    elif how == "compacted":
        store.compact()
        server.cut()
    elif how == "compacted while away":
        server.stop()
        label(store, b="1")
        store.compact()
        server.start()
        eventually(lambda: told.label("b") == "1")
    else:
        count = iter(range(3))

        def broken(request: Request) -> None:
            if next(count, None) is not None:
                raise Refusal(500, "etcd is not there")

        store.before = broken
        server.cut()
        eventually(lambda: len(told.errors) >= 2)
    label(store, a="2")
    eventually(lambda: told.label("a") == "2")
    watch.end()


LIST = '{"items": [], "metadata": {"resourceVersion": "5"}}'
NO_EVENTS = ["[]", "5", '{"type": "MODIFIED"}', '{"type": "ADDED", "object": []}', '{"type": "ERROR", "object": null}']
NO_LISTS = ["[]", "{}", '{"items": 5, "metadata": {}}', '{"items": [null], "metadata": {}}']


@pytest.mark.parametrize("told_first", [*([one] for one in NO_LISTS), *([LIST, one + "\n"] for one in NO_EVENTS)])
def test_13_a_watch_survives_answers_of_somebody_else(told_first: list[str]) -> None:
    node = json.dumps({"items": [new_node(NODE)], "metadata": {"resourceVersion": "6"}})
    told = Told()
    with answering(*(http(200, one) for one in (*told_first, node))) as url:
        kube = Kube(Connection(url))
        watch = told.watch(kube)
        eventually(lambda: told.seen and told.seen[-1])
        watch.end()
        kube.close()
        eventually(lambda: not any(thread.name.startswith("watch ") for thread in threading.enumerate()))
    assert told.errors


def test_a_watch_without_the_right_is_tried_again_at_another_pace(kube: Kube, store: Store) -> None:
    store.before = forbid_pods
    told = Told()
    watch = Watch(
        kube, Cluster(kube, NODE).pods_resource(None), told.take, told.errors.append, Delay(0.01, 0.02), Delay(30, 60)
    )
    watch.start()
    eventually(lambda: told.errors)
    time.sleep(0.3)
    watch.end()
    assert len(told.errors) == 1


def test_a_watch_is_one_request_for_long(kube: Kube, store: Store) -> None:
    told = Told()
    watch = told.watch(kube)
    eventually(lambda: len(store.requests) == 2)
    for number in range(20):
        label(store, a=str(number))
    eventually(lambda: told.label("a") == "19")
    time.sleep(1.2)  # bookmarks go by
    assert [request.verb for request in store.requests] == ["list", "watch"]
    watch.end()


def test_a_server_that_ends_each_watch_at_once_is_not_asked_without_a_pause() -> None:
    asked: list[str] = []

    class Ends:
        """A stream without an event."""

        def events(self) -> Iterator[dict[str, Any]]:
            return iter(())

        def end(self) -> None:
            """Nothing."""

        def close(self) -> None:
            """Nothing."""

    class Hasty:
        """The API server."""

        silence_s = 1.0

        def items(self, *_arguments: Any) -> tuple[list[dict[str, Any]], str]:
            return [], "1"

        def stream(self, path: str, _query: Any, _accept: str) -> Ends:
            asked.append(path)
            return Ends()

    watch = Watch(Hasty(), Cluster(None, NODE).this_node(), lambda _o, _f: None, lambda _e: None, Delay(0.1, 0.2))  # type: ignore[arg-type]
    watch.start()
    time.sleep(0.5)
    watch.end()
    assert 1 <= len(asked) <= 10


def test_the_delay_grows_with_jitter_and_ends_with_a_success() -> None:
    delay = Delay(1.0, 30.0)
    waits = [delay.next() for _number in range(40)]
    assert 0.5 <= waits[0] <= 1.0
    assert all(15 <= wait <= 30 for wait in waits[8:])
    assert len(set(waits)) == 40
    delay.reset()
    assert delay.next() <= 1.0


# --- where the API is -------------------------------------------------------------------------------------------------


def test_a_pods_service_account(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    environment = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    found = connection.of_pod(environment, str(tmp_path))
    assert (found.server, found.ca_file) == ("https://10.0.0.1:443", str(tmp_path / "ca.crt"))
    assert found.token is not None
    assert found.token() == "first"
    token.write_text("second-and-longer")
    os.utime(token, (1, 1))
    assert found.token() == "second-and-longer"
    six = connection.of_pod({**environment, "KUBERNETES_SERVICE_HOST": "fd00::1"}, str(tmp_path))
    assert six.server == "https://[fd00::1]:443"
    with pytest.raises(NoConnection, match="in no pod"):
        connection.of_pod({}, str(tmp_path))


def kubeconfig(folder: Path, user: dict[str, Any], **cluster: Any) -> str:
    content = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://api:6443/", **cluster}}],
        "users": [{"name": "u", "user": user}],
    }
    (folder / "config").write_text(yaml.safe_dump(content, allow_unicode=True))
    return str(folder / "config")


def test_kubeconfig_files(tmp_path: Path) -> None:
    found = connection.of_file(kubeconfig(tmp_path, {"token": "t"}, **{"certificate-authority": "ca.crt"}))
    assert (found.server, found.ca_file, found.verify) == ("https://api:6443", str(tmp_path / "ca.crt"), True)
    assert found.token is not None
    assert found.token() == "t"
    (tmp_path / "token").write_text("of-a-file\n")
    found = connection.of_file(kubeconfig(tmp_path, {"tokenFile": "token"}, **{"insecure-skip-tls-verify": True}))
    assert found.token is not None
    assert (found.token(), found.verify) == ("of-a-file", False)
    data = base64.b64encode(b"pem").decode()
    user = {"client-certificate-data": data, "client-key-data": data}
    found = connection.of_file(kubeconfig(tmp_path, user))
    assert found.token is None
    for file in (found.certificate_file, found.key_file):
        assert file is not None
        assert Path(file).read_bytes() == b"pem"
        assert os.stat(file).st_mode & 0o777 == 0o600
        assert file.startswith("/proc/self/fd/")  # so that nothing is left, however the process ends


UNSUPPORTED_OF_USERS = [
    "exec",
    "auth-provider",
    "username",
    "password",
    "as",
    "as-groups",
    "as-uid",
    "as-user-extra",
    "new",
]
UNSUPPORTED_OF_CLUSTERS = ["proxy-url", "tls-server-name", "new"]


@pytest.mark.parametrize("field", UNSUPPORTED_OF_USERS)
def test_fields_of_users_that_are_not_supported_are_named(tmp_path: Path, field: str) -> None:
    with pytest.raises(NoConnection, match=f"the user has {field}, which is not supported") as caught:
        connection.of_file(kubeconfig(tmp_path, {"token": "t", field: {"secret": "s3cr3t"}}))
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize("field", UNSUPPORTED_OF_CLUSTERS)
def test_fields_of_clusters_that_are_not_supported_are_named(tmp_path: Path, field: str) -> None:
    with pytest.raises(NoConnection, match=f"the cluster has {field}, which is not supported"):
        connection.of_file(kubeconfig(tmp_path, {}, **{field: "x"}))


@pytest.mark.parametrize(
    "server", ["api:6443", "https://", "ftp://api", "https://u:s3cr3t@api", "https://api:port", ""]
)
def test_servers_that_are_none(tmp_path: Path, server: str) -> None:
    with pytest.raises(NoConnection, match="cannot be used") as caught:
        connection.of_file(kubeconfig(tmp_path, {}, server=server))
    assert "s3cr3t" not in str(caught.value)


def test_whether_the_servers_certificate_counts_is_true_or_false(tmp_path: Path) -> None:
    with pytest.raises(NoConnection, match="insecure-skip-tls-verify is neither true nor false"):
        connection.of_file(kubeconfig(tmp_path, {}, **{"insecure-skip-tls-verify": "false"}))


NO_YAML = "users:\n- name: u\n  user:\n    token: s3cr3t\n   client-key-data: s3cr3t\n"
NO_MAPPING = "contexts: s3cr3t\nclusters: s3cr3t\nusers: s3cr3t\ncurrent-context: s3cr3t\n"


@pytest.mark.parametrize(
    ("text", "words"), [(NO_YAML, "line 5, column"), (NO_MAPPING, "field"), ("\xff s3cr3t", "YAML")]
)
def test_a_kubeconfig_that_cannot_be_read_is_not_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, words: str
) -> None:
    (tmp_path / "config").write_bytes(text.encode("latin-1"))
    assert main(["--node-name", NODE, "--kubeconfig", str(tmp_path / "config")], {}) == 2
    said = capsys.readouterr().err
    assert words in said
    assert "s3cr3t" not in said


BAD_TOKENS = ["s3cr3t\nX-Other: 1", "s3cr3t\r", "s3 cr3t", "s3cr3t\u00e4", "s3cr3t\0"]


@pytest.mark.parametrize("token", BAD_TOKENS)
def test_a_token_that_is_none_is_not_shown(tmp_path: Path, token: str) -> None:
    with pytest.raises(NoConnection, match="token") as caught:
        connection.of_file(kubeconfig(tmp_path, {"token": token}))
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize("token", [*BAD_TOKENS, "", None])
def test_a_token_file_that_becomes_none_is_told_and_not_shown(
    tmp_path: Path, server: ApiServer, store: Store, token: str | None
) -> None:
    file = tmp_path / "token"
    file.write_text("good")
    kube = Kube(Connection(server.url, token=connection.FileToken(file)))
    assert Cluster(kube, NODE).node().name == NODE
    if token is None:
        file.unlink()
    else:
        file.write_text(f"{token}x" if token else "")
        os.utime(file, (1, 1))
    with pytest.raises(ApiError, match="token") as caught:
        Cluster(kube, NODE).node()
    shown = "".join(traceback.format_exception(caught.value))
    assert not any(part in shown for part in ("s3cr3t", "X-Other"))
    file.write_text("good again".replace(" ", "-"))
    assert Cluster(kube, NODE).node().name == NODE
    kube.close()


NO_BASE64 = yaml.safe_dump(
    {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": 7, "certificate-authority-data": "a"}}],
        "users": [{"name": "u", "user": {}}],
    }
)


@pytest.mark.parametrize("text", [None, "{", "[]", "contexts: []\ncurrent-context: x\n", "contexts: {x", NO_BASE64])
def test_kubeconfig_files_that_are_none(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "config").write_text(text)
    with pytest.raises(NoConnection, match="cannot be used"):
        connection.of_file(str(tmp_path / "config"))


# --- the whole process ------------------------------------------------------------------------------------------------


class QuickRunner:
    """Runs that are as quick as messages: one GPU that does as it is told."""

    def __init__(self, tell: Callable[[Message], None]) -> None:
        self.tell, self.number, self.mode, self.job = tell, 0, "off", Job(False)

    def start(self, job: Job) -> QuickRunner:
        self.number, self.job = self.number + 1, job
        if job.is_change:
            self.tell(RunPlanned(self.number))
        else:
            modes = {"mode": self.mode, "pending_mode": self.mode}
            entry = self._entry(**modes, in_use=False, settings_unproven=False, problem=None)
            host = {"tdx": {"value": "no"}, "sev_snp": {"value": "unknown"}}
            self.tell(RunEnded(self.number, {"devices": [entry], "host": host}))
        return self

    def _entry(self, **more: Any) -> dict[str, Any]:
        modes = ["off", "on", "devtools", "ppcie"]
        return {"address": "0000:17:00.0", "kind": "gpu", "name": "H100", "supported_modes": modes, **more}

    def open_gate(self) -> None:
        before, self.mode = self.mode, str(self.job.mode)
        entry = self._entry(mode_before=before, mode_after=self.mode, staged=True, reset=True, seconds={})
        self.tell(RunEnded(self.number, {"devices": [entry]}))

    def close_gate(self) -> None:
        self.tell(RunEnded(self.number, {"msg": "The gate did not open."}, failed=True))

    def kill(self) -> None:
        """Nothing is at work."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def test_the_process_follows_the_label(tmp_path: Path, kube: Kube, server: ApiServer, store: Store) -> None:
    sets = DaemonSets(store, NODE, grace_s=0.05)
    ready, port = tmp_path / "validations" / "ready", free_port()
    environment = {
        "NODE_NAME": NODE,
        "OPERATOR_NAMESPACE": "gpu-operator",
        "CC_READINESS_FILE": str(ready),
        "CC_MANAGER_METRICS_PORT": str(port),
    }
    process = Process(settings.parse([], environment), kube, QuickRunner)
    thread = threading.Thread(target=process.run)
    thread.start()

    def get(path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, ""

    def state() -> Any:
        return store.get(NODES, NODE)["metadata"]["labels"].get("nvidia.com/cc.mode.state")

    try:
        eventually(lambda: state() == "off")
        eventually(ready.exists)
        eventually(lambda: get("/readyz")[0] == 200)
        for mode in ("on", "ppcie", "off"):
            label(store, **{"nvidia.com/cc.mode": mode})
            eventually(lambda mode=mode: state() == mode)
            eventually(lambda: sets.pods("vfio-manager"))
        server.cut()
        label(store, **{"nvidia.com/cc.mode": "on"})
        eventually(lambda: state() == "on")
        assert get("/healthz") == (200, "ok\n")
        eventually(lambda: 'cc_manager_state{state="on"} 1.0' in get("/metrics")[1])
        assert get("/other")[0] == 404
        store.before = forbid_pods
        label(store, **{"nvidia.com/cc.mode": "off"})
        eventually(lambda: state() == "failed")
        eventually(lambda: not ready.exists())
    finally:
        process.stop()
        thread.join(SOON_S)
    assert not thread.is_alive()


def test_a_process_that_waits_for_another_ends_when_it_is_asked_to(tmp_path: Path, kube: Kube, store: Store) -> None:
    other = Alone(str(tmp_path))
    other.take(lambda: None)
    chosen = settings.parse([], {"NODE_NAME": NODE, "CC_MANAGER_METRICS_PORT": "0"})
    process = Process(chosen, kube, QuickRunner, alone=Alone(str(tmp_path)))
    thread = threading.Thread(target=process.run)
    thread.start()
    process.stop()
    thread.join(SOON_S)
    assert not thread.is_alive()
    assert store.requests == []
    other.release()


def forbid_pods(request: Request) -> None:
    if request.verb == "list" and request.path.endswith("/pods"):
        raise Refusal(403, "pods is forbidden")


def test_the_process_says_what_it_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([], {}) == 2
    assert "NODE_NAME is not set" in capsys.readouterr().err
    assert main(["--node-name", "x", "--debug"], {"CC_MANAGER_LOG_FORMAT": "json"}) == 2
    assert "in no pod" in capsys.readouterr().err


def test_the_last_line_is_json_too(tmp_path: Path, server: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    before = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)]
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server.url}}],
        "users": [{"name": "u", "user": {}}],
    }
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    with socket.create_server(("", 0)) as other:
        port = str(other.getsockname()[1])
        options = ["--node-name", NODE, "--kubeconfig", str(tmp_path / "config"), "--cc-manager-metrics-port", port]
        assert main(options, {"CC_MANAGER_LOG_FORMAT": "json"}) == 1
    for one, handler in zip((signal.SIGTERM, signal.SIGINT), before, strict=True):
        signal.signal(one, handler)
    last = json.loads(capsys.readouterr().err.splitlines()[-1])
    assert last["level"] == "error"
    assert "Address already in use" in last["trace"]
    logger = logging.getLogger("operand")
    logger.handlers, logger.propagate = [], True


def test_a_stuck_process_is_not_healthy() -> None:
    now = [0.0]
    health = Health(lambda: now[0])
    health.busy()
    now[0] = 100.0
    assert health.is_alive
    now[0] = 200.0
    assert not health.is_alive
    health.idle()
    assert health.is_alive


def test_nodes_of_the_api_without_metadata_maps() -> None:
    node = Node.of({"metadata": {"name": "n"}})
    assert (node.labels, node.annotations) == ({}, {})
    assert json.dumps(Patch({"a": None}).body("5")) == '{"metadata": {"resourceVersion": "5", "labels": {"a": null}}}'
