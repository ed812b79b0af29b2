"""Chromium through its debugging pipe, to measure pages that nothing else observes.

Playwright is no help here: it observes the network, for which Chromium keeps up to 200 MB of
responses in the memory that is to be measured. https://chromedevtools.github.io/devtools-protocol/
describes the methods.
"""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import IO, Any

ARGUMENTS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "about:blank")


class Browser:
    """A running Chromium; `launch` starts it."""

    def __init__(self, commands: IO[bytes], answers: IO[bytes]) -> None:
        self._commands, self._answers, self._numbers = commands, answers, count(1)

    def send(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol, of a page if a session is given; return its result."""
        message: dict[str, Any] = {"id": next(self._numbers), "method": method}
        message |= {"params": parameters} | ({"sessionId": session} if session else {})
        self._commands.write(json.dumps(message).encode() + b"\0")
        self._commands.flush()
        while True:
            content = bytearray()
            while (byte := self._answers.read(1)) != b"\0":
                if not byte:
                    raise RuntimeError("chromium has ended")
                content += byte
            answer = json.loads(content)
            if answer.get("id") == message["id"]:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return dict(answer["result"])

    def open(self, url: str, width: int, height: int, ratio: float = 1) -> "Page":
        """Open an address in a page with an empty cache in memory."""
        context = self.send("Target.createBrowserContext")["browserContextId"]
        return self.open_usual(url, width, height, ratio, browserContextId=context)

    def open_usual(
        self, url: str, width: int, height: int, ratio: float = 1, **options: Any
    ) -> "Page":
        """Open an address in a page with the cache of the profile, which is on disk.

        width, height: of the window in CSS pixels. ratio: pixels per CSS pixel.
        """
        target = self.send("Target.createTarget", url="about:blank", **options)["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        page = Page(self, attached["sessionId"], target)
        metrics = {"width": width, "height": height, "deviceScaleFactor": ratio, "mobile": False}
        page.send("Emulation.setDeviceMetricsOverride", **metrics)
        page.send("Page.navigate", url=url)
        return page


class Page:
    """An open page."""

    def __init__(self, browser: Browser, session: str, target: str) -> None:
        self.browser, self._session, self._target = browser, session, target

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol for this page."""
        return self.browser.send(method, self._session, **parameters)

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression; a promise is awaited."""
        options = {"awaitPromise": True, "returnByValue": True}
        return self.send("Runtime.evaluate", expression=expression, **options)["result"].get(
            "value"
        )

    def wait(self, expression: str, seconds: float = 60) -> Any:
        """Return the value of an expression once it is true; raise RuntimeError if it is not."""
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            if value := self.evaluate(expression):
                return value
            time.sleep(0.01)
        raise RuntimeError(f"this did not become true in {seconds:g} s: {expression}")

    def close(self) -> None:
        """Close the page."""
        self.browser.send("Target.closeTarget", targetId=self._target)


@contextmanager
def launch() -> Iterator[Browser]:
    """Start Chromium without a window; it ends with the block."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        raise SystemExit("chromium is not on the PATH")
    its_input, commands = os.pipe()
    answers, its_output = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ["--remote-debugging-pipe", f"--user-data-dir={Path(profile)}", *ARGUMENTS]
        # Chromium reads commands from descriptor 3 and writes to 4. dash, often sh, refuses
        # descriptors of two digits.
        script = f'exec "$0" "$@" 3<&{its_input} 4>&{its_output}'
        process = subprocess.Popen(
            ["bash", "-c", script, program, *options],
            pass_fds=(its_input, its_output),
            stderr=subprocess.DEVNULL,
        )
        os.close(its_input)
        os.close(its_output)
        with os.fdopen(commands, "wb") as to, os.fdopen(answers, "rb") as back:
            browser = Browser(to, back)
            try:
                yield browser
                browser.send("Browser.close")
            finally:
                process.terminate()
                process.wait()
