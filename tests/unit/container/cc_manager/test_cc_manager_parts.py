# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Small parts: settings, journal, readings, the lock, the readiness file, the gate."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from cc_manager import journal, metrics, processes, reading, settings
from cc_manager.alone import Alone
from cc_manager.readiness import ReadinessFile
from cc_manager.run import ListeningGate
from cc_manager.settings import OPTIONS
from fake_api.waiting import eventually
from kube.settings import BadSetting

from ansible_collections.confidential.gpu.plugins.module_utils._gpu.errors import GateClosed
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.gate import Gate

PREFIX = "nvidia.com/gpu.deploy."


# --- settings ---------------------------------------------------------------------------------------------------------


def test_defaults_are_those_of_the_contract(tmp_path: Path) -> None:
    found = settings.parse([], {"NODE_NAME": "n"}, str(tmp_path / "none"))
    assert found.default_cc_mode == ""  # a default that nobody set changes nothing
    assert found.evict_operator_components
    assert found.operator_namespace == "gpu-operator"
    assert found.readiness_file == "/run/nvidia/validations/.cc-manager-ctr-ready"
    assert (found.bus, found.busy, found.drift_interval_s) == ("sysfs", "refuse", 300)


def test_every_variable_has_a_flag_and_the_flag_wins() -> None:
    values = {
        "EVICT_OPERATOR_COMPONENTS": "false",
        "CC_MANAGER_DRIFT_REPAIR": "false",
        "CC_MANAGER_BUSY": "drain",
        "CC_MANAGER_LOG_FORMAT": "json",
        "CC_MANAGER_AUDIT_FOLDER": "/7",
    }
    for option in OPTIONS:
        text = values.get(option.variable, "7")
        arguments = ["--node-name", "n"] if option.variable != "NODE_NAME" else []
        by_flag = settings.parse([*arguments, option.flag, text], {option.variable: "6"})
        by_variable = settings.parse(arguments, {option.variable: text})
        assert getattr(by_flag, option.field) == getattr(by_variable, option.field)


def test_the_references_flags() -> None:
    arguments = ["--kubeconfig", "k", "-m", "off", "--node-name", "n", "--debug"]
    found = settings.parse(arguments, {})
    assert (found.kubeconfig, found.default_cc_mode, found.node_name, found.debug) == ("k", "off", "n", True)


def test_the_namespace_of_the_service_account(tmp_path: Path) -> None:
    file = tmp_path / "namespace"
    file.write_text("mine\n")
    assert settings.parse([], {"NODE_NAME": "n"}, str(file)).operator_namespace == "mine"
    chosen = settings.parse([], {"NODE_NAME": "n", "OPERATOR_NAMESPACE": "other"}, str(file))
    assert chosen.operator_namespace == "other"


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("EVICT_OPERATOR_COMPONENTS", "perhaps", "true or false"),
        ("CC_MANAGER_BUSY", "kill", "one of refuse, wait, drain"),
        ("CC_MANAGER_BUSY_TIMEOUT", "soon", "seconds, 0 or more"),
        ("CC_MANAGER_BUSY_TIMEOUT", "inf", "seconds, 0 or more"),
        ("CC_MANAGER_METRICS_PORT", "70000", "a port"),
        ("CC_MANAGER_RETRY_LIMIT", "0", "1 or more"),
    ],
)
def test_settings_that_cannot_be(variable: str, value: str, words: str) -> None:
    with pytest.raises(BadSetting, match=f"{variable} is '{value}'. Give {words}"):
        settings.parse([], {"NODE_NAME": "n", variable: value})


def test_every_setting_is_read_by_something() -> None:
    folder = Path(settings.__file__).parent
    used = "".join(path.read_text() for path in folder.glob("*.py") if path.name != "settings.py")
    assert [one.field for one in OPTIONS if not re.search(rf"\.{one.field}\b", used)] == []


# --- metrics ----------------------------------------------------------------------------------------------------------


