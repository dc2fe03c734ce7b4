# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Metrics, in a registry of their own. Names begin with device_plugin_, those about the process with process_."""

from __future__ import annotations

import contextlib
from collections import Counter as Tally
from collections.abc import Sequence
from pathlib import Path

from kube.metrics import Made, version_of

from .source import SEPARATOR, Device, Held

PREFIX = "device_plugin_"
# The image's builder writes it.
VERSION_FILE = Path(__file__).with_name("VERSION")


class PluginMetrics:
    """Everything that is counted."""

    def __init__(self, version_file: Path = VERSION_FILE) -> None:
        made = Made(PREFIX, "the device plugin", version_of(version_file))
        self.registry = made.registry
        counter, gauge = made.counter, made.gauge
        self._devices = gauge("devices", "devices that are offered", "resource")
        self._healthy = gauge("healthy_devices", "those of them that are healthy", "resource")
        self._allocated = gauge("allocated_devices", "those that containers have, as the kubelet says", "resource")
        self._sharers = gauge("sharers", "shares of a shared device that containers have", "resource", "device")
        self._shared: dict[str, frozenset[str]] = {}  # resource to its devices that have shares
        self.registered = gauge("registered", "1 while the kubelet listens", "resource")
        self.allocations = counter("allocations", "containers that got devices", "resource")
        self.allocation_errors = counter("allocation_errors", "containers that got none", "resource", "reason")
        self.registrations = counter("registrations", "registrations with the kubelet", "resource")
        self.registration_failures = counter("registration_failures", "those that failed", "resource", "reason")
        self.stream_breaks = counter("stream_breaks", "streams that the kubelet ended", "resource")
        self.config_errors = counter("config_errors", "configurations that were refused; the last good one stays")
        self.config_refused = gauge("config_refused", "1 while the configuration file is not what is offered")
        self.withheld = gauge(
            "withheld", "1 while no device is given to anybody, because of what the node says or does not"
        )
        self.node_errors = counter("node_errors", "requests about the node that failed, by HTTP status", "status")
        self.events_lost = counter("events_lost", "Events that the API refused")
        self.held_unknown = counter("pod_resources_errors", "times that the kubelet did not say who has what")

    def show_devices(self, resource: str, offered: Sequence[Device]) -> None:
        """What is offered; all other numbers of the resource begin."""
        self._devices.labels(resource).set(len(offered))
        self._healthy.labels(resource).set(sum(one.healthy for one in offered))
        self._shared[resource] = frozenset(_device(one.id) for one in offered if SEPARATOR in one.id)
        for one in (self.allocations, self.registrations, self.stream_breaks):
            one.labels(resource)

    def show_held(self, resources: list[str], held: Held | None) -> None:
        """Who has what. Of what is not known there is no number."""
        self._allocated.clear()
        self._sharers.clear()
        for name in resources if held is not None else ():
            ids = (held or {}).get(name, frozenset())
            self._allocated.labels(name).set(len(ids))
            taken = Tally(map(_device, ids))
            for device in self._shared.get(name, ()):
                self._sharers.labels(name, device).set(taken[device])

    def forget(self, resource: str) -> None:
        """It is not offered any more. What was counted stays."""
        for gauge in (self._devices, self._healthy, self._allocated, self.registered):
            with contextlib.suppress(KeyError):
                gauge.remove(resource)
        for device in self._shared.pop(resource, ()):
            with contextlib.suppress(KeyError):
                self._sharers.remove(resource, device)


def _device(share: str) -> str:
    return share.partition(SEPARATOR)[0]
