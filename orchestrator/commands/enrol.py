"""A machine becomes a node: asked about where somebody can answer, by options elsewhere."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Final

from orchestrator.commands.questions import Questions
from orchestrator.core.enrolment import (
    describe_host,
    entry_of,
    gates_for,
    guess_target,
    is_foreign,
    propose_name,
    propose_recipe,
    require_fingerprint,
)
from orchestrator.core.errors import ConfigError, NodeError
from orchestrator.core.inventory import LOCAL
from orchestrator.core.target import parse_target
from orchestrator.roster import add_node, set_in_node
from orchestrator.wiring import Operator

if TYPE_CHECKING:
    import argparse

    from orchestrator.core.facts import NodeFacts
    from orchestrator.core.finding import Finding
    from orchestrator.core.inventory import Node
    from orchestrator.core.inventory_edit import Value
    from orchestrator.core.report import Report
    from orchestrator.core.target import Target

_PLACEHOLDER: Final = "the-new-node"
# It is not written yet: whoever answers needs no place in the file.
_PLACE: Final = re.compile(r"^[^\n]*?nodes\[\d+\]\.")

Values = dict[str, "Value | None"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Enrolment:
    """What was said so far, by options and answers."""

    operator: Operator
    path: Path
    questions: Questions
    values: Values

    def text(self, key: str) -> str | None:
        value = self.values.get(key)
        return None if value is None else str(value)

    def say(self, *keys: tuple[str, Value | None]) -> None:
        self.values.update(keys)

    def draft(self) -> Node:
        """Return the node as far as it is known; raise ConfigError for what cannot be so."""
        known = {key: value for key, value in self.values.items() if value is not None}
        stopgap: Values = {"name": _PLACEHOLDER, "target": "x86_64-unknown-linux-gnu"}
        if self.values["vm"] is None:
            stopgap["host"] = _PLACEHOLDER
        if self.values["target"] is None:
            # Whether they can run it is not known yet.
            known.pop("gate_on", None)
        if self.operator.inventory.project.source is None:
            stopgap |= {"build_command": "true", "binary_path": "/unknown"}
        return add_node(self.path, entry_of({**stopgap, **known}), write=False)


def add(arguments: argparse.Namespace) -> int:
    """Connect to a machine, look at it, add it, and try it."""
    from orchestrator.core.preflight import judge, needs_of

    enrolment = _begin(arguments)
    _meet(enrolment, arguments.fingerprint)
    facts = asyncio.run(_look(enrolment))
    _show_facts(facts)
    _warn_early(enrolment, facts)
    _complete(enrolment, facts)
    node = enrolment.draft()
    findings = judge(facts, node, needs_of(enrolment.operator.inventory.project, node))
    is_fit = _show_findings(enrolment, node, findings)
    if not is_fit:
        enrolment.say(("enabled", False))
    # The last question: until it is answered, nothing is written.
    trial = None if arguments.no_trial or not is_fit else _plan_trial(enrolment, node)
    is_wanted = enrolment.values["enabled"] is not False
    if trial is not None:
        # Whatever ends this process meanwhile, no release takes a node that was never tried.
        enrolment.say(("enabled", False))
    node = add_node(enrolment.path, entry_of(enrolment.values))
    report = None if trial is None else _try(enrolment, node, trial)
    if report and not report.exit_code and is_wanted:
        node = set_in_node(enrolment.path, node.name, {"enabled": True})
    _conclude(arguments, node, facts, report=report)
    return report.exit_code if report else 0


def _begin(arguments: argparse.Namespace) -> _Enrolment:
    if arguments.fingerprint:
        require_fingerprint(arguments.fingerprint)
    if arguments.target:
        parse_target(arguments.target)
    enrolment = _Enrolment(
        operator=Operator.at(arguments.inventory),
        path=Path(arguments.inventory),
        questions=Questions(is_interactive=sys.stdin.isatty() and not arguments.yes),
        values={
            "name": arguments.name,
            "host": arguments.host,
            "port": arguments.port,
            "identity": _from_here(arguments.identity, Path(arguments.inventory)),
            "vm": arguments.vm,
            "target": arguments.target,
            "build_command": _as_block(arguments.build_command),
            "binary_path": arguments.binary_path,
            "workdir": arguments.workdir,
            "gate_on": tuple(arguments.gate_on) or None,
            "policy": arguments.policy,
            "group": arguments.group,
            "enabled": False if arguments.disabled else None,
        },
    )
    if not (arguments.vm or arguments.host or enrolment.questions.is_interactive):
        raise ConfigError(
            "nothing says which machine it is: --host is missing, and nobody is asked",
            hint="say --host [USER@]HOST, --host local, or --vm NAME; without --yes, "
            "a terminal is asked",
        )
    # What is wrong with the options is not put right by an answer.
    enrolment.draft()
    if not arguments.vm:
        _answer(enrolment, "host", "host, as for ssh ([user@]address), or `local`")
    return enrolment


def _from_here(identity: str | None, inventory: Path) -> str | None:
    """Return a path of the current folder as the inventory means it: relative to its own."""
    if identity is None or identity.startswith("~/"):
        return identity
    here = Path(identity).absolute()
    folder = inventory.absolute().parent
    return str(here.relative_to(folder)) if here.is_relative_to(folder) else str(here)


def _as_block(command: str | None) -> str | None:
    return command and dedent(command).strip("\n") + "\n"


def _answer(enrolment: _Enrolment, key: str, question: str, *, proposal: str | None = None) -> None:
    """Ask for what no option said, until the inventory would take it."""
    if enrolment.values.get(key) is not None:
        return
    questions = enrolment.questions

    def ask() -> str:
        return questions.text(question, proposal=proposal, option=f"--{key.replace('_', '-')}")

    def check(answer: str) -> None:
        tried = replace(enrolment, values={**enrolment.values, key: answer})
        tried.draft()

    enrolment.say((key, questions.valid(ask, check, lambda wrong: _talk(_PLACE.sub("", wrong)))))


def _meet(enrolment: _Enrolment, fingerprint: str | None) -> None:
    """Pin the host key that the machine shows, if a person vouches for it; else raise NodeError."""
    from orchestrator.enrolment import meet, refuse_key, require_key

    node = enrolment.draft()
    # A virtual machine of ours was made with a host key that is known.
    if node.is_local or node.is_guest:
        return
    _talk(f"connecting to {node.host} on port {node.port} ...")
    shown = asyncio.run(meet(node))
    if fingerprint:
        require_key(shown, node, fingerprint)
    elif shown.is_known:
        _talk(f"its host key is the one in known_hosts: {shown.fingerprint}")
    elif shown.has_changed or not enrolment.questions.is_interactive:
        raise refuse_key(shown, node)
    else:
        _talk(f"it shows the host key {shown.fingerprint}")
        _talk(f"compare with what this prints on the machine itself: {shown.check}")
        if not enrolment.questions.yes("is that the machine's own key?", proposal=False):
            raise refuse_key(shown, node)
    enrolment.say(("host_key", shown.line))


async def _look(enrolment: _Enrolment) -> NodeFacts:
    from orchestrator.enrolment import look_at

    node = enrolment.draft()
    async with _with(enrolment.operator, node).connections() as connect:
        return await look_at(connect, node)


def _with(operator: Operator, node: Node) -> Operator:
    """Return the operator of an inventory with that node, which is not written yet."""
    others = tuple(each for each in operator.inventory.nodes if each.name != node.name)
    return replace(operator, inventory=replace(operator.inventory, nodes=(*others, node)))


def _complete(enrolment: _Enrolment, facts: NodeFacts) -> None:
    """Settle what is to be written, with what the machine is as the proposal."""
    inventory = enrolment.operator.inventory
    guess = guess_target(facts)
    _answer(enrolment, "target", "Rust target", proposal=guess.triple if guess else None)
    target = parse_target(str(enrolment.values["target"]))
    _settle_gate(enrolment, target, facts)
    _answer(enrolment, "name", "name", proposal=_name_for(enrolment, target, facts))
    if enrolment.values["build_command"] is None:
        _settle_recipe(enrolment)
    if enrolment.values["build_command"] is not None and inventory.project.source is None:
        _answer(enrolment, "binary_path", "where the first binary is then (an absolute path)")


def _name_for(enrolment: _Enrolment, target: Target, facts: NodeFacts) -> str:
    taken = [node.name for node in enrolment.operator.inventory.nodes]
    machine = enrolment.text("vm")
    free = machine if machine and machine not in taken else None
    return free or propose_name(target, facts.hostname, taken)


def _settle_gate(enrolment: _Enrolment, target: Target, facts: NodeFacts) -> None:
    if enrolment.values["gate_on"] is not None or not is_foreign(target, facts):
        return
    gates = gates_for(target, enrolment.operator.inventory.nodes)
    if not gates:
        raise ConfigError(
            f"{facts.system} on {facts.machine} cannot run what it builds for {target}, "
            "and no node can",
            hint=f"add a node that runs {target.title()} first: it proves that the binaries work",
        )
    question = f"it cannot run that itself: which node does ({', '.join(gates)})"
    _answer(enrolment, "gate_on", question, proposal=gates[0])


def _settle_recipe(enrolment: _Enrolment) -> None:
    questions = enrolment.questions
    is_local = enrolment.values["host"] == LOCAL
    try:
        recipe = propose_recipe(enrolment.operator.inventory, is_local=is_local)
    except ConfigError:
        if not questions.is_interactive:
            raise
        own = ""
        while not own:
            own = questions.lines("build command, ended by an empty line")
    else:
        own = questions.lines(f"build command, ended by an empty line [{recipe.origin}]")
        if not own:
            path = enrolment.values["binary_path"] or recipe.binary_path
            enrolment.say(("build_command", recipe.build_command), ("binary_path", path))
            return
    enrolment.say(("build_command", own))


def _show_facts(facts: NodeFacts) -> None:
    from orchestrator.listing.nodes import show_facts

    show_facts(facts, sys.stderr)


def _warn_early(enrolment: _Enrolment, facts: NodeFacts) -> None:
    """Tell a person that nothing can be built there before he has answered all the questions."""
    from orchestrator.core.finding import Severity
    from orchestrator.core.preflight import judge, needs_of

    if not enrolment.questions.is_interactive:
        return
    # Whatever the answers will be, these are asked of the machine itself.
    node = enrolment.draft()
    for finding in judge(facts, node, needs_of(enrolment.operator.inventory.project, node)):
        if finding.subject in _OF_THE_MACHINE and finding.severity is not Severity.OK:
            _talk(f"  it cannot build yet: {finding.message}")
            _talk(f"  hint: {finding.hint}; Ctrl-C leaves, and nothing is written")


_OF_THE_MACHINE: Final = ("toolchain", "linker")


def _show_findings(enrolment: _Enrolment, node: Node, findings: tuple[Finding, ...]) -> bool:
    """Tell what may go wrong on the node; return whether a build there makes sense.

    Raise NodeError if it does not and the node is not to be written all the same.
    """
    from orchestrator.core.check import findings_as_data
    from orchestrator.core.finding import Severity
    from orchestrator.listing import show_findings

    told = [finding for finding in findings if finding.severity is not Severity.OK]
    show_findings(node.name, findings_as_data(told), sys.stderr)
    problems = [finding for finding in findings if finding.is_problem]
    if not problems or enrolment.values["enabled"] is False:
        return not problems
    if enrolment.questions.is_interactive and enrolment.questions.yes(
        f"write {node.name} all the same, disabled?", proposal=True
    ):
        return False
    hints = dict.fromkeys(finding.hint for finding in problems if finding.hint)
    raise NodeError(
        f"nothing was written: {node.name} cannot build: "
        + "; ".join(finding.message for finding in problems),
        hint="; ".join((*hints, "or write it all the same, with --disabled")),
    )


def _plan_trial(enrolment: _Enrolment, node: Node) -> Operator | None:
    """Return the operator of a trial build, None if the person does not want one."""
    from orchestrator.enrolment import trial_inventory

    inventory = trial_inventory(enrolment.operator.inventory, node)
    if not enrolment.questions.yes("build a small program there now?", proposal=True):
        return None
    return replace(enrolment.operator, inventory=inventory)


def _try(enrolment: _Enrolment, node: Node, trial: Operator) -> Report:
    """Build the example program on the node; a trial that does not end leaves it disabled."""
    try:
        return asyncio.run(_build(trial))
    except BaseException:
        _talk(f"{node.name} is in {enrolment.path}, disabled: its trial did not end")
        _talk(f"when it is ready: {_enable(node)}")
        raise


async def _build(operator: Operator) -> Report:
    from orchestrator.console import Console, show_failures
    from orchestrator.enrolment import try_build

    console = Console(sys.stderr)
    async with operator.connections(console.observe) as connect:
        world = operator.world(connect, console.observe)
        # What a small program took says nothing of the next release.
        trial = replace(world, dist=operator.dist / "trial", remember=lambda _: None)
        with console:
            report = await try_build(operator.inventory, trial)
    show_failures(report, sys.stderr)
    return report


def _conclude(
    arguments: argparse.Namespace, node: Node, facts: NodeFacts, *, report: Report | None
) -> None:
    from orchestrator.core.enrolment import facts_as_data, node_as_data
    from orchestrator.core.report import report_as_data

    if arguments.json:
        data = {
            "node": node_as_data(node),
            "facts": facts_as_data(facts),
            "trial": report_as_data(report) if report else None,
        }
        print(json.dumps(data, indent=2))
        return
    print(f"added {node.name} ({node.target}, {describe_host(node)}) to {arguments.inventory}")
    if report and report.exit_code:
        print(f"it is disabled, because the trial build failed; then: {_enable(node)}")
    elif not node.enabled:
        print(f"it is disabled; when it is ready: {_enable(node)}")
    elif report:
        print("the trial program was built there, and ran: the next release uses the node")
        if node.build_command:
            print(
                "its own build command was not tried: orchestrator release --version V "
                f"--node {node.name} --no-publish does"
            )


def _enable(node: Node) -> str:
    return f"orchestrator nodes enable {node.name}"


def _talk(line: str) -> None:
    from orchestrator.core.wording import visible

    print(visible(line), file=sys.stderr)
