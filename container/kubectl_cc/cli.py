# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The command line."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from cc_manager.names import MODES, STATE_LABEL
from kube import connection, log, signals
from kube.client import ApiError, Kube
from kube.connection import Connection, NoConnection
from kube.lease import Times

from . import rollout, table, waiting
from .cluster import Cluster
from .explain import explain
from .gates import Gates
from .names import AGENT, DONE, DRAIN, FAILED, NAMESPACE, REFUSE, USAGE, WAIT, ZONE
from .record import Record, Unreadable
from .rollout import Choice
from .rules import Refused, Rules
from .waiting import Goal
from .worker import Worker

ABOUT = "Confidential-computing modes of a cluster's nodes: see, wait for, explain, roll out."
WAIT_S = 600.0


def say(line: str) -> None:
    """A line of the answer, at once."""
    print(line, flush=True)


class Tool:
    """What the commands need. ``times``: of the lock, instead of what the options say."""

    def __init__(self, kube: Kube, times: Times | None = None, now: Callable[[], float] = time.time) -> None:
        self.kube = kube
        self._times = times
        self._now = now

    def run(self, options: argparse.Namespace) -> int:
        """One command; the exit status. Raises Refused, Unreadable, ApiError."""
        done: int = getattr(self, f"_{options.command}")(options)
        return done

    def _cluster(self, options: argparse.Namespace) -> Cluster:
        return Cluster(self.kube, options.namespace)

    # --- nodes --------------------------------------------------------------------------------------------------------

    def _status(self, options: argparse.Namespace) -> int:
        nodes = self._cluster(options).nodes("" if options.nodes else options.selector or STATE_LABEL)
        _check_names(options.nodes, nodes)
        found = table.rows(nodes[name] for name in (options.nodes or nodes))
        if options.output == "json":
            say(json.dumps({"nodes": found}, indent=1))
        else:
            for line in table.lines(found, self._now(), options.output == "wide"):
                say(line)
        return DONE

    def _wait(self, options: argparse.Namespace) -> int:
        if bool(options.nodes) == bool(options.selector or options.all):
            raise Refused("Give nodes by name, or a selector (-l), or --all.")
        goal = Goal(tuple(options.nodes), options.selector or STATE_LABEL, options.mode, options.fail_fast)
        whys = waiting.wait(self._cluster(options), goal, options.timeout, say)
        for name, why in whys.items():
            print(f"{name}: {why}", file=sys.stderr)
        return FAILED if whys else DONE

    def _explain(self, options: argparse.Namespace) -> int:
        cluster = self._cluster(options)
        node = cluster.node(options.node)
        try:
            pods = cluster.pods(options.node)
        except ApiError as error:
            if not error.is_forbidden:
                raise
            pods = None
        answer = explain(node, pods, self._now())
        if options.output == "json":
            known = {"ready": answer.ready, "cause": answer.cause, "evidence": answer.evidence, "remedy": answer.remedy}
            say(json.dumps({"node": node.name, **known}, indent=1))
        else:
            for line in answer.lines(node.name):
                say(line)
        return DONE if answer.ready else FAILED

    def _retry(self, options: argparse.Namespace) -> int:
        cluster = self._cluster(options)
        for name in options.nodes:
            cluster.retry(name, f"{AGENT}.{self._now():.0f}")
            say(f"{name}: asked for another attempt. See it: kubectl cc wait {name}")
        return DONE

    # --- the rollout --------------------------------------------------------------------------------------------------

    def _rollout(self, options: argparse.Namespace) -> int:
        done: int = getattr(self, f"_rollout_{options.verb}")(options, self._cluster(options))
        return done

    def _rollout_start(self, options: argparse.Namespace, cluster: Cluster) -> int:
        gates, choice = _gates(options), Choice(tuple(options.nodes), options.selector)
        rules = _rules(options, gates)
        if options.dry_run:
            for line in rollout.plan_lines(rollout.make_plan(cluster, rules, choice, options.leave_out)):
                say(line)
            return DONE
        try:
            found, is_new = rollout.start(cluster, rules, choice, options.leave_out, self._now())
        except rollout.Nothing as nothing:
            say(str(nothing))
            return DONE
        if is_new:
            for line in rollout.plan_lines(found.plan):
                say(line)
        else:
            say(f"The rollout {found.id} is the same, and is under way: it goes on.")
        return self._work(options, gates)

    def _rollout_run(self, options: argparse.Namespace, _cluster: Cluster) -> int:
        return self._work(options, _gates(options))

    def _rollout_status(self, options: argparse.Namespace, cluster: Cluster) -> int:
        found = rollout.existing(cluster)
        summary = rollout.summary(found, cluster.nodes(STATE_LABEL, found.rules.labels), self._now())
        for line in [json.dumps(summary, indent=1)] if options.output == "json" else rollout.summary_lines(summary):
            say(line)
        return DONE

    def _rollout_pause(self, options: argparse.Namespace, cluster: Cluster) -> int:
        found = rollout.pause(cluster, options.reason or f"{rollout.who()} asked for it.")
        return _told(found, "paused: what is begun comes to its end, nothing more is begun")

    def _rollout_resume(self, options: argparse.Namespace, cluster: Cluster) -> int:
        gates = _gates(options)
        gates.check(rollout.existing(cluster).rules)
        _told(rollout.resume(cluster, options.skip), "goes on")
        return self._work(options, gates)

    def _rollout_undo(self, options: argparse.Namespace, cluster: Cluster) -> int:
        _told(rollout.undo(cluster), "is undone")
        return self._work(options, _gates(options))

    def _work(self, options: argparse.Namespace, gates: Gates) -> int:
        if options.detach:
            return DONE
        times = self._times or _times(options.lock_seconds)
        worker = Worker(self.kube, gates, say, options.namespace, times, options.for_ever)

        def stop() -> None:
            worker.stop()
            self.kube.interrupt()

        with signals.heard(signals.STOPS, stop):
            return worker.run()


