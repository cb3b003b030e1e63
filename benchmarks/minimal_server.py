"""A fleet of nodes that run nothing, for sizes that sshd cannot have on one machine."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.fleet import describe_fleet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.fleet import Fleet

_ROOT = Path(__file__).parent.parent


@contextmanager
def serving(
    folder: Path, count: int, *, port: int, seconds: float = 0, recording: Path | None = None
) -> Iterator[Fleet]:
    """Serve such a fleet until the end of the block; a session answers after the seconds.

    With a recording, it is answered as it was there, and it is a job that takes the seconds, up to
    half of them more or less.

    It is a process of its own, also so that it adds nothing to the size of this one, which is the
    least that can be measured of a program.
    """
    fleet = describe_fleet(folder, count, port=port)
    words = [str(folder), str(count), str(port), "--seconds", str(seconds)]
    words += ["--recording", str(recording)] if recording else []
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.drivers.minimal_server", *words],
        cwd=_ROOT,
        stdout=subprocess.PIPE,
    ) as server:
        try:
            assert server.stdout is not None  # noqa: S101 -- for mypy: it is a pipe
            if server.stdout.readline() != b"ready\n":
                raise OSError(f"nobody serves at port {port}: is it in use?")
            yield fleet
        finally:
            server.terminate()
