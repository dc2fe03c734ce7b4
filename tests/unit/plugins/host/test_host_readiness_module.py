# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The module, on whatever machine runs the tests: it only looks."""

from __future__ import annotations

import json

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.confidential.gpu.plugins.modules import host_readiness


def run(capsys, **arguments):
    with patch_module_args(arguments), pytest.raises(SystemExit):
        host_readiness.main()
    return json.loads(capsys.readouterr().out)


def test_a_folder_without_devices(capsys, tmp_path):
    answer = run(capsys, bus="vfio-user:%s" % tmp_path, mode="on")
    assert not answer["changed"]
    assert not answer["ready"]
    assert "devices" in answer["missing"]
    assert {one["state"] for one in answer["requirements"]} <= {"ok", "missing", "unknown"}


def test_a_request_that_cannot_be_meant(capsys):
    assert run(capsys, devices=["x"])["error"]["kind"] == "InvalidRequest"
