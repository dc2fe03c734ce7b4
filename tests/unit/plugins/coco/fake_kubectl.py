# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""kubectl proxy in front of a folder of objects, for modules that are run for real: ``--kubeconfig`` names the folder.

A path of the API is a path of the folder: an object is a JSON file, a collection a folder. A kind without a folder
is not known. ``behaviour.json`` says what becomes of pods and of modes.
"""

from __future__ import annotations

import json
import socketserver
import sys
import urllib.parse
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

ROOT = Path(sys.argv[sys.argv.index("--kubeconfig") + 1]) if "--kubeconfig" in sys.argv else Path()


def behaviour() -> dict[str, Any]:
    """What the cluster does by itself."""
    path = ROOT / "behaviour.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def merge(old: Any, new: Any) -> Any:
    """A JSON merge patch."""
    if not isinstance(new, dict):
        return new
    merged = dict(old) if isinstance(old, dict) else {}
    for key, value in new.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


class Handler(BaseHTTPRequestHandler):
    """One request."""

    def address_string(self) -> str:
        return "socket"

    def log_message(self, *_words: Any) -> None:
        pass

    def answer(self, status: int, content: Any) -> None:
        data = (content if isinstance(content, str) else json.dumps(content)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def place(self) -> Path:
        url = urllib.parse.urlsplit(self.path)
        self.query = urllib.parse.parse_qs(url.query)
        return ROOT / url.path.lstrip("/")

    def body(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def do_GET(self) -> None:
        with (ROOT / "asked.txt").open("a") as asked:
            asked.write(self.path + "\n")
        place = self.place()
        file = place.with_name(place.name + ".json")
        if place.name == "log":
            self.answer(200, behaviour().get("log", ""))
        elif file.exists():
            self.answer(200, json.loads(file.read_text()))
        elif place.is_dir():
            items = [json.loads(one.read_text()) for one in sorted(place.glob("*.json"))]
            names = self.query.get("labelSelector", [""])[0].split(",")
            wanted = [one.partition("=")[2] for one in names if one.startswith("name=")]
            items = [one for one in items if not wanted or one["metadata"].get("labels", {}).get("name") in wanted]
            self.answer(200, {"items": items, "metadata": {}})
        else:
            self.answer(404, {"message": f"{self.path} not found"})

    def do_POST(self) -> None:
        place, thing = self.place(), self.body()
        if place.name == "eviction":
            if behaviour().get("budget"):
                self.answer(429, {"message": "Cannot evict pod as it would violate the pod's disruption budget."})
                return
            pod = place.parent
            pod.with_name(pod.name + ".json").unlink(missing_ok=True)
            (ROOT / "api/v1/pods" / (pod.name + ".json")).unlink(missing_ok=True)
            self.answer(201, {})
            return
        if behaviour().get("forbidden"):
            self.answer(403, {"message": "pods is forbidden"})
            return
        place.mkdir(parents=True, exist_ok=True)
        thing["status"] = behaviour().get("pod", {"phase": "Pending"})
        (place / (thing["metadata"]["name"] + ".json")).write_text(json.dumps(thing))
        with (ROOT / "made.jsonl").open("a") as made:
            made.write(json.dumps(thing) + "\n")
        self.answer(201, thing)

    def do_PATCH(self) -> None:
        place = self.place()
        file = place.with_name(place.name + ".json")
        thing = merge(json.loads(file.read_text()), self.body())
        # The manager on the node answers at once.
        thing = merge(thing, behaviour().get("after_patch", {}))
        file.write_text(json.dumps(thing))
        self.answer(200, thing)

    def do_DELETE(self) -> None:
        place = self.place()
        file = place.with_name(place.name + ".json")
        if not file.exists():
            self.answer(404, {"message": "not found"})
            return
        file.unlink()
        self.answer(200, {})


class Server(socketserver.ThreadingUnixStreamServer):
    """With room for as many callers at once as kubectl has."""

    request_queue_size = 128


def main() -> int:
    """Serve until the end, or take what is to be deleted."""
    if "proxy" not in sys.argv:
        with (ROOT / "deleted.txt").open("a") as deleted:
            deleted.write(sys.stdin.read())
        return 0
    if not ROOT.is_dir():
        print(f"error: no such file {ROOT}", file=sys.stderr)
        return 1
    path = sys.argv[sys.argv.index("--unix-socket") + 1]
    with Server(path, Handler) as server:
        print(f"Starting to serve on {path}", flush=True)
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
