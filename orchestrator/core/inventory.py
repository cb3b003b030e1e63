"""The inventory as values: a project, how it is published, and the nodes that build it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from orchestrator.core.kinds import Bytes
from orchestrator.core.service_settings import Service

if TYPE_CHECKING:
    from orchestrator.core.target import Target

LOCAL: Final = "local"
# Before the name of a virtual machine: the host of a node that is reached with the keys of its VM.
GUEST: Final = "vm:"
# The key of an archive's digest that holds for whatever version is released.
ANY_VERSION: Final = ""
# Beside the inventory: logs, archives and, by default, the store. Nothing in it is the source.
RECORD_FOLDER: Final = "dist"
# There, in the folder of a version and node.
BUILD_LOG: Final = "build.log"
JOB_RECORD: Final = "job.json"
_LOG_LIMIT: Final = Bytes(500_000_000)


class Policy(StrEnum):
    """What a node's failure means for the release."""

    REQUIRED = "required"
    EXPECTED = "expected"
    BEST_EFFORT = "best-effort"


class Lockfile(StrEnum):
    """What to do when a locked version cannot be had: stop, or re-resolve that one package."""

    STRICT = "strict"
    REPAIR = "repair"


class LeakPolicy(StrEnum):
    """What a path or name of the node inside a binary means."""

    WARN = "warn"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class CrateSource:
    """A crate from the registry that cargo is configured for."""

    crate: str
    lockfile: Lockfile = Lockfile.STRICT


@dataclass(frozen=True, slots=True, kw_only=True)
class GitSource:
    """A tag of a git repository; `{version}` in `tag` is replaced."""

    git: str
    tag: str = "v{version}"
    subdirectory: str = ""
    lockfile: Lockfile = Lockfile.STRICT


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveSource:
    """A .tar.gz at a URL (`{version}` is replaced); `sha256` maps a version to its digest.

    A URL without `{version}` may have one digest, under `ANY_VERSION`.
    """

    archive: str
    sha256: tuple[tuple[str, str], ...]
    subdirectory: str = ""
    lockfile: Lockfile = Lockfile.STRICT


@dataclass(frozen=True, slots=True, kw_only=True)
class PathSource:
    """A folder on the coordinator: its HEAD commit, or, if asked for, its files as they are."""

    path: str
    allow_dirty: bool = False
    subdirectory: str = ""
    lockfile: Lockfile = Lockfile.STRICT


Source = CrateSource | GitSource | ArchiveSource | PathSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """The program that is released.

    `version_command` runs for every binary and must print the version; each command of `gate` must
    exit with 0. `{binary}` is replaced by the binary's path, in `gate` by the first binary's.
    `benchmark` is what is timed to know whether a variant is faster.
    A node's `binary_path` names the first binary; the other ones lie beside it. `extras` are paths
    of files that lie in the archive beside the binaries: absolute, or below the source folder, or,
    without a source, below the folder that the build command runs in.
    """

    name: str
    binaries: tuple[str, ...]
    source: Source | None = None
    build_command: str | None = None
    version_command: str = "{binary} --version"
    gate: tuple[str, ...] = ()
    benchmark: str | None = None
    extras: tuple[str, ...] = ()
    leaks: LeakPolicy = LeakPolicy.WARN


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing:
    """The key that signs, the other ones that are trusted, and the one that vouches for them.

    `key` is a private key file on the coordinator or, when it ends in `.pub`, the public half of a
    key in ssh-agent. The others are public: a file, or the line in it.
    """

    key: str
    trusted: tuple[str, ...] = ()
    rotation: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GitHubReleases:
    """The repository (`owner/name`) whose releases get the archives as assets, too.

    `{version}` in `tag` is replaced; without `token_file`, the token is in `GITHUB_TOKEN`.
    """

    repository: str
    tag: str = "v{version}"
    token_file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """Where the release goes, and who can check it."""

    store: str = f"{RECORD_FOLDER}/store"
    url: str | None = None
    channel: str = "stable"
    signing: Signing | None = None
    flat: bool = False
    # None: wherever a release is at its public address as soon as it is in the store.
    verify: bool | None = None
    expires: timedelta = timedelta(days=90)
    github: GitHubReleases | None = None

    @property
    def is_read_back(self) -> bool:
        """Whether a release ends by reading itself back through the public URL.

        A folder is brought to its server by somebody else, later; a cloud's store is public at
        once.
        """
        if self.verify is not None:
            return self.verify
        return self.url is not None and self.store.startswith("gs://")


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """An inventory entry: one target on one host; its name is unique and stable."""

    name: str
    host: str
    target: Target
    build_command: str | None = None
    binary_path: str | None = None
    enabled: bool = True
    dedicated: bool = False
    policy: Policy = Policy.EXPECTED
    host_key: str | None = None
    identity: str | None = None
    port: int = 22
    env: tuple[tuple[str, str], ...] = ()
    workdir: str | None = None
    timeout: timedelta = timedelta(hours=4)
    silence_timeout: timedelta = timedelta(minutes=60)
    connect_timeout: timedelta = timedelta(seconds=20)
    reconnect_timeout: timedelta = timedelta(minutes=10)
    log_limit: Bytes = _LOG_LIMIT
    vm: str | None = None
    group: str | None = None
    slots: int = 1
    jobs: int | None = None
    os_release: str | None = None
    gate_on: tuple[str, ...] = ()
    # Levels of the CPU that it builds for, beside the baseline of its target.
    variants: tuple[str, ...] = ()
    # The node that this one was made of, for one of its variants.
    variant_of: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether it is the coordinator's own machine."""
        return self.host == LOCAL

    @property
    def is_guest(self) -> bool:
        """Whether its address and its keys are those of its virtual machine on this host."""
        return self.host.startswith(GUEST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """Everything that the operator wrote down: `inventory_parser.parse_inventory` makes it."""

    project: Project
    publication: Publication
    nodes: tuple[Node, ...]
    service: Service = field(default_factory=Service)
