"""Start a job on a node or attach to it, ask how it stands, cancel it.

The node's side is job.sh. What is known about a job is read from its folder there; nothing of it
is kept here.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import secrets
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from importlib import resources
from typing import TYPE_CHECKING, Final

from orchestrator.core.diagnosis import Strain
from orchestrator.core.errors import ConfigError, NodeError, PassingError
from orchestrator.core.record import Warmth
from orchestrator.nodes.script import clean_environment, exports, here_document, quoted
from orchestrator.nodes.transport import run

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.nodes.probe import NodeFacts
    from orchestrator.nodes.transport import Completed, Transport

_COMMENT: Final = re.compile(r"^[ \t]*#(?!!).*\n", re.MULTILINE)
# Without its comments: it is sent with every request, and some links are slow.
JOB_SH: Final = _COMMENT.sub(
    "", resources.files(__package__).joinpath("job.sh").read_text(encoding="ascii")
)

# A request is one round trip and little work; a node under full load may still take its time.
REQUEST_TIMEOUT: Final = timedelta(seconds=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """What a node has to run, and what must be there afterwards.

    `command` runs in an empty folder, line by line until one fails (`sh -e`). `binaries` pairs a
    name with the path where the command leaves it: absolute, or relative to that folder; None
    when the command puts it into $ORCHESTRATOR_OUT under its name. `extras` are more files, and a
    name that the command puts there goes before the file at the path. At most
    `slots` jobs with the same `lock` run at once on the host. `source` is an unpacked bundle on
    the node, kept out of the binary; `target_dir` is the folder that cargo keeps between builds.
    Whoever takes longer than `timeout` or writes more than `log_limit_bytes` is ended. `label` is
    the project, version, target and node, for people who look at the node's jobs.
    """

    id: str
    command: str
    binaries: tuple[tuple[str, str | None], ...]
    extras: tuple[tuple[str, str], ...] = ()
    lock: str
    timeout: timedelta
    log_limit_bytes: int = 500_000_000
    env: tuple[tuple[str, str], ...] = ()
    slots: int = 1
    source: str | None = None
    target_dir: str | None = None
    label: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One attempt of a job on its node, and whether it was there before."""

    id: str
    workdir: str
    attempt: int
    was_attached: bool

    @property
    def directory(self) -> str:
        """Its folder on the node."""
        return f"{self.workdir}/jobs/{self.id}"


class StopReason(StrEnum):
    """Why a job ended that did not come to an end of its own."""

    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    REBOOT = "reboot"
    KILLED = "killed"
    UNABLE = "unable"
    FLOODED = "flooded"


