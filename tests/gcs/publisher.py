"""Publishers to be raced and killed: one process for each, forked here, where all is imported.

`python -m tests.gcs.publisher FOLDER` takes orders, one line of JSON each. It must have no threads.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import traceback
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

# Here, once, for all that are forked.
import google_crc32c  # noqa: F401

from orchestrator import signing
from orchestrator.stores import gcs_calls
from orchestrator.stores.channel import Channel, publish_index
from orchestrator.stores.gcs import GcsStore
from orchestrator.stores.pointers import Pointer, publish_pointers
from orchestrator.stores.publish import publish_artifact
from orchestrator.stores.store import ObjectKind
from tests.fakes import make_artifact

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.core.signature import PublicKey, Signer

ROOT: Final = Path(__file__).parents[2]
TODAY: Final = date(2026, 11, 22)
PROJECT: Final = "demo"


def channel_of(key: PublicKey) -> Channel:
    """Return the channel that all publish on, with real signatures."""
    return Channel(
        project=PROJECT,
        name="stable",
        keys=(key,),
        verify=signing.verify,
        lifetime=timedelta(days=90),
    )


async def publish(
    store: GcsStore, folder: Path, signer: Signer, *, version: str, triple: str, seed: int
) -> None:
    """Publish one target of a version as a release does: files, index, what follows from it."""
    await asyncio.sleep(random.Random(seed).uniform(0, 0.05))
    channel = channel_of(signer.public)
    release = "7.8" if "openbsd" in triple else None
    artifact = make_artifact(folder / "staging", triple, version, os_release=release)
    row = await publish_artifact(store, artifact, channel=channel, signer=signer, flat=False)
    index = await publish_index(store, channel, [row], signer=signer, today=TODAY)
    script = Pointer("install.sh", f"serial {index.serial}\n".encode(), ObjectKind.SCRIPT)
    await publish_pointers(store, channel, (script,), serial=index.serial)


def main() -> None:
    """Fork a publisher for each order, let it go, and say how it ended."""
    folder = Path(sys.argv[1])
    # A second is for the internet.
    signer = signing.load_signer(folder / "key", None)
    vars(gcs_calls).update(_FIRST_PAUSE_SECONDS=0.01, _LONGEST_PAUSE_SECONDS=0.1)
    gates: dict[int, int] = {}
    for line in sys.stdin:
        order = json.loads(line)
        match order.pop("do"):
            case "fork":
                pid, gates[pid] = _fork(folder, signer, **order)
                _say(pid)
            case "go":
                os.write(gates[order["pid"]], b"g")
                _say(0)
            case _:
                _say(os.waitstatus_to_exitcode(os.waitpid(order["pid"], 0)[1]))


def _fork(folder: Path, signer: Signer, *, bucket: str, **what: Any) -> tuple[int, int]:
    waiting, gate = os.pipe()
    pid = os.fork()
    if pid:
        os.close(waiting)
        return pid, gate
    os.read(waiting, 1)
    try:
        asyncio.run(publish(GcsStore.at(bucket), folder, signer, **what))
    except BaseException:  # noqa: BLE001 -- whatever it is, the parent must not go on twice
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _say(number: int) -> None:
    print(number, flush=True)  # noqa: T201 -- a program


@dataclass(frozen=True, slots=True)
class Publishers:
    """The program, from its other side."""

    process: subprocess.Popen[str]

    @staticmethod
    @contextmanager
    def at_work(folder: Path, url: str) -> Iterator[Publishers]:
        """Yield the program; its publishers find the service at the URL."""
        with subprocess.Popen(
            [sys.executable, "-m", "tests.gcs.publisher", str(folder)],
            cwd=ROOT,
            env=os.environ | {"STORAGE_EMULATOR_HOST": url},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield Publishers(process)
            finally:
                process.kill()

    def fork(self, **what: Any) -> int:
        """Return the process id of a publisher that waits to be let go."""
        return self._order(do="fork", **what)

    def go(self, pid: int) -> None:
        self._order(do="go", pid=pid)

    def end(self, pid: int) -> int:
        """Wait for its end and return its exit status, negative for a signal."""
        return self._order(do="wait", pid=pid)

    def run(self, **what: Any) -> int:
        """Let one publish, alone."""
        pid = self.fork(**what)
        self.go(pid)
        return self.end(pid)

    def _order(self, **order: Any) -> int:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


if __name__ == "__main__":
    main()
