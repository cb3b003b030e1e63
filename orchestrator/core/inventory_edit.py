"""Changes of an inventory's text that leave every other line as it is.

Nothing here knows YAML: where things stand is measured by `workspace.locate_nodes`, and whoever
writes the result reads it again first and holds it against what was meant.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Value = str | int | bool | tuple[str, ...]

# What no YAML reader takes for anything but text, at any place.
_PLAIN: Final = re.compile(r"[A-Za-z_/~][A-Za-z0-9_./@~+=-]*(?: [A-Za-z0-9_./@~+=-]+)*")
_NOT_TEXT: Final = re.compile(r"(?i:~|null|true|false|yes|no|on|off)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A value on one line, by its number (from 0) and the columns where it begins and ends."""

    line: int
    begin: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A node's entry: its lines from `first`, that of its `-`, up to but without `end`.

    `column` is where its keys begin; `values` has those of its own that stand on one line.
    """

    name: str
    first: int
    end: int
    column: int
    values: tuple[tuple[str, Span], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeBlock:
    """The list of nodes: the column of its dashes, its entries, and the line where it ends."""

    dash: int
    entries: tuple[Entry, ...]
    end: int


def add_entry(text: str, block: NodeBlock, keys: Iterable[tuple[str, Value]]) -> str:
    """Return the text with one more node, behind the others and laid out like them."""
    lines = _lines(text)
    column = block.entries[-1].column if block.entries else block.dash + 2
    first = " " * block.dash + "-" + " " * (column - block.dash - 1)
    entry: list[str] = []
    for key, value in keys:
        indent = " " * column if entry else first
        entry += _rendered(key, value, indent=indent, column=column)
    gap = ["\n"] if block.entries and _is_spaced(lines, block) else []
    lines[block.end : block.end] = _ended_as(lines, [*gap, *entry])
    return "".join(lines)


def set_value(text: str, entry: Entry, *, key: str, value: Value) -> str:
    """Return the text with another value for one key of a node, or with that key added."""
    lines = _lines(text)
    span = dict(entry.values).get(key)
    if span is not None:
        line = lines[span.line]
        lines[span.line] = line[: span.begin] + _scalar(value) + line[span.end :]
        return "".join(lines)
    # Behind the name, which every entry has and which says whose it is.
    name = dict(entry.values).get("name")
    if name is None:
        raise ConfigError(f"cannot find where the entry of {entry.name} begins")
    added = _rendered(key, value, indent=" " * entry.column, column=entry.column)
    lines[name.line + 1 : name.line + 1] = _ended_as(lines, added)
    return "".join(lines)


def remove_entry(text: str, block: NodeBlock, name: str) -> str:
    """Return the text without a node; comments outside of its entry stay."""
    if len(block.entries) == 1:
        raise ConfigError(
            f"{name} is the only node", hint="an inventory needs one: add another one first"
        )
    entry = next(entry for entry in block.entries if entry.name == name)
    lines = _lines(text)
    first, end = entry.first, entry.end
    # With one of the empty lines around it.
    if first and not lines[first - 1].strip() and (end == len(lines) or not lines[end].strip()):
        first -= 1
    del lines[first:end]
    return "".join(lines)


def _lines(text: str) -> list[str]:
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    return lines


def _ended_as(lines: Sequence[str], added: Sequence[str]) -> list[str]:
    """Return added lines with the ends that those of a file from Windows have."""
    end = "\r\n" if lines[0].endswith("\r\n") else "\n"
    return [line.removesuffix("\n") + end for line in added]


def _is_spaced(lines: Sequence[str], block: NodeBlock) -> bool:
    """Return whether empty lines stand between the entries."""
    between = (lines[entry.first - 1] for entry in block.entries[1:])
    return len(block.entries) == 1 or any(not line.strip() for line in between)


def _rendered(key: str, value: Value, *, indent: str, column: int) -> list[str]:
    if not isinstance(value, str) or "\n" not in value:
        return [f"{indent}{key}: {_scalar(value)}\n"]
    keep = "|" if value.endswith("\n") else "|-"
    body = (" " * (column + 2) + line if line else "" for line in value.splitlines())
    return [f"{indent}{key}: {keep}\n", *(f"{line}\n" for line in body)]


def _scalar(value: Value) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_scalar, value))}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if _PLAIN.fullmatch(value) and not _NOT_TEXT.fullmatch(value):
        return value
    # JSON's strings are YAML's, too.
    return json.dumps(value, ensure_ascii=False)
