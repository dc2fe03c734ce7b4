# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""A rollout from its start to its end, against an API server in memory."""

from __future__ import annotations

import pytest
from cc_bed import Bed, gpu_node


def test_three_nodes_one_after_the_other(some: Bed, capsys: pytest.CaptureFixture[str]) -> None:
    some.add(*(gpu_node(f"gpu-{number}") for number in range(3)))
    assert some.run("rollout", "start", "--mode", "on") == 0
    assert some.states() == {"gpu-0": "on", "gpu-1": "on", "gpu-2": "on"}
    assert some.taken() == ["gpu-0", "gpu-1", "gpu-2"]
    assert some.operands.most_out == 1
    assert not any(node.unschedulable for node in some.nodes().values())
    assert "is done" in capsys.readouterr().out
    assert some.run("status") == 0
    print(capsys.readouterr().out)
