"""Every key of an inventory file: the one table behind the parser, the JSON Schema and the docs."""

from __future__ import annotations

import base64
import binascii
import dataclasses
from typing import Any, Final

from orchestrator.core.archive import MAX_ENTRY
from orchestrator.core.cpu import VARIANTS
from orchestrator.core.errors import ConfigError
from orchestrator.core.extras import MAX_EXTRAS, extra_name
from orchestrator.core.inventory import (
    ANY_VERSION,
    LOCAL,
    ArchiveSource,
    CrateSource,
    GitHubReleases,
    GitSource,
    Inventory,
    LeakPolicy,
    Lockfile,
    Node,
    PathSource,
    Policy,
    Project,
    Publication,
    Signing,
)
from orchestrator.core.kinds import (
    Choice,
    Duration,
    Field,
    Flag,
    ListOf,
    MapOf,
    OneOrMany,
    Record,
    Size,
    Text,
    TextOrMap,
    Variants,
    Whole,
)
from orchestrator.core.schema_service import NOTICES, SERVICE
from orchestrator.core.schema_texts import (
    FILLED,
    HOSTNAME,
    LINE,
    NAME,
    NOT_ABOVE,
    PATH,
    PORT,
    PUBLIC_URL,
    REPOSITORY,
    TAG,
    URL_PATH,
    USER,
    command_text,
    file_text,
    name_text,
)
from orchestrator.core.target import TARGETS
from orchestrator.core.version import parse_version

# A node's target that means: the one of the machine that the coordinator runs on.
HOST_TARGET: Final = "host"


