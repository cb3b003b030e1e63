"""The way out for data: what `--dry-run`, `status` and `check` found, as a person reads it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from rich.text import Text

from orchestrator.console import Terminal, print_table
from orchestrator.core.wording import human_size, human_time, visible

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TextIO


def show_plan(plan: Mapping[str, Any], stream: TextIO) -> None:
    """Write a plan (`core.dry_run.plan_as_data`)."""
    terminal = Terminal(stream)
    terminal.print(Text(f"{plan['project']} {plan['version']}", style="bold"))
    _field(terminal, "source", plan["source"])
    if plan["publishes"]:
        _field(terminal, "store", f"{plan['store']}, channel {plan['channel']}")
    else:
        _field(terminal, "store", "nothing is published")
    for number, task in enumerate(plan["tasks"], start=1):
        terminal.print()
        terminal.print(Text.assemble((f"{number}. {task['node']}", "bold"), f"  {task['target']}"))
        _show_node(terminal, task, begins=task["begins_seconds"])
        for spare in task["standby"]:
            terminal.print(Text.assemble("   stands by: ", (spare["node"], "bold")))
            _show_node(terminal, spare)
    if plan["skipped"] or plan["already_published"]:
        terminal.print()
    for skip in plan["skipped"]:
        _field(terminal, "skipped", f"{skip['node']} ({skip['target']}): {skip['reason']}")
    for row in plan["already_published"]:
        where = f" at {row['path']}" if row["path"] else ""
        _field(terminal, "there", f"{row['target']} {row['status']}{where}")
    terminal.print()
    if plan["forecast"]["line"]:
        terminal.print(visible(plan["forecast"]["line"]))
    terminal.print(_conclusion(len(plan["tasks"])))


def _conclusion(tasks: int) -> str:
    match tasks:
        case 0:
            return "no target builds; nothing was touched"
        case 1:
            what = "1 target builds"
        case _:
            what = f"{tasks} targets build, one at a time on each host"
    return f"{what}; nothing was touched: leave out --dry-run to do it"


def show_status(status: Mapping[str, Any], stream: TextIO) -> None:
    """Write what is published and what the nodes said about their jobs."""
    terminal = Terminal(stream)
    serial = f", index serial {status['serial']}" if status["serial"] else ""
    where = f" in {status['store']}{serial}"
    terminal.print(Text.assemble((status["project"], "bold"), visible(where)))
    if status["published"]:
        _show_published(terminal, status["published"])
    else:
        asked_for = f" of {status['version']}" if status["version"] else ""
        terminal.print(f"nothing{asked_for} is published")
    if status["jobs"]:
        terminal.print()
        _show_jobs(terminal, status["jobs"])


def show_cancelled(version: str, jobs: Sequence[Mapping[str, Any]], stream: TextIO) -> None:
    """Write what became of the jobs that were to be ended (`jobs.cancelled_as_data`)."""
    terminal = Terminal(stream)
    if not jobs:
        terminal.print(f"no job of {version} is at work")
        return
    cells = [
        (
            Text(job["node"], style="bold"),
            job["target"],
            job["was"],
            Text(job["outcome"], style="green" if job["outcome"] == "ended" else "bold red"),
            visible(job["detail"].partition("\n")[0]),
        )
        for job in jobs
    ]
    print_table(terminal, ("node", "target", "was", "now", ""), cells)


def show_check(check: Mapping[str, Any], stream: TextIO) -> None:
    """Write what a check found (`core.check.check_as_data`): a table, then what there is to do."""
    terminal = Terminal(stream)
    found = [("coordinator", "", finding) for finding in check["coordinator"]]
    found += [
        (each["node"], each["target"], finding)
        for each in check["nodes"]
        for finding in each["findings"]
    ]
    cells = [
        (
            Text(name, style="bold"),
            target,
            finding["check"],
            Text(finding["state"], style=STATES[finding["state"]]),
            visible(finding["message"].partition("\n")[0]),
        )
        for name, target, finding in found
    ]
    print_table(terminal, ("node", "target", "check", "state", "message"), cells)
    terminal.print()
    for name, _, finding in found:
        if finding["state"] != "ok":
            _show_finding(terminal, name, finding)
    style = "bold" if check["can_start"] else "bold red"
    terminal.print(Text(visible(check["verdict"]), style=style))


def show_findings(name: str, findings: Sequence[Mapping[str, Any]], stream: TextIO) -> None:
    """Write what may go wrong on a node, or will, and what to do about it."""
    terminal = Terminal(stream)
    for finding in findings:
        _show_finding(terminal, name, finding)


def show_history(history: Mapping[str, Any], stream: TextIO) -> None:
    """Write what happened to a channel (`core.history.Entry.as_data`), newest first."""
    terminal = Terminal(stream)
    where = f" {history['channel']} in {history['store']}"
    terminal.print(Text.assemble((history["project"], "bold"), visible(where)))
    if not history["entries"]:
        terminal.print("nothing is published")
    cells: list[tuple[Text | str, ...]] = []
    for entry in history["entries"]:
        problem, since = entry["problem"], entry["since"]
        lines = [Text(visible(problem), style="bold red")] if problem else entry["lines"]
        if since not in {None, entry["serial"] - 1}:
            lines = [f"since serial {since}:", *lines]
        first, *more = lines
        cells.append((Text(str(entry["serial"]), style="bold"), entry["issued"] or "", first))
        cells += [("", "", line) for line in more]
    if cells:
        print_table(terminal, ("serial", "issued", "changes"), cells)


def show_fsck(report: Mapping[str, Any], stream: TextIO) -> None:
    """Write what was found in a store (`core.fsck.FsckReport.as_data`): a table, then one line."""
    terminal = Terminal(stream)
    if report["findings"]:
        cells = [
            (
                Text(finding["state"], style=_FOUND[finding["state"]]),
                visible(finding["object"]),
                visible(finding["message"]),
            )
            for finding in report["findings"]
        ]
        print_table(terminal, ("state", "object", "what was found"), cells)
        terminal.print()
    style = "bold red" if report["exit_code"] else "bold"
    terminal.print(Text(visible(f"{report['store']}: {report['summary']}"), style=style))


_FOUND: Final = {"damage": "bold red", "warning": "yellow", "repaired": "green"}


def show_verification(found: Mapping[str, Any], stream: TextIO) -> None:
    """Write what was verified (`core.verification.verification_as_data`)."""
    terminal = Terminal(stream)
    cells = [
        (
            visible(check["subject"]),
            check["part"],
            Text(check["verdict"], style=_VERDICTS[check["verdict"]]),
            visible(check["message"].partition("\n")[0]),
        )
        for check in found["checks"]
    ]
    print_table(terminal, ("object", "part", "verdict", ""), cells)
    terminal.print()
    for problem in found["problems"]:
        terminal.print(Text.assemble(("wrong: ", "bold red"), visible(problem)))
    is_good = found["verdict"] == "good"
    said = "is what was signed" if is_good else "is not to be trusted as it is"
    terminal.print(
        Text(visible(f"{found['subject']} {said}"), style="bold" if is_good else "bold red")
    )


_VERDICTS: Final = {"good": "green", "not checked": "yellow", "wrong": "bold red"}
STATES: Final = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def show_machines(machines: Sequence[Mapping[str, Any]], stream: TextIO) -> None:
    """Write the virtual machines of an inventory, one a line (`vm status --json`)."""
    terminal = Terminal(stream)
    if not machines:
        terminal.print("no virtual machine is defined: docs/vms.md says how")
        return
    columns = ("name", "system", "state", "started", "port")
    cells: list[tuple[Text | str, ...]] = [
        (Text(each["name"], style="bold"), *(str(each[key] or "") for key in columns[1:]))
        for each in machines
    ]
    print_table(terminal, columns, cells)


def _show_finding(terminal: Terminal, name: str, finding: Mapping[str, Any]) -> None:
    state = finding["state"]
    first, *more = finding["message"].splitlines() or [""]
    terminal.print(
        Text.assemble((f"{state}: ", STATES[state]), (name, "bold"), f": {visible(first)}")
    )
    for line in more:
        terminal.print(Text(f"  {visible(line)}"))
    first, *more = (finding["hint"] or "").splitlines() or [""]
    if first:
        terminal.print(Text.assemble(("hint: ", "bold"), visible(first)))
    for line in more:
        terminal.print(Text(visible(line)))
    terminal.print()


def show_keys(keys: Mapping[str, Any], stream: TextIO) -> None:
    """Write which keys there are and what the store says of them (`core.keys.keys_as_data`)."""
    terminal = Terminal(stream)
    where = f" signs with {keys['key']} into {keys['store']}"
    terminal.print(Text.assemble((keys["project"], "bold"), visible(where)))
    cells = [
        (
            Text(key["fingerprint"], style="bold"),
            key["here"] or "not in the inventory",
            Text(key["in_store"] or "-", style=_KEY_STYLES.get(key["in_store"], "")),
        )
        for key in keys["keys"]
    ]
    if keys["rotation"]:
        cells.append((Text(keys["rotation"]["fingerprint"], style="bold"), "rotation", Text("")))
    print_table(terminal, ("key", "here", "keys.txt"), cells)
    terminal.print()
    terminal.print(Text(_agreement(keys)))


_KEY_STYLES: Final = {"active": "green", "revoked": "bold red"}


def _agreement(keys: Mapping[str, Any]) -> str:
    if keys["rotation"] is None:
        return "no rotation key vouches for these: who has an old installer trusts what is in it"
    if keys["serial"] is None:
        return "the store has no keys.txt yet: orchestrator keys rotate"
    since = f"keys.txt has serial {keys['serial']}, of {keys['issued']}"
    if keys["agrees"]:
        return f"the store says what the inventory says: {since}"
    return f"the store does not say what the inventory says ({since}): orchestrator keys rotate"


def show_rotation(rotation: Mapping[str, Any], stream: TextIO) -> None:
    """Write what changed, or would change (`stores.rotation.rotation_as_data`)."""
    terminal = Terminal(stream)
    terminal.print(Text(f"{rotation['project']}, keys.txt serial {rotation['serial']}", "bold"))
    for title, names in (
        ("active", rotation["newly_active"]),
        ("revoked", rotation["newly_revoked"]),
        ("signed anew", [f"{name}.idx" for name in rotation["signed_anew"]]),
    ):
        if names:
            _field(terminal, title, "\n".join(names))
    recent = [
        f"{each['channel']}.idx {entry['serial']}: {line}"
        for each in rotation["recent"]
        for entry in each["entries"]
        for line in ([entry["problem"]] if entry["problem"] else entry["lines"])
    ]
    if recent:
        _field(terminal, "came lately", "\n".join(recent))
    if not rotation["changes"]:
        terminal.print("the store says what the inventory says already; nothing was written")
    elif not rotation["done"]:
        terminal.print("nothing was touched: leave out --dry-run to do it")


def _show_node(terminal: Terminal, task: Mapping[str, Any], *, begins: float = 0) -> None:
    _field(terminal, "   host", f"{task['host']}, {task['policy']}")
    said = _expected(task["expected_seconds"], begins)
    rate = task["success_rate"]
    if rate is not None and rate < 1:
        said += f"; the machine was up to {rate:.0%} of its builds"
    _field(terminal, "   expected", said)
    if task["env"]:
        _field(terminal, "   env", " ".join(f"{name}={text}" for name, text in task["env"].items()))
    _field(terminal, "   build", task["command"].rstrip())
    _field(terminal, "   binaries", "\n".join(task["binaries"]))
    _field(terminal, "   gate", "\n".join(task["gate"]))
    _field(terminal, "   gate on", ", else ".join(task["gate_on"]))
    if task["publishes"]:
        _field(terminal, "   publishes", "\n".join(task["publishes"]))


def _expected(seconds: float | None, begins: float) -> str:
    waits = f", after {human_time(timedelta(seconds=begins))} for others there" if begins else ""
    if seconds is None:
        return f"never measured{waits}"
    return f"{human_time(timedelta(seconds=seconds))}{waits}"


def _show_published(terminal: Terminal, rows: Sequence[Mapping[str, Any]]) -> None:
    cells = [
        (
            row["version"],
            row["target"],
            Text(row["status"], style="" if row["status"] == "ok" else "yellow"),
            human_size(row["size_bytes"]) if row["size_bytes"] else "",
            ",".join(row["floors"]),
            row["path"] or "",
        )
        for row in rows
    ]
    print_table(terminal, ("version", "target", "status", "size", "floors", "path"), cells)


def _show_jobs(terminal: Terminal, jobs: Sequence[Mapping[str, Any]]) -> None:
    cells = [
        (job["version"] or "", job["node"], job["state"], visible(job["evidence"])) for job in jobs
    ]
    print_table(terminal, ("version", "node", "job", "evidence"), cells)


def _field(terminal: Terminal, name: str, text: str) -> None:
    """Write `name  text`, with the lines of a long text below one another."""
    first, *more = text.splitlines() or [""]
    width = 13
    terminal.print(Text.assemble((f"{name:<{width}}", "dim"), visible(first)))
    for line in more:
        terminal.print(Text(" " * width + visible(line)))
