# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Helm on the same folder as fake_kubectl.py: a chart is a folder with Chart.yaml and a manifest that holds VALUES."""

from __future__ import annotations

import base64
import gzip
import json
import sys
from pathlib import Path
from typing import Any


def option(name: str) -> str:
    return sys.argv[sys.argv.index(name) + 1]


def secrets(root: Path) -> Path:
    return root / "api/v1/namespaces" / option("--namespace") / "secrets"


def write(root: Path, release: dict[str, Any]) -> None:
    """A revision, as Helm keeps it."""
    name = f"sh.helm.release.v1.{release['name']}.v{release['version']}"
    data = base64.b64encode(base64.b64encode(gzip.compress(json.dumps(release).encode()))).decode()
    labels = {"owner": "helm", "name": release["name"], "status": release["info"]["status"]}
    secret = {"metadata": {"name": name, "labels": labels}, "type": "helm.sh/release.v1", "data": {"release": data}}
    secrets(root).mkdir(parents=True, exist_ok=True)
    (secrets(root) / f"{name}.json").write_text(json.dumps(secret))


def read(root: Path, name: str) -> list[dict[str, Any]]:
    found = []
    for file in secrets(root).glob(f"sh.helm.release.v1.{name}.v*.json"):
        data = json.loads(file.read_text())["data"]["release"]
        found.append(json.loads(gzip.decompress(base64.b64decode(base64.b64decode(data)))))
    return sorted(found, key=lambda one: one["version"])


def fail(words: str) -> int:
    print(f"Error: {words}", file=sys.stderr)
    return 1


def main() -> int:
    root = Path(option("--kubeconfig"))
    verb = sys.argv[1]
    with (root / "helm.txt").open("a") as log:
        log.write(" ".join(sys.argv[1:]) + "\n")
    if verb == "show":
        print(Path(sys.argv[3], "Chart.yaml").read_text())
        return 0
    if verb == "pull":
        return fail("no route to the registry")
    if verb == "uninstall":
        if (root / "hook-fails").exists() and "--no-hooks" not in sys.argv:
            for file in secrets(root).glob("*.json"):
                file.unlink()
            return fail("timed out waiting for the hook")
        for file in secrets(root).glob("*.json"):
            file.unlink()
        return 0
    name, chart, values = sys.argv[3], Path(sys.argv[4]), json.load(sys.stdin)
    history = read(root, name)
    if history and history[-1]["info"]["status"].startswith("pending"):
        return fail("another operation (install/upgrade/rollback) is in progress")
    metadata = dict(line.split(": ") for line in (chart / "Chart.yaml").read_text().splitlines())
    release = {
        "name": name,
        "namespace": option("--namespace"),
        "version": (history[-1]["version"] if history else 0) + 1,
        "info": {"status": "deployed", "description": option("--description") if "--description" in sys.argv else ""},
        "chart": {"metadata": metadata},
        "config": values,
        "manifest": (chart / "manifest.yaml").read_text().replace("VALUES", json.dumps(values)),
        "hooks": [],
    }
    if any(word.startswith("--dry-run") for word in sys.argv):
        print(json.dumps(release))
        return 0
    write(root, release)
    return 0


if __name__ == "__main__":
    sys.exit(main())
