"""A tag of a git repository, and the exact files of a commit."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final
from urllib.parse import urlsplit

from orchestrator.core.errors import ConfigError, NotYetError
from orchestrator.core.wording import redacted
from orchestrator.source.command import Finished, keep_going, off_loop, run
from orchestrator.source.pinned import Pinned, Unpacked
from orchestrator.source.tree import Entry, File, Limits, Link, plant
from orchestrator.web import is_loopback

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator

    from orchestrator.core.inventory import GitSource
    from orchestrator.core.version import Version

_QUICK: Final = timedelta(minutes=2)
_DOWNLOAD: Final = timedelta(minutes=20)
_CHUNK_BYTES: Final = 1 << 20

# Nothing that git's pattern or revision syntax reads: `*`, `?`, `[`, `^`, `~`, `:`, `@{`.
_TAG: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._/+-]|@(?!\{)){0,199}")
_REMOTE_HELPER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9+.-]*::")
_SSH_SHORTHAND: Final = re.compile(r"(?:[A-Za-z0-9._][\w.-]*@)?[A-Za-z0-9._][\w.-]*:(?!//).*")

# The user's configuration stays in force (credential helpers, on macOS only in the system's file;
# proxies; `insteadOf`), except for what could run programs or reach further than one fetch.
_SETTINGS: Final = (
    "protocol.ext.allow=never",
    "core.fsmonitor=false",
    f"core.hooksPath={os.devnull}",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "gc.auto=0",
    "maintenance.auto=false",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """Where git fetches from, and the only protocols that it may use for that."""

    address: str
    protocols: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Blob:
    name: str
    object_id: str
    mode: str
    size_bytes: int


async def pin_tag(source: GitSource, *, version: Version, folder: Path, room: Path) -> Pinned:
    """Return the commit that the version's tag names now; ConfigError if there is no such tag."""
    remote = parse_remote(source.git, folder)
    tag = parse_tag(source.tag.replace("{version}", str(version)))
    commit = await resolve_tag(remote, tag, room=room)

    async def unpack(target: Path) -> Unpacked:
        repository = room / "repository"
        await fetch_tag(remote, tag, commit=commit, repository=repository)
        notes = await export_commit(commit, cwd=room, git_dir=repository, target=target)
        return Unpacked(revision=commit, notes=notes)

    where = redacted(remote.address)
    return Pinned(
        description=f"{where} at {tag}",
        name=f"tag {tag} of {where}",
        identity=("git", commit),
        subdirectory=source.subdirectory,
        lockfile=source.lockfile,
        unpack=unpack,
    )


def parse_remote(text: str, folder: Path) -> Remote:
    """Return where to fetch from: https, ssh, or a local path, relative to the folder."""
    if text.startswith("-") or not text.isprintable() or _REMOTE_HELPER.match(text):
        raise ConfigError(f"not a git repository's address: {text[:200]!r}")
    if "://" in text:
        return Remote(address=text, protocols=_protocol(text))
    path = folder / Path(text).expanduser()
    if not path.exists() and _SSH_SHORTHAND.fullmatch(text):
        return Remote(address=text, protocols="ssh")
    if not path.is_dir():
        raise ConfigError(f"there is no git repository at {path}")
    return Remote(address=str(path.resolve()), protocols="file")


def parse_tag(text: str) -> str:
    """Return the tag; ConfigError unless git can read it as nothing but a tag."""
    if not _TAG.fullmatch(text) or ".." in text or "//" in text or text.endswith((".lock", "/")):
        raise ConfigError(
            f"not a tag that can be released: {text[:200]!r}",
            hint="use letters, digits and `. _ / + - @` in `source.tag`",
        )
    return text


async def resolve_tag(remote: Remote, tag: str, *, room: Path) -> str:
    """Return the commit that the tag names at its remote; ConfigError if there is no such tag."""
    reference = f"refs/tags/{tag}"
    wanted = (reference, reference + "^{}")
    words = ("ls-remote", "--quiet", "--", remote.address, *wanted)
    finished = await run_git(*words, cwd=room, protocols=remote.protocols)
    if not finished.is_ok:
        raise _unreachable(remote, finished)
    lines = (line.split("\t", 1) for line in finished.output.decode().splitlines())
    found = {name: object_id for object_id, name in lines}
    # An annotated tag is listed twice; the second line, with ^{}, is the commit.
    commit = found.get(wanted[1]) or found.get(wanted[0])
    if commit is None:
        raise NotYetError(
            f"{redacted(remote.address)} has no tag {tag}",
            hint="push the tag first; `source.tag` says how tags are called",
        )
    return commit


async def fetch_tag(remote: Remote, tag: str, *, commit: str, repository: Path) -> None:
    """Fetch the tag's commit, without history, into a new bare repository.

    Raises ConfigError when the tag names another commit than a moment ago.
    """
    object_format = "sha256" if len(commit) == 64 else "sha1"  # noqa: PLR2004 -- hex digits
    reference = f"refs/tags/{tag}"
    init = ("init", "--quiet", "--bare", "--template=", f"--object-format={object_format}")
    fetch = ("fetch", "--quiet", "--no-tags", "--depth=1", "--", remote.address)
    for words in (init, (*fetch, f"+{reference}:{reference}")):
        finished = await run_git(
            *words,
            cwd=repository.parent,
            git_dir=repository,
            protocols=remote.protocols,
            deadline=_DOWNLOAD,
        )
        if not finished.is_ok:
            raise _unreachable(remote, finished)
    fetched = await _commit_of(reference, repository)
    if fetched != commit:
        raise ConfigError(
            f"tag {tag} of {redacted(remote.address)} moved while it was fetched: "
            f"{commit} became {fetched}",
            hint="make sure that nobody moves the tag, and run the same command again",
        )