@dataclass(frozen=True, slots=True, kw_only=True)
class NeverStarted:
    """The node knows nothing of the job, or only that somebody meant to start it."""

    evidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """It waits for another job on its host."""

    attempt: int
    evidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """Its command runs; `ran` tells for how long, by a clock of the node that nobody sets."""

    attempt: int
    evidence: str
    # Not compared: the state stays the same while time goes by.
    ran: timedelta | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The command came to its end; with status 0 its binaries are there to be collected.

    `strain` is what the node was short of then. `took` is how long the command ran, by a clock of
    the node that nobody sets, and `warmth` whether its target folder held an earlier build: None
    where the node does not say.
    """

    attempt: int
    exit_status: int
    evidence: str
    strain: Strain = field(default=Strain(), compare=False)
    took: timedelta | None = field(default=None, compare=False)
    warmth: Warmth | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """Something else ended it; `survivors` are processes of it that are still there."""

    attempt: int
    reason: StopReason
    evidence: str
    survivors: tuple[int, ...] = ()


JobEnd = Finished | Stopped
JobState = NeverStarted | Queued | Running | JobEnd


def job_id(
    *,
    project: str,
    version: str,
    target: str,
    command: str,
    source_digest: str | None,
    env: tuple[tuple[str, str], ...],
) -> str:
    """Return 32 hexadecimal digits: the same for the same job, on any coordinator."""
    parts = [project, version, target, command, source_digest, sorted(env)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


async def start_job(
    transport: Transport,
    facts: NodeFacts,
    spec: JobSpec,
    *,
    rebuild: bool = False,
    request: str | None = None,
) -> Job:
    """Start the job detached, or attach to the one that runs or has succeeded.

    After a failure or a kill, and with `rebuild` after a success, it is a new attempt. Of several
    coordinators at once one starts it and the others attach. Whoever was not answered, and asks
    again with the same `request`, a word of their own, gets the attempt that was made for them.
    """
    request = request or secrets.token_hex(16)
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT.total_seconds()):
            process = await transport.open(
                start_script(facts, spec),
                *("start", facts.workdir, spec.id, "1" if rebuild else "0", request),
                str(max(1, round(spec.timeout.total_seconds()))),
                *(f"{spec.log_limit_bytes:d}", spec.lock, str(spec.slots), "/bin/sh"),
            )
            try:
                answer = b""
                # A shell's start-up files may print lines of their own before ours.
                while (told := _ANSWER.search(answer)) is None and (data := await process.read()):
                    answer += data
                if told is None:
                    raise _no_start(await process.finish())
            finally:
                await process.close()
    except TimeoutError:
        raise NodeError(
            f"the node did not start the job within {REQUEST_TIMEOUT.total_seconds():g} s",
            hint="it accepts connections but is overloaded or hangs: look at it",
        ) from None
    return Job(
        id=spec.id,
        workdir=facts.workdir,
        attempt=int(told[2]),
        was_attached=told[1] == b"attached",
    )


def _no_start(completed: Completed) -> NodeError:
    error = refusal("start the job", completed)
    if b"it has to be brought there again" in completed.stderr:
        return PassingError(error.message, hint="somebody has tidied up there meanwhile")
    return error


_ANSWER: Final = re.compile(rb"^(started|attached) ([0-9]{1,9})\n", re.MULTILINE)


async def read_job(transport: Transport, *, workdir: str, job: str) -> JobState:
    """Return how the job of that id stands, judged by the node from its own evidence."""
    completed = await run(transport, JOB_SH, "state", workdir, job, timeout=REQUEST_TIMEOUT)
    said = parse_lines(completed.stdout)
    if completed.exit_status != 0 or "state" not in said:
        raise refusal("say how the job stands", completed)
    try:
        return parse_state(said)
    except (KeyError, ValueError) as error:
        raise refusal("say how the job stands", completed) from error


async def cancel_job(transport: Transport, job: Job) -> tuple[str, ...]:
    """End every process of the job; return the lines of `ps` for those that survived.

    A job that has come to its end stays as it is. Raise NodeError if the attempt is not the
    current one: the newer one is somebody else's.
    """
    completed = await run(transport, JOB_SH, "cancel", *address(job), timeout=REQUEST_TIMEOUT)
    if completed.exit_status != 0:
        raise refusal("cancel the job", completed)
    return tuple(completed.stdout.decode(errors="replace").splitlines())


def address(job: Job) -> tuple[str, str, str]:
    """Return the words that name an attempt to job.sh."""
    return job.workdir, job.id, str(job.attempt)


def refusal(what: str, completed: Completed) -> NodeError:
    """Return the error for a request that the node did not fulfil."""
    lines = completed.stderr.decode(errors="replace").strip().splitlines()
    reason = lines[-1] if lines else f"exit status {completed.exit_status} and no message"
    return NodeError(
        f"the node could not {what}: {reason[:500]}",
        hint="is its disk full, or its workdir not writable?",
    )


def parse_lines(output: bytes) -> dict[str, str]:
    """Return the values in an answer of NAME=VALUE lines; other lines are left out."""
    lines = output.decode(errors="replace").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def parse_state(said: dict[str, str]) -> JobState:
    """Return the state from what `job.sh state` said."""
    attempt = int(said.get("attempt") or 0)
    match said["state"]:
        case "never":
            known = (
                f"attempt {attempt} was prepared only" if attempt else "the node has no such job"
            )
            return NeverStarted(evidence=known)
        case "queued":
            return Queued(attempt=attempt, evidence=f"{_process(said)} waits for the host")
        case "running":
            ran = _number(said.get("ran_seconds"))
            return Running(
                attempt=attempt,
                evidence=f"{_process(said)} is alive",
                ran=None if ran is None else timedelta(seconds=ran),
            )
        case "finished":
            status = int(said["status"])
            evidence = said.get("undelivered") or f"the command exited with status {status}"
            strain = Strain(
                free_kib=_number(said.get("free_kb")),
                free_inodes=_number(said.get("free_inodes")),
                oom_kills=_number(said.get("oom_kills")) or 0,
            )
            took, warmth = _measured(said.get("took", ""))
            return Finished(
                attempt=attempt,
                exit_status=status,
                evidence=evidence,
                strain=strain,
                took=took,
                warmth=warmth,
            )
        case _:
            return _stopped(said, attempt)


def _stopped(said: dict[str, str], attempt: int) -> Stopped:
    process = _process(said)
    survivors = tuple(int(pid) for pid in said.get("survivors", "").split())
    match said["reason"]:
        case "deadline":
            reason = StopReason.DEADLINE
            evidence = f"it ran longer than its {said.get('deadline')} s"
        case "flooded":
            reason = StopReason.FLOODED
            evidence = f"its log grew beyond {said.get('flooded')} bytes"
        case "cancelled":
            reason = StopReason.CANCELLED
            evidence = "it was cancelled"
        case "reboot":
            reason = StopReason.REBOOT
            evidence = (
                f"{process} is gone without an exit status, and the node has rebooted since "
                f"(boot {said.get('boot')} then, {said.get('boot_now')} now)"
            )
        case "unable":
            reason = StopReason.UNABLE
            evidence = said.get("unable") or "the node could not do its part"
        case "terminated":
            reason = StopReason.KILLED
            evidence = f"{process} was told to end (SIGTERM), exit status {said.get('status')}"
        case _:
            reason = StopReason.KILLED
            evidence = f"{process} is gone without an exit status, on the same boot"
    if survivors:
        evidence += f"; still there: {', '.join(map(str, survivors))}"
    return Stopped(attempt=attempt, reason=reason, evidence=evidence, survivors=survivors)


_TOOK: Final = re.compile(
    r"(?P<begun>\d{1,12}(?:\.\d{1,9})?) (?P<ended>\d{1,12}(?:\.\d{1,9})?) (?P<warmth>cold|warm|-)",
    re.ASCII,
)


def _measured(text: str) -> tuple[timedelta | None, Warmth | None]:
    found = _TOOK.fullmatch(text)
    if found is None:
        return None, None
    seconds = round(float(found["ended"]) - float(found["begun"]), 3)
    warmth = None if found["warmth"] == "-" else Warmth(found["warmth"])
    return (timedelta(seconds=seconds) if seconds >= 0 else None), warmth


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() else None


def _process(said: dict[str, str]) -> str:
    return f"process {said['pid']}" if said.get("pid") else "its process"


# --- what is sent to start a job ------------------------------------------------------------


def start_script(facts: NodeFacts, spec: JobSpec) -> str:
    """Return job.sh with the files of the job's folder in front, for the verb `start`."""
    _check(spec)
    directory = f"{facts.workdir}/jobs/{spec.id}"
    used = _used(facts, spec)
    payload = "".join(
        # A script that is cut short must not run.
        here_document(name, text, or_else="return")
        for name, text in (
            ("script", build_script(facts, spec)),
            ("binaries", _file_lines(spec.binaries, directory)),
            ("extras", _file_lines(spec.extras, directory)),
            ("label", " ".join(spec.label)),
            ("uses", f"{used[0] or '-'} {used[1] or '-'}"),
            ("rustc-wrapper", _rustc_wrapper(facts, spec, directory)),
            ("job.sh", JOB_SH),
        )
    )
    return (
        f"used_source={quoted(used[0])}\nused_target={quoted(used[1])}\n"
        f"write_payload() {{\n{payload}chmod 700 rustc-wrapper\n}}\n{JOB_SH}"
    )


