"""The gate: no binary is published before these very bytes ran on a machine of their target."""

from __future__ import annotations

import re
import secrets
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import zip_longest
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import BuildError, OrchestratorError, PassingError
from orchestrator.core.template import GATE_PLACEHOLDERS, fill_placeholders
from orchestrator.nodes.job import JOB_SH, REQUEST_TIMEOUT, refusal
from orchestrator.nodes.script import clean_environment, exports, here_document
from orchestrator.nodes.transport import run

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.nodes.probe import NodeFacts
    from orchestrator.nodes.transport import Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class GateBinary:
    """A collected binary; `remote_path` is its absolute path on the gate's node, if it is there."""

    name: str
    path: Path
    sha256: str
    remote_path: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What has to hold: `version_command` for each binary, `commands` for the first one."""

    version: str
    target: str
    name: str
    version_command: str = "{binary} --version"
    commands: tuple[str, ...] = ()
    timeout: timedelta = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRun:
    """One command that passed, and the first 64 KiB of what it wrote."""

    command: str
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class GateReport:
    """Every command that ran, in order; all of them passed."""

    runs: tuple[GateRun, ...]


async def run_gate(
    transport: Transport, facts: NodeFacts, *, binaries: tuple[GateBinary, ...], gate: Gate
) -> GateReport:
    """Run the binaries on the node and return what they said.

    Raise BuildError when one cannot run, gives a wrong answer or takes too long; NodeError when
    the node holds other bytes than were collected, or cannot be used.
    """
    place = _Place(
        transport=transport,
        facts=facts,
        folder=f"{facts.workdir}/gates/{secrets.token_hex(8)}",
        timeout=gate.timeout,
    )
    asked = [
        (binary, _filled(gate.version_command, gate, f"{place.folder}/{binary.name}"))
        for binary in binaries
    ]
    commands = [
        _filled(template, gate, f"{place.folder}/{binaries[0].name}") for template in gate.commands
    ]
    runs: list[GateRun] = []
    try:
        await _bring(place, binaries)
        for binary, command in asked:
            is_last = len(runs) == len(asked) + len(commands) - 1
            passed = await _run_command(place, command, is_last=is_last)
            _require_version(passed, gate.version, binary.name)
            runs.append(passed)
        for command in commands:
            is_last = len(runs) == len(asked) + len(commands) - 1
            runs.append(await _run_command(place, command, is_last=is_last))
    except BaseException:
        # The folder is a copy; what was wrong is more telling than that it could not be removed.
        with suppress(OrchestratorError):
            await run(transport, _REMOVE_FOLDER, place.folder, timeout=REQUEST_TIMEOUT)
        raise
    return GateReport(runs=tuple(runs))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """The folder where a gate runs, and how long one of its commands may take."""

    transport: Transport
    facts: NodeFacts
    folder: str
    timeout: timedelta


async def _bring(place: _Place, binaries: tuple[GateBinary, ...]) -> None:
    """Bring the binaries into the folder, and prove there that they are the collected bytes."""
    away = [binary for binary in binaries if binary.remote_path is None]
    if away:
        made = await run(place.transport, _MAKE_FOLDER, place.folder, timeout=REQUEST_TIMEOUT)
        if made.exit_status != 0:
            raise refusal("make the gate's folder", made)
        for binary in away:
            await place.transport.push(binary.path, f"{place.folder}/{binary.name}")
    pairs = [
        word
        for binary in binaries
        for word in (
            binary.remote_path or f"{place.folder}/{binary.name}",
            f"{place.folder}/{binary.name}",
        )
    ]
    placed = await run(place.transport, _PLACE, place.folder, *pairs, timeout=timedelta(minutes=5))
    hashes = placed.stdout.decode(errors="replace").split()
    for binary, sha256 in zip_longest(binaries, hashes[: len(binaries)]):
        if sha256 is None:
            what = "make the gate's folder"
            if placed.exit_status != _NO_FOLDER:
                what = f"place {binary.name} for the gate"
            raise refusal(what, placed)
        if sha256 != binary.sha256:
            raise PassingError(
                f"the gate's node holds other bytes of {binary.name} than were collected",
                hint="something changed the file; run the same command with --rebuild",
            )


_MAKE_FOLDER: Final = 'PATH=/usr/bin:/bin\numask 077\nmkdir -p "${1%/*}" && mkdir "$1"\n'
_REMOVE_FOLDER: Final = 'PATH=/usr/bin:/bin; rm -rf "$1"'

# FOLDER SOURCE DESTINATION...: prints the hash of each, up to the first that is not to be had.
_PLACE: Final = "\n".join(
    (
        "PATH=/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/bin",
        "umask 077",
        JOB_SH[JOB_SH.index("hash_of() {") : JOB_SH.index("evaluate() {")],
        '[ -d "$1" ] || { mkdir -p "${1%/*}" && mkdir "$1"; } || exit 3',
        "shift",
        "while [ $# -gt 0 ]; do",
        'case $1 in "$2") ;; *) [ ! -L "$1" ] && [ -f "$1" ] && cp "$1" "$2" || exit ;; esac',
        'chmod 700 "$2" && hash_of "$2" || exit',
        "shift 2",
        "done",
    )
)
_NO_FOLDER: Final = 3


def _filled(template: str, gate: Gate, binary: str) -> str:
    values = {
        "binary": binary,
        "version": gate.version,
        "target": gate.target,
        "name": gate.name,
    }
    return fill_placeholders(template, values, GATE_PLACEHOLDERS)


async def _run_command(place: _Place, command: str, *, is_last: bool) -> GateRun:
    """Run a command; the last one, which takes the folder away once all is said."""
    text = f"umask 022\n{exports(clean_environment(place.facts))}{command}"
    script = f"{_COMMAND_HEAD}{here_document('command', text)}{_COMMAND_TAIL}"
    # Enforced on the node, which may lose its watcher.
    seconds = max(1, round(place.timeout.total_seconds()))
    completed = await run(
        place.transport,
        script,
        *(place.folder, str(seconds), "last" if is_last else "more"),
        timeout=timedelta(seconds=seconds) + REQUEST_TIMEOUT,
    )
    head, newline, output = completed.stdout.partition(b"\n")
    if not newline or not _HEAD.fullmatch(head):
        raise refusal(f"run `{command}`", completed)
    status, stdout_bytes = (int(word) for word in head.split())
    ran = GateRun(command=command, stdout=output[:stdout_bytes], stderr=output[stdout_bytes:])
    _require_status(ran, status, seconds)
    return ran


_HEAD: Final = re.compile(rb"[0-9]{1,3} [0-9]{1,6}")

_COMMAND_HEAD: Final = """
PATH=/usr/bin:/bin:/usr/sbin:/sbin
cd "$1" || exit
rm -rf run && mkdir run || exit
"""

# The outputs are files, so a child that keeps them open holds up nothing, and are cut to 64 KiB:
# `dd` because `head -c` is not everywhere. TERM reaches the whole group by the builtin alone (an
# external `kill` may take the number for "everything"), and never the one that has to report.
_COMMAND_TAIL: Final = """
ulimit -c 0 2>/dev/null
(
    sleep "$2"
    : >expired
    kill -TERM "$(cat pid)"
    sleep 2
    trap '' TERM
    case $(command -v kill) in
    kill) kill -TERM "-$$" ;;
    esac
    sleep 2
    kill -KILL "$(cat pid)"
) >/dev/null 2>&1 &
guard=$!
trap : TERM
rm -f expired
(cd run && exec env -i /bin/sh -c 'echo $$ >../pid; exec /bin/sh -e ../command') >stdout 2>stderr
status=$?
trap '' TERM
case $(command -v kill) in
kill) kill -TERM "-$$" 2>/dev/null ;;
*) kill -TERM "$guard" 2>/dev/null ;;
esac
is_expired=
[ ! -e expired ] || is_expired=1
[ -z "$is_expired" ] || status=124
dd if=stdout of=stdout.cut bs=65536 count=1 2>/dev/null
dd if=stderr of=stderr.cut bs=65536 count=1 2>/dev/null
printf '%s %s\\n' "$status" "$(wc -c <stdout.cut | tr -d ' ')"
cat stdout.cut stderr.cut
case $3 in
last) cd / && rm -rf "$1" ;;
esac
# What ignored TERM goes now, with this shell: all is said.
[ -z "$is_expired" ] || case $(command -v kill) in
kill) kill -KILL "-$$" ;;
esac
exit 0
"""

_TIMED_OUT: Final = 124
_NOT_EXECUTABLE: Final = 126
_NOT_FOUND: Final = 127
_SIGNALS: Final = 128


def _require_status(ran: GateRun, status: int, seconds: int) -> None:
    if status == 0:
        return
    if status == _TIMED_OUT:
        problem = f"did not come to an end within {seconds} s"
    elif status in {_NOT_EXECUTABLE, _NOT_FOUND}:
        problem = f"cannot run there (status {status})"
    elif status > _SIGNALS:
        problem = f"was killed by signal {status - _SIGNALS}"
    else:
        problem = f"exited with status {status}, and 0 was expected"
    raise BuildError(f"gate: `{ran.command}` {problem}{_last_lines(ran)}")


def _require_version(ran: GateRun, version: str, name: str) -> None:
    # 0.13.4 is not in 0.13.40, 10.13.4, 0.13.4-rc.1 or 0.13.4.1; it is in "v0.13.4".
    word = rf"(?<![0-9A-Za-z.+])v?{re.escape(version)}(?![0-9A-Za-z+-]|\.[0-9A-Za-z])"
    if not re.search(word, ran.stdout.decode(errors="replace")):
        raise BuildError(
            f"gate: {name} does not say that it is version {version}{_last_lines(ran)}",
            hint="a stale binary, or the version in Cargo.toml was not raised; "
            "`version_command` says how to ask for it",
        )


def _last_lines(ran: GateRun, count: int = 10) -> str:
    text = (ran.stdout + b"\n" + ran.stderr).decode(errors="replace")
    lines = [line for line in text.splitlines() if line.strip()][-count:]
    return ":\n" + "\n".join(f"  {line[:500]}" for line in lines) if lines else " (no output)"
