"""Run git and cargo: argument lists, a clean environment, a deadline, capped output."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import threading
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final, TypeVar

from orchestrator.core.errors import ConfigError, NodeError
from orchestrator.core.wording import human_size, redacted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import timedelta
    from pathlib import Path

T = TypeVar("T")

MAX_OUTPUT_BYTES: Final = 64 << 20
_TAIL_BYTES: Final = 64 << 10
_TAIL_LINES: Final = 14

# What git and cargo need to reach the network as this user does; RUSTFLAGS, GIT_DIR, LD_PRELOAD and
# the like would change what is fetched, so everything else stays out.
_INHERITED: Final = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "XDG_CONFIG_HOME", "SSH_AUTH_SOCK"),
        *("CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE", "NIX_SSL_CERT_FILE"),
        *("GIT_SSL_CAINFO", "GIT_SSL_CAPATH"),
        *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    }
)
_INHERITED_PREFIXES: Final = (
    "CARGO_HTTP_",
    "CARGO_NET_",
    "CARGO_REGISTRIES_",
    "CARGO_REGISTRY_",
    "CARGO_SOURCE_",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A program that ended: its status, its output, and the printable end of what it said."""

    status: int
    output: bytes
    said: str

    @property
    def is_ok(self) -> bool:
        """Whether it exited with 0."""
        return self.status == 0

    @property
    def tail(self) -> str:
        """The last lines of what it said."""
        return "\n".join(self.said.strip().splitlines()[-_TAIL_LINES:])


class Stopped(Exception):  # noqa: N818 -- not an error: the task that waited is gone
    """Work in a thread ended early, because its task was cancelled."""


async def run(
    argv: Sequence[str],
    *,
    cwd: Path,
    deadline: timedelta,
    environment: Mapping[str, str] | None = None,
    stdin: Path | None = None,
    stdout: Path | None = None,
) -> Finished:
    """Return how the program ended; a non-zero status is a result, not an error.

    It has no terminal, so nothing can ask for a password. Past the deadline, or when this task is
    cancelled, its whole process group is killed; a passed deadline raises NodeError.
    """
    env = clean_environment(os.environ) | dict(environment or {})
    if shutil.which(argv[0], path=env.get("PATH")) is None:
        raise ConfigError(f"`{argv[0]}` is not on PATH", hint=f"install {argv[0]}")
    with contextlib.ExitStack() as files:
        process = await asyncio.create_subprocess_exec(
            *argv,
            cwd=cwd,
            env=env,
            stdin=_opened(files, stdin, "rb"),
            stdout=_opened(files, stdout, "xb") if stdout else asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(deadline.total_seconds()):
                output, said, status = await asyncio.gather(
                    _read_all(process),
                    _read_tail(process.stderr),
                    process.wait(),
                )
        except TimeoutError:
            message = f"`{argv[0]}` did not finish in {deadline.total_seconds():.0f} s"
            raise NodeError(message, hint="is the network slow or gone? try again") from None
        finally:
            await _end(process)
    if len(output) > MAX_OUTPUT_BYTES:
        raise ConfigError(f"`{argv[0]}` printed more than {human_size(MAX_OUTPUT_BYTES)}")
    return Finished(status=status, output=output, said=printable(said))


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the allowed part of an environment, in English and UTF-8-agnostic."""
    allowed = {
        name: value
        for name, value in environ.items()
        if name in _INHERITED or name.startswith(_INHERITED_PREFIXES)
    }
    return {**allowed, "LANG": "C", "LC_ALL": "C"}


def printable(said: bytes) -> str:
    """Return text that is safe on a terminal and holds no password of a URL."""
    text = "".join(
        char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}"
        for char in said.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    )
    return redacted(text)


async def off_loop(work: Callable[[threading.Event], T]) -> T:
    """Return what the work returns, from a thread; if cancelled, set its event and wait for it.

    The work calls `keep_going` in its loop: a thread cannot be killed, and one that goes on would
    keep the interpreter from exiting.
    """
    stop = threading.Event()
    thread = asyncio.ensure_future(asyncio.to_thread(work, stop))
    try:
        return await asyncio.shield(thread)
    finally:
        stop.set()
        await asyncio.gather(thread, return_exceptions=True)


def keep_going(stop: threading.Event) -> None:
    """Raise Stopped once nobody wants the work's result any more."""
    if stop.is_set():
        raise Stopped


def _opened(files: contextlib.ExitStack, path: Path | None, mode: str) -> IO[bytes] | int:
    if path is None:
        return asyncio.subprocess.DEVNULL
    stream: IO[bytes] = files.enter_context(path.open(mode))
    return stream


async def _read_all(process: asyncio.subprocess.Process) -> bytes:
    data = bytearray()
    while process.stdout is not None and (chunk := await process.stdout.read(1 << 16)):
        if len(data) > MAX_OUTPUT_BYTES:
            _kill_group(process)
        else:
            data += chunk
    return bytes(data)


async def _read_tail(stream: asyncio.StreamReader | None) -> bytes:
    data = bytearray()
    while stream is not None and (chunk := await stream.read(1 << 16)):
        data += chunk
        del data[:-_TAIL_BYTES]
    return bytes(data)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        _kill_group(process)
        # Reads what is left in the pipes: asyncio reports no end before they are empty. Something
        # that left the group may hold them open for ever, so this wait has an end too.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.communicate(), timeout=5)


def _kill_group(process: asyncio.subprocess.Process) -> None:
    # The session leader's pid is its group's id, and nothing else's while it is not reaped.
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
