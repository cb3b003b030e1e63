"""The way in for a person: argv → command → exit code.

`--help` and `--version` must answer at once, so that this module imports next to nothing; each
command imports what it needs.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # as in typing, whose import would cost more than all of `--help`
if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Sequence

USAGE_ERROR = 2
INTERRUPTED = 130
# 128 + SIGPIPE: what a shell shows for any program that a closed pipe has ended.
READER_GONE = 141

_WIDTH = 80
_OBJECTS_BETWEEN_COLLECTIONS = 50_000


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; the table of codes is in the README."""
    try:
        code = _answer(sys.argv[1:] if argv is None else list(argv))
        sys.stdout.flush()  # here, where it can be told that the reader has gone
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)  # noqa: T201 -- rich may be what was interrupted
        return INTERRUPTED
    except BrokenPipeError:
        _leave_quietly()
        return READER_GONE
    return code


def _answer(words: list[str]) -> int:
    match words:
        case ["-h" | "--help", *_]:
            print(_help())  # noqa: T201 -- rich would take ten times as long
            return 0
        case ["--version", *_]:
            from orchestrator import __version__  # noqa: PLC0415 -- only here

            print(f"orchestrator {__version__}")  # noqa: T201 -- see above
            return 0
        case [name, *rest] if name in COMMANDS:
            return _run(name, rest)
        case [word, *_]:
            return _refuse(word)
        case _:
            print(_help(), file=sys.stderr)  # noqa: T201 -- see above
            return USAGE_ERROR


def _help() -> str:
    commands = "\n".join(f"  {name:<8}  {summary}" for name, summary in COMMANDS.items())
    return f"""\
usage: orchestrator COMMAND [OPTION ...]

Build a Rust program natively on machines you own, and publish it so that anyone
can install it.

commands:
{commands}

options:
  -h, --help  show this help, or a command's: orchestrator release --help
  --version   print the version

exit codes: 0 done, 1 a bug of ours, 2 the inventory or the command line,
3 a machine, 4 the code, 5 the store, 130 interrupted. See README.md."""


def _refuse(word: str) -> int:
    what = "an option" if word.startswith("-") else "a command"
    near = _near(word, [*COMMANDS, "--help", "--version"])
    print(  # noqa: T201 -- see above
        f"error: {ascii(word)[:80]} is not {what}{near}\n"
        "hint: `orchestrator --help` lists the commands",
        file=sys.stderr,
    )
    return USAGE_ERROR


def _run(name: str, words: list[str]) -> int:
    import atexit  # noqa: PLC0415 -- not for --help
    import gc  # noqa: PLC0415 -- not for --help

    # What is loaded stays to the end: to look through it for garbage again and again, and once more
    # at the very end, would take a quarter of the time in which a command starts and exits.
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    atexit.register(gc.freeze)
    _refuse_unknown(name, words)
    arguments = command_parser(name).parse_args(words)

    from orchestrator import commands  # noqa: PLC0415 -- not for --help

    try:
        return commands.command(name)(arguments)
    except Exception as error:
        code = commands.explain(error)
        if code is None:
            raise
        return code


def _refuse_unknown(name: str, words: list[str]) -> None:
    parser = command_parser(name)
    options: list[str] = []
    # argparse would complain of the missing `--version` and pass over `--verson`, which is why it
    # is missing; it has no public list of what it knows.
    for each in _with_actions(parser):
        options += each._option_string_actions  # noqa: SLF001
        for action in each._actions:  # noqa: SLF001
            action.required = False
    _, unknown = parser.parse_known_args(words)
    if unknown:
        # What follows a mistyped option may be its value.
        wrong = [word for word in unknown if word.startswith("-")] or unknown
        lines = (f"unrecognized: {ascii(word)[:80]}{_near(word, options)}" for word in wrong)
        parser.error("\n".join(lines))


def _with_actions(parser: ArgumentParser) -> list[ArgumentParser]:
    """Return a command's parser and those of its actions, such as `nodes add`."""
    maps = (each.choices for each in parser._actions if isinstance(each.choices, dict))  # noqa: SLF001 -- see above
    return [parser, *(added for parsers in maps for added in parsers.values())]


def _near(word: str, known: list[str]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 -- only a mistake needs it

    near = get_close_matches(word.partition("=")[0], known, n=1)
    return f", did you mean `{near[0]}`?" if near else ""


def _leave_quietly() -> None:
    # Python flushes standard output once more at exit, and would complain of the pipe again.
    import os  # noqa: PLC0415 -- only here

    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def command_parser(name: str) -> ArgumentParser:
    """Return the parser of one command's options; building them all would cost every command."""
    from argparse import ArgumentParser, HelpFormatter  # noqa: PLC0415 -- not for --help

    from orchestrator.options import OPTIONS  # noqa: PLC0415 -- not for --help

    summary = COMMANDS[name]
    parser = ArgumentParser(
        prog=f"orchestrator {name}",
        description=f"{summary[0].upper()}{summary[1:]}.",
        # Without a width, argparse imports shutil, and with it every compression of the library.
        formatter_class=lambda prog: HelpFormatter(prog, width=_WIDTH),
        allow_abbrev=False,
    )
    OPTIONS[name](parser)
    return parser


# What `--help` says of each; `options` has the rest.
COMMANDS = {
    "release": "build a version on every enabled node, and publish it",
    "check": "look at what a release needs, on the nodes and here",
    "nodes": "show the nodes, add, enable, disable, remove or rekey one",
    "bench": "time clean builds on the nodes, and rank them",
    "status": "show what is published, and how the nodes' jobs stand",
    "logs": "print the build log of a node",
    "cancel": "end the jobs of a version on the nodes",
    "shell": "open a shell in the folder of a job, on its node",
    "yank": "take a version back: nobody gets it unasked any more",
    "unyank": "put a yanked version back",
    "promote": "put a version of one channel on another one too",
    "renew": "sign the index again, before it expires",
    "history": "tell what happened to the index, newest first",
    "fsck": "hold every row of every index against the store",
    "verify": "check an archive, an index or a version against the trusted keys",
    "bundle": "write what an installation without a network needs into one file",
    "keygen": "make the signing key",
    "keys": "show which keys sign and are trusted, or change them in the store",
    "render": "print install.sh as it would be published",
    "serve": "serve a directory store on this machine",
    "vm": "make, start, stop and look at the virtual machines that build",
    "schema": "print the JSON Schema of the inventory",
}
