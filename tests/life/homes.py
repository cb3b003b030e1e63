"""Homes of users of many shells, and what those shells find when they are started there."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.installer_site import Host

_ASK: Final = 'echo "=$PATH="; tool'


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Whoever has this shell: the file that it reads, and ways to start it.

    `starts` are the words before a command; `source` is how the shell reads a file again.
    """

    program: str
    file: str
    mine: bytes
    starts: tuple[tuple[str, ...], ...]
    source: str = "."

    @property
    def shell(self) -> str:
        """What $SHELL says: the name that everybody has it by."""
        return f"/bin/{self.program.removeprefix('bsd-')}"

    def read_in(self, home: Path) -> Path:
        """Return the file that the shell reads there."""
        file = home / self.file
        # tcsh reads the file of csh unless it has its own.
        return file if file.exists() or self.program != "tcsh" else home / ".cshrc"


_SH: Final = b"# mine\nMINE=1\nexport MINE\n"
_CSH: Final = b"# mine\nsetenv MINE 1\n"
USERS: Final[Mapping[str, User]] = {
    "sh": User(program="dash", file=".profile", mine=_SH, starts=(("-l", "-c"),)),
    "bash": User(
        program="bash",
        file=".bashrc",
        mine=_SH,
        starts=(("-i", "-c"), ("-l", "-c"), ("-l", "-i", "-c")),
    ),
    "zsh": User(program="zsh", file=".zshrc", mine=_SH, starts=(("-i", "-c"),)),
    "mksh": User(program="mksh", file=".profile", mine=_SH, starts=(("-l", "-c"),)),
    "ksh93": User(program="ksh93", file=".profile", mine=_SH, starts=(("-l", "-c"),)),
    "fish": User(
        program="fish",
        file=".config/fish/conf.d/tool.fish",
        mine=b"# mine\nset -gx MINE 1\n",
        starts=(("-c",), ("-l", "-c"), ("-i", "-c")),
        source="source",
    ),
    "csh": User(
        program="bsd-csh",
        file=".cshrc",
        mine=_CSH,
        starts=(("-c",), ("-i", "-c")),
        source="source",
    ),
    "tcsh": User(
        program="tcsh",
        file=".tcshrc",
        mine=_CSH,
        starts=(("-c",), ("-i", "-c")),
        source="source",
    ),
}


def paths_seen(user: User, host: Host) -> list[list[str] | None]:
    """Start the shell in each way, plain, in itself, and reading its file once more.

    Return for each PATH, in which the program was found and run, or None where it was not.
    """
    file = user.read_in(host.home)
    program = shutil.which(user.program) or ""
    seen = []
    for start in user.starts:
        again = f"{user.source} '{file}'; {_ASK}"
        inner = f"{program} {' '.join(start)} '{_ASK}'"
        seen += [_seen(host, [program, *start, text]) for text in (_ASK, again, inner)]
    return seen


def _seen(host: Host, words: list[str]) -> list[str] | None:
    ran = subprocess.run(
        words,
        capture_output=True,
        text=True,
        check=False,
        cwd=host.root,
        env={"HOME": str(host.home), "PATH": "/usr/bin:/bin", "TERM": "dumb", "USER": "me"},
    )
    path = ran.stdout.split("=")[1] if ran.stdout.count("=") > 1 else ""
    return path.split(":") if ran.stdout.rstrip().endswith("tool 1.0.0") else None


# What is in a home before anything is installed


def _file(how: Callable[[bytes], bytes]) -> Callable[[Path, bytes], None]:
    def make(file: Path, mine: bytes) -> None:
        file.write_bytes(how(mine))

    return make


def _nothing(file: Path, mine: bytes) -> None:
    del file, mine


def _linked(file: Path, mine: bytes) -> None:
    dotfiles = file.parent / "my dotfiles"
    dotfiles.mkdir()
    (dotfiles / "rc").write_bytes(mine)
    file.symlink_to("my dotfiles/rc")


def _dangling(file: Path, mine: bytes) -> None:
    del mine
    file.symlink_to("not mounted/rc")
    (file.parent / "not mounted").mkdir()


def _with_mode(mode: int) -> Callable[[Path, bytes], None]:
    def make(file: Path, mine: bytes) -> None:
        file.write_bytes(mine)
        file.chmod(mode)

    return make


HOMES: Final[Mapping[str, Callable[[Path, bytes], None]]] = {
    "no file": _nothing,
    "an empty file": _file(lambda _: b""),
    "a file": _file(lambda mine: mine),
    "blank lines at its end": _file(lambda mine: mine + b"\n\n"),
    "no line break at its end": _file(lambda mine: mine.rstrip(b"\n")),
    "only a line break": _file(lambda _: b"\n"),
    "line ends of DOS": _file(lambda mine: mine.replace(b"\n", b"\r\n")),
    "line ends of DOS, and none at its end": _file(
        lambda mine: mine.replace(b"\n", b"\r\n").rstrip(b"\r\n")
    ),
    "bytes that are no UTF-8": _file(lambda mine: b"# caf\xe9 \xff\xfe\n" + mine + b"# \xe4"),
    "a very long line": _file(lambda mine: b"# " + b"x" * 200_000 + b"\n" + mine),
    "a link to dotfiles": _linked,
    "a link to nothing": _dangling,
    "a file for reading only": _with_mode(0o444),
    "a file of mode 600": _with_mode(0o600),
}
# What stays a file that the shell can read.
READABLE: Final = tuple(
    name for name in HOMES if not name.startswith(("a link to nothing", "line"))
)
