"""Plain data as YAML gives it → an Inventory, or every problem in it at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from orchestrator.core.cpu import target_cpus, variant_name, with_cpu
from orchestrator.core.errors import ConfigError, Problem
from orchestrator.core.extras import clashes
from orchestrator.core.inventory import (
    ANY_VERSION,
    GUEST,
    LOCAL,
    ArchiveSource,
    GitHubReleases,
    Inventory,
    Node,
    Policy,
    Project,
    Publication,
    Signing,
)
from orchestrator.core.kinds import INVALID, Place, shown, suggestion
from orchestrator.core.schema import HOST_TARGET, INVENTORY
from orchestrator.core.schema_texts import NAME
from orchestrator.core.service_settings import Service
from orchestrator.core.target import TARGETS, Arch
from orchestrator.core.template import fill_placeholders, placeholders_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from orchestrator.core.inventory import Source
    from orchestrator.core.target import Target

_HINT: Final = (
    "docs/inventory.md explains every key, `orchestrator schema` describes them to editors"
)


def parse_inventory(data: object, *, place: str, host_triple: str | None = None) -> Inventory:
    """Return the inventory in the data of a YAML file; `place` names that file in messages.

    `host_triple` is the coordinator's own target, for nodes with `target: host`; a disabled one of
    these is left out while it is unknown. Raises ConfigError that lists every problem.
    """
    problems: list[Problem] = []
    root = Place(file=place, problems=problems)
    draft = _read(data, root)
    if draft:
        _check(draft, host_triple)
    if draft is None or problems:
        raise ConfigError.of(problems, hint=_HINT)
    slots = {group: said for group, (said, _) in draft.slots_of_groups.items()}
    return Inventory(
        project=_project(draft),
        publication=_publication(draft.publication),
        service=_service(draft.service),
        nodes=tuple(
            node
            for entry in draft.entries
            if (target := _target(entry, host_triple))
            for node in _nodes(entry, target, slots)
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """A node as it was read; INVALID is the value of a wrong key."""

    place: Place
    own: Mapping[str, Any]
    defaults: Mapping[str, Any]

    def value(self, key: str) -> Any:
        """Return the value that counts; None if there is none, or a wrong one."""
        value = self.own.get(key, self.defaults.get(key))
        return None if value is INVALID else value

    def has(self, key: str) -> bool:
        """Whether somebody wrote a value, right or wrong."""
        return key in self.own or key in self.defaults


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draft:
    """A file as it was read: each value is right or reported, but they may not fit together."""

    root: Place
    project: Mapping[str, Any]
    publication: Mapping[str, Any]
    service: Mapping[str, Any]
    defaults: Mapping[str, Any]
    entries: tuple[_Entry, ...]

    @property
    def source(self) -> Any:
        """The class and the keys of the source; None if there is none; INVALID if it is wrong."""
        return self.project.get("source")

    @property
    def slots_of_groups(self) -> dict[str, tuple[int, _Entry]]:
        """The slots of each group, and the first node that says so."""
        said: dict[str, tuple[int, _Entry]] = {}
        for entry in self.entries:
            group, slots = entry.value("group"), entry.own.get("slots", INVALID)
            if group and slots is not INVALID:
                said.setdefault(group, (slots, entry))
        return said


def _read(data: object, root: Place) -> _Draft | None:
    if data is None:
        root.refuse("is empty: it needs a list of nodes")
        return None
    file = INVENTORY.read({"nodes": data} if isinstance(data, list) else data, root)
    if file is INVALID:
        return None
    defaults = _mapping(file.get("defaults", {}))
    nodes = file.get("nodes", ())
    return _Draft(
        root=root,
        # An unreadable project may have had a source: nothing is said about a missing one then.
        project={"source": INVALID}
        if file.get("project") is INVALID
        else _mapping(file.get("project", {})),
        publication=_mapping(file.get("publication", {})),
        service=_mapping(file.get("service", {})),
        defaults=defaults,
        entries=tuple(
            _Entry(place=root.key("nodes").item(index), own=own, defaults=defaults)
            for index, own in enumerate(() if nodes is INVALID else nodes)
            if own is not INVALID
        ),
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return {} if value is INVALID else value


def _check(draft: _Draft, host_triple: str | None) -> None:
    _check_source(draft)
    _check_project_name(draft)
    _check_extras(draft)
    _check_node_names(draft.entries)
    _check_slots(draft)
    _check_verify(draft)
    by_name = {entry.value("name"): entry for entry in draft.entries if entry.value("name")}
    for entry in draft.entries:
        _check_host(entry)
        if not entry.has("target"):
            entry.place.refuse("`target` is missing")
        _check_host_target(entry, host_triple)
        _check_dedicated(entry)
        _check_build(draft, entry)
        _check_gate_on(entry, by_name, host_triple)
        _check_variants(entry, by_name, host_triple)


def _check_source(draft: _Draft) -> None:
    at = draft.root.key("project")
    if draft.source is None:
        commands = [(at, draft.project), (draft.root.key("defaults"), draft.defaults)]
        for place, values in [*commands, *((entry.place, entry.own) for entry in draft.entries)]:
            command = values.get("build_command")
            if isinstance(command, str) and "source" in placeholders_in(command):
                place.key("build_command").refuse("`{source}` needs a `source:` in the project")
    elif draft.source is not INVALID and draft.source[0] is ArchiveSource:
        archive, digests = (draft.source[1].get(key, INVALID) for key in ("archive", "sha256"))
        if INVALID in (archive, digests):
            return
        is_versioned = "version" in placeholders_in(archive)
        if is_versioned and dict(digests).keys() == {ANY_VERSION}:
            at.key("source").key("sha256").refuse(
                "one digest cannot fit the archive of every version: map versions to digests"
            )


def _check_project_name(draft: _Draft) -> None:
    if draft.project.get("name") or draft.project.get("binaries"):
        return
    path = _first_binary_path(draft)
    if path is None:
        # Without a source, each missing path is a problem of its own already.
        if isinstance(draft.source, tuple):
            draft.root.key("project").refuse("`name` is missing, and no `binary_path` tells it")
    elif not NAME.matches(_file_name(path)):
        draft.root.key("project").refuse(
            f"`name` is missing, and {shown(_file_name(path))}, from a `binary_path`, cannot be it"
        )


def _check_extras(draft: _Draft) -> None:
    extras = draft.project.get("extras", INVALID)
    if extras is INVALID:
        return
    name, binaries = _names(draft)
    if INVALID in (name, *binaries, *extras):
        return
    filled = [fill_placeholders(path, {"name": name}, ("name",)) for path in extras]
    for position, other in clashes(binaries, filled):
        if extras[position] in extras[:position]:
            continue  # reported already, as what stands in the list twice
        draft.root.key("project").key("extras").item(position).refuse(
            f"{shown(extras[position])} has the same name in the archive as {other}, "
            "where files lie flat"
        )


def _first_binary_path(draft: _Draft) -> str | None:
    return next(filter(None, (entry.value("binary_path") for entry in draft.entries)), None)


def _file_name(path: str) -> str:
    return path.rpartition("/")[2].removesuffix(".exe")


def _check_node_names(entries: Sequence[_Entry]) -> None:
    first: dict[str, _Entry] = {}
    for entry in entries:
        name = entry.value("name")
        if name is not None and first.setdefault(name, entry) is not entry:
            other = first[name].place.path
            entry.place.key("name").refuse(f"duplicate name {shown(name)}: {other} has it too")


def _check_slots(draft: _Draft) -> None:
    said = draft.slots_of_groups
    for entry in draft.entries:
        group, own = entry.value("group"), entry.own.get("slots", INVALID)
        if group in said and own is not INVALID and own != said[group][0]:
            slots, other = said[group]
            entry.place.key("slots").refuse(
                f"{other.place.path} says that the group {shown(group)} has {slots}"
            )


def _check_host(entry: _Entry) -> None:
    if not entry.has("vm"):
        if not entry.has("host"):
            entry.place.refuse("`host` is missing")
        return
    if entry.value("host") == LOCAL:
        entry.place.key("vm").refuse(f"`host: {LOCAL}` is this machine, and no virtual one")
    if not entry.has("host"):
        # They come with the machine's, and would be another way's.
        for key in ("port", "identity", "host_key"):
            if key in entry.own:
                entry.place.key(key).refuse("needs a `host` that it belongs to")


def _check_host_target(entry: _Entry, host_triple: str | None) -> None:
    if entry.value("target") != HOST_TARGET:
        return
    place = entry.place.key("target")
    if entry.has("vm") or entry.value("host") not in {None, LOCAL}:
        place.refuse(f"`{HOST_TARGET}` is only for `host: {LOCAL}`: write the node's own triple")
    elif host_triple is None and entry.value("enabled") is not False:
        place.refuse(
            f"`{HOST_TARGET}` is unknown, because `rustc -vV` says nothing here: install Rust, "
            "write the triple, or set `enabled: false`"
        )
    elif host_triple is not None and host_triple not in TARGETS:
        near = suggestion(host_triple, TARGETS)
        place.refuse(f"this machine's own target {shown(host_triple)} is not a known one{near}")


def _check_verify(draft: _Draft) -> None:
    if draft.publication.get("verify") is True and "url" not in draft.publication:
        draft.root.key("publication").key("verify").refuse("there is no `url` to read it back from")


def _check_dedicated(entry: _Entry) -> None:
    if entry.value("dedicated") is True and entry.value("host") == LOCAL:
        entry.place.key("dedicated").refuse(
            "the signing key lives on this machine, so its builds are not apart from it"
        )


def _check_build(draft: _Draft, entry: _Entry) -> None:
    if draft.source is not None:
        return
    if not (entry.has("build_command") or "build_command" in draft.project):
        entry.place.refuse("`build_command` is missing, and the project has no `source:` either")
    if not entry.has("binary_path"):
        entry.place.refuse("`binary_path` is missing, and the project has no `source:` either")


def _check_gate_on(entry: _Entry, by_name: Mapping[str, _Entry], host_triple: str | None) -> None:
    target = _target(entry, host_triple)
    place = entry.place.key("gate_on")
    for name in entry.value("gate_on") or ():
        gate = by_name.get(name)
        if name is INVALID:
            continue
        if gate is None:
            place.refuse(f"no node is named {shown(name)}{suggestion(name, by_name)}")
        elif gate is entry:
            place.refuse("names the node itself, which runs the gate anyway without this key")
        elif not _can_run(target, gate, host_triple):
            place.refuse(f"{shown(name)} is for another OS or CPU, and cannot run this binary")


def _check_variants(entry: _Entry, by_name: Mapping[str, _Entry], host_triple: str | None) -> None:
    target, place = _target(entry, host_triple), entry.place.key("variants")
    cpus = [cpu for cpu in entry.value("variants") or () if cpu is not INVALID]
    if not cpus:
        return
    if target is not None and target.arch is not Arch.X86_64:
        place.refuse(f"{target} has no such CPUs: they are levels of x86_64")
    if entry.has("binary_path"):
        place.refuse("with a `binary_path`, the builds would overwrite one another: leave it out")
    _check_flags(entry, place)
    for cpu in cpus:
        name = variant_name(str(entry.value("name")), cpu)
        if name in by_name:
            place.refuse(f"the build for {cpu} would be called {shown(name)}, as another node is")


def _check_flags(entry: _Entry, place: Place) -> None:
    """Refuse variants whose flags would not count, or not be the only ones."""
    env = dict(entry.value("env") or ())
    if target_cpus(map(str, env.values())):
        place.refuse(
            "with a `target-cpu` in `env`, no build runs everywhere: leave one of them out"
        )
    for key in env:
        if key != "RUSTFLAGS" and key.endswith("RUSTFLAGS"):
            # Cargo reads one of them only.
            place.refuse(f"their flags go into RUSTFLAGS, not beside {key}: move that one's there")


def _can_run(target: Target | None, gate: _Entry, host_triple: str | None) -> bool:
    gate_target = _target(gate, host_triple)
    if gate_target is None:
        # A wrong or missing target is reported; one that is only unknown here gates nothing.
        return bool(gate.value("target") != HOST_TARGET)
    return target is None or (target.os, target.arch) == (gate_target.os, gate_target.arch)


def _target(entry: _Entry, host_triple: str | None) -> Target | None:
    triple = entry.value("target")
    return TARGETS.get((host_triple or "") if triple == HOST_TARGET else triple)


def _project(draft: _Draft) -> Project:
    name, binaries = _names(draft)
    named = {**draft.project, "name": name, "binaries": binaries}
    return Project(**{**named, "source": _source(draft.source)})


def _names(draft: _Draft) -> tuple[Any, tuple[Any, ...]]:
    """Return the names of the project and of its binaries; INVALID stands for a wrong one."""
    given, name = draft.project.get("binaries"), draft.project.get("name")
    if given is INVALID:
        return name or INVALID, (INVALID,)
    binaries = given or (name or _file_name(_first_binary_path(draft) or ""),)
    return name or binaries[0], binaries


def _source(read: tuple[type[Source], Mapping[str, Any]] | None) -> Source | None:
    if read is None:
        return None
    variant, values = read
    return variant(**values)


def _publication(given: Mapping[str, Any]) -> Publication:
    signing = given.get("signing")
    github = given.get("github")
    return Publication(
        **{
            **given,
            "signing": Signing(**signing) if signing else None,
            "github": GitHubReleases(**github) if github else None,
        }
    )


def _service(given: Mapping[str, Any]) -> Service:
    notices = tuple(variant(**values) for variant, values in given.get("notices", ()))
    return Service(**{**given, "notices": notices})


def _nodes(entry: _Entry, target: Target, slots: Mapping[str, int]) -> Iterator[Node]:
    """Yield the node of an entry, then one for each of its variants.

    A variant is a node like any other: it has its own jobs, logs and warm folder, and the lock on
    its host lets it build after the node that it belongs to.
    """
    values = {**entry.defaults, **entry.own, "target": target}
    if not entry.has("host"):
        # One that has `vm`, or the inventory would have been refused.
        values["host"] = f"{GUEST}{values['vm']}"
        values.pop("identity", None)
    if values.get("group") in slots:
        values["slots"] = slots[values["group"]]
    node = Node(**values)
    yield node
    for cpu in node.variants:
        yield replace(
            node,
            name=variant_name(node.name, cpu),
            policy=Policy.BEST_EFFORT,
            env=with_cpu(node.env, cpu),
            variants=(),
            variant_of=node.name,
        )
