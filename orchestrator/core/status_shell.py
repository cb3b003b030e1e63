"""What all status pages have around their content, and what they are made from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from orchestrator.core.status_style import STYLE
from orchestrator.core.status_words import ROOT, moment, plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from orchestrator.core.board_view import LiveRelease


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What is the same on all pages of one project.

    `downloads` is where its download page is, `script` the digest of status.js; `has_actions` says
    whether somebody with a token can act here.
    """

    project: str
    downloads: str
    script: str
    has_actions: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """What is so at the moment of a page.

    `running` has the releases that run in this process by their orders' keys; `mark` changes when
    the page has to be made again.
    """

    now: datetime
    mark: str
    running: Mapping[str, LiveRelease]


STYLE_DIGEST: Final = hashlib.sha256(STYLE.encode()).hexdigest()[:16]


def render_shell(
    site: Site, present: Present, *, title: str, header: str, main: str, is_live: bool
) -> str:
    """Return the page; one that is live is made again every few seconds without JavaScript."""
    return _SHELL.format(
        title=plain(title),
        root=ROOT,
        style=STYLE_DIGEST,
        script=plain(site.script),
        refresh=_REFRESH if is_live else "",
        downloads=plain(site.downloads),
        header=header,
        mark=plain(present.mark),
        main=main,
        made=moment(present.now),
    )


def section(name: str, title: str, content: str) -> str:
    """Return a part of a page under its heading, nothing for nothing; `content` is HTML."""
    if not content:
        return ""
    return (
        f'<section id="{name}" aria-labelledby="{name}-title">\n'
        f'<h2 id="{name}-title">{title}</h2>\n{content}\n</section>'
    )


def table(label: str, heads: Sequence[str], rows: str) -> str:
    """Return a table, on a narrow screen a list of what its rows say; `rows` are HTML."""
    head = "".join(f'<th scope="col">{title}</th>' for title in heads)
    return (
        f'<div class="scroll" role="region" aria-label="{label}" tabindex="0">\n'
        f'<table class="stack">\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>"
    )


def cell(label: str, content: str, *, is_wide: bool = False) -> str:
    """Return a cell of a table; `label` is its column, which a narrow screen repeats."""
    kind = ' class="words"' if is_wide else ""
    return f'<td data-label="{label}"{kind}>{content}</td>'


_REFRESH: Final = '<noscript><meta http-equiv="refresh" content="5"></noscript>\n'
_SHELL: Final = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{root}/status.css?{style}">
<script src="{root}/status.js?{script}" defer></script>
{refresh}</head>
<body>
<a class="skip" href="#main">To the content</a>
<header>
<nav aria-label="Pages"><a href="{root}">Status</a> <a href="{root}/releases">History</a>
<a href="{downloads}">Download</a></nav>
{header}
</header>
<main id="main" tabindex="-1" data-mark="{mark}">
{main}
</main>
<footer>
<p>Made at {made}. <span id="link" class="quiet"></span></p>
<p id="said" class="hidden" role="status" aria-live="polite"></p>
</footer>
</body>
</html>
"""
