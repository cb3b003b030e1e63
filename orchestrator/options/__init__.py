"""The options of each command, as argparse knows them; only the command that runs needs any."""

from __future__ import annotations

TYPE_CHECKING = False  # see cli.py
if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Callable

DEFAULT_INVENTORY = "build-nodes.yaml"


def _add_release(parser: ArgumentParser) -> None:
    parser.description = (
        "Build a version on every enabled node in parallel, gate it, publish it and render the "
        "installer. Run the same command again to go on where it stopped: nothing is built twice."
    )
    parser.add_argument(
        "--version", required=True, metavar="V", help="the version to release, such as 1.4.0"
    )
    parser.add_argument(
        "--channel",
        metavar="C",
        help="the index it joins (default: the one its version belongs to)",
    )
    _add_inventory(parser)
    for option, what in (
        ("--node", "build on this node only, even if it is disabled; may be repeated"),
        ("--skip", "leave this node out; may be repeated"),
    ):
        parser.add_argument(option, action="append", default=[], metavar="NAME", help=what)
    for option, what in (
        ("--dry-run", "print what would be done; touch nothing"),
        ("--rebuild", "build again what was built already"),
        ("--reissue", "build the nodes of --node again and publish it beside a bad build"),
        ("--clean", "build from cold, without what earlier builds left"),
        ("--no-publish", "build, gate and pack, but publish nothing"),
        ("--compare", "build on all nodes of each target and compare; publishes nothing"),
        ("--timings", "say at the end what all of it waited for"),
        ("--json", "print the outcome, or with --dry-run the plan, as one JSON document"),
        ("--quiet", "print only the summary and errors"),
    ):
        parser.add_argument(option, action="store_true", help=what)


def _add_check(parser: ArgumentParser) -> None:
    parser.description = (
        "Look at what a release needs before an hour is spent: every enabled node, reached and "
        "asked for its tools, disk, memory and clock; the key, the store, the installer and the "
        "tools on this machine. Exit with 0, or with 2, 3 or 5 by who must act; warnings change "
        "nothing."
    )
    parser.add_argument(
        "nodes", nargs="*", metavar="NODE", help="look at these nodes only, even if disabled"
    )
    _add_inventory(parser)
    parser.add_argument("--json", action="store_true", help="print it as one JSON document")


def _add_bench(parser: ArgumentParser) -> None:
    parser.description = (
        "Time clean release builds on every enabled node, offline and alone on their hosts, and "
        "rank the nodes. The result is saved in dist/bench, and placement goes by it. Exit with 3 "
        "or 4 if a run failed; the others count all the same."
    )
    parser.add_argument(
        "nodes", nargs="*", metavar="NODE", help="on these nodes only, even if disabled"
    )
    parser.add_argument(
        "--version", metavar="V", help="the version to build (default: the newest published)"
    )
    _add_inventory(parser)
    parser.add_argument(
        "--runs",
        type=_positive,
        default=3,
        metavar="N",
        help="builds on each node (default: %(default)s)",
    )
    for option, name, what in (
        ("--baseline", "NODE", "tell the others as multiples of this node (default: the fastest)"),
        ("--compare-with", "FILE", "tell what changed since this benchmark, as it was saved"),
        ("--svg", "FILE", "write a bar chart there"),
    ):
        parser.add_argument(option, metavar=name, help=what)
    parser.add_argument(
        "--bench-variants",
        action="store_true",
        help="time the programs instead: which variants are worth being released",
    )
    parser.add_argument("--json", action="store_true", help="print it as one JSON document")


def _add_status(parser: ArgumentParser) -> None:
    parser.add_argument("version", nargs="?", metavar="VERSION", help="of this version only")
    _add_inventory(parser)
    parser.add_argument("--json", action="store_true", help="print it as one JSON document")


def _add_logs(parser: ArgumentParser) -> None:
    parser.add_argument("version", metavar="VERSION", help="the version that was built")
    parser.add_argument("node", metavar="NODE", help="the node that built it, or is building it")
    _add_inventory(parser)
    parser.add_argument(
        "-f", "--follow", action="store_true", help="go on as the log grows, to the job's end"
    )


def _add_cancel(parser: ArgumentParser) -> None:
    parser.description = (
        "End a version's jobs with everything that they started, and say what became of them. "
        "Exit with 3 if a node cannot be reached, or a process cannot be ended."
    )
    parser.add_argument("version", metavar="VERSION", help="the version whose jobs are ended")
    parser.add_argument("nodes", nargs="*", metavar="NODE", help="on these nodes only")
    _add_inventory(parser)
    parser.add_argument("--json", action="store_true", help="print it as one JSON document")


def _add_shell(parser: ArgumentParser) -> None:
    parser.add_argument("version", metavar="VERSION", help="the version that was built")
    parser.add_argument("node", metavar="NODE", help="the node that built it")
    _add_inventory(parser)


