"""The real service in a process of its own, and GitHub, which tells it of releases."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import psycopg

from tests.github_server import REPOSITORY, TOKEN
from tests.releases import PATIENCE_SECONDS, ROOT, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.github_server import FakeGitHub
    from tests.releases import Desk, NodeEntry

SECRET: Final = "a-secret-that-only-the-test-knows"


def payload(
    tag: str = "v1.0.0", *, action: str = "published", repository: str = REPOSITORY, **more: Any
) -> bytes:
    """Return the body of a delivery about a release, as far as it is read."""
    page = f"https://github.com/{repository}/releases/tag/{tag}"
    release = {"id": 1, "tag_name": tag, "draft": False, "prerelease": False, "html_url": page}
    data = {
        "action": action,
        "release": {**release, **more},
        "repository": {"id": 1296269, "full_name": repository},
    }
    return json.dumps(data).encode()


def signed(body: bytes, secret: str = SECRET, event: str = "release") -> dict[str, str]:
    """Return the headers that GitHub sends along."""
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {
        "Content-Type": "application/json",
        "X-Hub-Signature-256": f"sha256={digest}",
        "X-GitHub-Event": event,
        "X-GitHub-Delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
        "User-Agent": "GitHub-Hookshot/044aadd",
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A service that answers at a URL."""

    url: str
    process: subprocess.Popen[bytes]

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        request = urllib.request.Request(f"{self.url}{path}", data=body, headers=dict(headers))
        return _answer(request)

    def get(self, path: str, **headers: str) -> tuple[int, bytes]:
        return _answer(urllib.request.Request(f"{self.url}{path}", headers=headers))

    def deliver(self, tag: str = "v1.0.0", **more: Any) -> int:
        """Deliver a release, signed, and return the status of the answer."""
        body = payload(tag, **more)
        return self.post("/webhook", body, signed(body))[0]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def _answer(request: urllib.request.Request) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


@dataclass(slots=True, kw_only=True)
class Works:
    """A desk whose inventory has a service."""

    desk: Desk
    github: FakeGitHub
    settings: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    # 0: a free one each time it starts.
    port: int = 0

    def write(self, *nodes: NodeEntry) -> None:
        self.desk.write(*nodes)
        data = json.loads(self.desk.inventory.read_text())
        data["service"] = {"repository": REPOSITORY, **self.settings}
        self.desk.inventory.write_text(json.dumps(data, indent=1))

    @contextmanager
    def running(self) -> Iterator[Service]:
        """Yield the service; it is gone at the end of the block, with a code of 0 if it lives."""
        with self.started() as service:
            yield service
            if service.process.poll() is None:
                service.process.send_signal(signal.SIGTERM)
                assert service.process.wait(PATIENCE_SECONDS) == 0

    @contextmanager
    def started(self, *, is_awaited: bool = True) -> Iterator[Service]:
        """Yield the service, and end it without a word; not awaited, it has no URL yet."""
        inventory = str(self.desk.inventory)
        command = [sys.executable, "-m", "orchestrator", "serve", "--inventory", inventory]
        with (
            (self.desk.folder / "service.log").open("ab") as log,
            subprocess.Popen(
                [*command, "--port", str(self.port)],
                cwd=ROOT,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            ) as process,
        ):
            assert process.stdout is not None
            try:
                line = process.stdout.readline().decode() if is_awaited else "nowhere"
                assert line, self.log
                yield Service(url=line.split()[-1], process=process)
            finally:
                process.kill()

    def take_port(self) -> str:
        """Take a port for all starts, and return the URL that the service has there."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.desk.folder / "service.log").read_text()

    @property
    def environ(self) -> dict[str, str]:
        """Return the environment of the service."""
        return os.environ | {
            "ORCHESTRATOR_WEBHOOK_SECRET": SECRET,
            "GITHUB_TOKEN": TOKEN,
            "GITHUB_API_URL": self.github.url,
            "COLUMNS": "200",
            **self.environment,
        }

    def orders(self) -> dict[str, tuple[str, str]]:
        """Return the status and the coordinator of each order, as the database has them."""
        query = "SELECT workflow_uuid, status, executor_id FROM {}workflow_status"
        if url := self.environment.get("ORCHESTRATOR_DATABASE"):
            with psycopg.connect(url) as connection:
                rows = connection.execute(query.format("orchestrator_tool.")).fetchall()
        else:
            with closing(sqlite3.connect(self.desk.dist / "service/queue.sqlite")) as file:
                rows = file.execute(query.format("")).fetchall()
        return {key: (status, owner) for key, status, owner in rows}

    def is_published(self, version: str = "1.0.0", channel: str = "stable") -> bool:
        path = self.desk.store / f"{channel}.idx"
        return path.exists() and f"\t{version}\tok\t" in path.read_text()

    def wait_until_published(self, version: str = "1.0.0") -> None:
        wait_for(lambda: self.is_published(version))
