"""A real headless Chromium for a test, driven over its DevTools protocol; a test skips in one line without one."""

import asyncio
import base64
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions",
         "--disable-background-networking", "--disable-dev-shm-usage", "--remote-debugging-port=0")  # fmt: skip


def program() -> str | None:
    """The browser of this machine, None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """One page: `script` evaluates, `mouse` and `key` act, `shot` photographs; `errors` are what its console says."""

    def __init__(self, socket: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._socket, self._loop, self._number, self.errors = socket, loop, 0, list[str]()

    def call(self, method: str, **values: Any) -> dict[str, Any]:
        return self._loop.run_until_complete(self._call(method, values))

    async def _call(self, method: str, values: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": values})
        while True:
            message = json.loads((await asyncio.wait_for(self._socket.receive(), 60)).data)
            if message.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.errors.append(json.dumps(message["params"]))
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]

    def script(self, code: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def open(self, path: Path, width: int, height: int = 900, script: bool = True) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                  mobile=width < 500)  # fmt: skip
        self.call("Emulation.setScriptExecutionDisabled", value=not script)
        self.call("Page.navigate", url=path.resolve().as_uri())
        self.call("Emulation.setScriptExecutionDisabled", value=not script)
        for _ in range(200):
            if self.script("document.readyState") == "complete":
                return
        raise AssertionError("the page does not load")

    def mouse(self, kind: str, x: float, y: float, button: str = "left") -> None:
        pressed = {"mousePressed": 1, "mouseReleased": 0}.get(kind, 0)
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, clickCount=1, buttons=pressed)

    def drag(self, places: list[tuple[float, float]]) -> None:
        self.mouse("mousePressed", *places[0])
        for x, y in places[1:]:
            self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y, button="left", buttons=1)
        self.mouse("mouseReleased", *places[-1])

    def shot(self, path: Path, whole: bool = True) -> None:
        answer = self.call("Page.captureScreenshot", captureBeyondViewport=whole, **({} if not whole else {"clip": {
            "x": 0, "y": 0, "scale": 1, "width": self.script("document.documentElement.clientWidth"),
            "height": self.script("document.documentElement.scrollHeight")}}))  # fmt: skip
        path.write_bytes(base64.b64decode(answer["data"]))


@contextmanager
def browser() -> Iterator[Page]:
    """A page of a browser that ends with the block."""
    import aiohttp

    name, loop = program(), asyncio.new_event_loop()
    assert name is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen([name, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
                                   stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)  # fmt: skip
        try:
            assert process.stderr is not None
            lines = iter(process.stderr.readline, "")
            port = next(m[1] for line in lines if (m := re.search(r"ws://127.0.0.1:(\d+)/", line)))

            async def connect() -> tuple[Any, Any]:
                session = aiohttp.ClientSession()
                async with session.get(f"http://127.0.0.1:{port}/json") as answer:
                    pages = [each for each in await answer.json() if each["type"] == "page"]
                return session, await session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0)

            session, socket = loop.run_until_complete(connect())
            page = Page(socket, loop)
            for domain in ("Page", "Runtime", "Log"):
                page.call(f"{domain}.enable")
            yield page
            loop.run_until_complete(socket.close())
            loop.run_until_complete(session.close())
        finally:
            process.terminate()
            process.wait(20)
            process.stderr.close() if process.stderr else None
            loop.close()
