"""The catalogue: each kind of damage to index, signature, archive and transfer."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from orchestrator.core.signature import artifact_namespace, index_namespace, keys_namespace
from orchestrator.signing import FileSigner
from tests.installer_site import GNU, MUSL, Site
from tests.life import damage
from tests.life.answers import Answer, Framing

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping
    from pathlib import Path

NEW: Final = "2.0.0"
OLD: Final = "1.0.0"
NOBODY: Final = "none"
INDEX: Final = "stable.idx"
THIEF: Final = FileSigner(Ed25519PrivateKey.generate())


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What lies on the server when all is well, by path, and where the newest archive is."""

    files: Mapping[str, bytes]
    newest: str
    signer: FileSigner
    script: str

    @property
    def index(self) -> damage.Parts:
        return damage.split(self.files[INDEX])

    @property
    def archive(self) -> bytes:
        return self.files[self.newest]


def publish(folder: Path, chance: random.Random) -> Published:
    """Publish two versions for two targets, with archives of some 30 KB."""
    site = Site(
        root=folder,
        url="http://127.0.0.1:9",
        signer=FileSigner(Ed25519PrivateKey.generate()),
        redirects={},
    )
    for target in (GNU, MUSL):
        for version in (NEW, OLD):
            body = chance.randbytes(30_000).hex()
            site.add(version, target, program=f'#!/bin/sh\necho "tool {version}"\nexit\n# {body}\n')
    site.publish()
    files = {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }
    newest = site.rows[0].path
    assert newest is not None
    return Published(files=files, newest=newest, signer=site.signer, script=site.script)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One way to damage something; `make` returns the answers that differ, by path."""

    name: str
    make: Callable[[random.Random, Published, str], Mapping[str, Answer]]
    only: tuple[str, ...] = ()

    def is_seen_by(self, verifier: str) -> bool:
        """Whether a host with this verifier must refuse it."""
        if self.only:
            return verifier in self.only
        # Without a verifier the index is as good as TLS.
        return verifier != NOBODY or not self.name.startswith(("index", "signature"))


def _text(how: damage.Damage) -> Callable[[random.Random, Published, str], Mapping[str, Answer]]:
    def make(chance: random.Random, published: Published, _: str) -> Mapping[str, Answer]:
        parts = published.index
        return _index(replace(parts, text=how(chance, parts.text)).joined())

    return make


def _archive(how: damage.Damage) -> Callable[[random.Random, Published, str], Mapping[str, Answer]]:
    def make(chance: random.Random, published: Published, _: str) -> Mapping[str, Answer]:
        return {published.newest: Answer(body=how(chance, published.archive))}

    return make


def _index(body: bytes) -> Mapping[str, Answer]:
    return {INDEX: Answer(body=body)}


def _cut_index(chance: random.Random, published: Published, verifier: str) -> bytes:
    parts = published.index
    if verifier == damage.SSH:
        end = len(parts.text) + len(parts.sshsig)
    else:
        # The last characters of the signature in its second line.
        end = len(parts.joined()) - len(parts.minisig.split(b"\n", 2)[2]) - 6
    return parts.joined()[: chance.randrange(end)]


def _signature_damaged(
    chance: random.Random, published: Published, verifier: str
) -> Mapping[str, Answer]:
    parts = published.index
    if verifier == damage.SSH:
        parts = replace(parts, sshsig=damage.damage_sshsig(chance, parts.sshsig))
    else:
        parts = replace(parts, minisig=damage.damage_minisig(chance, parts.minisig, verifier))
    return _index(parts.joined())


def _signature_missing(chance: random.Random, published: Published, _: str) -> Mapping[str, Answer]:
    parts = published.index
    parts = replace(parts, sshsig=b"") if chance.random() < 0.5 else replace(parts, minisig=b"")
    return _index(parts.joined())


def _signed(
    signer: FileSigner, text: bytes, namespace: str, *, signed: bytes | None = None
) -> Mapping[str, Answer]:
    pair = signer.sign(signed or text, namespace=namespace, comment="index")
    return _index(text + pair.sshsig.encode() + pair.minisig.encode())


def _signature_of_another(
    chance: random.Random, published: Published, _: str
) -> Mapping[str, Answer]:
    text = published.index.text
    other = damage.change_row(chance, text.replace(b"#serial 7\n", b"#serial 6\n"))
    return _signed(published.signer, text, index_namespace("tool"), signed=other)


def _signature_by_another(
    chance: random.Random, published: Published, _: str
) -> Mapping[str, Answer]:
    thief = FileSigner(Ed25519PrivateKey.from_private_bytes(chance.randbytes(32)))
    text = published.index.text
    return _signed(thief, text, index_namespace("tool"))


def _signature_for_another_use(
    chance: random.Random, published: Published, _: str
) -> Mapping[str, Answer]:
    text = published.index.text
    stranger = f"tool{chance.randrange(10**6)}"
    namespace = chance.choice(
        [artifact_namespace("tool"), keys_namespace("tool"), index_namespace(stranger)]
    )
    return _signed(published.signer, text, namespace)


def _row_signed_by_a_thief(
    chance: random.Random, published: Published, _: str
) -> Mapping[str, Answer]:
    text = damage.change_row(chance, published.index.text)
    return _signed(THIEF, text, index_namespace("tool"))


def _of_another_project(
    chance: random.Random, published: Published, _: str
) -> Mapping[str, Answer]:
    name = f"tool{chance.randrange(10**6)}"
    text = published.index.text.replace(b"#project tool\n", f"#project {name}\n".encode())
    return _signed(published.signer, text, index_namespace(name))


def _page(chance: random.Random) -> bytes:
    return damage.LOGIN_PAGE + b"<!-- %d -->\n" % chance.randrange(10**6)


def _other_archive(chance: random.Random, published: Published, _: str) -> Mapping[str, Answer]:
    others = sorted(path for path in published.files if path not in {INDEX, published.newest})
    return {published.newest: Answer(body=published.files[chance.choice(others)])}


# Transfers


def _broken(
    frame: Callable[[random.Random, bytes, bytes], Answer],
) -> Callable[[random.Random, Published, str], Mapping[str, Answer]]:
    """Return what makes an answer of the whole body and a cut one, for the index or the archive."""

    def make(chance: random.Random, published: Published, verifier: str) -> Mapping[str, Answer]:
        if verifier != NOBODY and chance.random() < 0.5:
            part = _cut_index(chance, published, verifier)
            return {INDEX: frame(chance, published.files[INDEX], part)}
        part = damage.cut(chance, published.archive)
        return {published.newest: frame(chance, published.archive, part)}

    return make


def _slow_damage(chance: random.Random, published: Published, _: str) -> Mapping[str, Answer]:
    body = damage.flip(chance, published.archive)
    return {published.newest: Answer(body=body, framing=Framing.SLOWLY)}


def _encoded(chance: random.Random, published: Published, _: str) -> Mapping[str, Answer]:
    body = gzip.compress(damage.flip(chance, published.archive), mtime=0)
    return {published.newest: Answer(body=body, headers=(("Content-Encoding", "gzip"),))}


def _gone(chance: random.Random, published: Published, verifier: str) -> Mapping[str, Answer]:
    path = chance.choice([published.newest, INDEX] if verifier != NOBODY else [published.newest])
    return {path: Answer(body=_page(chance), status=chance.choice([401, 403, 404, 410, 451]))}


def _elsewhere(chance: random.Random, published: Published, _: str) -> Mapping[str, Answer]:
    others = sorted(path for path in published.files if path not in {INDEX, published.newest})
    # Up from `releases/VERSION/TARGET/`.
    place = f"../../../{chance.choice(others)}"
    return {published.newest: Answer(body=b"", status=302, headers=(("Location", place),))}


def _kinds() -> list[Kind]:
    kinds = [Kind(name=f"index: {name}", make=_text(how)) for name, how in damage.ANY_TEXT.items()]
    kinds += [
        Kind(
            name="index: cut off",
            make=lambda chance, published, verifier: _index(
                _cut_index(chance, published, verifier)
            ),
        ),
        Kind(name="index: a row changed and signed by a thief", make=_row_signed_by_a_thief),
        Kind(name="index: of another project", make=_of_another_project),
        Kind(name="index: a web page", make=lambda chance, *_: _index(_page(chance))),
        Kind(name="index: noise", make=lambda chance, *_: _index(chance.randbytes(2000))),
        Kind(name="signature: bits flipped", make=_signature_damaged),
        Kind(name="signature: left out", make=_signature_missing),
        Kind(name="signature: of another index", make=_signature_of_another),
        Kind(name="signature: by another key", make=_signature_by_another),
        # Only SSH signatures say what they are for.
        Kind(
            name="signature: for another use", make=_signature_for_another_use, only=(damage.SSH,)
        ),
    ]
    kinds += [
        Kind(name=f"archive: {name}", make=_archive(how)) for name, how in damage.ANY_BYTES.items()
    ]
    kinds += [
        Kind(name="archive: of another version or target", make=_other_archive),
        Kind(name="archive: another .gz of the same size", make=_archive(damage.disguise)),
        Kind(name="archive: a forged one of the same size", make=_archive(damage.forge)),
        Kind(name="archive: a web page", make=_archive(lambda chance, _: _page(chance))),
        Kind(name="transfer: slow, and bits flipped", make=_slow_damage),
        Kind(name="transfer: encoded as it was not asked for", make=_encoded),
        Kind(name="transfer: an error and a page", make=_gone),
        Kind(name="transfer: led to another archive", make=_elsewhere),
    ]
    kinds += [
        Kind(name=f"transfer: {name}", make=_broken(frame)) for name, frame in _FRAMES.items()
    ]
    return kinds


_FRAMES: Final[Mapping[str, Callable[[random.Random, bytes, bytes], Answer]]] = {
    str(Framing.CLOSED_EARLY): lambda _, whole, part: Answer(
        body=part, framing=Framing.CLOSED_EARLY, promised=len(whole)
    ),
    str(Framing.RESET_EARLY): lambda _, whole, part: Answer(
        body=part, framing=Framing.RESET_EARLY, promised=len(whole)
    ),
    "cut, with that length": lambda _, __, part: Answer(body=part),
    "cut, without a length": lambda _, __, part: Answer(body=part, framing=Framing.UNTIL_CLOSED),
    # Some go by it and some do not: more than the part never arrives.
    "a length that is too small": lambda _, __, part: Answer(body=part, promised=len(part) // 2),
    "a length that is too large": lambda chance, whole, part: Answer(
        body=part, promised=len(whole) + chance.randint(1, 9999)
    ),
    str(Framing.BAD_CHUNKS): lambda _, __, part: Answer(body=part, framing=Framing.BAD_CHUNKS),
}
KINDS: Final = tuple(_kinds())
