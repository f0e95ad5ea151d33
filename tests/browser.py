"""A real browser without a screen, Debian's Chromium, driven through its DevTools protocol."""

import base64
import json
import re
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager

from tests.conftest import HANGS, environment, imported, missing


class Page:
    """A page in the browser; `console` is what it has said, errors and warnings among it."""

    def __init__(self, socket):
        self._socket, self._number, self._session = socket, 0, None
        self.console = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        """What the browser answers; what it tells meanwhile is noted."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        self._socket.send(json.dumps(message | ({"sessionId": self._session} if self._session else {})))
        while True:
            answer = json.loads(self._socket.recv())
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self._note(answer)

    def _note(self, event):
        match event.get("method"):
            case "Runtime.exceptionThrown":
                self.console.append(event["params"]["exceptionDetails"])
            case "Runtime.consoleAPICalled":
                self.console.append(event["params"]["args"])
            case "Log.entryAdded":
                self.console.append(event["params"]["entry"])

    def ask(self, expression):
        """The value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, expression, seconds=HANGS):
        """The value of an expression, once it is true."""
        end = time.monotonic() + seconds
        while not (value := self.ask(expression)):
            assert time.monotonic() < end, (
                f"{expression} never came true: {self.ask('document.body.innerText')}"
            )
            time.sleep(0.1)
        return value

    def open(self, url):
        """Go there, and wait until it is there."""
        self.call("Page.navigate", url=url)
        self.wait_for(
            f"location.href.startsWith({json.dumps(url[:20])}) && document.readyState == 'complete'"
        )

    def screenshot(self, path, width=1200, height=1000):
        """The whole page as PNG, for who looks."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))


@contextmanager
def browser():
    """A page of a browser of its own."""
    websocket, program = imported("websocket"), shutil.which("chromium")
    if program is None:
        missing("there is no chromium")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        command = [program, *options, f"--user-data-dir={folder}", "--remote-debugging-port=0", "about:blank"]
        process = subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            env=environment(HOME=folder),
        )
        try:
            url = next(
                found[1] for line in process.stderr if (found := re.search(r"listening on (ws://\S+)", line))
            )
            socket = websocket.create_connection(url, timeout=HANGS, suppress_origin=True)
            yield Page(socket)
            socket.close()
        finally:
            process.kill()
            process.stderr.close()
            process.wait()
