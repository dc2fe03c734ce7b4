# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What a wave has to pass beside that its modes were read back: time, no alert, a command, a pod.

What the command and the pod are comes from the command line of whoever runs the rollout, never from the API: who may
write a ConfigMap could otherwise run programs on an administrator's machine. The record has their digests, so that
nobody goes on without them, or with others.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kube.client import NOT_AN_OBJECT, ApiError, Kube

from .rules import Refused, Rules

ALERTS, COMMAND, POD = "alerts", "command", "pod"
# Of Prometheus.
ASK_S = 30.0
ANSWER_MAX_BYTES = 4 << 20
# A pod's phase is asked for so often: it is one object, for minutes.
POLL_S = 2.0
# Of a command's words, in the cause of a pause.
SHOWN_CHARS = 300
DELETE_GRACE_S = 30


@dataclass(frozen=True)
class Gates:
    """``alerts``: address of a Prometheus, where none may fire that has the labels of ``match``.

    ``command``: a program with its arguments; ``pod``: a manifest. ``timeout_s``: for each.
    """

    alerts: str = ""
    match: str = ""
    command: str = ""
    pod: Mapping[str, Any] | None = None
    timeout_s: float = 600.0

    def __post_init__(self) -> None:
        if self.alerts and not self.alerts.startswith(("http://", "https://")):
            raise Refused(f"--gate-alerts is {self.alerts!r}. Give an address like http://prometheus:9090.")
        if self.match and not self.alerts:
            raise Refused("--gate-alerts-match is given without --gate-alerts.")
        if self.command and not shlex.split(self.command):
            raise Refused("The command of --gate-command has no words.")
        if self.pod is not None and (self.pod.get("kind") != "Pod" or not isinstance(self.pod.get("spec"), dict)):
            raise Refused("The file of --gate-pod holds no Pod. Give one manifest of kind Pod.")

    @property
    def digests(self) -> tuple[tuple[str, str], ...]:
        """By kind, as the rules keep them."""
        found = {}
        if self.alerts:
            found[ALERTS] = _digest(f"{self.alerts} {self.match}")
        if self.command:
            found[COMMAND] = _digest(self.command)
        if self.pod is not None:
            found[POD] = _digest(json.dumps(self.pod, sort_keys=True))
        return tuple(sorted(found.items()))

    def check(self, rules: Rules) -> None:
        """Raises Refused when they are not those that the rollout was started with."""
        if self.digests != rules.gates:
            wanted = " and ".join(f"--gate-{kind}" for kind, _digest_of in rules.gates) or "no gate"
            raise Refused(
                f"The rollout was started with {wanted}. Give the same again: the rollout keeps only their digests."
            )


@dataclass(frozen=True)
class Wave:
    """What is examined. ``rollout``: its id."""

    rollout: str
    number: int
    nodes: Sequence[str]
    attempt: int
    settle_s: float = 0.0


