"""What a release will do, decided before anything is touched."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from orchestrator.core.cpu import cpu_floors
from orchestrator.core.errors import ConfigError, Problem
from orchestrator.core.extras import require_extras
from orchestrator.core.inventory import Policy
from orchestrator.core.placement import place
from orchestrator.core.record import Record
from orchestrator.core.result import Skipped, cpu_level
from orchestrator.core.template import fill_placeholders

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from orchestrator.core.index import Row
    from orchestrator.core.inventory import Inventory, Node, Project
    from orchestrator.core.placement import Placement
    from orchestrator.core.record import PastBuild
    from orchestrator.core.target import Target
    from orchestrator.core.version import Version

# The binaries go where the job's own folder collects them: a warm target folder also holds the
# binaries of earlier versions, under the same names.
_BUILD: Final = """\
cd {{source}}
cargo build --release --locked --offline --target {{target}} --jobs {{jobs}}{bins}
cp {files} "$ORCHESTRATOR_OUT/"
"""
_CLEAN: Final = 'rm -rf "$CARGO_TARGET_DIR"\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRequest:
    """What a person or a webhook asked for."""

    version: Version
    nodes: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    rebuild: bool = False
    clean: bool = False
    publish: bool = True
    # Publish other bytes beside those of a bad build; it goes with `rebuild`.
    reissue: bool = False
    # Build on every node of each target, to see whether they make the same bytes of it.
    compare: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeTask:
    """How one node builds: the command is complete but for `{source}` and `{jobs}`.

    So are the paths of the extra files, each of which may begin with `{source}`.
    """

    node: Node
    command: str
    # Absolute paths on the node; without any, the command puts the binaries into $ORCHESTRATOR_OUT.
    binary_paths: tuple[str, ...]
    gate_nodes: tuple[Node, ...]
    extra_paths: tuple[str, ...] = ()
    # How long the node took lately; None if it never built for this target.
    expected: timedelta | None = None
    # The part of its last builds that the machine has not failed.
    success_rate: float | None = None
    # What was built last for this target, on whatever node.
    last: PastBuild | None = None
    # On which of these OS releases the node's binaries would be published already: where they are
    # bound to one, only the node can say which that is.
    published_on: frozenset[str] = frozenset()

    @property
    def is_kept_warm(self) -> bool:
        """Whether cargo's output goes to a folder of the node that outlives the job."""
        return not self.binary_paths


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildTask:
    """One target of the plan: the node that builds it, and who takes over if that node is down.

    `begins` is when its machine is expected to be free for it, after the begin of the release; of
    those that wait for one machine the lower `rank` goes first.
    """

    first: NodeTask
    standby: tuple[NodeTask, ...] = ()
    begins: timedelta = timedelta(0)
    rank: int = 0

    @property
    def node(self) -> Node:
        """The node that builds unless it fails for a reason of the machine."""
        return self.first.node

    @property
    def target(self) -> Target:
        """The target that it delivers."""
        return self.first.node.target

    @property
    def finish(self) -> timedelta | None:
        """When it is expected to be built, after the begin; None if the node was never measured."""
        return None if self.first.expected is None else self.begins + self.first.expected


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildPlan:
    """The tasks of one release in the order of the inventory, and what is left out and why."""

    request: ReleaseRequest
    inventory: Inventory
    tasks: tuple[BuildTask, ...]
    skipped: tuple[Skipped, ...]

    @property
    def version(self) -> Version:
        """The version that is released."""
        return self.request.version

    @property
    def critical(self) -> BuildTask | None:
        """The task that is expected to be built last, None if nothing is known of any."""
        measured = [task for task in self.tasks if task.finish is not None]
        return max(measured, key=lambda task: task.finish or task.begins, default=None)


def plan_release(
    inventory: Inventory,
    request: ReleaseRequest,
    *,
    record: Record | None = None,
    rows: Sequence[Row] = (),
    begun: Collection[str] = (),
    gains: Collection[str] = (),
) -> BuildPlan:
    """Return the plan; `record` has the builds of the past, `rows` what is published.

    `begun` names the nodes that have a job of this version: they go on before another starts anew.
    `gains` names the variants that were measured to be worth it: others are built only if a person
    names them.

    Raises ConfigError when `--node` or `--skip` names no node, when no node is enabled, when a
    required node is left out of a release that is to be published, or when a re-issue names no node
    or is not to be published.
    """
    _check_names(inventory, request)
    _check_reissue(request)
    _check_required(inventory, request, rows)
    chosen = chosen_nodes(inventory, request)
    if not chosen:
        raise _nothing_left(inventory, request)
    skipped: list[Skipped] = []
    todo: list[Node] = []
    for node in chosen:
        reason = _why_not(inventory, request, node, rows=rows, gains=gains)
        if reason:
            skipped.append(Skipped(node=node.name, target=node.target, reason=reason))
        else:
            todo.append(node)
    record = record or Record()
    groups = alternatives(inventory.project, todo)
    if request.compare:
        groups = _each_apart(groups)
    placements = place(groups, record=record, begun=begun, is_cold=request.clean)
    return BuildPlan(
        request=request,
        inventory=inventory,
        tasks=tuple(
            _plan_target(inventory, request, placement=each, record=record, rows=rows)
            for each in placements
        ),
        skipped=tuple(skipped),
    )


