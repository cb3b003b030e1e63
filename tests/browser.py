"""Headless Chromium, driven over its DevTools protocol: pages as a person has them."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import aiohttp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PATIENCE_SECONDS: Final = 30.0
_OPTIONS: Final = (
    "--headless=new",
    "--remote-debugging-port=0",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-proxy-server",
    "--force-color-profile=srgb",
    "--hide-scrollbars",
)
# What the protocol says of a question whose page is left meanwhile.
_NAVIGATED: Final = ("navigated or closed", "context was destroyed", "Cannot find context")


class Browser:
    """A running Chromium; each page is a tab of its own."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._pages: dict[str, Page] = {}
        self._reader = asyncio.create_task(self._read())

    async def call(self, method: str, session: str | None = None, **values: Any) -> dict[str, Any]:
        """Return what a method of the protocol answers."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": values}
        if session:
            message["sessionId"] = session
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[self._number] = answer
        await self._socket.send_str(json.dumps(message))
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await answer

    async def page(
        self,
        *,
        width: int = 1280,
        height: int = 900,
        is_dark: bool = False,
        has_script: bool = True,
    ) -> Page:
        """Return a new tab of that size, with or without JavaScript."""
        target = await self.call("Target.createTarget", url="about:blank")
        attached = await self.call(
            "Target.attachToTarget", targetId=target["targetId"], flatten=True
        )
        page = Page(self, attached["sessionId"])
        self._pages[page.session] = page
        for domain in ("Page", "Runtime", "Log", "Network"):
            await page.call(f"{domain}.enable")
        await page.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = "dark" if is_dark else "light"
        await page.call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )
        if not has_script:
            await page.call("Emulation.setScriptExecutionDisabled", value=True)
        return page

    async def stop(self) -> None:
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)

    async def _read(self) -> None:
        async for message in self._socket:
            told = json.loads(message.data)
            if "id" in told:
                answer = self._answers.pop(told["id"])
                if answer.cancelled():
                    continue
                if "error" in told:
                    answer.set_exception(RuntimeError(told["error"]["message"]))
                else:
                    answer.set_result(told["result"])
            elif page := self._pages.get(told.get("sessionId", "")):
                page.note(told["method"], told["params"])


class Page:
    """One tab; `complaints` has what its console and the protocol said was wrong."""

    def __init__(self, browser: Browser, session: str) -> None:
        self.session = session
        self.complaints: list[str] = []
        self._browser = browser
        self._news = asyncio.Event()

    async def call(self, method: str, **values: Any) -> dict[str, Any]:
        return await self._browser.call(method, self.session, **values)

    def note(self, method: str, told: dict[str, Any]) -> None:
        if method == "Page.loadEventFired":
            self._news.set()
        if method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(told["exceptionDetails"]))
        if method == "Runtime.consoleAPICalled" and told["type"] in {"error", "warning", "assert"}:
            self.complaints.append(json.dumps(told["args"]))
        if method == "Log.entryAdded" and told["entry"]["level"] in {"error", "warning"}:
            self.complaints.append(f"{told['entry']['text']} ({told['entry'].get('url')})")

    async def open(self, url: str) -> None:
        """Go there, and wait until it is loaded."""
        self._news.clear()
        await self.call("Page.navigate", url=url)
        await self.loaded()

    async def loaded(self) -> None:
        """Wait for the next load to end."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._news.wait()
        self._news.clear()

    async def run(self, script: str) -> Any:
        """Return the value of an expression in the page."""
        answer = await self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(json.dumps(answer["exceptionDetails"]))
        return answer["result"].get("value")

    async def wait_for(self, condition: str) -> Any:
        """Return the value of an expression as soon as it is true, on this page or on the next."""
        script = (
            "new Promise((done, failed) => { const look = () => { const value = ("
            + condition
            + ");"
            "if (value) done(value); else if (Date.now() > end) failed(new Error('never true'));"
            f"else setTimeout(look, 10); }}; const end = Date.now() + {PATIENCE_SECONDS * 900:.0f};"
            "look(); })"
        )
        while True:
            try:
                return await self.run(script)
            except RuntimeError as error:
                if not any(word in str(error) for word in _NAVIGATED):
                    raise

    async def press(self, key: str, code: int = 0, text: str = "") -> None:
        """Press a key and let it go."""
        values = {"key": key, "code": key, "windowsVirtualKeyCode": code, "text": text}
        await self.call("Input.dispatchKeyEvent", type="keyDown", **values)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **values)

    async def write(self, text: str) -> None:
        """Type into whatever has the focus."""
        await self.call("Input.insertText", text=text)

    async def picture(self, path: Path) -> None:
        """Keep a picture of all of the page."""
        size = (await self.call("Page.getLayoutMetrics"))["cssContentSize"]
        shot = await self.call(
            "Page.captureScreenshot",
            captureBeyondViewport=True,
            clip={"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1},
        )
        path.write_bytes(base64.b64decode(shot["data"]))


@asynccontextmanager
async def chromium(folder: Path) -> AsyncIterator[Browser]:
    """Yield a Chromium whose profile is in the folder."""
    process = await asyncio.create_subprocess_exec(
        "chromium",
        *_OPTIONS,
        f"--user-data-dir={folder}",
        "about:blank",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stderr is not None
    drain: asyncio.Task[bytes] | None = None
    try:
        address = await _address(process.stderr)
        drain = asyncio.create_task(process.stderr.read())
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(address, max_msg_size=0) as socket,
        ):
            browser = Browser(socket)
            try:
                yield browser
                await browser.call("Browser.close")
            finally:
                await browser.stop()
    finally:
        # It has children, which are in its group.
        try:
            async with asyncio.timeout(5):
                await process.wait()
        except TimeoutError:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        if drain is not None:
            await drain


async def _address(stream: asyncio.StreamReader) -> str:
    said = b""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while line := await stream.readline():
            said += line
            if line.startswith(b"DevTools listening on "):
                return line.split()[-1].decode()
    raise RuntimeError(f"Chromium did not start: {said.decode(errors='replace')}")