async def _commit_of(reference: str, repository: Path) -> str:
    words = ("rev-parse", "--verify", "--quiet", "--end-of-options", reference + "^{commit}")
    finished = await run_git(*words, cwd=repository.parent, git_dir=repository)
    return finished.output.decode().strip() or "something that is no commit"


async def export_commit(
    commit: str, *, cwd: Path, target: Path, git_dir: Path | None = None, prefix: str = ""
) -> tuple[str, ...]:
    """Write the commit's files below `prefix` to the target, each byte as committed; return notes.

    Blobs are read directly, so no attribute (export-subst, end of line, filter) and no setting of
    this machine makes two clones differ.
    """
    treeish = f"{commit}:{prefix}"
    finished = await run_git(
        "ls-tree", "-r", "-l", "-z", "--full-tree", treeish, cwd=cwd, git_dir=git_dir
    )
    if not finished.is_ok:
        raise ConfigError(f"git cannot list the files of {commit}:\n{finished.tail}")
    listed = [_parse_blob(line) for line in finished.output.split(b"\0") if line]
    if not listed:
        raise ConfigError(f"commit {commit} holds no files" + (f" in {prefix}" if prefix else ""))
    blobs = [blob for blob in listed if blob.mode != _SUBMODULE]
    if sum(blob.size_bytes for blob in blobs) > Limits().total_bytes:
        raise ConfigError(f"the files of {commit} are larger than {Limits().total_bytes} bytes")
    await _export_blobs(blobs, cwd=cwd, git_dir=git_dir, target=target)
    submodules = ", ".join(blob.name for blob in listed if blob.mode == _SUBMODULE)
    return (f"git submodules are not in the bundle: {submodules}",) if submodules else ()


async def run_git(
    *words: str,
    cwd: Path,
    git_dir: Path | None = None,
    protocols: str = "",
    deadline: timedelta = _QUICK,
) -> Finished:
    """Return how git ended; `protocols` is all that it may use to reach another repository."""
    return await run(
        _git(*words, git_dir=git_dir),
        cwd=cwd,
        deadline=deadline,
        environment=_environment(protocols),
    )


def _git(*words: str, git_dir: Path | None) -> list[str]:
    settings = [word for setting in _SETTINGS for word in ("-c", setting)]
    # Named, because `safe.bareRepository=explicit` forbids git to find a bare repository by itself.
    place = [f"--git-dir={git_dir}"] if git_dir else []
    return ["git", *settings, *place, *words]


def _environment(protocols: str) -> dict[str, str]:
    return {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": protocols,
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_OPTIONAL_LOCKS": "0",
    }


def _protocol(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme in {"https", "ssh", "file"}:
        return parts.scheme
    if parts.scheme == "http" and is_loopback(parts.hostname):
        return "http"
    raise ConfigError(
        f"git source {redacted(url)!r}: {parts.scheme}:// does not say who answers",
        hint="use https:// or ssh://",
    )


def _unreachable(remote: Remote, finished: Finished) -> ConfigError:
    return ConfigError(
        f"git cannot fetch from {redacted(remote.address)}:\n{finished.tail}",
        hint="see `project.source.git` in the inventory, your credentials and the network",
    )


_SUBMODULE: Final = "160000"
_SYMLINK: Final = "120000"
_EXECUTABLE: Final = "100755"


def _parse_blob(line: bytes) -> _Blob:
    facts, _, name = line.partition(b"\t")
    mode, _, object_id, size = facts.decode().split()
    return _Blob(
        name=os.fsdecode(name),
        object_id=object_id,
        mode=mode,
        size_bytes=0 if size == "-" else int(size),
    )


async def _export_blobs(
    blobs: list[_Blob], *, cwd: Path, git_dir: Path | None, target: Path
) -> None:
    wanted, contents = (target.with_name(f"{target.name}.{end}") for end in ("wanted", "contents"))
    wanted.write_text("".join(f"{blob.object_id}\n" for blob in blobs))
    finished = await run(
        _git("cat-file", "--batch", git_dir=git_dir),
        cwd=cwd,
        deadline=_DOWNLOAD,
        environment=_environment(""),
        stdin=wanted,
        stdout=contents,
    )
    if not finished.is_ok:
        raise ConfigError(f"git cannot read the commit's files:\n{finished.tail}")

    def write(stop: threading.Event) -> None:
        with contents.open("rb") as stream:
            plant(_entries(blobs, stream, stop), target)

    await off_loop(write)
    wanted.unlink()
    contents.unlink()


def _entries(blobs: list[_Blob], stream: IO[bytes], stop: threading.Event) -> Iterator[Entry]:
    for blob in blobs:
        keep_going(stop)
        if stream.readline().split() != [blob.object_id.encode(), b"blob", b"%d" % blob.size_bytes]:
            raise ConfigError(f"git did not deliver {blob.name!r} of the commit")
        if blob.mode == _SYMLINK:
            yield Link(name=blob.name, target=os.fsdecode(stream.read(blob.size_bytes)))
        else:
            content = _chunks(stream, blob.size_bytes)
            yield File(name=blob.name, content=content, is_executable=blob.mode == _EXECUTABLE)
        stream.read(1)


def _chunks(stream: IO[bytes], size_bytes: int) -> Iterator[bytes]:
    while size_bytes and (chunk := stream.read(min(size_bytes, _CHUNK_BYTES))):
        size_bytes -= len(chunk)
        yield chunk
