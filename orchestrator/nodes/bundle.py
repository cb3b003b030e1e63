"""Bring a source bundle to a node, once."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import PassingError
from orchestrator.nodes.job import JOB_SH, REQUEST_TIMEOUT, refusal
from orchestrator.nodes.transport import run

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.nodes.probe import NodeFacts
    from orchestrator.nodes.transport import Transport

# Thousands of small files on an SD card.
_UNPACK_TIMEOUT: Final = timedelta(minutes=20)


def source_folder(facts: NodeFacts, digest: str) -> str:
    """Return where the bundle of that digest lies on the node, or will lie."""
    return f"{facts.workdir}/sources/{digest}"


@dataclass(slots=True, kw_only=True)
class Sending:
    """How much of an archive has reached a node; it outlives the link, so that one can go on."""

    token: str = field(default_factory=lambda: secrets.token_hex(8))
    written_bytes: int = 0

    def note(self, written_bytes: int) -> None:
        """Take note of how many bytes are there for certain."""
        self.written_bytes = written_bytes


async def push_bundle(
    transport: Transport,
    facts: NodeFacts,
    *,
    archive: Path,
    archive_sha256: str,
    digest: str,
    sending: Sending | None = None,
) -> str:
    """Return the folder on the node that holds the unpacked archive (.tar.gz), whole.

    What is there already is not sent again; with the same `sending`, not even the part that an
    earlier link has brought. Several pushes at once are safe. Raise NodeError when the node has no
    room for it, PassingError when other bytes arrive than were sent.
    """
    sending = sending or Sending()
    present = await run(transport, _LOOK, facts.workdir, digest, timeout=REQUEST_TIMEOUT)
    if present.exit_status != 0:
        raise refusal("make room for the source", present)
    if present.stdout != b"present\n":
        part = f".{digest}.{sending.token}.part"
        await transport.push(
            archive,
            f"{facts.workdir}/sources/{part}",
            offset=sending.written_bytes,
            on_written=sending.note,
        )
        # Whatever comes of it, this part is used up.
        sending.token, sending.written_bytes = secrets.token_hex(8), 0
        unpacked = await run(
            transport,
            JOB_SH,
            *("unpack", facts.workdir, digest, part, archive_sha256),
            timeout=_UNPACK_TIMEOUT,
        )
        if b"other bytes than were sent" in unpacked.stderr:
            raise PassingError(
                "the source arrived with other bytes than were sent",
                hint="is the node's disk or memory failing?",
            )
        if unpacked.exit_status != 0:
            raise refusal("unpack the source", unpacked)
    return source_folder(facts, digest)


# A transfer that was cut off leaves its part behind; after a day it is nobody's.
_LOOK: Final = """
PATH=/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/bin
umask 077
mkdir -p "$1/sources" && cd "$1/sources" || exit
find . -name '.*.part' -mtime +1 -exec rm -f {} \\;
# What was looked at is spared by whoever tidies up.
touch -c "$2.complete"
[ ! -e "$2.complete" ] || [ ! -d "$2" ] || printf 'present\\n'
"""