def chosen_nodes(inventory: Inventory, request: ReleaseRequest) -> tuple[Node, ...]:
    """Return the nodes that the request is about, in the order of the inventory."""
    return tuple(node for node in inventory.nodes if _is_chosen(node, request))


def fill_command(task: NodeTask, *, source: str | None, jobs: int) -> str:
    """Return the command as the node runs it."""
    values = {"jobs": str(jobs)}
    if source is not None:
        values["source"] = source
    return fill_placeholders(task.command, values)


def fill_extra(path: str, *, source: str | None) -> str:
    """Return the path of an extra file as the node has it."""
    return path if source is None else fill_placeholders(path, {"source": source})


def _why_not(
    inventory: Inventory,
    request: ReleaseRequest,
    node: Node,
    *,
    rows: Sequence[Row],
    gains: Collection[str],
) -> str | None:
    """Return why a chosen node builds nothing, None if it does."""
    published = _rows_of(request.version, rows)
    if not request.rebuild and _is_published(inventory.project, node, published):
        return f"{request.version} is already published"
    if node.variant_of and node.name not in {*gains, *request.nodes}:
        return f"no gain is measured: orchestrator bench --bench-variants {node.variant_of}"
    return None


def node_cpu(project: Project, node: Node) -> int:
    """Return the level of the CPU that a node's builds need, 0 for any of its target."""
    return cpu_level(cpu_floors(build_texts(project, node), node.target))


def build_texts(project: Project, node: Node) -> tuple[str, ...]:
    """Return the texts of the inventory that may hold flags of a node's compiler."""
    command = node.build_command or project.build_command or ""
    return (command, *(value for _, value in node.env))


def _check_names(inventory: Inventory, request: ReleaseRequest) -> None:
    names = [node.name for node in inventory.nodes]
    problems = []
    for option, given in (("--node", request.nodes), ("--skip", request.skip)):
        for name in given:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1)
                suggestion = f", did you mean `{near[0]}`?" if near else ""
                problems.append(Problem(option, f"no node is named `{name[:80]}`{suggestion}"))
    if problems:
        raise ConfigError.of(problems, hint=f"the nodes are: {', '.join(names)}")


def _check_reissue(request: ReleaseRequest) -> None:
    if request.reissue and not request.nodes:
        raise ConfigError(
            "--reissue needs the nodes whose builds are bad",
            hint="name each of them with --node: the others stay as they are",
        )
    if request.reissue and not request.publish:
        raise ConfigError(
            "--reissue publishes, and --no-publish does not: choose one of them",
            hint="to build again and look at it, use --rebuild --no-publish",
        )


def _check_required(inventory: Inventory, request: ReleaseRequest, rows: Sequence[Row]) -> None:
    published = _rows_of(request.version, rows)
    missing = [
        f"`{node.name}` is required, and left out"
        for node in inventory.nodes
        if request.publish
        and node.enabled
        and node.policy is Policy.REQUIRED
        and not _is_chosen(node, request)
        and not _is_published(inventory.project, node, published)
    ]
    if missing:
        hint = "without it nothing is published: add it, or build only, with --no-publish"
        raise ConfigError("\n".join(missing), hint=hint)


def _nothing_left(inventory: Inventory, request: ReleaseRequest) -> ConfigError:
    enabled = [node.name for node in inventory.nodes if node.enabled]
    if not (enabled or request.nodes):
        return ConfigError(
            "no node is left to build on: none is enabled",
            hint="set `enabled: true` on a node, or name a disabled one with --node",
        )
    left_out = "all that --node names" if request.nodes else "every enabled node"
    names = ", ".join(enabled) or "none"
    return ConfigError(
        f"no node is left to build on: --skip leaves out {left_out}",
        hint=f"the enabled nodes are: {names}; skip fewer, or name others with --node",
    )