def test_every_metric_is_set_by_something() -> None:
    """One that nothing counts would be shown as 0 for ever."""
    folder = Path(metrics.__file__).parent
    used = "".join(path.read_text() for path in folder.glob("*.py") if path.name != "metrics.py")
    offered = {
        name
        for name in (*vars(metrics.CCManagerMetrics()), *vars(metrics.CCManagerMetrics))
        if not name.startswith("_")
    }
    assert [name for name in sorted(offered) if not re.search(rf"\bself\._?metrics\.{name}\b", used)] == []


# --- what others may have edited --------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[[[[", '{"%svfio-manager": 1}' % PREFIX, '{"other": "true"}'])
def test_a_journal_that_is_none_holds_nothing(text: str) -> None:
    assert journal.read({"nvidia.com/cc.mode.journal": text}) == journal.Journal({})


@pytest.mark.parametrize("value", ["not a value", "x" * 64, "-x", "x.", "\u00e4", "x" * (1 << 20), "true\n"])
def test_a_journal_with_what_no_label_can_be_does_not_keep_it(value: str) -> None:
    text = json.dumps({PREFIX + "vfio-manager": value, PREFIX + "vgpu-manager": "x" * 63})
    assert journal.read({"nvidia.com/cc.mode.journal": text}) == journal.Journal({PREFIX + "vgpu-manager": "x" * 63})


def test_a_journal_keeps_what_is_ours() -> None:
    text = json.dumps({PREFIX + "vfio-manager": "mine", PREFIX + "vgpu-manager": "paused-for-cc-mode-change", "x": "y"})
    assert journal.read({"nvidia.com/cc.mode.journal": text}) == journal.Journal({PREFIX + "vfio-manager": "mine"})
    assert journal.read({}) is None


NO_MODES = [{"boot": "", "mode": mode} for mode in ("banana", "mixed", "not a label!", ["on"], None)]


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"a": 1}', '{"a": {}}', '{"a": {"mode": "on"}}', *(json.dumps({"a": one}) for one in NO_MODES)],
)
def test_modes_that_were_not_published(text: str) -> None:
    assert reading.published_modes({"nvidia.com/cc.mode.devices": text}, "") == {}


def test_published_modes_count_until_the_host_boots() -> None:
    devices = (reading.Device("0000:17:00.0", mode="on"), reading.Device("0000:18:00.0", mode=None))
    annotations = {"nvidia.com/cc.mode.devices": reading.Reading(devices, boot="one").text()}
    assert reading.published_modes(annotations, "one") == {"0000:17:00.0": "on"}
    assert reading.published_modes(annotations, "two") == {}


# --- one CC manager a node --------------------------------------------------------------------------------------------


