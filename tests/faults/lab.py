"""A lab: one inventory with real nodes, whose coordinator is the real command line."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from orchestrator.signing import generate_key
from tests.faults import judge, processes
from tests.faults.build import build_script
from tests.faults.scenario import Findings
from tests.faults.trouble import Trouble
from tests.faults.wire import Wire
from tests.nodes import sshd
from tests.releases import VERSION, Desk, Outcome, host_target, other_target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.faults.stage import Stage
    from tests.faults.trouble import Kind
    from tests.nodes.sshd import Sshd
    from tests.releases import NodeEntry, Started

# Everything here takes seconds; whatever is still not over then never will be.
END_SECONDS: Final = 200
# The issue's own limit for what is left of a job.
GONE_SECONDS: Final = 15
CONNECT_SECONDS: Final = 5
_HUNG: Final = "ended by the suite: it did not come to its end"


@dataclass(slots=True, kw_only=True)
class Far:
    """A node behind a real sshd and a wire; the server may be replaced, the wire stays."""

    name: str
    folder: Path
    wire: Wire
    server: Sshd

    @property
    def home(self) -> Path:
        """The home directory that its logins have."""
        return self.folder / "home"

    @property
    def workdir(self) -> Path:
        """Where its jobs are."""
        return self.home / "work"


@dataclass(slots=True, kw_only=True)
class Lab:
    """What a scenario plays in; everything that it made is gone afterwards."""

    stage: Stage
    folder: Path
    random: random.Random
    stack: ExitStack
    desk: Desk
    findings: Findings = field(default_factory=Findings)
    # Faults that really happened, and builds that may be begun again because of them.
    faults: int = 0
    excused: Counter[str] = field(default_factory=Counter)
    # Builds that may come to an end and are none: what they delivered could not be taken.
    allowed_ends: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    nodes: dict[str, NodeEntry] = field(default_factory=dict)
    # A code that is at fault is what no scenario has, unless it says so.
    may_blame_the_build: bool = False
    last: Outcome | None = None
    fars: list[Far] = field(default_factory=list)
    is_judged: bool = False

    # --- nodes ---------------------------------------------------------------------------------

    def here(self, name: str = "here", **keys: Any) -> NodeEntry:
        """Add a node on this machine."""
        return self.node(name, **{"workdir": str(self.folder / f"{name}-work"), **keys})

    def far(self, name: str = "far", **keys: Any) -> Far:
        """Add a node behind sshd and a wire, for the other target of this machine."""
        folder = self.folder / name
        server = self.serve(folder)
        wire = self.stack.enter_context(self.stage.wires.wire(server.port))
        far = Far(name=name, folder=folder, wire=wire, server=server)
        self.fars.append(far)
        self.node(name, **{"target": other_target(), **_address(server, wire.port, far), **keys})
        return far

    def direct(self, server_address: str, address: str, name: str = "far", **keys: Any) -> Far:
        """Add a node that is reached at an address without a wire."""
        folder = self.folder / name
        server = self.serve(folder, f"ListenAddress {server_address}")
        # A wire that is never opened: nothing can be done to it.
        wire = Wire(backend=server.port, port=server.port)
        far = Far(name=name, folder=folder, wire=wire, server=server)
        where = _address(server, server.port, far)
        where["host"] = where["host"].replace("127.0.0.1", address)
        self.node(name, **{"target": other_target(), **where, **keys})
        return far

    def serve(self, folder: Path, *options: str) -> Sshd:
        """Start a server with a home and keys of its own, which stay the same below a folder."""
        home = folder / "home"
        home.mkdir(parents=True, exist_ok=True)
        environment = {"HOME": str(home), "PATH": "/usr/bin:/bin"}
        return self.stack.enter_context(
            sshd.running(folder / "sshd", environment=environment, options=options)
        )

    def node(self, name: str, **keys: Any) -> NodeEntry:
        """Add a node that is reached as its keys say."""
        keys = {"timeout": 240, "silence_timeout": 240, "connect_timeout": CONNECT_SECONDS, **keys}
        if "build_command" not in keys:
            keys["build_command"] = self.build(name, target=keys.get("target"))
        entry = self.desk.node(name, **keys)
        if "binary_path" not in keys:
            del entry["binary_path"]
        self.nodes[name] = entry
        return entry

    def build(self, name: str, *, target: str | None = None, **how: Any) -> str:
        """Return the usual build of a node; see `build_script`."""
        return build_script(self.desk, name, self.stage.program(target), **how)

    def let_go(self, word: str = "go") -> None:
        """Let the builds that hold for that word go on."""
        self.desk.let_go(word)

    def write(self, *, has_source: bool = True) -> None:
        """Write the inventory with the nodes that were added."""
        if has_source:
            self.desk.project["source"] = {"path": str(self.stage.source)}
        if not (self.desk.folder / "key").exists():
            generate_key(self.desk.folder / "key", passphrase=None)
        self.desk.write(*self.nodes.values())

    # --- coordinators --------------------------------------------------------------------------

    @contextmanager
    def releasing(self, *arguments: str, version: str = VERSION) -> Iterator[Started]:
        """Start the release; it is gone after the block."""
        with self.desk.started("release", "--version", version, *arguments) as started:
            yield started

    def end(self, started: Started, seconds: float = END_SECONDS) -> Outcome:
        """Wait for the end of a release with `--json`, and judge what it says."""
        try:
            out, err = started.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            started.process.kill()
            out, err = started.process.communicate()
            self.findings.gave_up.append(f"no end after {seconds:.0f} s: {err[-2000:]}")
            err += f"\n{_HUNG}"
        outcome = Outcome(code=started.process.returncode, out=out, err=err)
        self.last = outcome
        judge.judge_outcome(self, outcome)
        return outcome

    def release(self, *arguments: str, seconds: float = END_SECONDS) -> Outcome:
        """Release, and judge how it ended."""
        with self.releasing("--json", *arguments) as started:
            return self.end(started, seconds)

    def survive(self, outcome: Outcome) -> None:
        """Note a release that should have come to a good end in spite of what was done to it."""
        if outcome.code != 0:
            self.findings.gave_up.append(f"exit code {outcome.code}: {judge.excerpt(outcome)}")

    def expect(self, outcome: Outcome, *codes: int) -> None:
        """Note a release that ended with another code than it had to."""
        if outcome.code not in codes:
            said = judge.excerpt(outcome)
            self.findings.wrong_report.append(f"exit code {outcome.code}, not {codes}: {said}")

    def expect_named(self, outcome: Outcome, pattern: str) -> None:
        """Note a release that did not say what was the matter."""
        if not judge.says(outcome, pattern):
            said = judge.excerpt(outcome)
            self.findings.wrong_report.append(f"does not say /{pattern}/: {said}")

    def complete(self) -> None:
        """Repeat the same command, three times at most, and judge what is there in the end."""
        if self.is_judged:
            return
        self.is_judged = True
        for far in self.fars:
            self.stage.wires.run(far.wire.relieve())
        for repetition in range(3):
            if self.last is not None and self.last.code == 0:
                break
            outcome = self.release()
            if outcome.code != 0 and repetition == 0:
                self.findings.gave_up.append(f"not by one repetition: {judge.excerpt(outcome)}")
            if _HUNG in outcome.err:
                self.findings.lost.append("the same command does not come to an end")
                return
        else:
            if self.last is None or self.last.code != 0:
                said = judge.excerpt(self.last) if self.last else ""
                self.findings.lost.append(f"not complete after 3 repetitions: {said}")
                return
        judge.judge_end(self)

    # --- faults --------------------------------------------------------------------------------

    def arm(self, far: Far, trouble: Trouble) -> None:
        """Let a wire fail when it comes to that."""
        self.stage.wires.run(far.wire.arm(trouble))

    def fail_now(self, far: Far, kind: Kind, seconds: float = 0) -> None:
        """Let a wire fail at once."""
        self.arm(far, Trouble(kind=kind, seconds=seconds))

    def replace_server(self, far: Far) -> None:
        """Start the node's server again; the wire leads to the new one."""
        far.server = self.serve(far.folder)
        far.wire.backend = far.server.port

    def await_silence(self, far: Far) -> None:
        """Return when a build holds and its wire is still: all that was to say is said."""
        self.wait_for(lambda: self.has_begun(far.name), "the build begins")
        path = self.desk.dist / VERSION / far.name / "build.log"
        last = f"{far.name} line {judge.LOG_LINES} "
        self.wait_for(lambda: path.exists() and last in path.read_text(), "its last line")
        total = -1
        while total != far.wire.total:
            total = far.wire.total
            time.sleep(0.4)

    def wait_for(self, condition: Callable[[], object], what: str, seconds: float = 60) -> None:
        """Return when the condition holds; raise AssertionError when it never does."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"did not happen: {what}"
            time.sleep(0.01)

    def has_begun(self, *names: str) -> bool:
        """Whether each of the builds has begun."""
        return all(self.desk.builds(name) for name in names)

    def has_ended(self, name: str) -> bool:
        """Whether the node's job has come to its end."""
        return (self.job_of(name) / "exit").exists()

    def job_of(self, name: str) -> Path:
        """Return the folder of a node's job."""
        (folder,) = judge.workdir(self, name).glob("jobs/*")
        return folder

    @property
    def remains(self) -> list[processes.Process]:
        """The processes of jobs that are there."""
        return processes.of_jobs(self.folder)


def _address(server: Sshd, port: int, far: Far) -> dict[str, Any]:
    return {
        "host": server.host,
        "port": port,
        "host_key": server.host_key,
        "identity": str(server.identity),
        "workdir": str(far.workdir),
    }


@contextmanager
def lab(stage: Stage, name: str, seed: str) -> Iterator[Lab]:
    """Yield a lab; its processes are ended with it, and its folder goes if all was well."""
    folder = stage.folder / "labs" / name
    desk = Desk(folder=folder / "desk", programs=stage.programs)
    desk.environment |= stage.environment | {"HOME": str(folder / "home")}
    (folder / "home").mkdir()
    with ExitStack() as stack:
        made = Lab(stage=stage, folder=folder, random=random.Random(seed), stack=stack, desk=desk)
        try:
            yield made
        finally:
            desk.let_go()
            for process in processes.find(folder):
                if process.is_of_a_job:
                    processes.kill(process.pid)
    if not made.findings and not os.environ.get("KEEP_LABS"):
        shutil.rmtree(folder, ignore_errors=True)


__all__ = ["CONNECT_SECONDS", "END_SECONDS", "GONE_SECONDS", "Far", "Lab", "host_target", "lab"]
