"""The operator's files (inventory, install.sh.j2) as values; the one door to YAML."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from orchestrator.core.errors import ConfigError
from orchestrator.core.inventory import Inventory, Node, PathSource, Publication, Signing
from orchestrator.core.inventory_edit import Entry, NodeBlock, Span
from orchestrator.core.inventory_parser import parse_inventory
from orchestrator.core.kinds import suggestion
from orchestrator.core.schema import HOST_TARGET
from orchestrator.core.schema_texts import NAME
from orchestrator.core.service_settings import NoticeByMail, NoticeByWebhook, Service
from orchestrator.core.vm import GoldenImage, Vm
from orchestrator.core.vm_parser import parse_vm
from orchestrator.core.wording import human_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    import yaml

    from orchestrator.core.service_settings import Notice

TEMPLATE: Final = "install.sh.j2"
VMS: Final = "vms"
VM_FILE: Final = "vm.yaml"
MAX_BYTES: Final = 1_000_000
# A thousand nodes, with fourteen keys each.
MAX_VALUES: Final = 30_000
MAX_DEPTH: Final = 50


def load_inventory(path: Path) -> Inventory:
    """Return the inventory in a YAML file, with its paths made absolute.

    They are relative to the file's own folder, and `~/` is the home. Raises ConfigError with every
    problem, each at its place in the file.
    """
    return load_text(read_text(path), path)


def load_text(text: str, path: Path) -> Inventory:
    """Return the inventory in a text that is in that file, or is about to be; as load_inventory."""
    data = parse_yaml(text, path)
    inventory = parse_inventory(
        data,
        place=str(path),
        # rustc takes a moment to answer, so it is asked only if a node wants to know.
        host_triple=host_triple() if _holds(data, HOST_TARGET) else None,
    )
    return _located(inventory, inventory_folder(path))


def load_vm(folder: Path, name: str) -> Vm:
    """Return the virtual machine that `vms/NAME/vm.yaml` below an inventory's folder defines.

    A golden image's path is made absolute: it is relative to the definition's own folder. Raises
    ConfigError with every problem, each at its place in the file.
    """
    known = list_vms(folder)
    if name not in known:
        near = suggestion(name, known)
        hint = f"make {folder / VMS / 'NAME' / VM_FILE}; docs/vms.md says what is in it"
        raise ConfigError(
            f"there is no virtual machine `{name[:80]}` in {folder / VMS}{near}", hint=hint
        )
    path = folder / VMS / name / VM_FILE
    vm = parse_vm(read_yaml(path), name=name, place=str(path))
    if not isinstance(vm.image, GoldenImage):
        return vm
    image = dataclasses.replace(vm.image, file=_absolute(vm.image.file, path.parent))
    return dataclasses.replace(vm, image=image)


def list_vms(folder: Path) -> tuple[str, ...]:
    """Return the names of the virtual machines that are defined below an inventory's folder."""
    found = (path.parent.name for path in (folder / VMS).glob(f"*/{VM_FILE}"))
    return tuple(sorted(name for name in found if NAME.matches(name)))


def inventory_folder(path: Path) -> Path:
    """Return the folder that the relative paths in an inventory start from."""
    return path.expanduser().absolute().parent


def read_installer_template(root: Path) -> str:
    """Return the installer's template: the one in `root`, else the one that is shipped."""
    shipped = Path(__file__).parent.parent
    for folder in (root, shipped):
        try:
            return (folder / TEMPLATE).read_text(encoding="utf-8")
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{folder / TEMPLATE}: cannot be read: {error}") from error
    raise ConfigError(
        f"there is no {TEMPLATE} in {root}, and none beside the program in {shipped}",
        hint=f"put a copy of the project's {TEMPLATE} beside the inventory",
    )


