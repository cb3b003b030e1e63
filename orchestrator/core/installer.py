"""install.sh: values → text that other people's machines run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import ConfigError, Problem
from orchestrator.core.inventory import CrateSource, GitSource
from orchestrator.core.template import render_template

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.core.inventory import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallerValues:
    """What is particular to one project's installer; without keys it relies on TLS and hashes.

    `base_urls` are tried in order; `ssh_keys` are lines `ssh-ed25519 AAAA…` without a comment,
    `minisign_keys` the base64 line of a minisign public key. Any one key of each kind is enough.
    The `rotation` keys sign no index; they say which other keys do, when none of those has.
    `keys_serial` is that of the store's keys.txt, 0 without one: an older one is refused.
    `version_words` are what `version_words` makes of a project's version command.
    `version` is what this copy of the script installs unless told otherwise; empty: the newest.
    `source_command` is for a host without a build; empty: nothing more is known than cargo.
    `newest` are rows of the index, as it has them, that tell where each host's newest build is: the
    script begins to download it while the index is on its way, and believes nothing else of them.
    """

    project: str
    binaries: tuple[str, ...]
    base_urls: tuple[str, ...]
    channel: str
    ssh_keys: tuple[str, ...] = ()
    minisign_keys: tuple[str, ...] = ()
    rotation_ssh_keys: tuple[str, ...] = ()
    rotation_minisign_keys: tuple[str, ...] = ()
    keys_serial: int = 0
    version_words: str = "--version"
    version: str = ""
    source_command: str = ""
    newest: tuple[str, ...] = ()


def source_command(source: Source | None) -> str:
    """Return the cargo command that installs the newest source that anybody can get, or nothing."""
    match source:
        case CrateSource(crate=crate):
            command = f"cargo install --locked {crate}"
        case GitSource(git=url) if url.startswith("https://"):
            command = f"cargo install --locked --git {url}"
        case _:
            return ""
    return command if _SOURCE_COMMAND.fullmatch(command) else ""


def version_words(command: str) -> str:
    """Return what follows the binary in a version command, `?` if it is more than plain words.

    Those enter the script, which splits them at spaces; a shell command never does.
    """
    match = _VERSION_COMMAND.fullmatch(command)
    return " ".join(match[1].split()) if match else UNKNOWN_WORDS


def render_installer(template: str, values: InstallerValues) -> str:
    """Return install.sh; raise ConfigError that lists every value which may not enter a script."""
    check_values(values)
    return render_template(
        template,
        {
            "project": values.project,
            "binaries": "\n".join(values.binaries),
            "base_urls": "\n".join(url.rstrip("/") for url in values.base_urls),
            "channel": values.channel,
            "ssh_keys": "\n".join(values.ssh_keys),
            "minisign_keys": "\n".join(values.minisign_keys),
            "rotation_ssh_keys": "\n".join(values.rotation_ssh_keys),
            "rotation_minisign_keys": "\n".join(values.rotation_minisign_keys),
            "keys_serial": str(values.keys_serial),
            "version_words": values.version_words,
            "version": values.version,
            "source_command": values.source_command,
            "newest": "\n".join(values.newest),
        },
    )


def check_values(values: InstallerValues) -> None:
    """Raise ConfigError that lists every value which may not enter a script."""
    problems = tuple(_problems(values))
    if problems:
        raise ConfigError.of(
            problems, hint="every value enters a script that other people run: nothing is quoted"
        )


def _problems(values: InstallerValues) -> Iterator[Problem]:
    checks = (
        ("project", _NAME, (values.project,)),
        ("binaries", _NAME, values.binaries),
        ("channel", _NAME, (values.channel,)),
        ("base_urls", _URL, values.base_urls),
        ("ssh_keys", _SSH_KEY, values.ssh_keys),
        ("minisign_keys", _MINISIGN_KEY, values.minisign_keys),
        ("rotation_ssh_keys", _SSH_KEY, values.rotation_ssh_keys),
        ("rotation_minisign_keys", _MINISIGN_KEY, values.rotation_minisign_keys),
        ("keys_serial", _SERIAL, (str(values.keys_serial),)),
        ("version_words", _VERSION_WORDS, (values.version_words,)),
        ("version", _NAME, (values.version,) if values.version else ()),
        (
            "source_command",
            _SOURCE_COMMAND,
            (values.source_command,) if values.source_command else (),
        ),
        ("newest", _ROW, values.newest),
    )
    for place, pattern, words in checks:
        for word in words:
            if not pattern.fullmatch(word):
                yield Problem(place, f"not {_EXPECTED[pattern]}: {word[:80]!r}")
    for place, words in (("binaries", values.binaries), ("base_urls", values.base_urls)):
        if not words:
            yield Problem(place, "at least one is needed")


_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
# Plain http never leaves this machine; the script makes the same distinction again when it runs.
_URL: Final = re.compile(
    r"(?:https://[A-Za-z0-9][A-Za-z0-9._-]*|http://(?:127\.0\.0\.1|localhost|\[::1\]))"
    r"(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~%/-]*)?"
)
_SSH_KEY: Final = re.compile(r"ssh-ed25519 AAAA[A-Za-z0-9+/]{64}")
_MINISIGN_KEY: Final = re.compile(r"RW[A-Za-z0-9+/]{54}")
_SERIAL: Final = re.compile(r"0|[1-9][0-9]{0,8}")
# A crate's name, or an address without user, query and fragment.
_SOURCE_COMMAND: Final = re.compile(
    r"cargo install --locked (?:[A-Za-z0-9_-]{1,99}|--git https://[A-Za-z0-9][A-Za-z0-9._~:/%-]{0,299})"
)
_ROW: Final = re.compile(r"[A-Za-z0-9._+/:=<>,-]{1,1000}(?:\t[A-Za-z0-9._+/:=<>,-]{1,1000}){6}")
# Where the words of a version command are not known.
UNKNOWN_WORDS: Final = "?"
# Nothing that a shell splits (but spaces), expands or takes for syntax, not even unquoted.
_WORD: Final = r"[A-Za-z0-9._+:,=/-]{1,99}"
_VERSION_WORDS: Final = re.compile(rf"\?|(?:{_WORD}(?: {_WORD}){{0,9}})?")
_VERSION_COMMAND: Final = re.compile(
    rf'\s*(?:{{binary}}|"{{binary}}")((?:[ \t]+{_WORD}){{0,10}})\s*'
)
_EXPECTED: Final = {
    _NAME: "a name of letters, digits and ._+-",
    _URL: "an https URL (http only on this machine, without user, query or fragment)",
    _ROW: "a row of an index",
    _SSH_KEY: "a line `ssh-ed25519 AAAA…` without a comment",
    _MINISIGN_KEY: "the base64 line of a minisign public key",
    _SERIAL: "a serial of up to nine digits",
    _SOURCE_COMMAND: "a command `cargo install --locked NAME`",
    _VERSION_WORDS: "up to ten words of letters, digits and ._+:,=/- (or ? for unknown)",
}
