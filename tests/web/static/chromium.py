"""A headless Chromium, driven by its DevTools protocol over two pipes: no port, no library.

Requests and answers are JSON, each with a NUL after it (`--remote-debugging-pipe`: the browser reads descriptor 3 and
writes descriptor 4). https://chromedevtools.github.io/devtools-protocol/ has the methods.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.harness import PATIENCE

FLAGS = [
    "--headless",
    "--remote-debugging-pipe",
    "--no-first-run",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # no address but this machine's
]


class PageError(Exception):
    """A script in the page threw."""


class Page:
    """A tab, and what it said on its console."""

    def __init__(self, browser: Browser, target: str, session: str) -> None:
        self._browser = browser
        self._target = target
        self._session = session
        self.complaints: list[str] = []
        """Errors, exceptions and violations of the content security policy."""
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A method of the protocol; its answer."""
        return self._browser.call(method, parameters, self._session)

    def open(self, url: str) -> None:
        """Goes to a page; returns once it has been loaded, its modules too."""
        self.call("Page.navigate", url=url)
        self.wait_for(f"location.href.startsWith({json.dumps(url)}) && document.readyState === 'complete'")

    def reload(self) -> None:
        """Loads the page anew, as F5 does."""
        self.run("window.isOld = true")
        self.call("Page.reload")
        self.wait_for("!window.isOld && document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """The value of an expression in the page, as JSON has it; a promise is waited for."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise PageError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def wait_for(self, script: str, within: float = PATIENCE) -> None:
        """Until an expression is true, or an element."""
        check = f"(() => {{ try {{ return Boolean({script}); }} catch {{ return false; }} }})()"
        deadline = time.monotonic() + within
        while True:
            wait = f"""new Promise((done) => {{
                const end = Date.now() + 1000;
                const look = () => {{
                    const value = {check};
                    if (value || Date.now() > end) done(value); else setTimeout(look, 20);
                }};
                look();
            }})"""
            try:
                if self.run(wait):
                    return
            except (PageError, ProtocolError):  # the page was left meanwhile
                pass
            assert time.monotonic() < deadline, f"never: {script}\n{self.complaints}"

    def click(self, selector: str) -> None:
        """The first element that fits, clicked in its middle with the mouse."""
        script = f"""(() => {{
            const element = document.querySelector({json.dumps(selector)});
            element.scrollIntoView({{block: "center", inline: "center"}});
            const box = element.getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2];
        }})()"""
        x, y = self.run(script)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, text: str) -> None:
        """Into what has the focus."""
        self.call("Input.insertText", text=text)

    def press(self, key: str) -> None:
        """A key by its name: `Tab`, `Enter`, `ArrowDown`."""
        code = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}[
            key
        ]
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)
            text = {}

    def set_size(self, width: int, height: int) -> None:
        """Of the window, in pixels."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)

    def prefer(self, **features: str) -> None:
        """What the person prefers: `color_scheme="dark"`, `reduced_motion="reduce"`."""
        wanted = [{"name": f"prefers-{name.replace('_', '-')}", "value": value} for name, value in features.items()]
        self.call("Emulation.setEmulatedMedia", features=wanted)

    def picture(self, path: Path) -> None:
        """The window as a PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def close(self) -> None:
        """Closes the tab."""
        self._browser.call("Target.closeTarget", {"targetId": self._target})

    def hear(self, message: dict[str, Any]) -> None:
        """An event of the protocol."""
        parameters = message["params"]
        if message["method"] == "Runtime.exceptionThrown":
            self.complaints.append(str(parameters["exceptionDetails"]))
        elif message["method"] == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.complaints.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}")


class ProtocolError(Exception):
    """The browser refused a call."""


class Browser:
    """A running Chromium."""

    def __init__(self, process: subprocess.Popen[bytes], requests: int, answers: int) -> None:
        self._process = process
        self._requests = requests
        self._answers = answers
        self._numbers = itertools.count(1)
        self._pages: dict[str, Page] = {}
        self._rest = b""

    def new_page(self) -> Page:
        """A tab with cookies and storage of its own."""
        context = self.call("Target.createBrowserContext", {})["browserContextId"]
        target = self.call("Target.createTarget", {"url": "about:blank", "browserContextId": context})["targetId"]
        session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        page = self._pages[session] = Page(self, target, session)
        return page

    def call(self, method: str, parameters: dict[str, Any], session: str | None = None) -> dict[str, Any]:
        """Raises ProtocolError if the browser refuses."""
        number = next(self._numbers)
        request = {"id": number, "method": method, "params": parameters, **({"sessionId": session} if session else {})}
        data = json.dumps(request).encode() + b"\0"
        while data:
            data = data[os.write(self._requests, data) :]
        while True:
            message = self._receive()
            if message.get("id") == number:
                if "error" in message:
                    raise ProtocolError(f"{method}: {message['error']}")
                return dict(message["result"])
            if page := self._pages.get(message.get("sessionId", "")):
                page.hear(message)

    def close(self) -> None:
        """Ends it."""
        os.close(self._requests)  # by which it knows
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._answers)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._answers], [], [], 2 * PATIENCE)
            data = os.read(self._answers, 1 << 20) if ready else b""
            assert data, "chromium has gone, or hangs"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(line))


@contextmanager
def running_browser(*prefix: str) -> Iterator[Browser]:
    """A Chromium with a profile of its own, which is removed afterwards. prefix: what runs it where it shall be."""
    with tempfile.TemporaryDirectory(prefix="as-chromium-", ignore_cleanup_errors=True) as profile:
        read_requests, requests = os.pipe()
        answers, write_answers = os.pipe()
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # root has none
        command = ["chromium", *FLAGS, *sandbox, f"--user-data-dir={profile}", "about:blank"]
        # A shell puts the pipes where the browser expects them.
        shell = f'exec "$@" 3<&{read_requests} 4>&{write_answers}'
        process = subprocess.Popen(
            ["bash", "-c", shell, "chromium", *prefix, *command],
            pass_fds=[read_requests, write_answers],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": profile},
        )
        os.close(read_requests)
        os.close(write_answers)
        browser = Browser(process, requests, answers)
        try:
            yield browser
        finally:
            browser.close()
