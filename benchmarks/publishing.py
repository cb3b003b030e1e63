"""A release of fourteen targets goes to a bucket: real HTTP, Google's own client, a test server."""

from __future__ import annotations

import asyncio
import hashlib
import random
import secrets
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.machine import version_of
from benchmarks.measuring import Usage, in_turn
from benchmarks.report import OURS, Goal, Report, Row, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from benchmarks.options import Options
    from orchestrator.core.result import Artifact
    from orchestrator.core.signature import Signer
    from orchestrator.stores.channel import Channel
    from orchestrator.stores.gcs import GcsStore

_TARGETS: Final = 14
_BYTES: Final = 10_000_000
_QUICK_BYTES: Final = 200_000
_BUCKET: Final = "bucket"
_AT_ONCE: Final = f"{OURS}: all at once"
_IN_TURN: Final = f"{OURS}: one after the other"
_RAW: Final = "bare uploads, the archives alone"
_THREADS: Final = 14


def measure(options: Options) -> Report:
    """Publish the same artifacts in each way, each time below another prefix."""
    size = _QUICK_BYTES if options.is_quick else _BYTES
    with tempfile.TemporaryDirectory() as folder, _serving() as url:
        desk = _Desk(Path(folder), url, size)
        results = in_turn(
            {
                _AT_ONCE: desk.publish_at_once,
                _IN_TURN: desk.publish_in_turn,
                _RAW: desk.upload_archives,
            },
            runs=options.runs,
            warm_up=1,
        )
    table = Table(
        title=f"{_TARGETS} archives of {size / 1e6:g} MB",
        charted="seconds",
        rows=tuple(
            Row(
                tool=tool,
                samples={
                    "seconds": [usage.seconds for usage in usages],
                    "bytes_per_second": [_TARGETS * size / usage.seconds for usage in usages],
                    "cpu_seconds": [usage.cpu_seconds for usage in usages],
                },
            )
            for tool, usages in results.items()
        ),
    )
    times = {row.tool: row.middle("seconds") for row in table.rows}
    return Report(
        name="publishing",
        title="Publishing",
        about="To the test server of Google Cloud Storage, on the same machine. Ours signs, "
        "uploads archive, checksum and two signatures of each target, has the server confirm what "
        "it holds, and writes the index; the bare uploads are one request for each archive, "
        f"{_THREADS} at a time over connections that are kept. The CPU time is the client's.",
        tables=(table,),
        goals=(
            Goal(
                what="all at once, of the time of one after the other",
                value=times[_AT_ONCE] / times[_IN_TURN],
                limit=1,
            ),
        ),
        versions={
            package: version_of(package) for package in ("google-cloud-storage", "google-crc32c")
        },
        runs=options.runs,
    )


@contextmanager
def _serving() -> Iterator[str]:
    command = [sys.executable, "-m", "tests.gcs.server", _BUCKET]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None  # noqa: S101 -- a pipe
        try:
            yield server.stdout.readline().strip().partition("=")[2]
        finally:
            server.terminate()


@dataclass(slots=True)
class _Work:
    """Publishing once: where to, and as whom."""

    store: GcsStore
    channel: Channel
    signer: Signer

    async def put(self, *artifacts: Artifact) -> None:
        """Publish the artifacts at once, then announce them in the index."""
        from orchestrator.stores.channel import publish_index  # noqa: PLC0415 -- see below
        from orchestrator.stores.publish import publish_artifact  # noqa: PLC0415 -- see below

        rows = await asyncio.gather(
            *(
                publish_artifact(
                    self.store, artifact, channel=self.channel, signer=self.signer, flat=False
                )
                for artifact in artifacts
            )
        )
        today = date(2026, 11, 22)
        await publish_index(self.store, self.channel, rows, signer=self.signer, today=today)


class _Desk:
    """What is published, and the server."""

    def __init__(self, folder: Path, url: str, size: int) -> None:
        # Later than the names of this module: they are for whoever measures only this.
        from orchestrator import signing  # noqa: PLC0415
        from orchestrator.core.target import TARGETS  # noqa: PLC0415
        from orchestrator.stores.channel import Channel  # noqa: PLC0415

        self._url = url
        key = signing.generate_key(folder / "key", passphrase=None)
        self._signer = signing.load_signer(folder / "key", None)
        self._channel = Channel(
            project="demo",
            name="stable",
            keys=(key,),
            verify=signing.verify,
            lifetime=timedelta(days=90),
        )
        self._artifacts = [
            _artifact(folder / "staging", triple, size) for triple in tuple(TARGETS)[:_TARGETS]
        ]

    def publish_at_once(self) -> Usage:
        """Publish all targets at once."""
        return self._published(lambda work: work.put(*self._artifacts))

    def publish_in_turn(self) -> Usage:
        """Publish one target after the other, each with an index that has it."""

        async def publish(work: _Work) -> None:
            for artifact in self._artifacts:
                await work.put(artifact)

        return self._published(publish)

    def upload_archives(self) -> Usage:
        """Upload the archives alone."""
        import requests  # noqa: PLC0415

        prefix = secrets.token_hex(8)
        with ThreadPoolExecutor(_THREADS) as threads, requests.Session() as session:
            session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=_THREADS))

            def upload(artifact: Artifact) -> None:
                where = f"{self._url}/upload/storage/v1/b/{_BUCKET}/o?uploadType=multipart"
                parts = (
                    b"--x\r\ncontent-type: application/json\r\n\r\n"
                    + f'{{"name": "{prefix}/{artifact.target.triple}"}}'.encode()
                    + b"\r\n--x\r\ncontent-type: application/gzip\r\n\r\n"
                    + artifact.path.read_bytes()
                    + b"\r\n--x--\r\n"
                )
                kind = {"content-type": "multipart/related; boundary=x"}
                session.post(where, data=parts, headers=kind, timeout=60).raise_for_status()

            return _clocked(lambda: list(threads.map(upload, self._artifacts)))

    def _published(self, publish: Callable[[_Work], Coroutine[None, None, None]]) -> Usage:
        from orchestrator.stores.gcs import GcsStore  # noqa: PLC0415 -- see above
        from tests.gcs.server import Service, client_of  # noqa: PLC0415 -- see above

        service = Service(url=self._url)
        store = GcsStore(_BUCKET, secrets.token_hex(8), client=lambda: client_of(service))
        work = _Work(store, self._channel, self._signer)
        usage = _clocked(lambda: asyncio.run(publish(work)))
        names = asyncio.run(store.list(""))
        archives = [name for name in names if name.endswith(".tar.gz")]
        assert len(archives) == _TARGETS, names  # noqa: S101
        return usage


def _clocked(work: Callable[[], object]) -> Usage:
    begun, used = time.perf_counter(), time.process_time()
    work()
    return Usage(
        seconds=time.perf_counter() - begun,
        cpu_seconds=time.process_time() - used,
        peak_bytes=0,
        output=b"",
    )


def _artifact(folder: Path, triple: str, size: int) -> Artifact:
    """Return an artifact of that size whose bytes cannot be compressed."""
    from tests.fakes import make_artifact  # noqa: PLC0415 -- see above

    made = make_artifact(folder, triple, os_release="7.8" if "openbsd" in triple else None)
    data = random.Random(triple).randbytes(size)  # noqa: S311
    made.path.write_bytes(data)
    return replace(made, size_bytes=size, sha256=hashlib.sha256(data).hexdigest())
