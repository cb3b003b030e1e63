"""The options of `orchestrator nodes`, one parser for each of its actions."""

from __future__ import annotations

TYPE_CHECKING = False  # see cli.py
if TYPE_CHECKING:
    from argparse import ArgumentParser


def add_nodes(parser: ArgumentParser, default_inventory: str) -> None:
    """Add the actions; without one, the nodes are listed."""
    parser.description = (
        "Show the nodes of the inventory, or change them in its file; comments and layout stay. "
        "Without an action, list them."
    )
    _add_shared(parser, inventory=default_inventory, as_json=False)
    parser.set_defaults(action="list")
    actions = parser.add_subparsers(metavar="ACTION")

    def action(name: str, summary: str) -> ArgumentParser:
        added = actions.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            formatter_class=parser.formatter_class,
            allow_abbrev=False,
        )
        # What is given before the action stays where nothing is given behind it.
        _add_shared(added)
        added.set_defaults(action=name)
        return added

    action("list", "show what the inventory says of each node, and how long it took lately")
    _add_add(action("add", "connect to a machine, look at it, add it, and try it"))
    for name, summary in (
        ("enable", "let releases use nodes again"),
        ("disable", "leave nodes out of releases unless they are named"),
        ("remove", "take nodes out of the inventory"),
    ):
        added = action(name, summary)
        added.add_argument("names", nargs="+", metavar="NODE", help="the nodes")
    rekey = action("rekey", "pin the host key that a node shows now")
    rekey.add_argument("name", metavar="NODE", help="the node")
    _add_key(rekey)


def _add_shared(
    parser: ArgumentParser, *, inventory: str = "", as_json: bool | None = None
) -> None:
    from argparse import SUPPRESS  # noqa: PLC0415 -- not for --help

    parser.add_argument(
        "--inventory",
        metavar="FILE",
        default=inventory or SUPPRESS,
        help="the inventory (default: build-nodes.yaml)",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        default=SUPPRESS if as_json is None else as_json,
        help="print it as one JSON document",
    )


def _add_key(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--fingerprint",
        metavar="SHA256:...",
        help="the host key's fingerprint, as `ssh-keygen -lf` prints it on the machine itself; "
        "without it, a key that is not known is shown, and asked about at a terminal",
    )


def _add_add(parser: ArgumentParser) -> None:
    parser.description = (
        "Connect to a machine, show its host key and pin it on a yes, look at what it is and has, "
        "write it into the inventory and build a small program there. At a terminal everything "
        "that is not given is asked for, with what was found as the proposal; elsewhere the "
        "proposals are taken."
    )
    for option, metavar, what in (
        ("--name", "NAME", "its name (proposed: OS and CPU)"),
        ("--host", "[USER@]HOST", "where it is reached over SSH, or `local` for this machine"),
        ("--vm", "NAME", "the virtual machine that it is, made by `vm create`: no --host, no key"),
        ("--identity", "FILE", "the private key file to log in with"),
        ("--target", "TRIPLE", "what it builds (proposed: what it is)"),
        ("--build-command", "TEXT", "what builds there, if not cargo from the project's source"),
        ("--binary-path", "PATH", "where that leaves the first binary"),
        ("--workdir", "DIR", "the folder on it that jobs live in"),
        ("--policy", "P", "required, expected (the default) or best-effort"),
        ("--group", "NAME", "what it has in common with nodes that share its CPU"),
    ):
        parser.add_argument(option, metavar=metavar, help=what)
    parser.add_argument("--port", type=int, metavar="N", help="the port of its SSH server")
    parser.add_argument(
        "--gate-on",
        action="append",
        default=[],
        metavar="NODE",
        help="who runs the gate, for a machine that cannot run its target; may be repeated",
    )
    _add_key(parser)
    for option, what in (
        ("--disabled", "write it with `enabled: false`"),
        ("--no-trial", "build nothing there now"),
        ("--yes", "take the proposals, ask nothing; a host key is accepted by --fingerprint only"),
    ):
        parser.add_argument(option, action="store_true", help=what)