def _used(facts: NodeFacts, spec: JobSpec) -> tuple[str, str]:
    """Return the job's source and its target folder; nothing for what housekeeping never sees."""
    ours = rf"{re.escape(facts.workdir)}/(sources|target)/[A-Za-z0-9._-]+"
    source, target = (
        path if path and re.fullmatch(ours, path) else "" for path in (spec.source, spec.target_dir)
    )
    return source, target


def build_script(facts: NodeFacts, spec: JobSpec) -> str:
    """Return the script that runs on the node: its whole environment, then the command."""
    directory = f"{facts.workdir}/jobs/{spec.id}"
    environment = {
        **dict(clean_environment(facts)),
        "CARGO_TERM_COLOR": "never",
        "CARGO_INCREMENTAL": "0",
        "ORCHESTRATOR_OUT": f"{directory}/out",
        **({"CARGO_TARGET_DIR": spec.target_dir} if spec.target_dir else {}),
        **dict(spec.env),
    }
    # A wrapper that the inventory asks for runs inside ours.
    environment["ORCHESTRATOR_INNER_WRAPPER"] = environment.get("RUSTC_WRAPPER", "")
    environment["RUSTC_WRAPPER"] = f"{directory}/rustc-wrapper"
    freshening = _freshening(spec.source, spec.target_dir)
    return f"umask 022\n{exports(environment.items())}{freshening}{spec.command}"


