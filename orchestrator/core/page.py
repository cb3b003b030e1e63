"""The download page: an index and what is particular to a project → index.html."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

from orchestrator.core.downloads import platforms_of, versions_of
from orchestrator.core.index import Status
from orchestrator.core.installer import check_values
from orchestrator.core.page_style import STYLE
from orchestrator.core.page_verification import render_commands, render_verification
from orchestrator.core.wording import human_size, install_command

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from orchestrator.core.downloads import Platform
    from orchestrator.core.index import Index, Row
    from orchestrator.core.installer import InstallerValues
    from orchestrator.core.result import Floor


def render_page(values: InstallerValues, index: Index, *, statements: Collection[str] = ()) -> str:
    """Return index.html: how to install, what there is for each platform, how to verify it.

    `statements` are the names of the provenance and SBOM files that exist: of these, the ones
    beside a shown archive are linked. Links are relative, so that the page also works on a mirror.
    """
    check_values(values)
    platforms = platforms_of(index.rows)
    versions = versions_of(index.rows)
    return _PAGE.format(
        project=escape(values.project),
        serial=index.serial,
        issued=index.issued.isoformat(),
        expires=index.expires.isoformat(),
        index_name=escape(f"{index.channel}.idx"),
        style=STYLE,
        summary=_summary(versions, platforms),
        install=_install(values.base_urls),
        signature=_SIGNATURE if values.ssh_keys else "",
        builds=_builds(versions, platforms, statements) if platforms else _NOTHING_YET,
        verification=render_verification(values, next(_archives(platforms), None)),
    )


def _summary(versions: Sequence[str], platforms: Sequence[Platform]) -> str:
    if not versions:
        return "Nothing is published yet."
    newest = versions[0]
    count = sum(1 for each in platforms if each.newest and str(each.newest.version) == newest)
    return (
        f"The newest version is <strong>{escape(newest)}</strong>, "
        f"built for {count} of {len(platforms)} platforms."
    )


def _install(base_urls: Sequence[str]) -> str:
    first, *others = (url.rstrip("/") for url in base_urls)
    commands = "\n".join(
        f"<dt>{who}</dt>\n<dd>{render_commands(command)}</dd>"
        for who, command in _other_commands(first)
    )
    if others:
        lines = "\n".join(install_command(url) for url in others)
        commands += (
            f"\n<dt>If that address cannot be reached</dt>\n<dd>{render_commands(lines)}</dd>"
        )
    line = render_commands(install_command(first))
    return f'<div class="first">{line}</div>\n<dl>\n{commands}\n</dl>'


def _other_commands(url: str) -> tuple[tuple[str, str], ...]:
    script = f"{url}/install.sh"
    download = install_command(url).removesuffix(" | sh").replace(script, f"-o install.sh {script}")
    return (
        ("Linux with wget", f"wget -qO- {script} | sh"),
        ("FreeBSD, DragonFly", f"fetch -qo - {script} | sh"),
        ("OpenBSD, NetBSD", f"ftp -Vo - {script} | sh"),
        (
            "In scripts and CI, where a failed download must be noticed",
            f"{download} && sh install.sh",
        ),
    )


def _archives(platforms: Iterable[Platform]) -> Iterator[str]:
    """Return the file names of the newest archives."""
    return (row.path.rpartition("/")[2] for each in platforms if (row := each.newest) and row.path)


_SHOWN_VERSIONS: Final = 5


def _builds(
    versions: Sequence[str], platforms: Sequence[Platform], statements: Collection[str]
) -> str:
    older = versions[_SHOWN_VERSIONS:]
    table = _table(versions[:_SHOWN_VERSIONS], platforms, label="newest versions")
    if older:
        table += (
            f"\n<details>\n<summary>Older versions ({len(older)})</summary>\n"
            f"{_table(older, platforms, label='older versions')}\n</details>"
        )
    files = "\n".join(_files(each, row, statements) for each in platforms if (row := each.newest))
    return f"{_glance(platforms)}\n{table}\n{_LEGEND}\n<h2>Downloads</h2>\n{files or _NO_BUILD}"


def _glance(platforms: Sequence[Platform]) -> str:
    """Return the newest version of each platform: a line for each version, newest first."""
    newest = [row for each in platforms if (row := each.newest)]
    lines = [
        _glance_line(
            version, [each for each in platforms if each.newest and version == _version_of(each)]
        )
        for version in versions_of(newest)
    ]
    without = [each for each in platforms if each.newest is None]
    if without:
        lines.append(_glance_line("none yet", without))
    joined = "\n".join(lines)
    return f'<dl class="glance">\n{joined}\n</dl>'


def _version_of(platform: Platform) -> str:
    return str(platform.newest.version) if platform.newest else ""


def _glance_line(version: str, platforms: Iterable[Platform]) -> str:
    names = ", ".join(f"<span>{escape(each.title)}{_late_note(each)}</span>" for each in platforms)
    return f"<dt>{escape(version)}</dt>\n<dd>{names}</dd>"


def _late_note(platform: Platform) -> str:
    late = platform.late
    return f" <small>({_lateness(late)})</small>" if late else ""


def _lateness(late: Row) -> str:
    return f"{escape(str(late.version))} is not built yet"


def _table(versions: Sequence[str], platforms: Sequence[Platform], *, label: str) -> str:
    head = "".join(f'<th scope="col">{escape(version)}</th>' for version in versions)
    rows = "\n".join(_table_row(versions, each) for each in platforms)
    return (
        f'<div class="scroll" role="region" aria-label="{label}" tabindex="0"><table>\n'
        f'<thead><tr><th scope="col">Platform</th>{head}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody>\n</table></div>"
    )


def _table_row(versions: Sequence[str], platform: Platform) -> str:
    own = platform.by_version()
    cells = "".join(_cell(own.get(version)) for version in versions)
    title = escape(platform.title)
    if platform.newest:
        title = f'<a href="#{escape(platform.name)}">{title}</a>'
    head = f'<th scope="row">{title}<code>{escape(platform.name)}</code></th>'
    return f"<tr>{head}{cells}</tr>"


def _cell(row: Row | None) -> str:
    if row is None:
        return '<td class="none"><span aria-hidden="true">—</span><i>never built</i></td>'
    word = escape(row.status)
    if row.status is Status.OK:
        word = f'<a href="{_address(row)}">{word}</a>'
    return f'<td class="{escape(row.status)}">{word}</td>'


def _address(row: Row) -> str:
    # With the dot, no path could be taken for a scheme, whatever it begins with.
    return escape(f"./{row.path}")


def _files(platform: Platform, row: Row, statements: Collection[str]) -> str:
    address = _address(row)
    folder, _, file_name = (row.path or "").rpartition("/")
    sides = [f'<a href="{address}.{end}">.{end}</a>' for end in ("sha256", "minisig", "sshsig")]
    sides += [
        f'<a href="{escape(f"./{folder}/{name}")}">{words}</a>'
        for name, words in (("provenance.json", "provenance"), ("sbom.cdx.json", "SBOM"))
        if f"{folder}/{name}" in statements
    ]
    facts = (human_size(row.size_bytes or 0), *map(_floor_in_words, row.floors))
    late = f"<p><small>{_lateness(platform.late)}</small></p>\n" if platform.late else ""
    return (
        f'<section class="files" id="{escape(platform.name)}">\n'
        f"<h3>{escape(platform.title)} <b>{escape(str(row.version))}</b></h3>\n"
        f"<p>{escape(' · '.join(facts))}</p>\n{late}"
        f'<p><a href="{address}">{escape(file_name)}</a></p>\n'
        f"<p>{' '.join(sides)}</p>\n"
        f"<p>SHA-256 <code>{escape(row.sha256 or '')}</code></p>\n"
        "</section>"
    )


def _floor_in_words(floor: Floor) -> str:
    if floor.name == "cpu":
        return f"needs an x86-64-v{floor.release} CPU"
    name = _FLOOR_NAMES.get(floor.name, floor.name)
    if floor.operator == "==":
        return f"runs on {name} {floor.release} only"
    return f"needs {name} {floor.release} or newer"


_FLOOR_NAMES: Final = {
    "freebsd": "FreeBSD",
    "openbsd": "OpenBSD",
    "netbsd": "NetBSD",
    "macos": "macOS",
}
_SIGNATURE: Final = '; it is <a href="./install.sh.sig">signed</a>'
_NOTHING_YET: Final = "<p>Nothing is published yet.</p>"
_NO_BUILD: Final = "<p>No build can be installed now.</p>"
_LEGEND: Final = """\
<p class="legend"><b>ok</b>: it can be installed; the word leads to the archive.
<b>pending</b>: the build is late. <b>yanked</b>: withdrawn, and installed only when its version is
asked for. <b>revoked</b>: never to be run again. <b>—</b>: never built.</p>"""

_PAGE: Final = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="index-serial" content="{serial}">
<meta name="index-issued" content="{issued}">
<meta name="index-expires" content="{expires}">
<title>Install {project}</title>
<style>
{style}</style>
</head>
<body>
<header>
<h1>{project}</h1>
<p>{summary}</p>
</header>
<main>
<h2>Install</h2>
{install}
<p><a href="./install.sh">Read the script</a> before you run it{signature}.
To see what it would do, end the line with <code>| sh -s -- --plan</code>; to take everything away
again, with <code>| sh -s -- --uninstall</code>. It verifies what it downloads, needs no root, and
installs the newest version that runs on your machine.</p>
<h2>Versions</h2>
{builds}
<h2>Verify by hand</h2>
{verification}
</main>
<footer>
<p>From <a href="./{index_name}">the signed index</a> with serial {serial}, issued on
<time datetime="{issued}">{issued}</time>, valid until
<time datetime="{expires}">{expires}</time>. The index is what counts; this page follows from it,
and so does <a href="./versions.json">versions.json</a>, for scripts.</p>
</footer>
</body>
</html>
"""
