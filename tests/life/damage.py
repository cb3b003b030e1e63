"""Ways to damage what an installer gets, each of which changes something that counts.

What counts is decided here, by where the damage is, and never by what became of it. Each function
takes a source of chance and what was published, and returns one damaged file.
"""

from __future__ import annotations

import base64
import gzip
import io
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping

    Damage = Callable[[random.Random, bytes], bytes]

_BEGIN: Final = b"-----BEGIN SSH SIGNATURE-----\n"
_END: Final = b"-----END SSH SIGNATURE-----\n"
_COMMENT: Final = b"untrusted comment: "
SSH: Final = "ssh-keygen"
MINISIGN: Final = "minisign"
OPENSSL: Final = "openssl"
LOGIN_PAGE: Final = b"<!DOCTYPE html>\n<html><body>Log in to the network first</body></html>\n"


# Any bytes


def flip(chance: random.Random, content: bytes) -> bytes:
    """Flip one to three bits."""
    damaged = bytearray(content)
    for at in chance.sample(range(8 * len(content)), chance.randint(1, 3)):
        damaged[at // 8] ^= 1 << at % 8
    return bytes(damaged)


def cut(chance: random.Random, content: bytes) -> bytes:
    """Leave out the end, at least the last byte."""
    return content[: chance.randrange(len(content))]


def insert(chance: random.Random, content: bytes) -> bytes:
    """Put some bytes in between."""
    at = chance.randrange(len(content))
    return content[:at] + chance.randbytes(chance.randint(1, 40)) + content[at:]


def delete(chance: random.Random, content: bytes) -> bytes:
    """Take some bytes out."""
    at = chance.randrange(len(content))
    return content[:at] + content[at + chance.randint(1, 40) :]


def swap(chance: random.Random, content: bytes) -> bytes:
    """Exchange two blocks of the same size that differ."""
    size = chance.randint(8, max(8, len(content) // 4))
    while True:
        first, second = sorted(chance.randrange(len(content) - size) for _ in range(2))
        one, other = content[first : first + size], content[second : second + size]
        if second - first >= size and one != other:
            between = content[first + size : second]
            return content[:first] + other + between + one + content[second + size :]


def fill(chance: random.Random, content: bytes) -> bytes:
    """Replace a block by zeros, as a disk does that lost a page; the length stays."""
    while True:
        at = chance.randrange(len(content))
        size = min(chance.randint(4, 4096), len(content) - at)
        damaged = content[:at] + bytes(size) + content[at + size :]
        if damaged != content:
            return damaged


def noise(chance: random.Random, content: bytes) -> bytes:
    """Replace everything by noise of the same length."""
    return chance.randbytes(len(content))


ANY_BYTES: Final[Mapping[str, Damage]] = {
    "bits flipped": flip,
    "cut off": cut,
    "bytes inserted": insert,
    "bytes deleted": delete,
    "blocks swapped": swap,
    "a block zeroed": fill,
    "noise": noise,
}


# The parts of a signed index


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What was signed, and both signatures."""

    text: bytes
    sshsig: bytes
    minisig: bytes

    def joined(self) -> bytes:
        return self.text + self.sshsig + self.minisig


def split(content: bytes) -> Parts:
    """Return the parts of an index."""
    ssh, minisign = content.index(_BEGIN), content.index(_COMMENT)
    return Parts(text=content[:ssh], sshsig=content[ssh:minisign], minisig=content[minisign:])


def damage_sshsig(chance: random.Random, sshsig: bytes) -> bytes:
    """Flip bits of the key, the namespace, the name of the hash or the signature itself.

    Not of the magic word and the number of the format before them: the latter is not signed, and
    ssh-keygen takes 0 for 1.
    """
    blob = base64.b64decode(sshsig[len(_BEGIN) : -len(_END)])
    blob = blob[:10] + flip(chance, blob[10:])
    body = base64.b64encode(blob)
    lines = [body[at : at + 70] for at in range(0, len(body), 70)]
    return _BEGIN + b"\n".join(lines) + b"\n" + _END


def damage_minisig(chance: random.Random, minisig: bytes, verifier: str) -> bytes:
    """Flip bits of what this verifier looks at.

    The second line is ten bytes of algorithm and key number, which openssl does not read, and the
    signature. The comment that is signed, and its signature, are read by minisign alone.
    """
    lines = minisig.splitlines()
    if verifier == MINISIGN and chance.random() < 0.5:
        if chance.random() < 0.5:
            head = b"trusted comment: "
            # Below 0x20 minisign wants none; a line break would end the line early.
            at = chance.randrange(len(head), len(lines[2]))
            lines[2] = lines[2][:at] + bytes([lines[2][at] ^ 1]) + lines[2][at + 1 :]
        else:
            lines[3] = base64.b64encode(flip(chance, base64.b64decode(lines[3])))
    else:
        blob = base64.b64decode(lines[1])
        read_from = 10 if verifier == OPENSSL else 0
        lines[1] = base64.b64encode(blob[:read_from] + flip(chance, blob[read_from:]))
    return b"\n".join(lines) + b"\n"


def lose_line(chance: random.Random, text: bytes) -> bytes:
    """Leave out one line of the index."""
    lines = text.splitlines(keepends=True)
    del lines[chance.randrange(len(lines))]
    return b"".join(lines)


def repeat_line(chance: random.Random, text: bytes) -> bytes:
    """Say one line twice, the last one excepted, behind which nothing is read."""
    lines = text.splitlines(keepends=True)
    at = chance.randrange(len(lines) - 1)
    lines.insert(at, lines[at])
    return b"".join(lines)


def change_row(chance: random.Random, text: bytes) -> bytes:
    """Change one field of one row to something that would be well formed."""
    lines = text.splitlines(keepends=True)
    at = chance.choice([number for number, line in enumerate(lines) if line.count(b"\t") == 6])
    fields = lines[at].rstrip(b"\n").split(b"\t")
    other = {
        0: b"aarch64-unknown-linux-gnu",
        1: b"%d.%d.0" % (chance.randint(3, 99), chance.randint(0, 99)),
        2: chance.choice([b"yanked", b"revoked", b"pending"]),
        3: b"%d" % chance.randint(10**6, 10**7),
        4: chance.randbytes(32).hex().encode(),
        5: b"glibc>=2.%d" % chance.randint(1, 30),
        6: b"elsewhere/%d/tool.tar.gz" % chance.randrange(10**6),
    }
    which = chance.randrange(7)
    fields[which] = other[which]
    lines[at] = b"\t".join(fields) + b"\n"
    return b"".join(lines)


def insert_in_text(chance: random.Random, text: bytes) -> bytes:
    """Put some bytes in between, not before the last line break, behind which nothing is read."""
    return insert(chance, text[:-1]) + text[-1:]


ANY_TEXT: Final[Mapping[str, Damage]] = {
    "bits flipped": flip,
    "bytes inserted": insert_in_text,
    "bytes deleted": delete,
    "blocks swapped": swap,
    "a line lost": lose_line,
    "a line repeated": repeat_line,
    "a row changed": change_row,
}


# Archives


def disguise(chance: random.Random, content: bytes) -> bytes:
    """Return a sound .gz of other content that has exactly the same size."""
    return _of_size(len(content), gzip.compress(chance.randbytes(len(content) // 2), mtime=0))


def forge(chance: random.Random, content: bytes) -> bytes:
    """Return a sound archive of exactly the same size, with the same names and another program."""
    buffer = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as original,
        tarfile.open(fileobj=buffer, mode="w") as forged,
    ):
        for entry in original:
            program = b"#!/bin/sh\necho forged %d\n" % chance.randrange(10**6)
            entry.size = len(program) if entry.isfile() else 0
            forged.addfile(entry, io.BytesIO(program))
    return _of_size(len(content), gzip.compress(buffer.getvalue(), mtime=0))


def _of_size(size: int, packed: bytes) -> bytes:
    # A name in the header takes as many bytes as it has, and one more.
    name = b"x" * (size - len(packed) - 1) + b"\0"
    return packed[:3] + b"\x08" + packed[4:10] + name + packed[10:]