def _add_yank(parser: ArgumentParser) -> None:
    parser.description = (
        "Take a version back, or some of its targets: installers pass it over unless it is asked "
        "for by name. Its files stay; `unyank` puts it back. It is taken back on every channel "
        "that has it."
    )
    _add_selection(parser)
    parser.add_argument(
        "--revoke",
        action="store_true",
        help="for good: installers refuse it also by name, and nothing puts it back",
    )


def _add_unyank(parser: ArgumentParser) -> None:
    parser.description = (
        "Put a version back that was yanked, on every channel that has it. What was revoked stays "
        "revoked."
    )
    _add_selection(parser)


def _add_selection(parser: ArgumentParser) -> None:
    parser.add_argument("version", metavar="VERSION", help="the version, such as 1.4.0")
    parser.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="T",
        help="this target only, for OpenBSD with or without its release; may be repeated",
    )
    parser.add_argument("--channel", metavar="C", help="on this channel only")
    _add_inventory(parser)


def _add_promote(parser: ArgumentParser) -> None:
    parser.description = (
        "Put what is ok of a version on one channel on another one too. Nothing is built or "
        "uploaded: both indexes name the same files."
    )
    parser.add_argument("version", metavar="VERSION", help="the version, such as 1.4.0-rc.2")
    for option, default in (("--from", "prerelease"), ("--to", "stable")):
        parser.add_argument(
            option, metavar="C", default=default, help="a channel (default: %(default)s)"
        )
    _add_inventory(parser)


def _add_renew(parser: ArgumentParser) -> None:
    parser.description = (
        "Sign the index of every channel again for another lifetime, where less than half of it "
        "is left: for a timer. Every release does the same on its way."
    )
    parser.add_argument("--force", action="store_true", help="also where it is not needed yet")
    parser.add_argument("--channel", metavar="C", help="this channel only")
    _add_inventory(parser)


def _add_history(parser: ArgumentParser) -> None:
    parser.description = (
        "Tell what each serial of a channel changed, newest first, from the copies in the store. "
        "Each copy is verified; one that is missing or cannot be trusted is shown as such."
    )
    parser.add_argument("--channel", metavar="C", help="the channel (default: the inventory's)")
    parser.add_argument(
        "-n",
        "--number",
        type=_positive,
        default=20,
        metavar="N",
        help="the newest N serials (default: %(default)s)",
    )
    _add_inventory(parser)
    parser.add_argument("--json", action="store_true", help="print it as one JSON document")


def _add_fsck(parser: ArgumentParser) -> None:
    parser.description = (
        "Hold every row of every index against what is in the store, and every object against "
        "what an index names. Exit with 5 for damage; objects that nothing names are a warning."
    )
    parser.add_argument(
        "--deep", action="store_true", help="read every file, and verify every signature"
    )
    parser.add_argument(
        "--repair",
        action="store_true",
        help="write what follows from an index again; nothing is deleted",
    )
    parser.add_argument(
        "--channel",
        action="append",
        default=[],
        metavar="C",
        help="this channel only, without a look for orphans; may be repeated",
    )
    _add_inventory(parser)
    parser.add_argument("--json", action="store_true", help="print it as one JSON document")


def _positive(text: str) -> int:
    from argparse import ArgumentTypeError  # noqa: PLC0415 -- not for --help

    number = int(text) if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else 0
    if number < 1:
        raise ArgumentTypeError(f"{ascii(text)[:80]} is not a whole number from 1 on")
    return number


_MOST_DIGITS = 9


def _add_verify(parser: ArgumentParser) -> None:
    parser.description = (
        "Check an archive that lies here with what lies beside it, an index (FILE.idx), or "
        "everything of a published version, against the trusted keys. Exit with 5 if a part is "
        "wrong, or if no trusted key vouches for it; what is not there is named."
    )
    parser.add_argument("what", metavar="FILE|VERSION", help="what to check")
    _add_inventory(parser)
    parser.add_argument(
        "--key",
        action="append",
        default=[],
        metavar="KEY",
        help="trust this key (`ssh-ed25519 ...`) instead of the inventory's; may be repeated",
    )
    parser.add_argument(
        "--index", metavar="FILE", help="the index to look FILE up in, instead of the store's"
    )
    parser.add_argument(
        "--min-serial",
        type=int,
        metavar="N",
        help="refuse an index with a lower serial: one that was seen before",
    )
    parser.add_argument(
        "--public",
        action="store_true",
        help="read the version through `publication.url`, as a stranger would",
    )
    parser.add_argument("--json", action="store_true", help="print it as one JSON document")


