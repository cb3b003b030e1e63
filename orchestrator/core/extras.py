"""Extra files of an archive: a licence, a man page, completions, flat beside the binaries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from orchestrator.core.archive import MAX_ENTRY
from orchestrator.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_EXTRAS: Final = 64
MAX_EXTRA_BYTES: Final = 4 << 20


def extra_name(path: str) -> str:
    """Return the name that the file at the path has in the archive: the path's last component."""
    return path.rpartition("/")[2]


def clashes(binaries: Sequence[str], paths: Sequence[str]) -> tuple[tuple[int, str], ...]:
    """Return the position of each path that lies where another file does, and which file that is.

    Names that differ only in case are the same: archives are unpacked on macOS and Windows, too.
    """
    taken = {f"{name}{suffix}": f"the binary `{name}`" for name in binaries for suffix in _SUFFIXES}
    found = []
    for position, path in enumerate(paths):
        name = extra_name(path).lower()
        if name in taken:
            found.append((position, taken[name]))
        taken.setdefault(name, f"`{path}`")
    return tuple(found)


def require_extras(binaries: Sequence[str], paths: Sequence[str]) -> None:
    """Raise ConfigError unless the paths, without placeholders by now, fit into one archive."""
    for position, other in clashes(binaries, paths):
        raise ConfigError(
            f"`project.extras`: `{paths[position]}` has the same name in the archive as {other}",
            hint="give one of them another name: files lie flat in the archive",
        )
    for path in paths:
        if len(extra_name(path)) > MAX_ENTRY:
            raise ConfigError(
                f"`project.extras`: the name of `{path[:200]}` is longer than {MAX_ENTRY} "
                "characters",
                hint="an archive has no room for a longer one",
            )


_SUFFIXES: Final = ("", ".exe")
