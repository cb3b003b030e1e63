"""The nodes in the inventory's file: added, changed, removed; every other line stays as it is."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.core.errors import ConfigError
from orchestrator.core.inventory_edit import add_entry, remove_entry, set_value
from orchestrator.parts import write_whole
from orchestrator.workspace import load_inventory, load_text, locate_nodes, read_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from orchestrator.core.inventory import Inventory, Node
    from orchestrator.core.inventory_edit import Entry, NodeBlock, Value


def add_node(path: Path, keys: Iterable[tuple[str, Value]], *, write: bool = True) -> Node:
    """Write one more node into an inventory, and return it as the file now says.

    Raise ConfigError, with nothing written, if the inventory would be wrong with it. Without
    `write`, return the node as it would be.
    """
    return _change(path, lambda text, block: add_entry(text, block, keys), adds=1, write=write)


def set_in_node(path: Path, name: str, changes: Mapping[str, Value]) -> Node:
    """Change values of a node, and return it as the file now says; raise ConfigError as above."""

    def edit(text: str, block: NodeBlock) -> str:
        for key, value in changes.items():
            text = set_value(text, _entry(locate_nodes(text), name), key=key, value=value)
        del block
        return text

    return _change(path, edit, names=(name,))


def require_entries(path: Path, names: Iterable[str]) -> None:
    """Raise ConfigError if one of the nodes has no entry of its own in an inventory."""
    block = locate_nodes(read_text(path))
    for name in names:
        _entry(block, name)


def remove_nodes(path: Path, names: Sequence[str]) -> None:
    """Take nodes out of an inventory; raise ConfigError, with nothing written, if one cannot be."""

    def edit(text: str, block: NodeBlock) -> str:
        for name in names:
            _entry(block, name)
        for name in names:
            text = remove_entry(text, locate_nodes(text), name)
        return text

    _change(path, edit, adds=-len(names), names=names)


def _entry(block: NodeBlock, name: str) -> Entry:
    for entry in block.entries:
        if entry.name == name:
            return entry
    names = ", ".join(entry.name for entry in block.entries)
    raise ConfigError(
        f"no node of the file is named `{name[:80]}`",
        hint=f"the nodes are: {names}; what is made of a node's `variants:` is changed there",
    )


def _change(
    path: Path,
    edit: Callable[[str, NodeBlock], str],
    *,
    adds: int = 0,
    names: Sequence[str] = (),
    write: bool = True,
) -> Node:
    before, text = load_inventory(path), read_text(path)
    new = edit(text, locate_nodes(text))
    after = load_text(new, path)
    _require_rest(before, after, adds=adds, names=names)
    if write:
        _write(path, new, before=text)
    return next((node for node in after.nodes if node.name in names), after.nodes[-1])


def _write(path: Path, text: str, *, before: str) -> None:
    if read_text(path) != before:
        raise ConfigError(f"{path}: was changed by somebody else meanwhile", hint="run it again")
    # Through a link, to the file itself.
    file = path.resolve()
    try:
        mode = file.stat().st_mode
        write_whole(file, text.encode())
        file.chmod(mode)
    except OSError as error:
        raise ConfigError(
            f"{file}: cannot be written: {error.strerror}", hint="make its folder writable"
        ) from error


def _count(inventory: Inventory) -> int:
    """Return how many nodes have an entry in the file."""
    return sum(node.variant_of is None for node in inventory.nodes)


def _require_rest(before: Inventory, after: Inventory, *, adds: int, names: Sequence[str]) -> None:
    """Raise ConfigError if anything else than those nodes has changed its meaning."""
    added = after.nodes[len(before.nodes) :] if adds > 0 else ()
    changed = {*names, *(node.name for node in added)}
    rests = [
        replace(
            each,
            # What is made of a node's variants goes with it.
            nodes=tuple(
                node for node in each.nodes if changed.isdisjoint((node.name, node.variant_of))
            ),
        )
        for each in (before, after)
    ]
    if rests[0] != rests[1] or _count(after) != _count(before) + adds:
        raise ConfigError(
            "the change would alter other parts of the inventory; nothing was written",
            hint="its layout is one that this command does not understand: change it by hand",
        )
