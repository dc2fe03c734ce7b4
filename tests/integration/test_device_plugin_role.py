# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The role device_plugin as ansible-playbook runs it, with a Helm that keeps releases in a file.

The real one, with the real API server, is tests/cluster/test_device_plugin.py's.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
# What the role calls of Helm. A manifest is what it was made of.
HELM = """\
#!{python}
import json, pathlib, sys
store, words = pathlib.Path({store!r}), sys.argv[1:]
releases = json.loads(store.read_text())
with open(str(store) + ".log", "a") as log:
    log.write(json.dumps(words) + "\\n")
if words[:2] == ["get", "manifest"]:
    if words[2] not in releases:
        sys.exit("Error: release: not found")
    print(releases[words[2]])
elif words[:2] == ["upgrade", "--install"]:
    name, chart = words[2:4]
    if not (pathlib.Path(chart) / "Chart.yaml").exists():
        sys.exit("Error: no chart " + chart)
    manifest = json.dumps({{"chart": pathlib.Path(chart).name, "values": json.load(sys.stdin)}}, sort_keys=True)
    if "--dry-run=client" not in words:
        releases[name] = manifest
        store.write_text(json.dumps(releases))
    print(json.dumps({{"name": name, "manifest": manifest}}))
elif words[0] == "uninstall":
    del releases[words[1]]
    store.write_text(json.dumps(releases))
else:
    sys.exit("Error: unknown command " + words[0])
"""
TWO = {
    "default": {"version": "v1"},
    "shared": {
        "version": "v1",
        "sharing": {"timeSlicing": {"resources": [{"name": "nvidia.com/gpu", "replicas": 4}]}},
    },
}


