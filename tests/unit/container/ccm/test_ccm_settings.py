# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The command line and the cloud config: what is taken, what is refused, and that no secret is shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ccm import config, flags
from ccm.process import main, reader
from ccm_bed import ORG, SITE, TENANT, cloud_config
from kube.settings import BadSetting

BARE = ["--secure-port=0"]
# As the seed's manifest has them.
SEED = [
    "--cloud-provider=nvidia-bmm",
    "--cloud-config=/etc/nvidia-bmm/cloud-config",
    "--use-service-account-credentials=true",
    "--leader-elect=true",
    "--leader-elect-resource-name=nvidia-bmm-cloud-controller-manager",
    "--v=2",
]
URL = "https://bmm.example.com"


def test_the_seed_s_flags() -> None:
    found = flags.parse([*SEED, *BARE])
    assert found.cloud_config == "/etc/nvidia-bmm/cloud-config"
    assert found.leader_elect
    assert found.lease_name == "nvidia-bmm-cloud-controller-manager"
    assert found.controllers == {"node", "lifecycle"}
    assert (found.monitor_period_s, found.update_period_s) == (5.0, 300.0)


@pytest.mark.parametrize(
    ("given", "field", "value"),
    [
        ("--leader-elect", "leader_elect", True),
        ("--leader-elect=false", "leader_elect", False),
        ("--node-monitor-period=1m30s", "monitor_period_s", 90.0),
        ("--node-monitor-period=500ms", "monitor_period_s", 0.5),
        ("--controllers=cloud-node", "controllers", {"node"}),
        ("--controllers=*,-cloud-node-lifecycle-controller", "controllers", {"node"}),
        ("--controllers=-service,-route,*", "controllers", {"node", "lifecycle"}),
        ("--node-deletion-limit=25%", "deletion_share", 0.25),
        ("--configure-cloud-routes=false", "workers", 4),
        ("--kube-api-qps=20", "qps", 20.0),
        ("-v=4", "debug", True),
    ],
)
def test_flags(given: str, field: str, value: object) -> None:
    assert getattr(flags.parse([*BARE, given]), field) == value


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("--cloud-provider=aws", "Give nvidia-bmm"),
        ("--node-monitor-period=5", "a time such as 15s"),
        ("--node-monitor-period=0s", "100ms or more"),
        ("--leader-elect=maybe", "true or false"),
        ("--leader-elect-renew-deadline=20s", "does not hold"),
        ("--leader-elect-resource-lock=endpoints", "leases"),
        ("--controllers=service", "cloud-node"),
        ("--controllers=nonsense", "cloud-node"),
        ("--configure-cloud-routes=true", "no such controller"),
        ("--concurrent-node-syncs=0", "1 or more"),
        ("--node-deletion-limit=0%", "percent"),
        ("--node-deletion-limit=101%", "percent"),
        ("--secure-port=99999", "a port"),
        ("--kube-api-qps=-1", "0 or more"),
    ],
)
def test_flags_that_are_refused(given: str, words: str) -> None:
    with pytest.raises(BadSetting, match=words) as error:
        flags.parse([*BARE, given])
    assert given.partition("=")[0].lstrip("-").split("-")[0] in str(error.value)


@pytest.mark.parametrize("given", ["--no-such-flag", "--cloud", "--leader-elect-resource=x", "extra"])
def test_unknown_flags_are_refused(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        flags.parse([*BARE, given])
    assert error.value.code == 2
    assert given in capsys.readouterr().err


def test_the_port_needs_a_certificate() -> None:
    with pytest.raises(BadSetting, match="--tls-cert-file"):
        flags.parse([])


def test_the_seed_s_file() -> None:
    text = f"# a comment\nendpoint: {URL}/\norgName: {ORG}\ntoken: abc\nsiteId: {SITE}\ntenantId: {TENANT}\n"
    found = config.read(text, {})
    assert (found.org, found.site, found.tenant, found.form) == (ORG, SITE, TENANT, "nvidia-bmm")
    assert "abc" not in repr(found)


def test_the_environment_goes_over_the_file() -> None:
    environment = {
        "NVIDIA_BMM_ENDPOINT": "https://other.example.com",
        "NVIDIA_BMM_ORG_NAME": "other",
        "NVIDIA_BMM_TOKEN": "other-token",
        "NVIDIA_BMM_SITE_ID": "other-site",
        "NVIDIA_BMM_TENANT_ID": "other-tenant",
    }
    assert config.read(cloud_config(URL), environment) == config.read("", environment)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"endpoint": None}, "endpoint"),
    ({"endpoint": "http://bmm.example.com"}, "clear text"),
    ({"endpoint": "https://user:hush@bmm.example.com"}, "a user"),
    ({"orgName": "a/b"}, "orgName"),
    ({"siteId": None}, "NVIDIA_BMM_SITE_ID"),
    ({"tenantId": ""}, "NVIDIA_BMM_TENANT_ID"),
    ({"tenantId": "a b"}, "tenantId"),
    ({"token": None}, "No way to a token"),
    ({"tokenFile": "/x"}, "Several ways"),
    ({"token": 5}, "token is a int"),
    ({"apiName": "other"}, "unknown"),
    ({"providerIdForm": "aws"}, "providerIdForm"),
    ({"zone": "not a label"}, "zone"),
    ({"plainHttp": "yes"}, "plainHttp"),
    ({"tokn": "x"}, "no key 'tokn'"),
    ({"caFile": "/no/such/file"}, "CA file"),
]


@pytest.mark.parametrize(("change", "words"), BAD)
def test_a_file_that_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(BadSetting, match=words) as error:
        config.read(cloud_config(URL, **change), {})
    assert "emulated" not in str(error.value)
    assert "hush" not in str(error.value)


@pytest.mark.parametrize("text", ["{", "- a\n", "a: b: c: SECRET", "just words", "x: &a [*a]\n" * 2])
def test_a_file_that_is_no_yaml_shows_nothing(text: str) -> None:
    with pytest.raises(BadSetting) as error:
        config.read(text, {})
    assert "SECRET" not in str(error.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="Mount it"):
        reader(str(tmp_path / "missing"), {})()
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(BadSetting, match="UTF-8"):
        reader(str(tmp_path / "binary"), {})()


def test_a_bad_start_is_one_line_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        json.dumps(
            {
                "current-context": "x",
                "clusters": [{"name": "x", "cluster": {"server": "https://127.0.0.1:1"}}],
                "users": [{"name": "x", "user": {"token": "kube-secret"}}],
                "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
            }
        )
    )
    assert main([*BARE, f"--kubeconfig={kubeconfig}"], {}) == 2
    words = capsys.readouterr().err
    assert words.count("\n") == 1
    assert "siteId" in words
    assert main(BARE, {}) == 2
    assert "--kubeconfig" in capsys.readouterr().err