def inventory_schema() -> dict[str, Any]:
    """Return the JSON Schema of an inventory file, for editors."""
    node = NODE.schema()
    complete = {
        "$ref": "#/$defs/node",
        "required": node["required"],
        "anyOf": [{"required": ["host"]}, {"required": ["vm"]}],
    }
    node["required"] = [each.key for each in NODE.fields if each.required and not each.inherited]
    mapping = INVENTORY.schema()
    mapping["properties"]["nodes"]["items"] = {"$ref": "#/$defs/node"}
    # Without `defaults:` nothing else can give a node its host and target.
    mapping["if"] = {"required": ["defaults"]}
    mapping["else"] = {"properties": {"nodes": {"items": {"$ref": "#/$defs/complete"}}}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "An inventory of build nodes",
        "oneOf": [
            mapping,
            {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/complete"}},
        ],
        "$defs": {"node": node, "complete": complete},
    }


def _version_complaint(text: str) -> str | None:
    try:
        parse_version(text)
    except ConfigError as error:
        return f"{error.message}: {error.hint}"
    return None


def _host_complaint(text: str) -> str | None:
    # An IPv6 address has two colons at least.
    _, _, port = text.partition(":")
    if port.isdecimal():
        return f"a port has a key of its own: `port: {port[:5]}`"
    return None


def _host_key_complaint(text: str) -> str | None:
    words = text.split(" ")
    if text.startswith(("SHA256:", "MD5:")):
        return "is a fingerprint: the whole public key is needed, as `ssh-keyscan` prints it"
    if len(words) > 1 and not _is_key_blob(words[0], words[1]):
        return f"the second word is not a key of the kind that the first one names; must be {_KEY}"
    return None


def _is_key_blob(algorithm: str, blob: str) -> bool:
    # RFC 4253, section 6.6: a public key starts with its algorithm's name, length first.
    name = algorithm.encode(errors="replace")
    try:
        return base64.b64decode(blob, validate=True).startswith(len(name).to_bytes(4) + name)
    except (ValueError, binascii.Error):
        return False


def _store_complaint(text: str) -> str | None:
    scheme, separator, _ = text.partition("://")
    if text.startswith("file:"):
        return "a folder is written as its path, without `file:`"
    if separator and scheme != "gs":
        return "must be a folder or `gs://BUCKET[/PREFIX]`"
    return None


def _git_complaint(text: str) -> str | None:
    if text.startswith("http://"):
        return "must be fetched over https, ssh or from a path: http can be changed on its way"
    if not text.startswith("/") and "://" not in text and "@" in text and ":" in text:
        return "is written as `ssh://USER@HOST/PATH` here"
    return None


def _extra_complaint(text: str) -> str | None:
    if len(extra_name(text)) > MAX_ENTRY:
        return f"its last component is longer than {MAX_ENTRY} characters"
    return None


_KEY: Final = "a public key such as `ssh-ed25519 AAAA...`"
_BUILD_COMMAND: Final = command_text()
_CHECK_REFUSED: Final = ("{source}", "{jobs}")
_DIGEST: Final = "[0-9A-Fa-f]{64}"

_LOCKFILE: Final = Field(
    key="lockfile",
    kind=Choice(noun="lockfile rule", choices=tuple(Lockfile), convert=Lockfile),
    summary="What to do when a locked version cannot be had: stop, or resolve that package again.",
    example="repair",
)
_SUBDIRECTORY: Final = Field(
    key="subdirectory",
    kind=Text(
        words="a path below the source without `..`",
        pattern=rf"{NOT_ABOVE}[A-Za-z0-9._+]{PATH}",
    ),
    summary="The folder of the source that holds the crate's Cargo.toml.",
    example="crates/cli",
)

SOURCES: Final = (
    Record(
        title="project.source: a crate",
        summary="A crate from the registry that cargo is configured for.",
        value=CrateSource,
        fields=(
            Field(
                key="crate",
                kind=Text(words="a crate's name", pattern="[A-Za-z][A-Za-z0-9_-]*", max_length=64),
                summary="The crate's name; the version that is released is the one fetched.",
                example="ballistics-engine",
                required=True,
            ),
            _LOCKFILE,
        ),
    ),
    Record(
        title="project.source: a git tag",
        summary="A tag of a git repository.",
        value=GitSource,
        fields=(
            Field(
                key="git",
                kind=Text(
                    words="a git URL (https, ssh, file) without a password, or an absolute path",
                    pattern=rf"https://{HOSTNAME}{PORT}{URL_PATH}"
                    rf"|ssh://(?:{USER}@)?{HOSTNAME}{PORT}{URL_PATH}"
                    rf"|(?:file://)?/{PATH}",
                    max_length=1024,
                    complaint=_git_complaint,
                ),
                summary="The repository.",
                example="https://github.com/ajokela/ballistics-engine",
                required=True,
            ),
            Field(
                key="tag",
                kind=TAG,
                summary="The tag that holds a version; `{version}` is replaced.",
                example="v{version}",
            ),
            _SUBDIRECTORY,
            _LOCKFILE,
        ),
    ),
    Record(
        title="project.source: an archive",
        summary="A .tar.gz from a URL, accepted only with its digest.",
        value=ArchiveSource,
        fields=(
            Field(
                key="archive",
                kind=Text(
                    words="an https URL",
                    pattern=rf"https://{HOSTNAME}{PORT}/(?:\{{version\}}|[A-Za-z0-9._~/+-])*",
                    max_length=1024,
                    refused=("{target}", "{name}", "{source}", "{jobs}"),
                ),
                summary="Where the archive is; `{version}` is replaced.",
                example="https://github.com/OWNER/NAME/archive/v{version}.tar.gz",
                required=True,
            ),
            Field(
                key="sha256",
                kind=TextOrMap(
                    text=Text(
                        words="a SHA-256 digest of 64 hexadecimal digits",
                        pattern=_DIGEST,
                        convert=lambda digest: ((ANY_VERSION, digest.lower()),),
                    ),
                    mapping=MapOf(
                        words="a mapping of versions to SHA-256 digests",
                        key=Text(
                            words="a version",
                            pattern=r"[0-9]+\.[0-9]+\.[0-9]+[0-9A-Za-z.+-]*",
                            max_length=64,
                            complaint=_version_complaint,
                        ),
                        value=Text(
                            words="a SHA-256 digest of 64 hexadecimal digits",
                            pattern=_DIGEST,
                            convert=str.lower,
                        ),
                    ),
                ),
                summary="The archive's digest, or one for each version if the URL has `{version}`.",
                example={"1.4.0": "0" * 64},
                required=True,
            ),
            _SUBDIRECTORY,
            _LOCKFILE,
        ),
    ),
    Record(
        title="project.source: a folder",
        summary="A git work tree on the coordinator.",
        value=PathSource,
        fields=(
            Field(
                key="path",
                kind=file_text("a folder"),
                summary="The folder; its HEAD commit is what is released.",
                example="../ballistics-engine",
                required=True,
            ),
            Field(
                key="allow_dirty",
                kind=Flag(),
                summary="Release the files as they are, also those that are not committed.",
                example=True,
            ),
            _SUBDIRECTORY,
            _LOCKFILE,
        ),
    ),
)

PROJECT: Final = Record(
    title="project",
    summary="The program that is released.",
    value=Project,
    fields=(
        Field(
            key="name",
            kind=NAME,
            summary="The name in file names and in the index; without it, the first binary's.",
            example="ballistics",
        ),
        Field(
            key="binaries",
            kind=ListOf(item=name_text("a file name"), unique=True),
            summary="The programs in a release, without `.exe`; without it, one with the "
            "project's name.",
            example=["ballistics"],
        ),
        Field(
            key="source",
            kind=Variants(records=SOURCES),
            summary="Where the source comes from; without it, each node's command fetches it.",
            example={"crate": "ballistics-engine"},
        ),
        Field(
            key="build_command",
            kind=_BUILD_COMMAND,
            summary="The command of every node that has none of its own.",
            example="cd {source} && cargo build --release --locked --offline",
        ),
        Field(
            key="version_command",
            kind=command_text(refused=_CHECK_REFUSED, needed="{binary}"),
            summary="Run for every binary; its output must name the version.",
            example="{binary} --version",
        ),
        Field(
            key="gate",
            kind=OneOrMany(item=command_text(refused=_CHECK_REFUSED)),
            summary="Commands that must all end with 0 on the target's own system before a binary "
            "is published.",
            example=["{binary} self-test"],
        ),
        Field(
            key="benchmark",
            kind=command_text(refused=_CHECK_REFUSED, needed="{binary}"),
            summary="Run and timed by `bench --bench-variants`: is a variant faster?",
            example="{binary} trajectory --max-range 3000",
        ),
        Field(
            key="extras",
            kind=ListOf(
                item=Text(
                    words="a path of letters, digits, `.`, `_`, `/`, `+` and `-` without `..`, "
                    "whose last component begins with none of `.`, `-`; `{version} {target} "
                    "{name}` are replaced",
                    pattern=rf"{NOT_ABOVE}(?:(?:{FILLED}|[A-Za-z0-9._/+-])*/)?"
                    rf"(?:{FILLED}|[A-Za-z0-9_+])(?:{FILLED}|[A-Za-z0-9._+-])*",
                    max_length=1024,
                    refused=("{source}", "{jobs}"),
                    complaint=_extra_complaint,
                ),
                unique=True,
                max_items=MAX_EXTRAS,
            ),
            summary="Files that lie in the archive beside the binaries: licence, man pages, "
            "completions.",
            example=["LICENSE", "man/ballistics.1", "completions/ballistics.bash"],
        ),
        Field(
            key="leaks",
            kind=Choice(noun="leak rule", choices=tuple(LeakPolicy), convert=LeakPolicy),
            summary="What a path or name of the node inside a binary means.",
            example="refuse",
        ),
    ),
)

_EXAMPLE_KEY: Final = (
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
)
_PUBLIC_KEY: Final = Text(
    words="a `.pub` file, or the line `ssh-ed25519 AAAA...` in it",
    pattern=rf"ssh-ed25519 AAAA[A-Za-z0-9+/]{{64}}(?: {LINE})?"
    rf"|(?=[\s\S]*\S)(?!file:)(?!ssh-){LINE}",
    max_length=1024,
)

SIGNING: Final = Record(
    title="publication.signing",
    summary="How the index and the artifacts are signed.",
    value=Signing,
    fields=(
        Field(
            key="key",
            kind=file_text("a file"),
            summary="The private key file that `orchestrator keygen` makes, or the `.pub` file of "
            "a key in ssh-agent; `~/` is the home.",
            example="~/.config/orchestrator/ballistics.key",
            required=True,
        ),
        Field(
            key="trusted",
            kind=ListOf(item=_PUBLIC_KEY, unique=True),
            summary="Other keys whose signatures are accepted, and which installers pin too.",
            example=[_EXAMPLE_KEY],
        ),
        Field(
            key="rotation",
            kind=_PUBLIC_KEY,
            summary="The public half of an offline key that vouches for the ones above.",
            example="~/.config/orchestrator/rotation.pub",
        ),
    ),
)

GITHUB: Final = Record(
    title="publication.github",
    summary="A GitHub repository whose releases get the archives as assets, too.",
    value=GitHubReleases,
    fields=(
        Field(
            key="repository",
            kind=REPOSITORY,
            summary="The repository.",
            example="ajokela/ballistics-engine",
            required=True,
        ),
        Field(
            key="tag",
            kind=TAG,
            summary="The tag of a version's release; `{version}` is replaced.",
            example="v{version}",
        ),
        Field(
            key="token_file",
            kind=file_text("a file"),
            summary="The file that holds the token, and only its owner may read; without it, the "
            "environment variable `GITHUB_TOKEN` holds it.",
            example="~/.config/orchestrator/github-token",
        ),
    ),
)

PUBLICATION: Final = Record(
    title="publication",
    summary="Where a release goes, and who can check it.",
    value=Publication,
    fields=(
        Field(
            key="store",
            kind=Text(
                words="a folder or `gs://BUCKET[/PREFIX]`",
                pattern=rf"gs://[a-z0-9][a-z0-9._-]+[a-z0-9](?:/[A-Za-z0-9._/-]*)?"
                rf"|(?=[\s\S]*\S)(?!file:)(?![A-Za-z0-9+.-]*://){LINE}",
                max_length=1024,
                complaint=_store_complaint,
            ),
            summary="The folder or bucket that a release is published into.",
            example="dist/store",
        ),
        Field(
            key="url",
            kind=PUBLIC_URL,
            summary="Where people fetch what the store holds.",
            example="https://ballistics.zip",
        ),
        Field(
            key="channel",
            kind=NAME,
            summary="The index that a release joins.",
            example="beta",
        ),
        Field(
            key="signing",
            kind=SIGNING,
            summary="How the index and the artifacts are signed; nothing is published unsigned.",
            example={"key": "~/.config/orchestrator/ballistics.key"},
        ),
        Field(
            key="flat",
            kind=Flag(),
            summary="Also publish bare binaries as `VERSION/PROJECT-VERSION-OS-ARCH`.",
            example=True,
        ),
        Field(
            key="verify",
            kind=Flag(),
            summary="Whether a release ends by reading itself back through `url`.",
            example=True,
        ),
        Field(
            key="expires",
            kind=Duration(),
            summary="How long installers trust an index that nobody renews.",
            example="30d",
        ),
        Field(
            key="github",
            kind=GITHUB,
            summary="Also attach the archives to a GitHub release.",
            example={"repository": "ajokela/ballistics-engine"},
        ),
    ),
)

_NODE_FIELDS: Final = (
    Field(
        key="name",
        kind=NAME,
        summary="The node's own name.",
        example="openbsd-aarch64-emulated",
        required=True,
    ),
    Field(
        key="host",
        kind=Text(
            words="`local`, or `[USER@]HOST` of letters, digits, `.`, `_` and `-`",
            pattern=rf"(?:{USER}@)?(?:{HOSTNAME}|[0-9A-Fa-f]*:[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*)",
            complaint=_host_complaint,
        ),
        summary=f"Where it is reached over SSH, or `{LOCAL}` for the coordinator's own machine; a "
        "node with `vm` may leave it out.",
        example="root@10.1.1.23",
    ),
    Field(
        key="target",
        kind=Choice(noun="target", choices=(*TARGETS, HOST_TARGET)),
        summary=f"The Rust target triple that it builds, or `{HOST_TARGET}` on `host: {LOCAL}` for "
        "that machine's own.",
        example="aarch64-unknown-openbsd",
        required=True,
        inherited=True,
    ),
    Field(
        key="build_command",
        kind=_BUILD_COMMAND,
        summary="What builds the program; `{version} {target} {name} {source} {jobs}` are "
        "replaced.",
        example="cd {source} && cargo build --release --locked --offline",
    ),
    Field(
        key="binary_path",
        kind=Text(
            words="an absolute path of letters, digits, `.`, `_`, `/`, `+` and `-` without `..`; "
            "`{version} {target} {name}` are replaced",
            pattern=rf"{NOT_ABOVE}/(?:{FILLED}|[A-Za-z0-9._/+-])*(?:{FILLED}|[A-Za-z0-9._+-])",
            max_length=1024,
            refused=("{source}", "{jobs}"),
        ),
        summary="Where the first binary is then; the other ones lie beside it.",
        example="/home/build/ballistics-engine-{version}/target/release/ballistics",
    ),
    Field(
        key="enabled",
        kind=Flag(),
        summary="Whether a release uses it without being told to.",
        example=False,
    ),
    Field(
        key="dedicated",
        kind=Flag(),
        summary="Whether it does nothing but build: its provenance then claims SLSA build L2.",
        example=True,
    ),
    Field(
        key="policy",
        kind=Choice(noun="policy", choices=tuple(Policy), convert=Policy),
        summary="What its failure means: nothing is published, the exit code says so, or neither.",
        example="best-effort",
    ),
    Field(
        key="host_key",
        kind=Text(
            words=_KEY,
            pattern=r"(?:ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521)) "
            rf"AAAA[A-Za-z0-9+/]+=*(?: {LINE})?",
            max_length=4096,
            complaint=_host_key_complaint,
        ),
        summary="The only host key that is accepted from it.",
        example=_EXAMPLE_KEY,
    ),
    Field(
        key="identity",
        kind=file_text("a file"),
        summary="The private key file to log in with; without it, the agent's and the usual ones.",
        example="~/.ssh/build-orchestrator",
    ),
    Field(
        key="port",
        kind=Whole(minimum=1, maximum=65_535),
        summary="The port of its SSH server.",
        example=2222,
    ),
    Field(
        key="env",
        kind=MapOf(
            words="a mapping of environment variables to text",
            key=Text(
                words="a name of upper-case letters, digits and `_`", pattern="[A-Z_][A-Z0-9_]*"
            ),
            value=Text(words="text on one line", pattern=LINE, max_length=32_768),
        ),
        summary="Environment variables of its build.",
        example={"RUSTFLAGS": "-C target-cpu=x86-64-v2"},
    ),
    Field(
        key="workdir",
        kind=Text(
            words="an absolute path of letters, digits, `.`, `_`, `/`, `+` and `-` without `..`",
            pattern=rf"{NOT_ABOVE}/{PATH}",
        ),
        summary="The folder on it that jobs live in; without it, one below the home.",
        example="/var/build/orchestrator",
    ),
    Field(
        key="timeout",
        kind=Duration(),
        summary="How long a build may take.",
        example="2h",
    ),
    Field(
        key="silence_timeout",
        kind=Duration(),
        summary="How long a build may write nothing.",
        example="20m",
    ),
    Field(
        key="connect_timeout",
        kind=Duration(),
        summary="How long connecting may take.",
        example="10s",
    ),
    Field(
        key="reconnect_timeout",
        kind=Duration(),
        summary="How long a lost node is waited for while it builds and no other one answers.",
        example="1h",
    ),
    Field(
        key="log_limit",
        kind=Size(),
        summary="How much a build may write to its log.",
        example="200MB",
    ),
    Field(
        key="vm",
        kind=NAME,
        summary="The folder below `vms/` of the virtual machine that it is, which is started for a "
        "job and stopped after it.",
        example="openbsd-aarch64",
    ),
    Field(
        key="group",
        kind=NAME,
        summary="What nodes that share a CPU have in common.",
        example="rig",
    ),
    Field(
        key="slots",
        kind=Whole(minimum=1, maximum=1024),
        summary="How many builds run at once in its group; said by one node, it holds for all.",
        example=2,
    ),
    Field(
        key="jobs",
        kind=Whole(minimum=1, maximum=1024),
        summary="How many compilers run at once, for `{jobs}`; without it, as many as it has CPUs.",
        example=4,
    ),
    Field(
        key="os_release",
        kind=Text(
            words='an OS release in quotes, such as `"7.8"`',
            pattern=r"[0-9]+(?:\.[0-9]+)*",
            max_length=16,
        ),
        summary="The OS release that it builds for; without it, the one that it runs.",
        example="7.8",
    ),
    Field(
        key="gate_on",
        kind=OneOrMany(item=NAME, unique=True),
        summary="The nodes that run the gate for it, for a node that cross-builds.",
        example="openbsd-aarch64",
    ),
    Field(
        key="variants",
        kind=OneOrMany(item=Choice(noun="CPU", choices=tuple(VARIANTS)), unique=True),
        summary="CPUs that it builds faster binaries for, beside the one that runs everywhere.",
        example="x86-64-v3",
    ),
)

NODE: Final = Record(
    title="nodes[]",
    summary="One target on one host.",
    value=Node,
    fields=_NODE_FIELDS,
)

DEFAULTS: Final = Record(
    title="defaults",
    summary="What a node has unless it says otherwise; a node's own value replaces the whole one.",
    value=Node,
    fields=tuple(
        dataclasses.replace(each, required=False) for each in _NODE_FIELDS if each.key != "name"
    ),
)

INVENTORY: Final = Record(
    title="the file",
    summary="A mapping with these keys, or, shorter, only the list of nodes.",
    value=Inventory,
    fields=(
        Field(
            key="project",
            kind=PROJECT,
            summary="The program that is released.",
            example={"name": "ballistics"},
        ),
        Field(
            key="publication",
            kind=PUBLICATION,
            summary="Where a release goes, and who can check it.",
            example={"store": "dist/store"},
        ),
        Field(
            key="defaults",
            kind=DEFAULTS,
            summary="What a node has unless it says otherwise.",
            example={"policy": "best-effort"},
        ),
        Field(
            key="nodes",
            kind=ListOf(item=NODE),
            summary="The machines that build.",
            example=[{"name": "local", "host": "local", "target": "host"}],
            required=True,
        ),
        Field(
            key="service",
            kind=SERVICE,
            summary="How `orchestrator serve` runs.",
            example={"repository": "ajokela/ballistics-engine"},
        ),
    ),
)

RECORDS: Final = (
    *(INVENTORY, PROJECT, *SOURCES, PUBLICATION, SIGNING, GITHUB, NODE),
    *(SERVICE, *NOTICES),
)