class Play:
    """The role on this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._store = folder / "releases.json"
        self._store.write_text("{}")
        self._helm = folder / "helm"
        self._helm.write_text(HELM.format(python=sys.executable, store=str(self._store)))
        self._helm.chmod(0o755)
        self.chart = folder / "nvidia-device-plugin"
        self.chart.mkdir()
        (self.chart / "Chart.yaml").touch()
        collections = folder / "ansible_collections/confidential"
        collections.mkdir(parents=True)
        (collections / "gpu").symlink_to(ROOT)

    def command(self, *words: str, fails: bool = False) -> str:
        """What ansible-playbook prints, in this folder, without an inventory."""
        environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(self._folder), "ANSIBLE_NOCOLOR": "1"}
        program = str(Path(sys.executable).parent / "ansible-playbook")
        given = json.dumps({"ansible_python_interpreter": sys.executable, "device_plugin_helm": str(self._helm)})
        command = [program, *words, "-e", given]
        done = subprocess.run(command, cwd=self._folder, env=environment, capture_output=True, text=True, check=False)
        assert bool(done.returncode) == fails, done.stdout + done.stderr
        return done.stdout + done.stderr

    def run(self, check: bool = False, fails: bool = False, **variables: Any) -> str:
        """What the role says."""
        given = {f"device_plugin_{name}": value for name, value in variables.items()}
        roles = [{"role": "confidential.gpu.device_plugin"}]
        path = self._folder / "play.yml"
        path.write_text(yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "vars": given, "roles": roles}]))
        return self.command(*["--check"] * check, str(path), fails=fails)

    @property
    def releases(self) -> dict[str, Any]:
        """Values by the name of the release."""
        return {name: json.loads(text) for name, text in json.loads(self._store.read_text()).items()}

    @property
    def calls(self) -> list[list[str]]:
        """What Helm was asked for."""
        log = self._store.with_name("releases.json.log")
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


@pytest.fixture
def play(tmp_path: Path) -> Play:
    return Play(tmp_path)


def test_own_is_installed_once_and_uninstalled_once(play: Play) -> None:
    values = {"config": {"cdi": {"enabled": True}}}
    assert "changed=1" in play.run(check=True, values=values)
    assert play.releases == {}
    assert "changed=1" in play.run(values=values)
    assert play.releases == {"device-plugin": {"chart": "device-plugin", "values": values}}
    assert "changed=0" in play.run(values=values)
    assert "changed=1" in play.run(check=True, state="absent")
    assert set(play.releases) == {"device-plugin"}
    assert "changed=1" in play.run(state="absent")
    assert play.releases == {}
    assert "changed=0" in play.run(state="absent")


def test_nvidias_with_metrics_of_ours(play: Play) -> None:
    desired: dict[str, Any] = {
        "implementation": "nvidia",
        "chart": str(play.chart),
        "nvidia_configs": TWO,
        "nvidia_default": "shared",
        "nvidia_exporter": True,
        "nvidia_exporter_values": {"image": {"tag": "1.0"}},
        "values": {"image": {"tag": "v0.20.0"}, "securityContext": {"readOnlyRootFilesystem": False}},
    }
    assert "changed=1" in play.run(**desired)
    plugin, exporter = play.releases["nvidia-device-plugin"], play.releases["nvidia-device-plugin-exporter"]
    assert plugin["chart"] == "nvidia-device-plugin"
    values = plugin["values"]
    assert {name: yaml.safe_load(text) for name, text in values["config"]["map"].items()} == TWO
    assert values["config"]["default"] == "shared"
    assert values["image"] == {"tag": "v0.20.0"}
    assert values["securityContext"]["readOnlyRootFilesystem"] is False  # what the user gives goes before
    assert values["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert exporter["chart"] == "device-plugin"
    assert (exporter["values"]["source"], exporter["values"]["register"]) == ("gpu", False)
    assert exporter["values"]["gpuConfig"] == TWO["shared"]
    assert exporter["values"]["image"] == {"tag": "1.0"}
    assert "changed=0" in play.run(**desired)
    assert "changed=1" in play.run(**{**desired, "nvidia_exporter": False})
    assert set(play.releases) == {"nvidia-device-plugin"}
    play.run(**desired)
    assert "changed=1" in play.run(implementation="nvidia", state="absent")
    assert play.releases == {}


@pytest.mark.parametrize("check", [True, False])
def test_a_configuration_that_cannot_be_meant_is_refused_before_helm_is_asked(play: Play, check: bool) -> None:
    wrong = {"default": {"version": "v1", "sharing": {"timeSlicng": {}}}}
    said = play.run(check=check, fails=True, implementation="nvidia", chart=str(play.chart), nvidia_configs=wrong)
    assert "Did you mean timeSlicing?" in said
    assert play.calls == []


def test_nvidias_chart_has_to_be_given(play: Play) -> None:
    assert "device_plugin_chart is empty" in play.run(fails=True, implementation="nvidia")
    assert play.calls == []
    said = play.run(fails=True, implementation="nvidia", chart="/nonexistent")
    assert "no chart /nonexistent" in said
    assert play.releases == {}


def test_a_chart_by_its_name(play: Play) -> None:
    play.run(
        implementation="nvidia",
        chart=str(play.chart),
        chart_repository="https://charts.example",
        chart_version="0.20.0",
        namespace="gpus",
        context="there",
    )
    (asked, made) = [words for words in play.calls if words[0] == "upgrade"]
    for words in (asked, made):
        text = " ".join(words)
        assert "--repo https://charts.example --version 0.20.0" in text
        assert "--kube-context there --namespace gpus" in text


@pytest.mark.parametrize("name", ["gpus", "nvidia"])
def test_the_files_of_the_documentation_with_the_playbook(play: Play, tmp_path: Path, name: str) -> None:
    text = (ROOT / "docs/device-plugins.md").read_text()
    (written,) = re.findall(rf"n `{name}\.yml`:\n\n```yaml\n(.*?)```", text, re.DOTALL)
    (tmp_path / f"{name}.yml").write_text(written.replace("/srv/charts", str(tmp_path)))
    play.chart.rename(tmp_path / "nvidia-device-plugin-0.20.0.tgz")
    commands = [line.split("#")[0].split() for line in text.splitlines() if line.startswith("ansible-playbook")]
    mine = [words[1:] for words in commands if f"@{name}.yml" in words]
    assert any("--check" in words for words in mine)
    for words in mine:
        said = play.command(*words)
        assert "changed=1" in said
        absent = "device_plugin_state=absent" in words
        assert bool(play.releases) != ("--check" in words or absent)