def _times(seconds: int) -> Times:
    """In the proportions of client-go's 15, 10 and 2 s."""
    if seconds < 1:
        raise Refused(f"--lock-seconds is {seconds}. Give 1 or more.")
    return Times(seconds, seconds * 10 / 15, seconds * 2 / 15)


def _told(found: Record, words: str) -> int:
    say(f"The rollout {found.id} {words}.")
    return DONE


def _check_names(names: Sequence[str], nodes: Mapping[str, object]) -> None:
    if missing := [name for name in names if name not in nodes]:
        raise Refused(f"There is no node {', '.join(missing)}.")


def _rules(options: argparse.Namespace, gates: Gates) -> Rules:
    return Rules(
        options.mode,
        options.canary,
        options.budget,
        options.budget_per,
        options.zone_label,
        options.busy,
        options.pods_timeout,
        options.node_timeout,
        options.settle,
        gates.digests,
    )


def _gates(options: argparse.Namespace) -> Gates:
    pod = None
    if options.gate_pod:
        try:
            pod = yaml.safe_load(Path(options.gate_pod).read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise Refused(f"--gate-pod {options.gate_pod} cannot be read: {str(error)[:200]}") from None
        if not isinstance(pod, dict):
            raise Refused(f"--gate-pod {options.gate_pod} holds no Pod. Give one manifest of kind Pod.")
    return Gates(options.gate_alerts, options.gate_alerts_match, options.gate_command, pod, options.gate_timeout)


# --- options ----------------------------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    """Of all commands."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--kubeconfig", default="", help="a file; by default KUBECONFIG, ~/.kube/config, or the pod's account"
    )
    common.add_argument("--context", default="", help="of the kubeconfig; by default the current one")
    common.add_argument("--server", default="", help="an address of `kubectl proxy`, instead of a kubeconfig")
    common.add_argument("-n", "--namespace", default=NAMESPACE, help="where rollouts are kept; by default %(default)s")
    common.add_argument("--debug", action="store_true", help="log more")
    made = argparse.ArgumentParser(prog="kubectl cc", description=ABOUT, allow_abbrev=False)
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, words: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=words, description=words, parents=[common], allow_abbrev=False)

    status = add("status", "what was asked of nodes, and what was read back")
    _choose(status)
    status.add_argument("-o", "--output", choices=("table", "wide", "json"), default="table")
    wait = add("wait", "wait until nodes are in the mode that was asked of them; 1 when time is over")
    _choose(wait)
    wait.add_argument("--all", action="store_true", help="all nodes with a CC manager")
    wait.add_argument("--mode", choices=MODES, default="", help="instead of what each label says")
    wait.add_argument("--timeout", type=float, default=WAIT_S, metavar="SECONDS", help="by default %(default)g")
    wait.add_argument("--fail-fast", action="store_true", help="end when one has failed; its CC manager may try again")
    one = add("explain", "why a node is not ready: one cause, what shows it, what to do; 1 when it is not")
    one.add_argument("node", metavar="NODE")
    one.add_argument("-o", "--output", choices=("text", "json"), default="text")
    retry = add("retry", "ask for another attempt, with all attempts again")
    retry.add_argument("nodes", nargs="+", metavar="NODE")
    verbs = add("rollout", "a mode for many nodes: a canary, then waves").add_subparsers(
        dest="verb", required=True, metavar="VERB"
    )
    _rollout_options(verbs, common)
    return made


