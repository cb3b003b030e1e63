"""What a job built: its project on the node, as cargo tells of it, and when the job ran."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import NodeError
from orchestrator.nodes.job import REQUEST_TIMEOUT, refusal
from orchestrator.nodes.script import clean_environment, exports, quoted
from orchestrator.nodes.transport import run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.nodes.job import Job
    from orchestrator.nodes.probe import NodeFacts
    from orchestrator.nodes.transport import Transport

_LIMIT_BYTES: Final = 64 << 20
# Cargo may have to read an index of a registry, on an SD card.
_TIMEOUT: Final = timedelta(minutes=3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """What to look for after a job.

    `places` are paths in or below the project, tried in order; the nearest Cargo.lock at or above
    one of them is the project's. `env` is the job's own environment. `may_fetch` says that the
    job's command used the network, so that cargo may too: an offline `cargo metadata` misses what
    only tests need.
    """

    places: tuple[str, ...]
    target: str
    env: tuple[tuple[str, str], ...] = ()
    may_fetch: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltProject:
    """What the node can say of what it built; None is what it cannot.

    `problem` says why there is no metadata. The times are the node's own.
    """

    started: datetime | None = None
    ended: datetime | None = None
    rustc: str | None = None
    lockfile: bytes | None = None
    metadata: bytes | None = None
    problem: str | None = None


async def read_project(
    transport: Transport,
    facts: NodeFacts,
    *,
    job: Job,
    lookup: Lookup,
    timeout: timedelta = _TIMEOUT,  # noqa: ASYNC109 -- enforced on the node, which may hang
) -> BuiltProject:
    """Return what the node says of the project that the job built; raise NodeError if nothing.

    It changes nothing there. What cannot be had is left out, and `problem` says why.
    """
    seconds = max(1, round(timeout.total_seconds()))
    script = _script(facts, lookup)
    folder = f"{facts.workdir}/gates/{secrets.token_hex(8)}"
    completed = await run(
        transport,
        script,
        *(folder, job.directory, lookup.target, str(seconds), str(_LIMIT_BYTES)),
        timeout=timedelta(seconds=2 * seconds) + REQUEST_TIMEOUT,
        max_bytes=2 * _LIMIT_BYTES + 4096,
    )
    head, mark, rest = completed.stdout.partition(b"\nbodies\n")
    said = _said(head)
    sizes = [int(said.get(name, "0") or 0) for name in ("lock_bytes", "metadata_bytes")]
    if completed.exit_status != 0 or not mark or sum(sizes) != len(rest):
        raise refusal("say what it built", completed)
    lockfile, metadata = rest[: sizes[0]], rest[sizes[0] :]
    return BuiltProject(
        started=_time(said.get("started")),
        ended=_time(said.get("ended")),
        rustc=said.get("rustc") or None,
        lockfile=lockfile or None,
        metadata=metadata or None,
        problem=None if metadata else said.get("problem") or "cargo said nothing",
    )


def _script(facts: NodeFacts, lookup: Lookup) -> str:
    environment = (*clean_environment(facts), *lookup.env, ("CARGO_TERM_COLOR", "never"))
    places = "".join(f"try {quoted(place)}\n" for place in _absolute(lookup.places))
    fetch = "fetch_too=1\n" if lookup.may_fetch else "fetch_too=\n"
    # The environment is the job's, and only cargo and rustc get it.
    return f"{_HEAD}in_environment() {{\n{exports(environment)}}}\n{fetch}{_FIND}{places}{_TELL}"


def _absolute(places: Sequence[str]) -> tuple[str, ...]:
    for place in places:
        if not place.startswith("/") or not place.isprintable():
            raise NodeError(f"{place[:200]!r} is no place where a project could be")
    return tuple(places)


_NUMBERS: Final = frozenset({"started", "ended", "lock_bytes", "metadata_bytes"})


def _said(head: bytes) -> dict[str, str]:
    lines = head.decode(errors="replace").splitlines()
    said = dict(line.split("=", 1) for line in lines if "=" in line)
    return {
        name: value
        for name, value in said.items()
        if name not in _NUMBERS or re.fullmatch(r"[0-9]{1,12}", value)
    }


def _time(text: str | None) -> datetime | None:
    return datetime.fromtimestamp(int(text), UTC) if text else None


_HEAD: Final = r"""
PATH=/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/bin
umask 077
job=$2
target=$3
seconds=$4
limit=$5
problem=
# Only as /bin/sh does zsh take a pattern without a match for what it is.
[ -z "${ZSH_VERSION-}" ] || emulate sh
mkdir -p "${1%/*}" && mkdir "$1" && cd "$1" || exit
here=$1
# A child of bash that is ended before it has forgotten its parent's traps runs them too.
trap '[ "$(exec /bin/sh -c "echo \$PPID")" != "$$" ] || { cd / && rm -rf "$here"; }' 0
"""

# `try PLACE` sets $project to the folder of the nearest Cargo.lock at or above the place.
_FIND: Final = r"""
project=
try() {
    [ -z "$project" ] || return 0
    place=$1
    while :; do
        if [ -f "$place/Cargo.lock" ]; then
            project=$place
            return
        fi
        case $place in
        "$job" | /) return ;;
        esac
        place=${place%/*}
        [ -n "$place" ] || place=/
    done
}

# What the command unpacked into its own folder, if it is one project.
try_folders_of() {
    [ -z "$project" ] || return 0
    for place in "$1" "$1"/*; do
        [ -f "$place/Cargo.lock" ] || continue
        if [ -n "$project" ]; then
            project=
            return
        fi
        project=$place
    done
}

# The time of the last change, in seconds: of GNU and busybox, then of the BSDs and macOS.
changed() {
    stat -c %Y "$1" 2>/dev/null || stat -f %m "$1" 2>/dev/null
}

size_of() {
    wc -c <"$1" | tr -d ' '
}

# What cargo has found out about rustc for the build it keeps beside what it built, and need not
# find out again: on an emulated machine each start of rustc takes a second.
as_in_the_build() {
    [ -x "$job/rustc-wrapper" ] && read -r _ built_into <"$job/uses" || return 0
    [ -f "$built_into/.rustc_info.json" ] || return 0
    ORCHESTRATOR_INNER_WRAPPER=${RUSTC_WRAPPER-}
    RUSTC_WRAPPER=$job/rustc-wrapper
    CARGO_TARGET_DIR=$built_into
    export ORCHESTRATOR_INNER_WRAPPER RUSTC_WRAPPER CARGO_TARGET_DIR
}

# bounded COMMAND: runs it in the project, for a limited time.
bounded() {
    (
        cd "$project" || exit
        in_environment
        as_in_the_build
        exec "$@"
    ) >out 2>err &
    pid=$!
    (
        sleep "$seconds"
        kill -KILL "$pid"
    ) >/dev/null 2>&1 &
    guard=$!
    wait "$pid" 2>/dev/null
    ended_with=$?
    kill "$guard" 2>/dev/null
    return "$ended_with"
}

metadata() {
    if bounded cargo metadata --format-version 1 --locked --filter-platform "$target" "$@"; then
        mv out metadata
        return
    fi
    problem=$(sed -n 's/^error: //p' err | head -n 1 | tr -d '\000-\037')
    [ -n "$problem" ] || problem="cargo metadata ended with status $ended_with"
    return 1
}
"""

_TELL: Final = r"""
try_folders_of "$job/work"
: >lock
: >metadata
rustc=
if [ -z "$project" ]; then
    problem='there is no Cargo.lock at or above its binaries'
else
    # The toolchain file of the project counts, so it is asked there.
    if bounded rustc -V; then
        rustc=$(head -n 1 out | tr -d '\000-\037')
    fi
    cp "$project/Cargo.lock" lock
    metadata --offline || { [ -z "$fetch_too" ] || metadata; } || : >metadata
fi
for name in lock metadata; do
    if [ "$(size_of "$name")" -gt "$limit" ]; then
        problem="its $name is larger than $limit bytes"
        : >"$name"
    fi
done
printf '%s=%s\n' \
    started "$(head -n 1 "$job/started" 2>/dev/null)" \
    ended "$(changed "$job/exit")" \
    rustc "$rustc" \
    problem "$problem" \
    lock_bytes "$(size_of lock)" \
    metadata_bytes "$(size_of metadata)"
printf 'bodies\n'
cat lock metadata
"""
