# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The filter rollout_waves."""

from __future__ import annotations

DOCUMENTATION = r"""
---
name: rollout_waves
short_description: In which waves the hosts of a fleet are changed
version_added: 0.1.0
author:
  - confidential.gpu contributors (@confidential-gpu)
description:
  - Divides hosts into waves, the canary first, then as many at once as the budget allows. The playbook
    C(confidential.gpu.rollout) changes one wave after the other.
  - No wave has all hosts of a zone.
  - The same hosts give the same waves, in whatever order they come. Hosts are sorted by name, C(gpu2) before C(gpu10).
positional: _input
options:
  _input:
    description: Names of the hosts.
    type: list
    elements: str
    required: true
  zones:
    description:
      - The zone of each host. Hosts that are not in it, or whose zone is empty, are one zone together.
    type: dict
    default: {}
  canary:
    description: So many hosts go first.
    type: int
    default: 1
  budget:
    description:
      - So many hosts may be out of service at once - a number, or a percentage of the hosts (of the zone with
        O(per_zone)), rounded down, at least one.
    type: str
    default: "1"
  per_zone:
    description: Whether each zone has a budget of its own.
    type: bool
    default: false
  allow_last:
    description: Whether the host of a zone that has no other may be changed. Otherwise it is refused.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Show the waves
  ansible.builtin.debug:
    msg: "{{ ['gpu1', 'gpu2', 'gpu3', 'gpu4']
      | confidential.gpu.rollout_waves(zones={'gpu1': 'a', 'gpu2': 'a', 'gpu3': 'b', 'gpu4': 'b'}, budget='50%') }}"
  # [[gpu1], [gpu2, gpu3], [gpu4]]
"""

RETURN = r"""
_value:
  description: The waves in order, each a list of hosts.
  type: list
  elements: list
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

BUDGET = re.compile(r"([1-9][0-9]*)(%?)")
SHOWN = 8


def rollout_waves(
    hosts: Sequence[str],
    zones: Mapping[str, Any] | None = None,
    canary: int = 1,
    budget: int | str = "1",
    per_zone: bool = False,
    allow_last: bool = False,
) -> list[list[str]]:
    """The waves, each a list of hosts. Raises AnsibleFilterError for a request that is not valid."""
    for name, value in (("per_zone", per_zone), ("allow_last", allow_last)):
        if not isinstance(value, bool):
            raise _refused("%s is true or false, not %r." % (name, value))
    number, is_share = _budget(budget)
    zone_of = _zones(_names(hosts), zones)
    sizes = Counter(zone_of.values())
    alone = sorted(host for host, zone in zone_of.items() if sizes[zone] == 1)
    if alone and not allow_last:
        raise _refused(
            "%s: the last host of its zone, which is never taken. Take another of the zone in, leave this one out, "
            "or allow it with allow_last (rollout_allow_last of the playbook)." % _some(alone)
        )
    room = {zone: max(1, size - 1) for zone, size in sizes.items()}
    budgets: Mapping[str, int] = (
        {zone: _share(number, is_share, size) for zone, size in sizes.items()}
        if per_zone
        else {"": _share(number, is_share, len(zone_of))}
    )
    return _waves(zone_of, room, budgets, per_zone, _canary(canary))


def _waves(
    zone_of: Mapping[str, str], room: Mapping[str, int], budgets: Mapping[str, int], per_zone: bool, canary: int
) -> list[list[str]]:
    """``zone_of``: hosts in order. ``room``: of each zone, how many can be taken at once."""
    left = list(zone_of)
    waves: list[list[str]] = []
    while left:
        most = len(left) if waves else canary
        wave: list[str] = []
        zones: Counter[str] = Counter()
        parts: Counter[str] = Counter()
        for host in left:
            zone = zone_of[host]
            part = zone if per_zone else ""
            if len(wave) < most and zones[zone] < room[zone] and parts[part] < budgets[part]:
                wave.append(host)
                zones[zone] += 1
                parts[part] += 1
        taken = set(wave)
        left = [host for host in left if host not in taken]
        waves.append(wave)
    return waves


def natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """A key that sorts gpu2 before gpu10; gpu02 and gpu2 differ."""
    return [(int(word), "") if word.isdecimal() else (-1, word) for word in re.split(r"(\d+)", name)], name


def _names(hosts: Any) -> list[str]:
    if isinstance(hosts, str) or not isinstance(hosts, Sequence) or not hosts:
        raise _refused("give the names of hosts as a list with at least one, not %r." % (hosts,))
    wrong = [host for host in hosts if not isinstance(host, str) or not host]
    if wrong:
        raise _refused("%r is not a host's name." % (wrong[0],))
    twice = [host for host, times in Counter(hosts).items() if times > 1]
    if twice:
        raise _refused("%s: named twice. Name each host once." % _some(sorted(twice)))
    return sorted((str(host) for host in hosts), key=natural)


def _zones(names: Sequence[str], zones: Any) -> dict[str, str]:
    given = {} if zones is None else zones
    if not isinstance(given, Mapping):
        raise _refused("zones is a mapping from host to zone, not %r." % (zones,))
    found = {}
    for name in names:
        zone = given.get(name)
        if isinstance(zone, bool) or not isinstance(zone, (str, int, type(None))):
            raise _refused("the zone of %s is %r. Give a text." % (name, zone))
        found[name] = "" if zone is None else str(zone)
    return found


def _canary(value: Any) -> int:
    # Ansible gives what -e sets as a text.
    text = str(value)
    if isinstance(value, bool) or not re.fullmatch(r"[1-9][0-9]*", text):
        raise _refused("canary is %r. Give a number of hosts, 1 or more." % (value,))
    return int(text)


def _budget(value: Any) -> tuple[int, bool]:
    """The number, and whether it is a percentage."""
    found = None if isinstance(value, bool) else BUDGET.fullmatch(str(value))
    if found is None or (found[2] and int(found[1]) > 100):
        raise _refused("budget is %r. Give a number of hosts, 1 or more, or a share from 1%% to 100%%." % (value,))
    return int(found[1]), bool(found[2])


def _share(number: int, is_share: bool, size: int) -> int:
    return max(1, size * number // 100) if is_share else number


def _some(names: Sequence[str]) -> str:
    more = " and %d more" % (len(names) - SHOWN) if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _refused(words: str) -> AnsibleFilterError:
    return AnsibleFilterError("rollout_waves: %s" % words)


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters by name."""
        return {"rollout_waves": rollout_waves}
