# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Metrics, in a registry of their own; and what they are made from."""

from __future__ import annotations

import os
from pathlib import Path

from kube.metrics import UNKNOWN, Made, show_one

from .names import FAILED, MIXED, MODES
from .reading import Reading

PREFIX = "cc_manager_"
SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 30, 60, 300)
PHASES = ("evict", "run", "stage", "reset", "boot", "verify", "restore")
# Where the image has the collection; its version is the CC manager's.
COLLECTIONS = "/usr/share/ansible/collections"
COLLECTION_FILE = "ansible_collections/confidential/gpu/galaxy.yml"


class CCManagerMetrics:
    """Everything that is counted. Names begin with cc_manager_, those about the process with process_."""

    def __init__(self, collections: str = os.environ.get("ANSIBLE_COLLECTIONS_PATH", COLLECTIONS)) -> None:
        made = Made(PREFIX, "the CC manager", version_of(collections))
        self.registry = made.registry
        counter, gauge = made.counter, made.gauge
        self._state = gauge("state", "1 for the state label's value", "state")
        self._wanted = gauge("wanted", "1 for the mode that is wanted of all devices", "mode")
        self._device = gauge("device_mode", "1 for the mode as last read", "device", "mode")
        self.changing = gauge("changing", "1 while a change is under way")
        self.gave_up = gauge("gave_up", "1 when no further attempt is made for this request")
        self.last_reading = gauge("last_reading_timestamp_seconds", "when the devices were last read")
        self.changes = counter("changes", "changes by result: done, failed or abandoned", "result")
        self.failures = counter("failures", "failed attempts by kind of error", "kind")
        self.retries = counter("retries", "attempts after a failed one")
        self.watch_restarts = counter("watch_restarts", "watches that met an error", "watch")
        self.watch_silence = gauge("watch_silence_seconds", "seconds since a watch last heard anything", "watch")
        self.api_errors = counter("api_errors", "requests that failed, by HTTP status; 0: no answer", "status")
        self.drift = counter("drift", "devices found in another mode than they were left in, or no longer found")
        self.fights = counter("fights", "keys of the node that something else kept changing back", "key")
        self.audit_records = counter("audit_records", "audit records that were written")
        self.audit_lost = counter("audit_lost", "audit records that could not be written")
        self.events_lost = counter("events_lost", "Events that the API refused")
        self._phases = made.seconds("phase_seconds", "seconds of a change", SECONDS, "phase")
        for phase in PHASES:
            self._phases.labels(phase)
        for result in ("done", "failed", "abandoned"):
            self.changes.labels(result)
        self.show_state("")
        self.show_wanted(None)

    def phase(self, name: str, seconds: float) -> None:
        """How long a part of a change took."""
        self._phases.labels(name).observe(max(0.0, seconds))

    def show_state(self, state: str) -> None:
        """The state label."""
        show_one(self._state, (*MODES, MIXED, FAILED, UNKNOWN), state or UNKNOWN)

    def show_wanted(self, mode: str | None) -> None:
        """The request; None: none."""
        show_one(self._wanted, (*MODES, "none"), mode or "none")

    def show_devices(self, reading: Reading) -> None:
        """Each device's mode."""
        self._device.clear()
        for device in reading.devices:
            self._device.labels(device.address, device.mode or UNKNOWN).set(1)


def version_of(collections: str) -> str:
    """The version in the collection's galaxy.yml, from folders of collections with colons between."""
    for folder in collections.split(":"):
        try:
            lines = Path(folder, COLLECTION_FILE).read_text(encoding="utf-8").splitlines()
        except OSError:
            continue
        found = [line.partition(":")[2].strip() for line in lines if line.startswith("version:")]
        if found:
            return found[0].strip("\"'")
    return UNKNOWN
