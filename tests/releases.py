"""An operator's desk for tests: an inventory, real nodes, a store, and the command line."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from examples.loopback_node import LoopbackNode
from orchestrator.cli import main

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Coroutine, Iterator, Mapping
    from typing import TypeVar

    Value = TypeVar("Value")
    NodeEntry = dict[str, Any]

ROOT: Final = Path(__file__).parent.parent
VERSION: Final = "1.0.0"
URL: Final = "https://example.org/tool"
# What a test waits for takes milliseconds; a machine that is busy with other tests needs longer.
PATIENCE_SECONDS: Final = 30

_SOURCE: Final = """\
fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("--version") => println!("tool {}", env!("TOOL_VERSION")),
        Some(word) => println!("{}", word.to_uppercase()),
        None => std::process::exit(64),
    }
}
"""


@cache
def host_target() -> str:
    """Return the triple of this machine, as rustc names it."""
    answer = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout
    return next(line.split()[1] for line in answer.splitlines() if line.startswith("host:"))


@cache
def other_target() -> str:
    """Return the target that this machine runs too: a static binary serves the other libc."""
    triple = host_target()
    return triple.replace("-gnu", "-musl") if "-gnu" in triple else triple.replace("-musl", "-gnu")


needs_two_targets: Final = pytest.mark.skipif(
    not sys.platform.startswith("linux"),
    reason="needs Linux, whose static binaries fit two targets",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """A program that prints its version, compiled once for all tests."""

    folder: Path

    def program(self, version: str = VERSION, target: str | None = None) -> Path:
        """Return a binary of that version, for one of the two targets of this machine."""
        is_static = target == other_target()
        path = self.folder / f"tool-{version}{'-static' * is_static}"
        if not path.exists():
            # Another worker may be at it too, and rustc leaves its own files beside what it makes.
            own = self.folder / str(os.getpid())
            own.mkdir(exist_ok=True)
            (own / "tool.rs").write_text(_SOURCE)
            flags = ["-C", "target-feature=+crt-static"] if is_static else []
            subprocess.run(
                ["rustc", "--crate-name=tool", "-C", "strip=symbols", *flags, "tool.rs"],
                check=True,
                cwd=own,
                env=os.environ | {"TOOL_VERSION": version},
            )
            (own / "tool").replace(path)
        return path


class SshNode:
    """A loopback SSH node that is served by a thread of this process."""

    def __init__(self, folder: Path, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self._run = run
        self._node = LoopbackNode(folder, folder / "home", os.environ["PATH"])
        self.start()

    def start(self) -> None:
        self._run(self._node.listen())

    def stop(self) -> None:
        self._run(self._node.stop())

    @property
    def entry(self) -> NodeEntry:
        """The part of an inventory entry that says how to reach it."""
        said = self._node.description()
        return {key: said[key] for key in ("host", "port", "host_key", "identity")}


@contextmanager
def serving_loop() -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    """Yield what runs a coroutine to its end on the loop of another thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield lambda work: asyncio.run_coroutine_threadsafe(work, loop).result(PATIENCE_SECONDS)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """What it printed with --json."""
        return json.loads(self.out)

    @property
    def results(self) -> dict[str, Any]:
        """The result of each node, by its name."""
        return {result["node"]: result for result in self.data["results"]}


