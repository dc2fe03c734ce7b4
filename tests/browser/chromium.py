# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium, steered over the two pipes of its DevTools protocol: no driver, no port, no network."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROGRAM = "chromium"
ANSWER_S = 60.0
OPTIONS = (
    *(
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--no-first-run",
        "--remote-debugging-pipe",
    ),
    # Whatever name is looked up: nothing is reached.
    "--host-resolver-rules=MAP * ~NOTFOUND",
)


class Page:
    """One page. Raises AssertionError for what the browser refuses, or an exception in the page."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._rest = b""
        self._number = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self.ask(f"{domain}.enable")
        self.ask("Performance.enable", timeDomain="threadTicks")

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command; its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == self._number:
                assert "error" not in found, f"{method}: {found['error']}"
                result: dict[str, Any] = found["result"]
                return result
            self.events.append(found)

    def _next(self) -> dict[str, Any]:
        deadline = time.monotonic() + ANSWER_S
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._from], [], [], max(0.0, deadline - time.monotonic()))
            part = os.read(self._from, 1 << 20) if ready else b""
            assert part, "the browser does not answer"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def open(self, path: Path) -> None:
        """Open a file, and return when it has been laid out."""
        self.ask("Page.navigate", url=path.as_uri())
        self.run("new Promise((done) => document.readyState === 'complete' ? done() : addEventListener('load', done))")
        self.run(FRAME)

    def run(self, script: str) -> Any:
        """The value of an expression; a promise is awaited."""
        found = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def busy_ms(self) -> float:
        """Milliseconds of a processor that the page's main thread has used so far: script, style, layout, paint."""
        found = {one["name"]: one["value"] for one in self.ask("Performance.getMetrics")["metrics"]}
        return float(found["TaskDuration"]) * 1000

    def picture(self, path: Path, width: int = 1440, height: int = 1100) -> None:
        """A screenshot."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.run(FRAME)
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"]))

    def paper(self, path: Path) -> None:
        """As it is printed."""
        path.write_bytes(base64.b64decode(self.ask("Page.printToPDF", preferCSSPageSize=True)["data"]))

    def media(self, scheme: str, medium: str = "screen") -> None:
        """``light`` or ``dark``; ``screen`` or ``print``."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.ask("Emulation.setEmulatedMedia", media=medium, features=features)


# Until the next frame was laid out and painted.
FRAME = "new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)))"


@contextlib.contextmanager
def opened() -> Iterator[Page]:
    """A browser with one page."""
    with tempfile.TemporaryDirectory(prefix="chromium-") as profile:
        read_here, written_there = os.pipe()
        read_there, written_here = os.pipe()
        # The protocol's pipes are 3 and 4 there; dash knows no number of two digits.
        far = [fcntl.fcntl(one, fcntl.F_DUPFD, 10) for one in (read_there, written_there)]
        script = f'exec "$@" 3<&{far[0]} 4>&{far[1]} {far[0]}<&- {far[1]}>&-'
        process = subprocess.Popen(
            ["bash", "-c", script, "bash", PROGRAM, *OPTIONS, f"--user-data-dir={profile}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=far,
        )
        for one in far:
            os.close(one)
        os.close(read_there)
        os.close(written_there)
        try:
            yield Page(written_here, read_here)
        finally:
            process.terminate()
            process.wait()
            os.close(written_here)
            os.close(read_here)
