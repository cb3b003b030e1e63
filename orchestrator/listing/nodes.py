"""Nodes and machines, as a person reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.text import Text

from orchestrator.console import Terminal, print_table
from orchestrator.core.wording import human_size, visible

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TextIO

    from orchestrator.core.facts import NodeFacts


def show_nodes(nodes: Sequence[Mapping[str, Any]], stream: TextIO) -> None:
    """Write a table of nodes (`core.enrolment.node_as_data`)."""
    terminal = Terminal(stream)
    cells = [
        (
            Text(node["node"], style="bold" if node["enabled"] else "dim"),
            visible(_place(node)),
            node["target"],
            Text("yes" if node["enabled"] else "no", style="" if node["enabled"] else "yellow"),
            node["policy"],
            node["key"],
            node["builds"],
            node["took"] or "",
            "" if node["success_rate"] is None else f"{node['success_rate']:.0%}",
        )
        for node in nodes
    ]
    heading = (
        "node",
        "host",
        "target",
        "enabled",
        "policy",
        "host key",
        "builds",
        "took",
        "delivered",
    )
    print_table(terminal, heading, cells)


def show_gains(gains: Sequence[Mapping[str, Any]], stream: TextIO) -> None:
    """Write what variants gain over their base (`core.gains.Gain.as_data`)."""
    terminal = Terminal(stream)
    if not gains:
        terminal.print("nothing was timed: no variant and its base were both built")
        return
    cells = [
        (
            Text(gain["node"], style="bold"),
            f"{gain['seconds']:.3g} s",
            f"{gain['base_seconds']:.3g} s ({gain['base']})",
            f"{gain['gain']:+.1%}",
            Text(
                "releases build it" if gain["is_worth_it"] else "not worth it",
                style="green" if gain["is_worth_it"] else "yellow",
            ),
        )
        for gain in gains
    ]
    print_table(terminal, ("variant", "CPU time", "its base", "gain", ""), cells)


def _place(node: Mapping[str, Any]) -> str:
    port = "" if node["port"] == 22 else f":{node['port']}"  # noqa: PLR2004 -- ssh's own
    return f"{node['host']}{port}"


def show_facts(facts: NodeFacts, stream: TextIO) -> None:
    """Write what a machine is and has, a line for each subject."""
    terminal = Terminal(stream)
    cpus = f"{facts.cpus} x " if facts.cpus else ""
    sizes = [
        f"{human_size(size)} {what}"
        for size, what in (
            (facts.memory_bytes, "of memory"),
            (facts.disk_free_bytes, f"free in {facts.workdir}"),
        )
        if size is not None
    ]
    libc = (facts.glibc and f"glibc {facts.glibc}") or (facts.musl and f"musl {facts.musl}")
    tools = (facts.linker, facts.tar, facts.hash_tool, facts.downloader)
    for name, values in (
        ("system", (facts.system, facts.release or facts.kernel, facts.machine)),
        ("cpu", (f"{cpus}{facts.cpu or 'a CPU without a name'}",)),
        ("room", (", ".join(sizes),)),
        ("libc", (libc,)),
        ("shell", (facts.login_shell,)),
        ("rust", (_rust(facts),)),
        ("tools", tools),
    ):
        text = " ".join(value for value in values if value)
        if text:
            terminal.print(Text.assemble((f"  {name:<8}", "dim"), visible(text)))


def _rust(facts: NodeFacts) -> str:
    if not facts.rustc:
        return "none"
    cargo = f"cargo {facts.cargo.partition(' ')[0]} at {facts.cargo_path}" if facts.cargo else ""
    return ", ".join(filter(None, (f"rustc {facts.rustc} for {facts.host_triple}", cargo)))