def _freshening(source: str | None, target_dir: str | None) -> str:
    """Return the lines after which cargo takes nothing of another source for this one's.

    Cargo goes by file times, and those in a bundle are all the same: a package whose version did
    not change with its code would be called fresh, and an old binary be delivered.
    """
    if source is None or target_dir is None:
        return ""
    root, marker = quoted(f"{source}/source"), quoted(f"{target_dir}/.built-from")
    return (
        f"mkdir -p {quoted(target_dir)}\n"
        f'if [ "$(cat {marker} 2>/dev/null)" != {root} ]; then\n'
        f"    find {root} -type f -exec touch {{}} +\n"
        f"    printf '%s\\n' {root} >{marker}\n"
        "fi\n"
    )


def _rustc_wrapper(facts: NodeFacts, spec: JobSpec, directory: str) -> str:
    """Return the script that keeps the node's paths out of what rustc makes.

    RUSTFLAGS would do the same, but replace the flags in the project's own configuration.
    """
    cargo_home = dict(spec.env).get("CARGO_HOME") or facts.cargo_home or f"{facts.home}/.cargo"
    # The last one that fits counts, so the longer paths come after what they may lie in.
    renamed = (
        (facts.home, "/build/home"),
        (cargo_home, "/build/cargo"),
        (spec.target_dir, "/build/target"),
        (spec.source, "/build/source"),
        (directory, "/build/job"),
    )
    options = " ".join(
        quoted(f"--remap-path-prefix={path.rstrip('/')}={name}")
        for path, name in renamed
        if path and path != "/"
    )
    inner = '${ORCHESTRATOR_INNER_WRAPPER:+"$ORCHESTRATOR_INNER_WRAPPER"}'
    return f'#!/bin/sh\nexec {inner} "$@" {options}'


def _file_lines(files: Iterable[tuple[str, str | None]], directory: str) -> str:
    def absolute(name: str, path: str | None) -> str:
        if path is None:
            return f"{directory}/out/{name}"
        return path if path.startswith("/") else f"{directory}/work/{path}"

    return "\n".join(f"{name} {absolute(name, path)}" for name, path in files)


_WORD: Final = re.compile(r"[A-Za-z0-9._+@:-]+")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _check(spec: JobSpec) -> None:
    """Refuse what would mean something else on the node than here."""
    words = (
        ("lock", spec.lock),
        *(("binary name", name) for name, _ in spec.binaries),
        *(("name of an extra file", name) for name, _ in spec.extras),
        *(("label", word) for word in spec.label),
    )
    for what, word in words:
        if not _WORD.fullmatch(word) or word in {".", ".."}:
            raise ConfigError(f"the {what} {word!r} has characters that a node may not be sent")
    for name, _ in spec.env:
        if not _VARIABLE.fullmatch(name):
            raise ConfigError(f"{name!r} is not the name of an environment variable")
    for _, path in (*spec.binaries, *spec.extras):
        if path is None:
            continue
        if not path or not path.isprintable() or ".." in path.split("/") or path.strip() != path:
            raise ConfigError(f"the path {path!r} of a file to deliver cannot be used")
