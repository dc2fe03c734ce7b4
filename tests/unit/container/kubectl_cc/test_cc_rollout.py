# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""A rollout from its start to its end, against an API server in memory whose nodes have CC managers."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cc_bed import NODES, PODS, QUICK, RECORD, RECORDS, ROLLOUT_ANNOTATION, Bed, gpu_node, gpu_pod
from cc_manager.names import MODE_LABEL
from fake_api.clients import used
from fake_api.plain import answering, http
from fake_api.store import Refusal, Request
from fake_api.waiting import eventually as soon
from kube.client import Kube
from kube.connection import Connection
from kubectl_cc import cli, record
from kubectl_cc.names import PAUSED
from kubectl_cc.rules import Refused

START = ("rollout", "start", "--mode", "on")
NAMES = [f"gpu-{number}" for number in range(6)]
# Of what takes tens of requests, on a machine that does much else.
LONG_S = 60.0


def eventually(condition: Callable[[], Any]) -> None:
    """Until it holds."""
    soon(condition, LONG_S)


@pytest.fixture
def six(some: Bed) -> Bed:
    """Three nodes in each of two zones, off."""
    some.add(*(gpu_node(name, zone="ab"[number % 2]) for number, name in enumerate(NAMES)))
    return some


def status(bed: Bed) -> record.Status:
    return record.read(bed.store.get(RECORDS, RECORD)).status


def paused(bed: Bed) -> str:
    """Why."""
    pause = status(bed).paused
    return pause.cause if pause else ""


def cordoned(bed: Bed) -> list[str]:
    return [name for name, node in bed.nodes().items() if node.unschedulable]


# --- waves ------------------------------------------------------------------------------------------------------------


def test_a_canary_then_waves_within_the_budget(six: Bed, capsys: pytest.CaptureFixture[str]) -> None:
    assert six.run(*START, "--budget", "2") == 0
    assert set(six.states().values()) == {"on"}
    assert six.taken()[0] == "gpu-0"
    assert sorted(six.taken()) == NAMES
    assert six.managers.most_out <= 2
    assert not cordoned(six)
    assert "is done" in capsys.readouterr().out
    # Two writes for each node, and what a node says of its last rollout.
    assert len(six.asked()) == 2 * len(NAMES)
    assert json.loads(six.node("gpu-3").annotations[ROLLOUT_ANNOTATION])["stage"] == "done"