def host_triple() -> str | None:
    """Return the target that this machine's rustc builds for; None if there is no rustc."""
    try:
        answer = subprocess.run(
            ["rustc", "-vV"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            # A rustup proxy may want to install a toolchain first; that is not worth waiting for.
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    text = answer.stdout.decode(errors="replace")
    found = re.search(r"^host: ([a-z0-9_.-]+)$", text, re.MULTILINE)
    return found[1] if found else None


def read_yaml(path: Path) -> object:
    """Return a YAML file as plain data; raise ConfigError with the line of what is wrong."""
    return parse_yaml(read_text(path), path)


def parse_yaml(text: str, path: Path) -> object:
    """Return a text as plain data; `path` is the file that it is in."""
    # 20 ms of imports that only a command which reads an inventory should pay for.
    import yaml  # noqa: PLC0415

    try:
        loader = _loader(yaml)(text)
        node = loader.get_single_node()
        return None if node is None else loader.construct_document(node)
    except _RefusedError as error:
        raise ConfigError(f"{_in_file(path, error.mark)}: {error.problem}") from None
    except yaml.MarkedYAMLError as error:
        place = _in_file(path, error.problem_mark or error.context_mark)
        problem = " ".join(filter(None, (error.context, error.problem)))
        raise ConfigError(f"{place}: {problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from error


def locate_nodes(text: str) -> NodeBlock:
    """Return where the nodes stand in the text of an inventory that `load_inventory` accepts.

    Raise ConfigError for a list that is not written one key a line: nobody edits that by lines.
    """
    import yaml  # noqa: PLC0415 -- as in read_yaml

    root = _loader(yaml)(text).get_single_node()
    nodes = root
    if root.id == "mapping":
        nodes = next(value for key, value in root.value if key.value == "nodes")
    entries = nodes.value if nodes.id == "sequence" else []
    if not entries or nodes.flow_style or any(entry.flow_style for entry in entries):
        raise ConfigError(
            "its nodes are not written as a list with one key a line",
            hint="write them as docs/inventory.md does, or change the file by hand",
        )
    lines = text.splitlines()
    found = tuple(_entry(entry, lines) for entry in entries)
    return NodeBlock(dash=nodes.start_mark.column, entries=found, end=found[-1].end)


def _entry(entry: yaml.MappingNode, lines: Sequence[str]) -> Entry:
    name = next(value.value for key, value in entry.value if key.value == "name")
    first = entry.start_mark.line
    # A dash may stand on a line of its own; and the mark of the end is behind what follows.
    while not lines[first].lstrip().startswith("-"):
        first -= 1
    values = tuple(
        (
            key.value,
            Span(
                line=value.start_mark.line,
                begin=value.start_mark.column,
                end=value.end_mark.column,
            ),
        )
        for key, value in entry.value
        if value.id == "scalar" and value.start_mark.line == value.end_mark.line
    )
    return Entry(
        name=name,
        first=first,
        end=_last_line(entry, lines) + 1,
        column=entry.start_mark.column,
        values=values,
    )


def _last_line(entry: yaml.MappingNode, lines: Sequence[str]) -> int:
    line = min(entry.end_mark.line, len(lines)) - (entry.end_mark.column == 0)
    column = entry.start_mark.column
    line = min(line, len(lines) - 1)
    # Back over what belongs to nobody, or to the next one: empty lines, and comments further left.
    while not lines[line].strip() or len(lines[line]) - len(lines[line].lstrip(" ")) < column:
        line -= 1
    return line


def _in_file(path: Path, mark: yaml.Mark | None) -> str:
    return f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)


def read_text(path: Path) -> str:
    """Return the text of an inventory; raise ConfigError if there is none."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        hint = "name it with --inventory FILE; build-nodes.yaml in the project's folder is a start"
        raise ConfigError(f"{path}: there is no such inventory", hint=hint) from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        size = human_size(MAX_BYTES)
        raise ConfigError(f"{path}: is larger than {size}, too large for an inventory")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: is not UTF-8 text") from error


def _loader(yaml: Any) -> Any:
    """Return the class of a safe loader for files that may be hostile, or just surprising.

    YAML 1.1 reads 22:30 as a number in base 60, 010 as 8 and 2026-01-01 as a date: text here.
    """

    class Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml is imported late, as a value
        yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 -- PyYAML's own way to say it

        def __init__(self, text: str) -> None:
            super().__init__(text)
            self.guard = _Guard()

        def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
            event = self.peek_event()
            self.guard.enter(event)
            is_alias = self.check_event(yaml.AliasEvent)
            node = super().compose_node(parent, index)
            self.guard.leave(node, is_alias=is_alias, mark=event.start_mark)
            return node

    for name, pattern, first in _SCALARS:
        Loader.add_implicit_resolver(f"tag:yaml.org,2002:{name}", re.compile(pattern), first)
    return Loader


_SCALARS: Final = (
    ("null", r"^(?:~|null|Null|NULL|)$", [*"~nN", ""]),
    (
        "bool",
        "^(?:yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$",
        [*"yYnNtTfFoO"],
    ),
    # Eighteen digits: a longer one is a digest, not a number.
    ("int", "^[-+]?(?:0|[1-9][0-9]{0,17})$", [*"-+0123456789"]),
    ("float", r"^[-+]?[0-9]{1,18}\.[0-9]{1,18}$", [*"-+0123456789"]),
    ("merge", "^<<$", ["<"]),
)


class _RefusedError(Exception):
    """The text is YAML, but not for an inventory."""

    def __init__(self, problem: str, mark: yaml.Mark) -> None:
        super().__init__(problem)
        self.problem = problem
        self.mark = mark


class _Guard:
    """Refuses, before anything is built: tags, a key that stands twice, and too much of anything.

    A value counts as often as it is used: 236 bytes of aliases can stand for 25 MB.
    """

    def __init__(self) -> None:
        self._depth = 0
        self._entered = 0
        # By node: how many values it stands for, and how many levels, every alias written out.
        self._sizes: dict[Any, tuple[int, int]] = {}

    def enter(self, event: Any) -> None:
        """Take note of a value that begins."""
        tag = getattr(event, "tag", None)
        if tag is not None:
            written = tag.replace("tag:yaml.org,2002:", "!!")[:60]
            raise _RefusedError(f"the tag {written!a} is not understood here", event.start_mark)
        self._depth += 1
        self._entered += 1
        self._limit(self._entered, self._depth, event.start_mark)

    def leave(self, node: Any, *, is_alias: bool, mark: yaml.Mark) -> None:
        """Take note of a value that is complete."""
        self._depth -= 1
        if is_alias and node not in self._sizes:
            raise _RefusedError("this alias stands inside of what it stands for", mark)
        if not is_alias:
            if node.id == "mapping":
                self._check_keys(node)
            self._sizes[node] = self._measure(node)
        self._limit(*self._sizes[node], mark)

    def _check_keys(self, mapping: Any) -> None:
        lines: dict[str, int] = {}
        for key, _ in mapping.value:
            mark = key.start_mark
            if key.id != "scalar":
                raise _RefusedError("a key must be text", mark)
            if key.value in lines:
                line = lines[key.value]
                raise _RefusedError(f"{key.value[:60]!a} is a key in line {line} already", mark)
            lines[key.value] = mark.line + 1

    def _measure(self, node: Any) -> tuple[int, int]:
        if node.id == "scalar":
            return 1, 1
        pairs = node.value if node.id == "mapping" else zip(node.value, strict=True)
        sizes = [self._sizes[child] for pair in pairs for child in pair]
        return 1 + sum(size for size, _ in sizes), 1 + max((deep for _, deep in sizes), default=0)

    def _limit(self, values: int, levels: int, mark: yaml.Mark) -> None:
        if levels > MAX_DEPTH:
            raise _RefusedError(f"more than {MAX_DEPTH} levels", mark)
        if values > MAX_VALUES:
            raise _RefusedError(f"more than {MAX_VALUES} values, every alias written out", mark)


def _holds(data: object, word: str) -> bool:
    match data:
        case dict():
            return any(_holds(value, word) for value in data.values())
        case list():
            return any(_holds(value, word) for value in data)
        case _:
            return data == word


def _located(inventory: Inventory, folder: Path) -> Inventory:
    project = inventory.project
    if isinstance(project.source, PathSource):
        source = dataclasses.replace(project.source, path=_absolute(project.source.path, folder))
        project = dataclasses.replace(project, source=source)
    return dataclasses.replace(
        inventory,
        project=project,
        publication=_located_publication(inventory.publication, folder),
        service=_located_service(inventory.service, folder),
        nodes=tuple(_located_node(node, folder) for node in inventory.nodes),
    )


def _located_publication(publication: Publication, folder: Path) -> Publication:
    store, signing, github = publication.store, publication.signing, publication.github
    if github and github.token_file:
        github = dataclasses.replace(github, token_file=_absolute(github.token_file, folder))
    return dataclasses.replace(
        publication,
        store=store if store.startswith("gs://") else _absolute(store, folder),
        signing=signing and _located_signing(signing, folder),
        github=github,
    )


def _located_service(service: Service, folder: Path) -> Service:
    def located(name: str | None) -> str | None:
        return name and _absolute(name, folder)

    def located_notice(notice: Notice) -> Notice:
        match notice:
            case NoticeByWebhook():
                return dataclasses.replace(notice, url_file=located(notice.url_file))
            case NoticeByMail():
                return dataclasses.replace(notice, password_file=located(notice.password_file))

    return dataclasses.replace(
        service,
        webhook_secret_file=located(service.webhook_secret_file),
        action_token_file=located(service.action_token_file),
        github_token_file=located(service.github_token_file),
        notices=tuple(map(located_notice, service.notices)),
    )


def _located_signing(signing: Signing, folder: Path) -> Signing:
    def located(said: str) -> str:
        return said if said.startswith("ssh-") else _absolute(said, folder)

    return Signing(
        key=_absolute(signing.key, folder),
        trusted=tuple(map(located, signing.trusted)),
        rotation=signing.rotation and located(signing.rotation),
    )


def _located_node(node: Node, folder: Path) -> Node:
    if node.identity is None:
        return node
    return dataclasses.replace(node, identity=_absolute(node.identity, folder))


def _absolute(path: str, folder: Path) -> str:
    if path == "~" or path.startswith("~/"):
        # Not expanduser(): a file that is really called `~name` must not need a user of that name.
        try:
            path = str(Path.home()) + path[1:]
        except RuntimeError as error:
            raise ConfigError(f"`{path}` needs a home, and none is set", hint="set HOME") from error
    return os.path.normpath(folder / path)
