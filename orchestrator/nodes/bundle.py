"""Bring a source bundle to a node, once."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import PassingError
from orchestrator.nodes.job import JOB_SH, REQUEST_TIMEOUT, refusal
from orchestrator.nodes.transport import run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.nodes.probe import NodeFacts
    from orchestrator.nodes.transport import Completed, Transport

# Thousands of small files on an SD card.
_UNPACK_TIMEOUT: Final = timedelta(minutes=20)


def source_folder(facts: NodeFacts, digest: str) -> str:
    """Return where the bundle of that digest lies on the node, or will lie."""
    return f"{facts.workdir}/sources/{digest}"


def tree_folder(facts: NodeFacts, node: str) -> str:
    """Return the folder in which the node's warm builds find their source, whatever its digest is.

    cargo compiles a vendored crate again that lies at another path.
    """
    return f"{facts.workdir}/sources/{node}.tree"


Reduce = Callable[[Collection[str]], AbstractContextManager[tuple[Path, str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """A source bundle to be pushed: its .tar.gz with its SHA-256, and the digest that names it.

    `crates` are the lines of its `.cargo/vendored`; `reduced` makes a smaller archive without those
    that a node has, and says its SHA-256.
    """

    archive: Path
    archive_sha256: str
    digest: str
    crates: frozenset[str] = frozenset()
    reduced: Reduce | None = None


@dataclass(slots=True, kw_only=True)
class Sending:
    """How much of an archive has reached a node; it outlives the link, so that one can go on.

    `base` is the source on the node that has the rest, "" for none, None before that is known.
    """

    token: str = field(default_factory=lambda: secrets.token_hex(8))
    written_bytes: int = 0
    base: str | None = None
    have: frozenset[str] = frozenset()

    def note(self, written_bytes: int) -> None:
        """Take note of how many bytes are there for certain."""
        self.written_bytes = written_bytes

    def choose(self, sources: Mapping[str, frozenset[str]], crates: frozenset[str]) -> None:
        """Take the source that has most of the crates, unless one was chosen before."""
        if self.base is None:
            shared = {base: crates & lines for base, lines in sources.items()}
            self.base = max(shared, key=lambda base: len(shared[base]), default="")
            self.have = shared.get(self.base, frozenset())

    def begin_anew(self) -> None:
        """Forget what was sent: whatever came of it, it is used up."""
        self.token, self.written_bytes = secrets.token_hex(8), 0


async def push_bundle(
    transport: Transport, facts: NodeFacts, parcel: Parcel, *, sending: Sending | None = None
) -> str:
    """Return the folder on the node that holds the unpacked archive (.tar.gz), whole.

    What is there already is not sent again, be it crates of another bundle or, with the same
    `sending`, what an earlier link has brought. Several pushes at once are safe. Raise NodeError
    when the node has no room for it, PassingError when other bytes arrive than were sent.
    """
    sending = sending or Sending()
    looked = await run(transport, _LOOK, facts.workdir, parcel.digest, timeout=REQUEST_TIMEOUT)
    if looked.exit_status != 0:
        raise refusal("make room for the source", looked)
    if looked.stdout != b"present\n":
        sending.choose(_sources(looked.stdout), parcel.crates)
        unpacked = await _send(transport, facts, parcel=parcel, sending=sending)
        if unpacked.exit_status != 0 and sending.base and not _is_damaged(unpacked):
            # Whatever is wrong with what the node has: all of it is here.
            sending.base, sending.have = "", frozenset()
            unpacked = await _send(transport, facts, parcel=parcel, sending=sending)
        if _is_damaged(unpacked):
            raise PassingError(
                "the source arrived with other bytes than were sent",
                hint="is the node's disk or memory failing?",
            )
        if unpacked.exit_status != 0:
            raise refusal("unpack the source", unpacked)
    return source_folder(facts, parcel.digest)


async def _send(
    transport: Transport, facts: NodeFacts, *, parcel: Parcel, sending: Sending
) -> Completed:
    whole = nullcontext((parcel.archive, parcel.archive_sha256))
    is_less = parcel.reduced is not None and sending.have
    with parcel.reduced(sending.have) if is_less and parcel.reduced else whole as (archive, sha256):
        part = f".{parcel.digest}.{sending.token}.part"
        await transport.push(
            archive,
            f"{facts.workdir}/sources/{part}",
            offset=sending.written_bytes,
            on_written=sending.note,
        )
    sending.begin_anew()
    base = [sending.base] if is_less and sending.base else []
    return await run(
        transport,
        JOB_SH,
        *("unpack", facts.workdir, parcel.digest, part, sha256, *base),
        timeout=_UNPACK_TIMEOUT,
    )


def _is_damaged(unpacked: Completed) -> bool:
    return b"other bytes than were sent" in unpacked.stderr


def _sources(told: bytes) -> dict[str, frozenset[str]]:
    """Return the crates of each source that a node has, as lines of `.cargo/vendored`."""
    first, *blocks = (b"\n" + told).split(b"\nsource ")
    del first
    sources = {}
    for block in blocks:
        base, *lines = block.decode("ascii", "replace").splitlines()
        if re.fullmatch(r"[0-9a-f]{64}", base):
            sources[base] = frozenset(lines)
    return sources


# A transfer that was cut off leaves its part behind; after a day it is nobody's.
_LOOK: Final = """
PATH=/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/bin
umask 077
mkdir -p "$1/sources" && cd "$1/sources" || exit
find . -name '.*.part' -mtime +1 -exec rm -f {} \\;
# What was looked at is spared by whoever tidies up.
touch -c "$2.complete"
if [ -e "$2.complete" ] && [ -d "$2" ]; then
    echo present
    exit
fi
# The sources of the last versions may have most of its crates.
# shellcheck disable=SC2012 # the newest come first
for mark in $(ls -1t | sed -n 's/\\.complete$//p' | head -n 3); do
    if [ -f "$mark/.cargo/vendored" ]; then
        touch -c "$mark.complete"
        echo "source $mark"
        cat "$mark/.cargo/vendored"
    fi
done
"""
