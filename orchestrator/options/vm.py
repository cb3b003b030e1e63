"""The options of `orchestrator vm`, and what each of its actions does."""

from __future__ import annotations

TYPE_CHECKING = False  # see cli.py
if TYPE_CHECKING:
    from argparse import ArgumentParser

# As docs/vms.md has them, too.
ACTIONS = {
    "create": "make it: keys, seed and disk; anew if it is there, with the same keys",
    "start": "start it, and wait until it can be logged into",
    "stop": "stop it; what a `fresh` one has written is thrown away",
    "status": "show what all of them do, or one",
    "console": "join its serial line; Ctrl-] leaves",
    "ssh": "log in, as another user with USER@NAME, or run WORD...",
    "destroy": "stop it, and remove it with its keys; its image is kept",
    "render": "print boot.sh, or write all that another host needs with --out",
    "doctor": "say what is in the way of its start",
}
_WIDTH = 80
_DESCRIPTION = """\
Make, start, stop and look at the virtual machines that vms/NAME/vm.yaml
defines. A node with `vm: NAME` needs only `create`, once: a release starts and
stops its machine by itself."""


def add_vm(parser: ArgumentParser) -> None:
    """Add the action, the name, and what some of the actions take."""
    from argparse import RawDescriptionHelpFormatter  # noqa: PLC0415 -- not for --help

    parser.formatter_class = lambda prog: RawDescriptionHelpFormatter(prog, width=_WIDTH)
    parser.description = _DESCRIPTION
    lines = "\n".join(f"  {name:<8} {what}" for name, what in ACTIONS.items())
    parser.epilog = f"actions:\n{lines}"
    parser.add_argument(
        "action", choices=list(ACTIONS), metavar="ACTION", help="what to do: see below"
    )
    parser.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help="which one: a folder of vms/ beside the inventory; only `status` needs none",
    )
    parser.add_argument(
        "words",
        nargs="*",
        default=[],
        metavar="WORD",
        help="what `ssh` runs there, after --; else a shell",
    )
