"""The way in for a person: argv → command → exit code.

Only argparse is imported here: `--help` must answer at once. Each command imports what it needs.
"""

from __future__ import annotations

import argparse
import sys

TYPE_CHECKING = False  # as in typing, whose import would double the time of `--help`
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DEFAULT_INVENTORY = "build-nodes.yaml"
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; the table of codes is in the README."""
    arguments = _parser().parse_args(argv)
    try:
        return _command(arguments.command)(arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)  # noqa: T201 -- rich may be what was interrupted
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has gone (`| head`): nothing more can be said, at exit neither.
        sys.stderr.close()
        return 1
    except Exception as error:
        from orchestrator.commands import explain  # noqa: PLC0415 -- only an error needs it

        code = explain(error)
        if code is None:
            raise
        return code


def _command(name: str) -> Callable[[argparse.Namespace], int]:
    from orchestrator import commands  # noqa: PLC0415 -- not for --help

    return commands.COMMANDS[name]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="orchestrator",
        description="Build a Rust program natively on machines you own, and publish it so that "
        "anyone can install it.",
        epilog="Exit codes: 0 done, 2 configuration, 3 a machine, 4 the code, 5 the store, "
        "130 interrupted. See README.md.",
    )
    parser.add_argument("--version", action=_Version)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_release(commands)
    _add_status(commands)
    _add_logs(commands)
    _add_keygen(commands)
    _add_render(commands)
    _add_serve(commands)
    commands.add_parser("schema", help="print the JSON Schema of the inventory")
    return parser


class _Version(argparse.Action):
    """`--version`, without reading the version before it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from orchestrator import __version__  # noqa: PLC0415 -- see the class

        parser.exit(message=f"orchestrator {__version__}\n")


def _add_release(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "release",
        help="build a version on every enabled node, and publish it",
        description="Build a version on every enabled node in parallel, gate it, publish it and "
        "render the installer. Run the same command again to go on where it stopped: nothing is "
        "built twice.",
    )
    parser.add_argument("--version", required=True, help="the version to release, such as 1.4.0")
    _add_inventory(parser)
    parser.add_argument(
        "--node",
        action="append",
        default=[],
        metavar="NAME",
        help="build on this node only; may be given several times",
    )
    parser.add_argument(
        "--skip", action="append", default=[], metavar="NAME", help="leave this node out"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would be done; touch nothing"
    )
    parser.add_argument("--rebuild", action="store_true", help="build again what was built already")
    parser.add_argument(
        "--clean", action="store_true", help="build from cold, without what earlier builds left"
    )
    parser.add_argument(
        "--no-publish", action="store_true", help="build, gate and pack, but publish nothing"
    )
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    parser.add_argument("--quiet", action="store_true", help="print the summary and errors only")


def _add_status(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "status", help="show what is published, and what the nodes have, are building or failed"
    )
    parser.add_argument("version", nargs="?", metavar="VERSION")
    _add_inventory(parser)
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def _add_logs(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("logs", help="print the build log of a node")
    parser.add_argument("version", metavar="VERSION")
    parser.add_argument("node", metavar="NODE")
    _add_inventory(parser)
    parser.add_argument(
        "-f", "--follow", action="store_true", help="go on as the log grows, to the job's end"
    )


def _add_keygen(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "keygen",
        help="make the signing key",
        description="Make an ed25519 key at `publication.signing.key`. It never replaces one.",
    )
    _add_inventory(parser)
    parser.add_argument(
        "--passphrase",
        action="store_true",
        help="ask for a passphrase; without one, the file's mode protects the key",
    )


def _add_render(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("render", help="print install.sh as it would be published")
    _add_inventory(parser)


def _add_serve(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("serve", help="serve a directory store on this machine")
    _add_inventory(parser)
    parser.add_argument("--store", metavar="DIR", help="instead of the inventory's store")
    parser.add_argument("--port", type=int, default=8000, help="on 127.0.0.1; 0 takes a free one")


def _add_inventory(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--inventory",
        metavar="FILE",
        default=DEFAULT_INVENTORY,
        help=f"instead of {DEFAULT_INVENTORY}",
    )
