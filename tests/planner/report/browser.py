"""Headless Chromium without a network, driven over a pipe: opens pages, asks them, presses keys, takes pictures."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run",
    "--remote-debugging-pipe", "--host-resolver-rules=MAP * ~NOTFOUND", "--force-color-profile=srgb",
)  # fmt: skip
# Chromium reads commands from 3 and writes to 4.
AT_3_AND_4 = (
    "import os, sys; [os.dup2(int(sys.argv[1 + k]), 3 + k) for k in (0, 1)]; os.execv(sys.argv[3], sys.argv[3:])"
)


class Tab:
    """A page in the browser."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        target = browser.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = browser.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """A command of the DevTools protocol."""
        return self._browser.send(method, session=self.session, **params)

    def open(self, page: Path, width: int = 1280, theme: str = "light", media: str = "") -> None:
        """Load a page at a width, in a theme, on a medium (`print`)."""
        height = 844 if width < 600 else 900
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        features = [
            {"name": "prefers-color-scheme", "value": theme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.send("Emulation.setEmulatedMedia", media=media, features=features)
        self.send("Page.navigate", url=page.as_uri())
        self._browser.wait("Page.loadEventFired", self.session)

    def ask(self, script: str) -> Any:
        """The value of an expression in the page, or of a promise of it."""
        done = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def press(self, key: str) -> None:
        """A key goes down and up."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowRight": 39}
        more = {"text": "\r"} if key == "Enter" else {"text": " "} if key == " " else {}
        code = codes[key]
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, **more)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def point(self, x: float, y: float) -> None:
        """The pointer moves to a place of the window."""
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def picture(self, clip: dict[str, float] | None = None, scale: float = 1) -> bytes:
        """A PNG of the window, or of a part of the page."""
        part = {} if clip is None else {"clip": {**clip, "scale": scale}, "captureBeyondViewport": True}
        return base64.b64decode(self.send("Page.captureScreenshot", **part)["data"])

    def paper(self) -> bytes:
        """The page as PDF, A4."""
        size = {"paperWidth": 8.27, "paperHeight": 11.69, "preferCSSPageSize": True}
        return base64.b64decode(self.send("Page.printToPDF", **size)["data"])

    @property
    def console(self) -> list[str]:
        """What was said on the console, and every error of a script or of the policy."""
        said = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [
            str(e["params"]) for e in self._browser.events if e.get("sessionId") == self.session and e["method"] in said
        ]


class Browser:
    """One process of Chromium; messages are JSON, ended by a zero byte."""

    def __init__(self, command: str, folder: Path) -> None:
        (read_here, write_there), (read_there, write_here) = os.pipe(), os.pipe()
        there = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (read_there, write_there)]
        words = [sys.executable, "-c", AT_3_AND_4, *map(str, there), command, *FLAGS, f"--user-data-dir={folder}"]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(words, pass_fds=there, **quiet)
        for end in (read_there, write_there, *there):
            os.close(end)
        self.reads, self.writes = os.fdopen(read_here, "rb"), os.fdopen(write_here, "wb")
        self.events: list[dict[str, Any]] = []
        self._numbers, self._rest = iter(range(1, 1_000_000)), b""

    def send(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """A command, and its result."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        self.writes.write(json.dumps(message).encode() + b"\0")
        self.writes.flush()
        while (answer := self._next()).get("id") != number:
            pass
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def wait(self, method: str, session: str) -> None:
        """Until an event comes that did not come before."""
        while (event := self._next()).get("method") != method or event.get("sessionId") != session:
            pass

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            more = os.read(self.reads.fileno(), 1 << 20)
            assert more, "Chromium ended"
            self._rest += more
        message, self._rest = self._rest.split(b"\0", 1)
        found: dict[str, Any] = json.loads(message)
        if "method" in found:
            self.events.append(found)
        return found

    def close(self) -> None:
        """End the process and wait for it."""
        self.writes.close()  # the end of the pipe is the end of Chromium
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.reads.close()


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser; skips where no Chromium is installed."""
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("no Chromium: .ci/run installs it")
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        browser = Browser(CHROMIUM, Path(folder))
        try:
            yield browser
        finally:
            browser.close()


def pages_of(pdf: bytes) -> int:
    """How many pages a PDF has."""
    return len(re.findall(rb"/Type\s*/Page\b(?!s)", pdf))