def test_the_lock_goes_from_one_to_the_next(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = str(tmp_path / "not there yet")
    first, second = Alone(folder), Alone(folder)
    order: list[str] = []
    taken = threading.Event()
    first.take(lambda: order.append("first"))
    second.take(lambda: (order.append("second"), taken.set()))  # type: ignore[func-returns-value, arg-type]
    assert order == ["first"]
    assert "waiting for its end" in caplog.text
    first.release()
    assert taken.wait(10)
    assert order == ["first", "second"]
    second.release()


def test_where_no_lock_can_be_the_cc_manager_waits_until_there_can(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    taken = threading.Event()
    alone = Alone(str(tmp_path / "file"), again_s=0.01)
    alone.take(taken.set)
    assert not taken.wait(0.1)
    assert caplog.text.count("is not known, so nothing is done") == 1
    (tmp_path / "file").unlink()
    assert taken.wait(10)
    alone.release()


@pytest.mark.parametrize("what", ["link", "pipe", "folder"])
def test_what_others_put_in_the_place_of_the_lock_is_not_followed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    lock, victim = tmp_path / ".cc-manager.lock", tmp_path / "victim"
    victim.touch(mode=0o644)
    if what == "link":
        lock.symlink_to(victim)
    elif what == "pipe":
        os.mkfifo(lock)
    else:
        lock.mkdir()
    taken = threading.Event()
    alone = Alone(str(tmp_path), again_s=0.01)
    alone.take(taken.set)
    assert not taken.wait(0.05)
    assert "so nothing is done" in caplog.text
    assert victim.stat().st_mode & 0o777 == 0o644
    alone.release()


def test_the_lock_is_for_its_owner_alone_also_one_that_was_made_otherwise(tmp_path: Path) -> None:
    lock = tmp_path / ".cc-manager.lock"
    lock.touch(mode=0o644)
    alone = Alone(str(tmp_path))
    alone.take(lambda: None)
    assert lock.stat().st_mode & 0o777 == 0o600
    alone.release()


def test_a_lock_that_was_removed_and_made_anew_is_the_new_one(tmp_path: Path) -> None:
    """Two that hold two files of one name would both work."""
    first, second, third = (Alone(str(tmp_path), again_s=0.01) for _number in range(3))
    taken: list[str] = []
    first.take(lambda: taken.append("first"))
    (tmp_path / ".cc-manager.lock").unlink()
    second.take(lambda: taken.append("second"))
    first.release()
    third.take(lambda: taken.append("third"))
    assert taken == ["first", "second"]
    second.release()
    third.release()


@pytest.mark.parametrize(("bus", "folder"), [("sysfs", "/state"), ("vfio-user:/sockets", "/sockets")])
def test_the_lock_lies_with_the_devices(bus: str, folder: str) -> None:
    chosen = settings.parse([], {"NODE_NAME": "n", "CC_MANAGER_BUS": bus, "CC_MANAGER_STATE_FOLDER": "/state"})
    assert chosen.lock_folder == folder


# --- the readiness file -----------------------------------------------------------------------------------------------


def test_the_readiness_file(tmp_path: Path) -> None:
    path = tmp_path / "validations" / "ready"
    file = ReadinessFile(str(path))
    file.remove()
    file.write()
    file.write()
    assert path.exists()
    file.remove()
    assert not path.exists()


def test_a_readiness_file_that_cannot_be_is_a_line_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    ReadinessFile(str(tmp_path / "file" / "ready")).write()
    ReadinessFile(str(tmp_path / "folder")).remove()
    assert "cannot be written" in caplog.text
    assert "cannot be removed" in caplog.text
    ReadinessFile("").write()
    ReadinessFile("").remove()


@pytest.mark.parametrize("what", ["link", "dangling link", "pipe"])
def test_what_others_put_in_the_place_of_the_readiness_file_is_not_followed(tmp_path: Path, what: str) -> None:
    path, victim = tmp_path / "ready", tmp_path / "victim"
    if what == "link":
        victim.write_text("mine")
    if what == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(victim)
    file = ReadinessFile(str(path))
    file.write()
    assert stat.S_ISREG(path.lstat().st_mode)
    assert victim.exists() == (what == "link")
    file.remove()
    assert not path.exists()
    assert not victim.exists() or victim.read_text() == "mine"


def test_the_readiness_file_is_never_written_after_the_end(tmp_path: Path) -> None:
    path = tmp_path / "ready"
    file = ReadinessFile(str(path))
    file.write()
    file.close()
    assert not path.exists()
    file.write()
    assert not path.exists()


# --- the processes of a run -------------------------------------------------------------------------------------------


STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()  # as Ansible's workers do
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(os.path.join(sys.argv[1], str(os.getpid())), "w").close()
time.sleep(600)
"""


def test_all_processes_of_a_run_are_ended_whatever_they_do_and_no_others(tmp_path: Path) -> None:
    def begin(mark: str) -> tuple[subprocess.Popen[bytes], list[int]]:
        folder = tmp_path / mark
        folder.mkdir()
        environment = {**os.environ, "CC_MANAGER_RUN": mark}
        process = subprocess.Popen([sys.executable, "-c", STUBBORN, str(folder)], env=environment)
        eventually(lambda: len(list(folder.iterdir())) == 2)
        return process, [int(one.name) for one in folder.iterdir()]

    (ours, pids), (other, others) = begin("one"), begin("one-more")
    over = threading.Event()
    ending = threading.Thread(target=processes.end, args=(b"CC_MANAGER_RUN=one", over))
    ending.start()
    assert ours.wait(10) == -signal.SIGKILL
    eventually(lambda: not any(is_running(pid) for pid in pids))
    over.set()
    ending.join(10)
    assert all(is_running(pid) for pid in others)
    for pid in others:
        os.kill(pid, signal.SIGKILL)
    other.wait(10)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# A process that gets the orphans of those below it, as the first one of a container does.
ORPHANAGE = """
import ctypes, os, subprocess, sys, threading
sys.path.insert(0, sys.argv[1])
from cc_manager.processes import Orphans, below
PR_SET_CHILD_SUBREAPER = 36
assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
orphans = Orphans(gets_them=True)
leave_one = [sys.executable, "-c", "import os; os.fork() or os._exit(0)"]
with orphans.someone_waits():
    with orphans.someone_waits():
        subprocess.run(leave_one, check=True)
        while not any(below(os.getpid())):
            pass
    mine = subprocess.Popen(["true"])
    os.waitid(os.P_PID, mine.pid, os.WEXITED | os.WNOWAIT)
    print("before", len(list(below(os.getpid()))))
    assert mine.wait() == 0
    for pid in below(os.getpid()):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
print("after", len(list(below(os.getpid()))))
"""


def test_orphans_are_buried_and_nobodys_own_children_are() -> None:
    container = str(Path(__file__).resolve().parents[4] / "container")
    output = subprocess.check_output([sys.executable, "-c", ORPHANAGE, container], text=True, timeout=60)
    assert output == "before 2\nafter 0\n"


# --- the gate ---------------------------------------------------------------------------------------------------------


class Side:
    """The module's side of a gate, in a thread."""

    def __init__(self, path: str, timeout_s: float = 10) -> None:
        self.error: GateClosed | None = None
        self.done = threading.Event()
        threading.Thread(target=self._wait, args=(Gate(path, timeout_s),), daemon=True).start()

    def _wait(self, gate: Gate) -> None:
        try:
            gate.wait({"plan": ["x" * 100_000]})
        except GateClosed as error:
            self.error = error
        self.done.set()


@pytest.fixture
def listening(tmp_path: Path) -> tuple[ListeningGate, threading.Event]:
    planned = threading.Event()
    return ListeningGate(str(tmp_path / "gate"), planned.set), planned


def test_a_gate_opens(listening: tuple[ListeningGate, threading.Event]) -> None:
    gate, planned = listening
    side = Side(gate.path)
    assert planned.wait(10)
    assert not side.done.is_set()
    gate.open()
    assert side.done.wait(10)
    assert side.error is None
    gate.close()
    gate.close()
    gate.open()  # a run that is gone: nothing


def test_a_gate_closes(listening: tuple[ListeningGate, threading.Event]) -> None:
    gate, planned = listening
    side = Side(gate.path)
    assert planned.wait(10)
    gate.close()
    assert side.done.wait(10)
    assert "it was closed" in str(side.error)


def test_a_gate_that_is_closed_before_anybody_comes(listening: tuple[ListeningGate, threading.Event]) -> None:
    gate, planned = listening
    gate.close()
    side = Side(gate.path)
    assert side.done.wait(10)
    assert "ECONNREFUSED" in str(side.error)
    assert not planned.is_set()


def test_a_gate_that_nobody_opens(listening: tuple[ListeningGate, threading.Event]) -> None:
    gate, _planned = listening
    side = Side(gate.path, timeout_s=0.1)
    assert side.done.wait(10)
    assert "not opened within 0.1 s" in str(side.error)
    gate.close()


def test_a_gate_to_which_somebody_says_something_else(tmp_path: Path) -> None:
    path = str(tmp_path / "gate")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        side = Side(path)
        connection, _address = listener.accept()
        with connection:
            connection.sendall(b"no\n")
            assert side.done.wait(10)
    assert side.error is not None
    assert side.error.retryable


def test_a_visitor_who_leaves_without_a_plan(listening: tuple[ListeningGate, threading.Event]) -> None:
    gate, planned = listening
    with socket.socket(socket.AF_UNIX) as visitor:
        visitor.connect(gate.path)
    assert not planned.wait(0.2)
    gate.close()
    assert os.path.exists(gate.path)