@dataclass(slots=True, kw_only=True)
class Desk:
    """A folder with an inventory, and what its release command does there."""

    folder: Path
    programs: Programs
    # Without it, commands run in processes of their own.
    capsys: pytest.CaptureFixture[str] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    project: dict[str, Any] = field(default_factory=dict)
    publication: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def inventory(self) -> Path:
        return self.folder / "build-nodes.yaml"

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def dist(self) -> Path:
        return self.folder / "dist"

    def node(self, name: str = "here", *, build: str | None = None, **keys: Any) -> NodeEntry:
        """Return a local node; `build` replaces the copying of the finished program."""
        return {
            "name": name,
            "host": "local",
            "target": host_target(),
            "workdir": str(self.folder / f"{name}-work"),
            "timeout": 60,
            "binary_path": f"{self.folder}/{name}-out/tool",
            "build_command": f"{self.count(name)}out={self.folder}/{name}-out\nmkdir -p $out\n"
            + (build or self.copy(target=keys.get("target"))),
            **keys,
        }

    def count(self, name: str) -> str:
        """Return the line that leaves a mark for each time a build begins."""
        return f"echo {{version}} >>{self.folder}/built-{name}\n"

    def copy(self, version: str = VERSION, *, target: str | None = None) -> str:
        """Return the line that delivers the program of that version."""
        return f"cp {self.programs.program(version, target)} $out/tool\n"

    def wait_then_copy(self, *, target: str | None = None) -> str:
        """Return a build that goes on once `let_go` was called."""
        wait = f"while [ ! -e {self.folder / 'go'} ]; do sleep 0.05; done\n"
        return wait + self.copy(target=target)

    def let_go(self, file: str = "go") -> None:
        (self.folder / file).touch()

    def builds(self, name: str) -> list[str]:
        """Return the versions that a node began to build, in order."""
        path = self.folder / f"built-{name}"
        return path.read_text().split() if path.exists() else []

    def write(self, *nodes: NodeEntry) -> None:
        """Write the inventory, in the part of YAML that is JSON, and make its key."""
        data = {
            "project": {"name": "tool", "binaries": ["tool"], **self.project},
            "publication": {
                "store": str(self.store),
                "url": URL,
                "signing": {"key": str(self.folder / "key")},
                **self.publication,
            },
            "nodes": list(nodes),
        }
        self.inventory.write_text(json.dumps(data, indent=1))
        if not (self.folder / "key").exists():
            made = self.run("keygen")
            assert made.code == 0, made.err

    def run(self, command: str, *arguments: str) -> Outcome:
        """Run a command in this process, or, if nobody captures what it prints, in its own."""
        if self.capsys is None:
            with self.started(command, *arguments) as started:
                return started.end()
        self.capsys.readouterr()
        code = main([command, "--inventory", str(self.inventory), *arguments])
        said = self.capsys.readouterr()
        return Outcome(code=code, out=said.out, err=said.err)

    def release(self, *arguments: str, version: str = VERSION) -> Outcome:
        """Release, and return the outcome with its report as data."""
        return self.run("release", "--version", version, "--json", *arguments)

    @contextmanager
    def started(self, command: str, *arguments: str) -> Iterator[Started]:
        """Run a command in a process of its own; it is gone at the end of the block."""
        argv = [sys.executable, "-m", "orchestrator", command, "--inventory", str(self.inventory)]
        with subprocess.Popen(
            [*argv, *arguments],
            cwd=ROOT,
            env=os.environ | self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield Started(process=process)
            finally:
                process.kill()

    def objects(self) -> set[str]:
        """Return the names of what is published."""
        files = (path for path in self.store.rglob("*") if path.is_file())
        names = {str(path.relative_to(self.store)) for path in files}
        return {name for name in names if not name.rpartition("/")[2].startswith(".")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A command that runs in a process of its own."""

    process: subprocess.Popen[str]

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def end(self) -> Outcome:
        """Wait for its end."""
        out, err = self.process.communicate(timeout=PATIENCE_SECONDS)
        return Outcome(code=self.process.returncode, out=out, err=err)


def wait_for(condition: Callable[[], object]) -> None:
    """Return when the condition holds; fail when it never does."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "what the test waits for did not happen"
        time.sleep(0.02)


def contents(folder: Path) -> Mapping[str, bytes | None]:
    """Return every file below a folder with its bytes, and every folder with None."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def at_once(*calls: Callable[[], Value]) -> list[Value]:
    """Return what the calls return, each from a thread of its own."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]