def _is_chosen(node: Node, request: ReleaseRequest) -> bool:
    # Naming a node is asking for it, also when it is disabled: that is how one tries a new node.
    wanted = node.name in request.nodes if request.nodes else node.enabled
    return wanted and node.name not in request.skip


def _rows_of(version: Version, rows: Iterable[Row]) -> list[Row]:
    """Return what is published of a version."""
    # The text: versions compare without their build metadata, and are different files.
    return [row for row in rows if str(row.version) == str(version) and row.sha256 is not None]


def _is_published(project: Project, node: Node, published: Iterable[Row]) -> bool:
    level = node_cpu(project, node)
    return any(
        row.target == node.target.triple
        and cpu_level(row.floors) == level
        and row.exact_release in {None, node.os_release}
        for row in published
    )


def _published_on(project: Project, node: Node, published: Iterable[Row]) -> frozenset[str]:
    level = node_cpu(project, node)
    return frozenset(
        row.exact_release
        for row in published
        if row.target == node.target.triple
        and cpu_level(row.floors) == level
        and row.exact_release is not None
    )


def _each_apart(groups: Sequence[Sequence[Node]]) -> list[list[Node]]:
    """Return every node that has others to be compared with, as a target of its own."""
    compared = [[node] for nodes in groups if len(nodes) > 1 for node in nodes]
    if not compared:
        raise ConfigError(
            "no two of the chosen nodes build for the same target, so there is nothing to compare",
            hint="enable another node for one of the targets, or name two with --node",
        )
    return compared


def alternatives(project: Project, nodes: Iterable[Node]) -> list[list[Node]]:
    """Return the nodes by what they build: those of one group can stand in for one another."""
    # A binary for an OS that keeps no ABI is good for one release of it, so that nodes on
    # different releases of OpenBSD don't stand in for one another; nor do builds for other CPUs.
    groups: dict[tuple[str, str | None, int], list[Node]] = {}
    for node in nodes:
        release = node.os_release or node.name if node.target.is_bound_to_os_release else None
        key = (node.target.triple, release, node_cpu(project, node))
        groups.setdefault(key, []).append(node)
    return list(groups.values())


def _plan_target(
    inventory: Inventory,
    request: ReleaseRequest,
    *,
    placement: Placement,
    record: Record,
    rows: Sequence[Row],
) -> BuildTask:
    published = [] if request.rebuild else _rows_of(request.version, rows)
    first, *standby = (
        replace(
            _plan_node(inventory, request, node),
            expected=record.expected(node, is_cold=request.clean),
            success_rate=record.success_rate(node),
            last=record.last_delivery(node.target.triple),
            published_on=_published_on(inventory.project, node, published),
        )
        for node in placement.nodes
    )
    return BuildTask(
        first=first, standby=tuple(standby), begins=placement.begins, rank=placement.rank
    )


def _plan_node(inventory: Inventory, request: ReleaseRequest, node: Node) -> NodeTask:
    project = inventory.project
    values = {
        "version": str(request.version),
        "target": node.target.triple,
        "name": project.name,
        # These two are known only on the node.
        "source": "{source}",
        "jobs": "{jobs}",
    }
    command = node.build_command or project.build_command or _default_command(project, node.target)
    paths = _binary_paths(project, node)
    if request.clean and not paths:
        command = _CLEAN + command
    by_name = {other.name: other for other in inventory.nodes}
    extras = tuple(fill_placeholders(path, values) for path in project.extras)
    require_extras(project.binaries, extras)
    return NodeTask(
        node=node,
        command=fill_placeholders(command, values),
        binary_paths=tuple(fill_placeholders(path, values) for path in paths),
        gate_nodes=tuple(by_name[name] for name in node.gate_on),
        extra_paths=tuple(_located(project, path) for path in extras),
    )


def _located(project: Project, path: str) -> str:
    is_below_source = project.source is not None and not path.startswith("/")
    return f"{{source}}/{path}" if is_below_source else path


def _default_command(project: Project, target: Target) -> str:
    bins = "".join(f" --bin {name}" for name in project.binaries)
    files = " ".join(
        f'"$CARGO_TARGET_DIR/{{target}}/release/{name}{target.exe_suffix}"'
        for name in project.binaries
    )
    return _BUILD.format(bins=bins, files=files)


def _binary_paths(project: Project, node: Node) -> tuple[str, ...]:
    if node.binary_path is None:
        return ()
    folder = node.binary_path.rpartition("/")[0]
    suffix = node.target.exe_suffix
    others = (f"{folder}/{name}{suffix}" for name in project.binaries[1:])
    return (node.binary_path, *others)
