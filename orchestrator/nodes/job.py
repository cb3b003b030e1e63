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
from dataclasses import dataclass
from datetime import timedelta
from importlib import resources
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import ConfigError, NodeError, PassingError
from orchestrator.nodes.job_state import JobState, parse_state
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
    the node; `target_dir` is the folder that cargo keeps between builds, one job's at a time, and
    `tree` the one to which the source is copied for them. No path of these gets into the binary.
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
    tree: str | None = None
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
    if "CARGO_TARGET_DIR" in environment:
        # A project may name another one, which nobody would look into (cargo 1.91 and later).
        environment.setdefault("CARGO_BUILD_BUILD_DIR", environment["CARGO_TARGET_DIR"])
    # A wrapper that the inventory asks for runs inside ours.
    environment["ORCHESTRATOR_INNER_WRAPPER"] = environment.get("RUSTC_WRAPPER", "")
    environment["RUSTC_WRAPPER"] = f"{directory}/rustc-wrapper"
    return f"umask 022\n{exports(environment.items())}{_planting(spec)}{spec.command}"


def _planting(spec: JobSpec) -> str:
    """Return the lines that bring the source to where warm builds find it, for this job's command.

    cargo goes by the times of files, and those in a bundle are all the same: a package whose
    version did not change with its code would be called fresh, and an old binary be delivered. So
    the program's own files get the present time. Vendored crates keep theirs, and their path: cargo
    compares the registry's checksum of each. One without a checksum is fresh to cargo whatever is
    in it; so are those that a project brings along, patched perhaps. Where either may have changed,
    or the clock went back, cargo is made to forget what it has compiled.
    """
    if spec.source is None or spec.tree is None or spec.target_dir is None:
        return ""
    names = {"@SOURCE@": spec.source, "@TREE@": spec.tree, "@KEPT@": spec.target_dir}
    return re.sub("|".join(names), lambda found: quoted(names[found[0]]), _PLANT)


# Two marks, because the node's `env` may name another target folder than the last time. What it was
# built from is told by its own list, and after a `--clean`, which takes that away, by the tree's.
# A mark goes before what it vouches for and reaches the disk after it: jobs are killed, and power
# fails. Not every cp makes hard links (OpenBSD's does not), nor does every file system.
_PLANT: Final = """\
_marks="$(cat @TREE@/.planted "$CARGO_TARGET_DIR"/.built-from 2>/dev/null)" || :
if [ "$_marks" != "$(printf '%s\\n' @SOURCE@ @SOURCE@)" ]; then
    mkdir -p @KEPT@ "$CARGO_TARGET_DIR"
    rm -f @TREE@/.planted "$CARGO_TARGET_DIR"/.built-from
    _forgets=
    [ -s "$CARGO_TARGET_DIR"/.crates ] || [ -s @TREE@/.cargo/vendored ] || _forgets=1
    cat "$CARGO_TARGET_DIR"/.crates @TREE@/.cargo/vendored @SOURCE@/.cargo/vendored 2>/dev/null |
        sort -u >"$CARGO_TARGET_DIR"/.crates.new
    [ -z "$(cut -d ' ' -f 2 "$CARGO_TARGET_DIR"/.crates.new | sort | uniq -d)" ] || _forgets=1
    [ -z "$(find @SOURCE@/source -name .cargo-checksum.json | head -n 1)" ] || _forgets=1
    if ! rm -rf @TREE@ 2>/dev/null; then
        find @TREE@ -type d -exec chmod u+rwx {} +
        rm -rf @TREE@
    fi
    mkdir @TREE@
    : >@TREE@/.begun
    [ -z "$(find "$CARGO_TARGET_DIR"/ -newer @TREE@/.begun | head -n 1)" ] || _forgets=1
    cp -RP @SOURCE@/source @TREE@/
    for _part in .cargo vendor; do
        [ -e @SOURCE@/"$_part" ] || continue
        cp -RPpl @SOURCE@/"$_part" @TREE@/ 2>/dev/null && continue
        rm -rf @TREE@/"$_part"
        cp -RPp @SOURCE@/"$_part" @TREE@/
    done
    if [ "$_forgets" ]; then
        find "$CARGO_TARGET_DIR"/ -type d \\( -name .fingerprint -o -name fingerprint \\) -prune \\
            -exec rm -rf {} +
        cat @SOURCE@/.cargo/vendored 2>/dev/null | sort -u >"$CARGO_TARGET_DIR"/.crates.new
    fi
    mv -f "$CARGO_TARGET_DIR"/.crates.new "$CARGO_TARGET_DIR"/.crates
    sync -f @TREE@ 2>/dev/null || sync
    printf '%s\\n' @SOURCE@ >"$CARGO_TARGET_DIR"/.built-from
    printf '%s\\n' @SOURCE@ >@TREE@/.planted
fi
"""


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
        (spec.tree, "/build/source"),
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