class Examiner:
    """Examines a wave in a thread. ``told`` gets the wave and why it failed; an empty reason: it passed."""

    def __init__(self, gates: Gates, kube: Kube, namespace: str, told: Callable[[Wave, str], None]) -> None:
        self._gates = gates
        self._kube = kube
        self._namespace = namespace
        self._told = told
        self._ended = threading.Event()

    def begin(self, wave: Wave) -> None:
        """Begin; whatever happens, ``told`` is called, unless ``end`` was."""
        threading.Thread(target=self._run, args=(wave,), name=f"gate {wave.number}", daemon=True).start()

    def end(self) -> None:
        """Begin nothing more, and tell nothing more."""
        self._ended.set()

    def _run(self, wave: Wave) -> None:
        try:
            why = self._examine(wave)
        except ApiError as error:
            why = f"The pod of --gate-pod could not be run: {error}"
        except Exception as error:  # noqa: BLE001  (a gate that breaks is one that is not passed)
            why = f"The examination broke: {type(error).__name__} {error}"
        if not self._ended.is_set():
            self._told(wave, why)

    def _examine(self, wave: Wave) -> str:
        if self._ended.wait(wave.settle_s):
            return "ended"
        return self._command(wave) or self._pod(wave) or self._alerts()

    # --- alerts -------------------------------------------------------------------------------------------------------

    def _alerts(self) -> str:
        """Asked last: what the command and the pod have set off counts."""
        if not self._gates.alerts:
            return ""
        match = f",{self._gates.match}" if self._gates.match else ""
        query = urllib.parse.urlencode({"query": f'ALERTS{{alertstate="firing"{match}}}'})
        url = f"{self._gates.alerts.rstrip('/')}/api/v1/query?{query}"
        try:
            with urllib.request.urlopen(url, timeout=min(self._gates.timeout_s, ASK_S)) as answer:
                found = json.loads(answer.read(ANSWER_MAX_BYTES))
            names = sorted({str(one["metric"].get("alertname", "without a name")) for one in found["data"]["result"]})
        except (OSError, ValueError, *NOT_AN_OBJECT) as error:
            return f"Whether alerts fire is not known: {self._gates.alerts}: {type(error).__name__} {error}"[
                :SHOWN_CHARS
            ]
        return f"Alerts fire: {', '.join(names)}."[:SHOWN_CHARS] if names else ""

    # --- the command --------------------------------------------------------------------------------------------------

    def _command(self, wave: Wave) -> str:
        if not self._gates.command:
            return ""
        words = shlex.split(self._gates.command)
        about = {"CC_ROLLOUT": wave.rollout, "CC_WAVE": str(wave.number + 1), "CC_NODES": " ".join(wave.nodes)}
        what = f"The command of --gate-command after wave {wave.number + 1}"
        try:
            done = subprocess.run(
                words,
                env={**os.environ, **about},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=self._gates.timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"{what} has not ended after {self._gates.timeout_s:g} s."
        except OSError as error:
            return f"{what} cannot be run: {error.strerror} ({words[0]})."
        if done.returncode == 0:
            return ""
        said = (done.stderr.strip() or done.stdout.strip())[-SHOWN_CHARS:]
        return f"{what} ended with status {done.returncode}: {said or 'no output'}"

    # --- the pod ------------------------------------------------------------------------------------------------------

    def _pod(self, wave: Wave) -> str:
        if self._gates.pod is None or not wave.nodes:
            return ""
        given = self._gates.pod
        namespace = str((given.get("metadata") or {}).get("namespace") or "default")
        name = f"cc-gate-{wave.rollout}-{wave.number + 1}-{wave.attempt}"
        path = f"/api/v1/namespaces/{namespace}/pods"
        metadata = {**(given.get("metadata") or {}), "name": name, "namespace": namespace}
        metadata.pop("generateName", None)
        # By its node's name no scheduler is asked; the node's taints do not count then.
        spec = {"restartPolicy": "Never", **given["spec"], "nodeName": wave.nodes[0]}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        try:
            self._kube.request("POST", path, None, body)
        except ApiError as error:
            if not error.is_conflict:  # one that a process before this one has made is as good
                raise
        try:
            return self._outcome(f"{path}/{name}", wave)
        finally:
            self._delete(f"{path}/{name}")

    def _outcome(self, path: str, wave: Wave) -> str:
        ends = time.monotonic() + self._gates.timeout_s
        what = f"The pod of --gate-pod on {wave.nodes[0]}"
        while True:
            phase, words = _phase(self._kube.request("GET", path))
            if phase == "Succeeded":
                return ""
            if phase == "Failed":
                return f"{what} failed. {words}".strip()
            if time.monotonic() >= ends:
                return f"{what} is {phase or 'not begun'} after {self._gates.timeout_s:g} s. {words}".strip()
            if self._ended.wait(POLL_S):
                return "ended"

    def _delete(self, path: str) -> None:
        try:
            self._kube.request("DELETE", path, None, {"gracePeriodSeconds": DELETE_GRACE_S})
        except ApiError as error:
            if error.status != 404:
                raise


def _phase(pod: Mapping[str, Any]) -> tuple[str, str]:
    try:
        status = pod.get("status") or {}
        told = [str(status.get("message") or "")]
        for one in status.get("containerStatuses") or []:
            state = one.get("state") or {}
            about = state.get("terminated") or state.get("waiting") or {}
            told += [str(about.get("reason") or ""), str(about.get("message") or "")]
        return str(status.get("phase") or ""), " ".join(word for word in told if word)[:SHOWN_CHARS]
    except NOT_AN_OBJECT as error:
        raise ApiError(0, f"the answer is no pod: {type(error).__name__}") from error


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
