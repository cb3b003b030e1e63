"""How text becomes part of a script for a node, and the environment of builds and gates."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.nodes.probe import NodeFacts


def quoted(text: str) -> str:
    """Return the text as one word of a POSIX shell script; a NUL raises ConfigError."""
    if "\0" in text:
        raise ConfigError(f"a NUL character cannot be sent to a shell: {text[:80]!r}")
    return "'" + text.replace("'", "'\\''") + "'"


def here_document(path: str, text: str, *, or_else: str = "") -> str:
    """Return the command that writes the text to a file; `path` is a shell word.

    `or_else` is run if it cannot. The text ends in one newline. Large ones not by `printf`: where
    that is no builtin, they are lost; small ones, because it mostly is one, and takes no process.
    """
    if "\0" in text:
        raise ConfigError(f"a NUL character cannot be sent to a shell: {text[:80]!r}")
    text = text.rstrip("\n")
    otherwise = f" || {or_else}" if or_else else ""
    if len(text) <= _SMALL:
        return f"printf '%s\\n' {quoted(text)} >{path}{otherwise}\n"
    # A line of the text cannot be the mark, because the mark is made of the text.
    mark = "END-" + hashlib.sha256(text.encode()).hexdigest()
    return f"cat >{path} <<'{mark}'{otherwise}\n{text}\n{mark}\n"


_SMALL: Final = 2000


def clean_environment(facts: NodeFacts) -> tuple[tuple[str, str], ...]:
    """Return all that a build or a gate sees of a node: no login files, no coordinator's settings.

    The toolchain's folders are kept because without them its proxies don't find it.
    """
    kept = (("CARGO_HOME", facts.cargo_home), ("RUSTUP_HOME", facts.rustup_home))
    return (
        ("PATH", facts.path),
        ("HOME", facts.home),
        ("USER", facts.user),
        ("LOGNAME", facts.user),
        ("LANG", "C" if facts.system == "Darwin" else "C.UTF-8"),
        *((name, value) for name, value in kept if value),
    )


def exports(environment: Iterable[tuple[str, str]]) -> str:
    """Return the lines that export the variables, in their order."""
    return "".join(f"export {name}={quoted(value)}\n" for name, value in environment)