def test_a_budget_for_each_rack(six: Bed) -> None:
    for number, name in enumerate(NAMES):
        six.patch(name, {"rack": "pq"[number // 3]})
    assert six.run(*START, "--canary", "2", "--budget", "1", "--budget-per", "rack") == 0
    made = record.read(six.store.get(RECORDS, RECORD)).plan
    assert [[entry.name for entry in wave] for wave in made.waves] == [
        ["gpu-0", "gpu-3"],
        ["gpu-1", "gpu-4"],
        ["gpu-2", "gpu-5"],
    ]
    assert set(six.states().values()) == {"on"}


def test_a_dry_run_prints_the_waves_and_writes_nothing(six: Bed, capsys: pytest.CaptureFixture[str]) -> None:
    six.patch("gpu-5", {"nvidia.com/cc.mode": "on"})
    eventually(lambda: six.node("gpu-5").observed == "on")
    before = six.store.version
    assert six.run(*START, "--budget", "50%", "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("5 nodes to mode on; budget 50%")
    assert lines[1].split() == ["canary", "1", "gpu-0"]
    assert lines[2].split() == ["wave", "2", "3", "gpu-1", "gpu-2", "gpu-3"]
    assert lines[-1] == "in mode on already: 1"
    assert six.store.version == before


def test_the_last_ready_node_of_a_zone_is_not_taken(six: Bed) -> None:
    six.add(gpu_node("lone", zone="c"))
    with pytest.raises(Refused, match=r"lone: the last ready node of topology.kubernetes.io/zone=c"):
        six.run(*START)
    assert not six.asked()


def test_the_last_ready_node_of_a_zone_is_not_taken_either_when_it_becomes_that(six: Bed) -> None:
    """Zone b loses two of its nodes while the canary, of zone a, changes."""

    def lose(request: Request) -> None:
        if request.verb == "patch" and request.path.endswith("gpu-0"):
            for name in ("gpu-3", "gpu-5"):
                six.store.patch(NODES, name, {"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}})

    six.store.before = lose
    assert six.run(*START, "--budget", "6", "--detach") == 0
    with six.working() as ends:
        three = {"gpu-0", "gpu-2", "gpu-4"}
        eventually(lambda: {name for name, state in six.states().items() if state == "on"} == three)
        assert "gpu-1" not in six.taken()
        six.store.before = lambda request: None
        for name in ("gpu-3", "gpu-5"):
            six.store.patch(NODES, name, {"status": {"conditions": [{"type": "Ready", "status": "True"}]}})
        eventually(lambda: ends == [0])
    assert set(six.states().values()) == {"on"}


def test_some_nodes_by_a_selector(six: Bed) -> None:
    assert six.run(*START, "-l", "topology.kubernetes.io/zone=b") == 0
    assert sorted(six.taken()) == ["gpu-1", "gpu-3", "gpu-5"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"labels": {"nvidia.com/cc.mode.state": "failed"}}, "it has failed"),
        ({"labels": {"nvidia.com/cc.mode.state": ""}}, "at work"),
        ({"spec": {"unschedulable": True}}, "cordoned"),
        ({"annotations": {"nvidia.com/cc.mode.devices-wanted": '{"0000:17:00.0": "devtools"}'}}, "mode devtools"),
        (
            {"annotations": {ROLLOUT_ANNOTATION: '{"id": "other", "mode": "on", "at": "", "stage": "set"}'}},
            "rollout other has it",
        ),
    ],
)
def test_a_node_that_cannot_be_taken_is_named_or_left_out(six: Bed, change: Any, why: str) -> None:
    six.managers.deaf.add("gpu-4")
    six.patch("gpu-4", **change)
    with pytest.raises(Refused, match=rf"gpu-4: .*{why}"):
        six.run(*START)
    assert six.run(*START, "--leave-out") == 0
    assert sorted(six.taken()) == [name for name in NAMES if name != "gpu-4"]


# --- failures ---------------------------------------------------------------------------------------------------------


def test_a_failure_pauses_it_and_resume_tries_again(six: Bed, capsys: pytest.CaptureFixture[str]) -> None:
    six.managers.failing["gpu-2"] = "GPU 0000:17:00.0 does not answer. Power-cycle the host."
    assert six.run(*START) == PAUSED
    assert six.taken() == ["gpu-0", "gpu-1", "gpu-2"]
    assert paused(six) == "gpu-2: GPU 0000:17:00.0 does not answer. Power-cycle the host."
    assert cordoned(six) == ["gpu-2"]
    capsys.readouterr()
    assert six.run("rollout", "status") == 0
    told = capsys.readouterr().out
    assert "does not answer" in told
    assert "2 done" not in told.splitlines()[2]
    assert six.run("rollout", "run") == PAUSED  # to start it again changes nothing
    assert six.taken() == ["gpu-0", "gpu-1", "gpu-2"]
    six.managers.failing.clear()
    assert six.run("rollout", "resume") == 0
    assert set(six.states().values()) == {"on"}
    assert not cordoned(six)


def events(bed: Bed) -> list[tuple[str, str, str]]:
    """Of the rollout's record: type, reason, text."""
    found, _version = bed.store.list("/api/v1/namespaces/kube-system/events", {})
    assert {(one["involvedObject"]["kind"], one["involvedObject"]["name"]) for one in found} <= {("ConfigMap", RECORD)}
    return sorted((one["type"], one["reason"], one["message"]) for one in found)


def test_a_pause_and_the_end_make_events(six: Bed) -> None:
    six.managers.failing["gpu-2"] = "It does not answer."
    assert six.run(*START) == PAUSED
    rollout = record.read(six.store.get(RECORDS, RECORD)).id
    paused_event = ("Warning", "RolloutPaused", f"Rollout {rollout} is paused. gpu-2: It does not answer.")
    assert events(six) == [paused_event]
    assert six.run("rollout", "run") == PAUSED  # nothing new is said
    assert events(six) == [paused_event]
    six.managers.failing.clear()
    assert six.run("rollout", "resume") == 0
    assert events(six) == [("Normal", "RolloutEnded", f"Rollout {rollout} is done."), paused_event]


def test_without_the_right_to_make_events_it_goes_on(six: Bed) -> None:
    six.store.faults.refuse("create", "/events")
    assert six.run(*START) == 0
    assert set(six.states().values()) == {"on"}
    assert events(six) == []


def test_a_node_can_be_skipped(six: Bed) -> None:
    six.managers.failing["gpu-2"] = "broken"
    assert six.run(*START) == PAUSED
    assert six.run("rollout", "resume", "--skip", "gpu-2") == 0
    assert {name for name, state in six.states().items() if state != "on"} == {"gpu-2"}
    assert not cordoned(six)
    with pytest.raises(Refused, match=r"is done already"):
        six.run("rollout", "resume")


def test_a_stranger_is_not_skipped(six: Bed) -> None:
    assert six.run(*START, "--detach") == 0
    with pytest.raises(Refused, match=r"gpu-9: not in this rollout"):
        six.run("rollout", "resume", "--skip", "gpu-9")


def test_a_node_that_does_not_answer_pauses_it(six: Bed) -> None:
    six.managers.deaf.add("gpu-0")
    assert six.run(*START, "--node-timeout", "1") == PAUSED
    assert paused(six) == "gpu-0: not in mode on after 1 s: it is in mode off; does its CC manager run?"


def test_somebody_elses_label_pauses_it(six: Bed) -> None:
    def meddle(request: Request) -> None:
        if request.verb == "patch" and request.path.endswith("gpu-1"):
            six.store.before = lambda request: None
            six.managers.deaf.add("gpu-1")
            threading.Timer(0.3, six.patch, ("gpu-1", {MODE_LABEL: "devtools"})).start()

    six.store.before = meddle
    assert six.run(*START) == PAUSED
    assert "another user set its label to devtools" in paused(six)
    assert six.node("gpu-1").desired == "devtools"


def test_undo_puts_back_what_was_there(six: Bed) -> None:
    six.patch("gpu-0", {MODE_LABEL: None})  # off, and nobody has asked for it
    assert six.run(*START) == 0
    assert six.node("gpu-0").desired == "on"
    assert six.run("rollout", "undo") == 0
    assert set(six.states().values()) == {"off"}
    assert MODE_LABEL not in six.node("gpu-0").labels
    assert six.node("gpu-1").desired == "off"
    assert six.taken()[6:] == list(reversed(NAMES))  # the canary comes last
    assert not cordoned(six)
    with pytest.raises(Refused, match=r"undone already"):
        six.run("rollout", "undo")


def test_undo_in_the_middle(six: Bed) -> None:
    six.managers.failing["gpu-2"] = "broken"
    assert six.run(*START) == PAUSED
    six.managers.failing.clear()
    assert six.run("rollout", "undo") == 0
    assert set(six.states().values()) == {"off"}
    assert "gpu-3" not in six.taken()
    assert not cordoned(six)


# --- pods -------------------------------------------------------------------------------------------------------------


def test_a_node_in_use_is_left_to_the_last_and_not_touched(six: Bed) -> None:
    six.store.create(PODS, gpu_pod("guest", "gpu-1"))
    assert six.run(*START, "--budget", "3") == PAUSED
    assert paused(six).startswith("gpu-1: its GPUs are in use by default/guest.")
    assert "gpu-1" not in six.taken()
    assert len(six.taken()) == 3  # its wave, and no more
    assert not cordoned(six)
    six.store.delete(PODS, "guest")
    assert six.run("rollout", "resume") == 0
    assert set(six.states().values()) == {"on"}


def test_wait_cordons_and_goes_on_when_the_pods_have_ended(six: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubectl_cc.decide.FRESH_S", 0.2)
    six.store.create(PODS, gpu_pod("guest", "gpu-0"))
    six.run(*START, "--busy", "wait", "--detach")
    with six.working() as ends:
        eventually(lambda: six.node("gpu-0").unschedulable)
        assert six.node("gpu-0").desired == "off"
        six.store.delete(PODS, "guest")
        eventually(lambda: ends == [0])
    assert set(six.states().values()) == {"on"}
    assert not cordoned(six)


def test_wait_does_not_wait_for_ever(six: Bed) -> None:
    six.store.create(PODS, gpu_pod("guest", "gpu-0"))
    assert six.run(*START, "--busy", "wait", "--pods-timeout", "1") == PAUSED
    assert paused(six) == "gpu-0: pods hold its GPUs still after 1 s"
    assert not six.taken()
    assert not cordoned(six)  # it is given back


def test_drain_leaves_pods_to_the_cc_manager(six: Bed) -> None:
    six.store.create(PODS, gpu_pod("guest", "gpu-0"))
    assert six.run(*START, "--busy", "drain") == 0
    assert not [one for one in six.store.requests if "/pods" in one.path]


def test_without_the_right_to_see_pods_nothing_is_touched(six: Bed) -> None:
    six.store.faults.refuse("list", "/pods")
    assert six.run(*START) == 1
    assert not six.taken()


# --- gates ------------------------------------------------------------------------------------------------------------


def test_a_command_has_to_succeed_after_each_wave(six: Bed, tmp_path: Path) -> None:
    script, log = tmp_path / "check", tmp_path / "log"
    well = tmp_path / "well"
    lines = ("#!/bin/sh", f'echo "$CC_WAVE $CC_NODES" >> {log}', f'[ "$CC_WAVE" != 2 ] || [ -e {well} ] && exit 0')
    script.write_text("\n".join((*lines, "echo unwell >&2", "exit 7\n")))
    script.chmod(0o755)
    gate = ("--gate-command", str(script))
    assert six.run(*START, "--budget", "3", *gate) == PAUSED
    assert paused(six) == "The command of --gate-command after wave 2 ended with status 7: unwell"
    assert len(six.taken()) == 4
    with pytest.raises(Refused, match=r"started with --gate-command. Give the same again"):
        six.run("rollout", "resume")
    with pytest.raises(Refused, match=r"Give the same again"):
        six.run("rollout", "resume", "--gate-command", "true")
    well.touch()
    assert six.run("rollout", "resume", *gate) == 0
    assert [line.split()[0] for line in log.read_text().splitlines()] == ["1", "2", "2", "3"]
    assert str(script) not in json.dumps(six.store.get(RECORDS, RECORD))  # what is run stands in no API


def test_no_alert_may_fire(six: Bed) -> None:
    def answer(*names: str) -> bytes:
        result = [{"metric": {"alertname": name}} for name in names]
        return http(200, json.dumps({"data": {"result": result}}))

    with answering(answer(), answer("ModeLeft"), http(500, "no"), answer()) as url:
        gate = ("--gate-alerts", url, "--gate-alerts-match", 'severity="critical"')
        assert six.run(*START, "--budget", "3", *gate) == PAUSED
        assert paused(six) == "Alerts fire: ModeLeft."
        assert six.run("rollout", "resume", *gate) == PAUSED
        assert "Whether alerts fire is not known" in paused(six)  # that is no pass
        assert six.run("rollout", "resume", *gate) == 0
    with pytest.raises(Refused, match=r"like http://"):
        six.run(*START, "--gate-alerts", "file:///etc/passwd")


def test_a_pod_has_to_succeed_on_a_node_of_each_wave(six: Bed, tmp_path: Path) -> None:
    seen: list[str] = []

    def kubelet(change: Any) -> None:
        if change.collection == PODS and change.kind == "ADDED":
            seen.append(change.found["spec"]["nodeName"])
            phase = "Failed" if len(seen) == 2 else "Succeeded"
            six.store.patch(PODS, change.found["metadata"]["name"], {"status": {"phase": phase, "message": "no quote"}})

    six.store.listeners.append(kubelet)
    manifest = tmp_path / "pod.yaml"
    manifest.write_text("kind: Pod\napiVersion: v1\nspec: {containers: [{name: attest, image: attest}]}\n")
    gate = ("--gate-pod", str(manifest))
    assert six.run(*START, "--budget", "3", *gate) == PAUSED
    assert paused(six) == "The pod of --gate-pod on gpu-1 failed. no quote"
    assert six.run("rollout", "resume", *gate) == 0
    assert seen[0] == "gpu-0"
    assert len(seen) == 4
    assert not six.store.list(PODS, {})[0]


# --- two at once, and kills -------------------------------------------------------------------------------------------


def test_two_rollouts_exclude_each_other(six: Bed) -> None:
    assert six.run(*START, "--detach") == 0
    with pytest.raises(Refused, match=r"The rollout r\w+ to mode on, begun by .* is not over"):
        six.run("rollout", "start", "--mode", "devtools")
    assert six.run(*START) == 0  # the same once more goes on with it
    assert six.run("rollout", "start", "--mode", "devtools") == 0
    assert set(six.states().values()) == {"devtools"}


def test_of_two_who_start_at_one_moment_one_is_refused(six: Bed) -> None:
    def other(request: Request) -> None:
        if request.verb == "create" and "configmaps" in request.path:
            raise Refusal(409, "it exists")

    six.store.before = other
    with pytest.raises(Refused, match=r"Another rollout was started at this moment"):
        six.run(*START)
    assert not six.taken()


def test_two_workers_work_one_after_the_other(six: Bed) -> None:
    assert six.run(*START, "--detach") == 0
    with used(Kube(Connection(six.server.url))) as other, six.working() as one, six.working(other) as two:
        eventually(lambda: one == two == [0])
    assert six.taken() == NAMES
    assert six.managers.most_out == 1


class Killed(BaseException):
    """As a kill: nothing catches it."""


class Mortal(Kube):
    """A client that dies at its n-th write, before or after it was carried out."""

    def __init__(self, url: str, at: int, after: bool) -> None:
        super().__init__(Connection(url))
        self._left, self._after = at, after

    def request(self, method: str, path: str, *more: Any, **others: Any) -> Any:
        if method == "GET" or "/leases" in path:
            return super().request(method, path, *more, **others)
        self._left -= 1
        if self._left == 0 and not self._after:
            raise Killed
        found = super().request(method, path, *more, **others)
        if self._left == 0:
            raise Killed
        return found


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("verb", ["start", "undo"])
def test_a_kill_at_each_write_changes_no_end(verb: str, after: bool, some: Bed) -> None:
    """A start of the same rollout goes on with it, wherever it was killed."""
    some.add(*(gpu_node(name) for name in NAMES[:3]))
    mode = {"start": "on", "undo": "off"}[verb]
    words = START if verb == "start" else ("rollout", "undo")
    for at in range(1, 30):
        back = "off" if verb == "start" else "on"
        if verb == "undo":
            assert some.run(*START) == 0
        assert set(some.states().values()) == {back}
        some.store.requests.clear()
        mortal = Mortal(some.server.url, at, after)
        try:
            ended = cli.Tool(mortal, QUICK).run(cli.parser().parse_args(list(words)))
        except Killed:
            ended = -1
        finally:
            mortal.close()
        if ended == -1:
            again = words if verb == "start" or not after_undo(some) else ("rollout", "run")
            assert some.run(*again) == 0
        assert set(some.states().values()) == {mode}, at
        assert not cordoned(some)
        assert some.taken() == (NAMES[:3] if verb == "start" else NAMES[2::-1]), at
        assert some.managers.most_out == 1
        if ended == 0:
            assert at > 6
            return
        if verb == "start":
            assert some.run("rollout", "undo") == 0
    raise AssertionError("it writes without an end")


def after_undo(bed: Bed) -> bool:
    """The wish for an undo is in the record."""
    return status(bed).phase in (record.UNDO, record.UNDONE)


def test_an_api_that_is_away_is_waited_for(six: Bed) -> None:
    assert six.run(*START, "--detach") == 0
    count = 0

    def away(request: Request) -> None:
        nonlocal count
        if request.verb == "patch" and "/nodes/" in request.path:
            count += 1
            if count in (2, 3):
                raise Refusal(503, "away")

    six.store.before = away
    assert six.run("rollout", "run") == 0
    assert set(six.states().values()) == {"on"}
    assert six.managers.most_out == 1


def test_pause_and_the_worker_hears_of_it(six: Bed) -> None:
    six.managers.deaf.add("gpu-2")
    assert six.run(*START, "--detach") == 0
    with six.working() as ends, used(Kube(Connection(six.server.url))) as other:
        eventually(lambda: "gpu-2" in six.taken())
        cli.Tool(other).run(cli.parser().parse_args(["rollout", "pause", "--reason", "lunch"]))
        six.managers.deaf.clear()
        six.patch("gpu-2", annotations={"nvidia.com/cc.mode.retry": "1"})
        eventually(lambda: ends)
    assert ends == [PAUSED]
    assert six.taken() == ["gpu-0", "gpu-1", "gpu-2"]
    assert not cordoned(six)  # what was begun came to its end
    assert paused(six) == "lunch"
