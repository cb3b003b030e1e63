"""The texts that several keys of an inventory hold: names, paths, addresses, commands."""

from __future__ import annotations

from typing import Final

from orchestrator.core.kinds import Text

# Patterns mean the same to Python and to ECMAScript, whose dialect a JSON Schema speaks.
# YAML can spell a lone surrogate, but no file and no shell can hold one.
LINE: Final = r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]*"
LINES: Final = r"(?=[\s\S]*\S)[^\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]+"
NOT_ABOVE: Final = r"(?!(?:[\s\S]*/)?\.\.(?:/|$))"
PATH: Final = "[A-Za-z0-9._/+-]*"
FILLED: Final = r"\{(?:version|target|name)\}"
HOSTNAME: Final = "[A-Za-z0-9_][A-Za-z0-9_.-]*"
USER: Final = "[A-Za-z0-9_][A-Za-z0-9_.-]*"
URL_PATH: Final = "(?:/[A-Za-z0-9._~/+-]*)?"
PORT: Final = "(?::[1-9][0-9]{0,4})?"
LOOPBACK: Final = r"(?:127\.0\.0\.1|localhost|\[::1\])"


def name_text(what: str) -> Text:
    """Return a name that goes into file names and commands."""
    return Text(
        words=f"{what} of `a-z 0-9 . _ -` that starts with a letter or digit",
        pattern="[a-z0-9][a-z0-9._-]*",
        max_length=64,
    )


def command_text(*, refused: tuple[str, ...] = (), needed: str = "") -> Text:
    """Return a command for a shell, of one line or several."""
    return Text(
        words="a shell command without control characters",
        pattern=LINES,
        max_length=65_536,
        refused=refused,
        needed=needed,
    )


def file_text(what: str) -> Text:
    """Return a path on the coordinator."""
    return Text(words=what, pattern=rf"(?=[\s\S]*\S)(?!file:){LINE}", max_length=1024)


TAG: Final = Text(
    words="a tag's name that does not start with `-`",
    pattern=r"(?!.*(?:\.\.|//|\.lock$))(?:\{version\}|[A-Za-z0-9])"
    r"(?:\{version\}|[A-Za-z0-9._/+-])*",
    needed="{version}",
)

NAME: Final = name_text("a name")
REPOSITORY: Final = Text(
    words="`OWNER/NAME`, as in the repository's address",
    pattern=r"[A-Za-z0-9][A-Za-z0-9-]{0,38}/(?!\.{1,2}$)[A-Za-z0-9._-]{1,100}",
)
PUBLIC_URL: Final = Text(
    words="an https URL (http on 127.0.0.1, localhost or [::1] only)",
    pattern=rf"(?:https://{HOSTNAME}|http://{LOOPBACK}){PORT}{URL_PATH}",
    convert=lambda url: url.rstrip("/"),
)