def _add_bundle(parser: ArgumentParser) -> None:
    parser.description = (
        "Write what an installation without a network needs into a tar or a folder: install.sh, "
        "the signed index, and archives with what lies beside them, all verified on the way. "
        "Without VERSION, that is the newest build of each target."
    )
    parser.add_argument("version", nargs="?", metavar="VERSION", help="this version only")
    parser.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="T",
        help="this target only, for OpenBSD with or without its release; may be repeated",
    )
    parser.add_argument("--output", required=True, metavar="FILE.tar|DIR", help="where to write it")
    parser.add_argument("--channel", metavar="C", help="the channel (default: the inventory's)")
    _add_inventory(parser)
    parser.add_argument("--json", action="store_true", help="print it as one JSON document")


def _add_keygen(parser: ArgumentParser) -> None:
    parser.description = (
        "Make an ed25519 key at `publication.signing.key`, and print its public half as OpenSSH "
        "and minisign read it. It never replaces a key."
    )
    _add_inventory(parser)
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "--output", metavar="FILE", help="make it there: the next key, before the inventory has it"
    )
    place.add_argument(
        "--rotation",
        metavar="FILE",
        help="make the offline key there that vouches for the others; it needs a passphrase",
    )
    parser.add_argument(
        "--passphrase",
        action="store_true",
        help="ask for a passphrase; without one, the file's mode protects the key",
    )


def _add_keys(parser: ArgumentParser) -> None:
    parser.description = (
        "Show which keys sign and are trusted here, and what the store's keys.txt says of them; "
        "or, with `rotate`, make the store say what the inventory says."
    )
    parser.add_argument(
        "action",
        nargs="?",
        choices=["list", "rotate"],
        default="list",
        help="what to do (default: %(default)s)",
    )
    _add_inventory(parser)
    parser.add_argument(
        "--rotation-key", metavar="FILE", help="the private rotation key, to `rotate` with"
    )
    parser.add_argument(
        "--passphrase-file",
        metavar="FILE",
        help="its first line is the rotation key's passphrase, which is asked for otherwise",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print what `rotate` would do; touch nothing"
    )
    parser.add_argument("--json", action="store_true", help="print it as one JSON document")


def _add_inventory(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--inventory",
        metavar="FILE",
        default=DEFAULT_INVENTORY,
        help="the inventory (default: %(default)s)",
    )


def _add_serve(parser: ArgumentParser) -> None:
    parser.description = (
        "Run the service that the inventory's `service:` describes: it takes GitHub's deliveries, "
        "makes the releases, shows how they go at /status, and serves the store. Without "
        "`service.repository`, or with --store, it only serves the store, on 127.0.0.1."
    )
    _add_inventory(parser)
    parser.add_argument(
        "--check", action="store_true", help="say what the service lacks, and start nothing"
    )
    parser.add_argument(
        "--units",
        metavar="FOLDER",
        help="write the systemd units of the service and of its daily upkeep there, and start "
        "nothing",
    )
    parser.add_argument(
        "--user",
        default="orchestrator",
        metavar="NAME",
        help="with --units: who the service runs as (default: %(default)s)",
    )
    parser.add_argument(
        "--store", metavar="DIR", help="serve this folder instead of the inventory's store"
    )
    parser.add_argument(
        "--port",
        type=int,
        metavar="N",
        help="the port; 0 takes a free one (default: the one of `service.listen`, or 8000)",
    )


def _add_nodes(parser: ArgumentParser) -> None:
    from orchestrator.options.nodes import add_nodes  # noqa: PLC0415 -- not for other commands

    add_nodes(parser, DEFAULT_INVENTORY)


def _add_vm(parser: ArgumentParser) -> None:
    from orchestrator.options.vm import add_vm  # noqa: PLC0415 -- not for other commands

    add_vm(parser)
    _add_inventory(parser)
    parser.add_argument(
        "--json", action="store_true", help="with `status`: print it as one JSON document"
    )
    parser.add_argument(
        "--sha256",
        metavar="DIGEST",
        help="with `create`: what the downloaded image must have, if vm.yaml does not say it",
    )
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        help="with `render`: write boot.sh, stop.sh and a systemd unit for that folder into it",
    )


def _add_nothing(_: ArgumentParser) -> None:
    pass


OPTIONS: dict[str, Callable[[ArgumentParser], None]] = {
    "release": _add_release,
    "check": _add_check,
    "nodes": _add_nodes,
    "bench": _add_bench,
    "status": _add_status,
    "logs": _add_logs,
    "cancel": _add_cancel,
    "shell": _add_shell,
    "yank": _add_yank,
    "unyank": _add_unyank,
    "promote": _add_promote,
    "renew": _add_renew,
    "history": _add_history,
    "fsck": _add_fsck,
    "verify": _add_verify,
    "bundle": _add_bundle,
    "keygen": _add_keygen,
    "keys": _add_keys,
    "render": _add_inventory,
    "serve": _add_serve,
    "vm": _add_vm,
    "schema": _add_nothing,
}
