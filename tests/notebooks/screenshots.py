"""Pictures of notes as Zeppelin's pages show them, for the eye: by Chromium without a window, if it is installed.

Chromium is told what to do by a pipe (`--remote-debugging-pipe`, Chrome DevTools Protocol), so that no port is open and
no driver is needed.
"""

import base64
import json
import os
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDTH, TALLEST = 1400, 16_000  # pixels
SECONDS = 60.0
# A note is drawn when each of its paragraphs is there and what is drawn has had the same height for a while.
DRAWN = "[document.querySelectorAll('div.paragraph, .paragraph-col').length, document.body.scrollHeight]"


def program() -> str | None:
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Chromium:
    """One browser, ended by `end`. Raises OSError if it does not start or goes silent."""

    def __init__(self, chromium: str, folder: Path) -> None:
        """`folder`: what it keeps, which is its caller's to take away."""
        read, theirs_out = os.pipe()
        theirs_in, write = os.pipe()
        options = ["--headless=new", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--mute-audio"]
        if os.geteuid() == 0:
            options.append("--no-sandbox")  # root has none; all that it opens are our own pages
        # It expects the pipe as descriptors 3 and 4.
        script = f'exec 3<&{theirs_in} 4>&{theirs_out}; exec "$@"'
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", chromium, *options, "--remote-debugging-pipe", f"--user-data-dir={folder}"],
            pass_fds=[theirs_in, theirs_out],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._in, self._out = os.fdopen(write, "wb", buffering=0), os.fdopen(read, "rb", buffering=0)
        self._rest, self._count, self._session = b"", 0, ""
        target = self._told("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._told("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def end(self) -> None:
        with suppress(OSError):
            self._session = ""
            self._told("Browser.close")
        self._in.close()
        self._out.close()
        self._process.wait()

    def cookie(self, url: str, name: str, value: str) -> None:
        self._told("Network.setCookie", url=url, name=name, value=value, httpOnly=True)

    def picture(self, url: str, paragraphs: int, file: Path) -> bool:
        """Writes a PNG of a note's page; whether all of it was drawn within SECONDS."""
        self._told("Emulation.setDeviceMetricsOverride", width=WIDTH, height=1000, deviceScaleFactor=1, mobile=False)
        self._told("Page.navigate", url=url)
        until, seen, steady = time.monotonic() + SECONDS, None, 0
        while steady < 6 and time.monotonic() < until:
            time.sleep(0.5)
            now = self._told("Runtime.evaluate", expression=DRAWN, returnByValue=True)["result"].get("value")
            steady = steady + 1 if now and now == seen and now[0] >= paragraphs else 0
            seen = now
        height = min(max(seen[1] if seen else 0, 1000), TALLEST)
        self._told("Emulation.setDeviceMetricsOverride", width=WIDTH, height=height, deviceScaleFactor=1, mobile=False)
        time.sleep(1)  # charts are drawn for the new size; nothing tells when they are
        file.write_bytes(base64.b64decode(self._told("Page.captureScreenshot", format="png")["data"]))
        return steady >= 6

    def _told(self, method: str, **parameters: Any) -> Any:
        self._count += 1
        asked = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            asked["sessionId"] = self._session
        self._in.write(json.dumps(asked).encode() + b"\0")
        while True:
            while b"\0" not in self._rest:
                data = self._out.read(1 << 16)
                if not data:
                    raise OSError("Chromium has ended")
                self._rest += data
            line, _, self._rest = self._rest.partition(b"\0")
            told = json.loads(line)
            if told.get("id") == self._count:
                if "error" in told:
                    raise OSError(f"Chromium: {method}: {told['error'].get('message')}")
                return told.get("result", {})