def _choose(one: argparse.ArgumentParser) -> None:
    one.add_argument("nodes", nargs="*", metavar="NODE")
    one.add_argument("-l", "--selector", default="", help="a label selector, instead of names")


def _rollout_options(verbs: Any, common: argparse.ArgumentParser) -> None:
    work = argparse.ArgumentParser(add_help=False)
    work.add_argument("--detach", action="store_true", help="leave the work to another process: rollout run")
    work.add_argument("--for-ever", action="store_true", help="wait for the next one when it is paused or over")
    work.add_argument(
        "--lock-seconds",
        type=int,
        default=15,
        metavar="SECONDS",
        help="until one that was killed is replaced; %(default)s",
    )
    work.add_argument("--gate-alerts", default="", metavar="URL", help="a Prometheus, where no alert may fire")
    work.add_argument("--gate-alerts-match", default="", metavar="LABELS", help='only those: severity="critical"')
    work.add_argument("--gate-command", default="", metavar="COMMAND", help="has to succeed after each wave; no shell")
    work.add_argument("--gate-pod", default="", metavar="FILE", help="a Pod that has to succeed on a node of each wave")
    work.add_argument("--gate-timeout", type=float, default=600.0, metavar="SECONDS", help="by default %(default)g")

    def add(name: str, words: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        found: argparse.ArgumentParser = verbs.add_parser(
            name, help=words, description=words, parents=[common, *parents], allow_abbrev=False
        )
        return found

    start = add("start", "plan one and carry it out; 3 when it pauses", work)
    _choose(start)
    start.add_argument("--mode", required=True, choices=MODES)
    start.add_argument("--dry-run", action="store_true", help="print the waves, and change nothing")
    start.add_argument(
        "--canary", type=int, default=1, metavar="NODES", help="so many go first; by default %(default)s"
    )
    start.add_argument(
        "--budget", default="1", help="so many, or N%%, may be out of service at once; by default %(default)s"
    )
    start.add_argument("--budget-per", default="", metavar="LABEL", help="a budget for each of its values")
    start.add_argument("--zone-label", default=ZONE, metavar="LABEL", help="by default %(default)s")
    start.add_argument(
        "--busy", choices=(REFUSE, WAIT, DRAIN), default=REFUSE, help="pods with GPUs; by default %(default)s"
    )
    start.add_argument("--pods-timeout", type=float, default=3600.0, metavar="SECONDS", help="of wait; %(default)g")
    start.add_argument("--node-timeout", type=float, default=900.0, metavar="SECONDS", help="for a change; %(default)g")
    start.add_argument(
        "--settle", type=float, default=0.0, metavar="SECONDS", help="from a wave to the next; %(default)g"
    )
    start.add_argument("--leave-out", action="store_true", help="do without nodes that cannot be taken now")
    add("run", "go on with what is under way", work)
    status = add("status", "how it stands")
    status.add_argument("-o", "--output", choices=("text", "json"), default="text")
    pause = add("pause", "begin nothing more")
    pause.add_argument("--reason", default="", help="why")
    resume = add("resume", "go on where it stopped; what has failed gets another attempt", work)
    resume.add_argument("--skip", action="append", default=[], metavar="NODE", help="leave this one as it is")
    add("undo", "put the labels back, in waves", work)


# --- where the API is -------------------------------------------------------------------------------------------------


def connect(options: argparse.Namespace, environment: Mapping[str, str]) -> Connection:
    """By --server, a kubeconfig, or the pod's account. Raises NoConnection."""
    if options.server:
        return connection.of_server(options.server)
    path = options.kubeconfig or environment.get("KUBECONFIG", "")
    if not path:
        default = Path(environment.get("HOME", "/"), ".kube/config")
        if not default.is_file():
            return connection.of_pod(environment)
        path = str(default)
    if os.pathsep in path and not Path(path).exists():
        raise NoConnection("KUBECONFIG names several files. Give one: --kubeconfig FILE.")
    try:
        return connection.of_file(path, options.context)
    except NoConnection as error:
        raise NoConnection(f"{error} Or run `kubectl proxy` and give --server http://127.0.0.1:8001.") from None


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """One command; the exit status."""
    options = parser().parse_args(arguments)
    log.configure(str(__package__), False, options.debug)
    if not options.debug:
        logging.getLogger("kube").setLevel(logging.WARNING)
    try:
        kube = Kube(connect(options, environment), agent=AGENT)
        try:
            return Tool(kube).run(options)
        finally:
            kube.close()
    except (Refused, Unreadable, NoConnection) as error:
        print(f"kubectl cc: {error}", file=sys.stderr)
        return USAGE
    except ApiError as error:
        print(f"kubectl cc: {error}", file=sys.stderr)
        return FAILED
