"""install.sh and the download page: values → text that other people's machines run and read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import ConfigError, Problem
from orchestrator.core.index import Status
from orchestrator.core.signature import artifact_namespace
from orchestrator.core.template import render_template
from orchestrator.core.wording import human_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orchestrator.core.index import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallerValues:
    """What is particular to one project's installer; without keys it relies on TLS and hashes.

    `base_urls` are tried in order; `ssh_keys` are lines `ssh-ed25519 AAAA…` without a comment,
    `minisign_keys` the base64 line of a minisign public key. Any one key of each kind is enough.
    The `rotation` keys sign no index; they say which other keys do, when none of those has.
    `version_words` are what `version_words` makes of a project's version command.
    """

    project: str
    binaries: tuple[str, ...]
    base_urls: tuple[str, ...]
    channel: str
    ssh_keys: tuple[str, ...] = ()
    minisign_keys: tuple[str, ...] = ()
    rotation_ssh_keys: tuple[str, ...] = ()
    rotation_minisign_keys: tuple[str, ...] = ()
    version_words: str = "--version"


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """A line of the download page: the newest build for a target, and a newer one that is late."""

    target: str
    version: str | None = None
    size_bytes: int | None = None
    floors: tuple[str, ...] = ()
    path: str | None = None
    pending: str | None = None


def version_words(command: str) -> str:
    """Return what follows the binary in a version command, `?` if it is more than plain words.

    Those enter the script, which splits them at spaces; a shell command never does.
    """
    match = _VERSION_COMMAND.fullmatch(command)
    return " ".join(match[1].split()) if match else UNKNOWN_WORDS


def render_installer(template: str, values: InstallerValues) -> str:
    """Return install.sh; raise ConfigError that lists every value which may not enter a script."""
    _check(values)
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
            "version_words": values.version_words,
        },
    )


def summarize_downloads(rows: Sequence[Row]) -> tuple[Download, ...]:
    """Return a line per target (and exact OS release), in the order of the rows.

    The rows are an index's: newest version first within a target.
    """
    newest: dict[_Key, Row] = {}
    late: dict[_Key, Row] = {}
    for row in rows:
        key = (row.target, row.exact_release)
        if row.status is Status.OK:
            newest.setdefault(key, row)
        elif row.status is Status.PENDING and not _has_build(newest, key):
            late.setdefault(key, row)
    keys = dict.fromkeys((row.target, row.exact_release) for row in rows)
    return tuple(
        _download(newest.get(key), late.get(key) or late.get((key[0], None)), target=key[0])
        for key in keys
        if key in newest or (key in late and not _has_build(newest, key))
    )


def render_download_page(values: InstallerValues, downloads: Sequence[Download]) -> str:
    """Return index.html: how to install and verify, and what there is for each target."""
    _check(values)
    url = values.base_urls[0].rstrip("/")
    return _PAGE.format(
        project=escape(values.project),
        style=_STYLE,
        commands="\n".join(
            f"<dt>{escape(who)}</dt>\n<dd><pre>{escape(command)}</pre></dd>"
            for who, command in _commands(url)
        ),
        script=escape(f"{url}/install.sh"),
        rows="\n".join(_table_row(url, download) for download in downloads)
        or '<tr><td colspan="5">nothing is published yet</td></tr>',
        verification=_verification(values),
    )


_Key = tuple[str, str | None]


def _has_build(newest: dict[_Key, Row], key: _Key) -> bool:
    # What waits without naming an OS release waits for every release of its target.
    target, release = key
    return key in newest or (release is None and any(each == target for each, _ in newest))


def _download(newest: Row | None, late: Row | None, *, target: str) -> Download:
    pending = str(late.version) if late else None
    if newest is None:
        return Download(target=target, pending=pending)
    return Download(
        target=target,
        version=str(newest.version),
        size_bytes=newest.size_bytes,
        floors=tuple(str(floor) for floor in newest.floors),
        path=newest.path,
        pending=pending,
    )


def _check(values: InstallerValues) -> None:
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
        ("version_words", _VERSION_WORDS, (values.version_words,)),
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
    _SSH_KEY: "a line `ssh-ed25519 AAAA…` without a comment",
    _MINISIGN_KEY: "the base64 line of a minisign public key",
    _VERSION_WORDS: "up to ten words of letters, digits and ._+:,=/- (or ? for unknown)",
}


def _commands(url: str) -> tuple[tuple[str, str], ...]:
    curl = "curl --proto '=https' --tlsv1.2 -sSf" if url.startswith("https:") else "curl -sSf"
    return (
        ("macOS, and wherever curl is", f"{curl} {url}/install.sh | sh"),
        ("FreeBSD, DragonFly", f"fetch -qo - {url}/install.sh | sh"),
        ("OpenBSD, NetBSD", f"ftp -Vo - {url}/install.sh | sh"),
        ("Linux with wget", f"wget -qO- {url}/install.sh | sh"),
        (
            "In scripts and CI, where a failed download must be noticed",
            f"{curl} -o install.sh {url}/install.sh && sh install.sh",
        ),
    )


def _table_row(url: str, download: Download) -> str:
    version = escape(download.version or "none yet")
    if download.pending:
        version += f"<br><small>{escape(download.pending)} is not built yet</small>"
    floors = escape(", ".join(download.floors)) or "any"
    link = ""
    if download.path is not None:
        address = escape(f"{url}/{download.path}")
        sides = " ".join(
            f'<a href="{address}.{side}">{side}</a>' for side in ("sha256", "minisig", "sshsig")
        )
        link = f'<a href="{address}">.tar.gz</a> {sides}'
    size = "" if download.size_bytes is None else human_size(download.size_bytes)
    cells = (version, floors, size, link)
    columns = "".join(f"<td>{cell}</td>" for cell in cells)
    return f'<tr><th scope="row">{escape(download.target)}</th>{columns}</tr>'


def _verification(values: InstallerValues) -> str:
    commands = ["sha256sum -c FILE.sha256    # macOS: shasum -a 256 -c FILE.sha256"]
    commands += [f"minisign -V -P {key} -x FILE.minisig -m FILE" for key in values.minisign_keys]
    commands += [
        f"echo '{values.project} {key}' > signers\n"
        f"ssh-keygen -Y verify -f signers -I {values.project} "
        f"-n {artifact_namespace(values.project)} -s FILE.sshsig < FILE"
        for key in values.ssh_keys
    ]
    return "\n".join(f"<pre>{escape(command)}</pre>" for command in commands)


_STYLE: Final = """\
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
pre { overflow-x: auto; padding: .6rem; border: 1px solid #8888; border-radius: .3rem; }
dd { margin: 0; }
div { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; }
tr { border-bottom: 1px solid #8888; }
"""

_PAGE: Final = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Install {project}</title>
<style>
{style}</style>
</head>
<body>
<h1>Install {project}</h1>
<p>One line, as your own user or as root:</p>
<dl>
{commands}
</dl>
<p><a href="{script}">Read the script</a> before you run it. To see what it would do, end the line
with <code>| sh -s -- --plan</code>; to take everything away again, with
<code>| sh -s -- --uninstall</code>.</p>
<h2>Builds</h2>
<div><table>
<thead><tr><th scope="col">target</th><th scope="col">newest version</th>\
<th scope="col">needs</th><th scope="col">size</th><th scope="col">files</th></tr></thead>
<tbody>
{rows}
</tbody>
</table></div>
<h2>Verify</h2>
<p>The installer does this by itself. By hand, with an archive and the files beside it:</p>
{verification}
</body>
</html>
"""
