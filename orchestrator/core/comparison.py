"""Whether builds of several nodes are the same bytes, and if not, which parts differ and why."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from orchestrator.core.elf import elf_sections
from orchestrator.core.errors import BuildError
from orchestrator.core.image import readable
from orchestrator.core.macho import MAGICS, macho_sections
from orchestrator.core.pe import pe_sections

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from orchestrator.core.target import Target

_SHOWN: Final = 3
_SHOWN_LENGTH: Final = 100
_COMMENT: Final = ".comment"
# What follows from other parts of the file, or tells of the build and not of the program.
_DERIVED: Final = frozenset(
    {".note.gnu.build-id", ".gnu_debuglink", "LC_UUID", "the code signature", "the headers"}
)
_CODE: Final = frozenset({".text", "__TEXT,__text"})
_DEBUG: Final = re.compile(r"\.z?debug_|__DWARF,|\.symtab$|\.strtab$")
_PATH: Final = re.compile(rb"(?:/[A-Za-z0-9._+@~-]+){2,}|[A-Za-z]:\\[A-Za-z0-9._\\+@~-]{3,}")
# What jobs give their folders other names, and what rustc gives its own.
_MAPPED: Final = (b"/build/", b"/rustc/")
_TIME: Final = re.compile(
    rb"\b20\d\d-[01]\d-[0-3]\d(?:[T ][0-2]\d:[0-5]\d(?::[0-5]\d)?)?"
    rb"|\b(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [ 0-3]\d 20\d\d\b"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Specimen:
    """A binary of one node, the compiler that is known to have built it, and the node's `env`."""

    node: str
    data: bytes
    rustc: str | None = None
    env: tuple[tuple[str, str], ...] = ()

    @property
    def sha256(self) -> str:
        """The digest of its bytes, in hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionDifference:
    """A part of the file that is not the same: its sizes in bytes, None where it is missing."""

    name: str
    size_bytes: int | None
    other_size_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How a node's binary differs from the first one's: which parts, and what may be the reason."""

    node: str
    sections: tuple[SectionDifference, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One binary of one target as its nodes have built it; `first` is what others are held against.

    `equal` names the nodes whose bytes are the same as the first one's, with itself.
    """

    binary: str
    target: Target
    first: str
    sha256: str
    equal: tuple[str, ...]
    differences: tuple[Difference, ...]

    def as_data(self) -> Mapping[str, object]:
        """Return what `release --compare --json` prints of it."""
        return {
            "binary": self.binary,
            "target": self.target.triple,
            "first": self.first,
            "sha256": self.sha256,
            "equal": list(self.equal),
            "differences": [
                {
                    "node": difference.node,
                    "sections": [
                        {
                            "section": section.name,
                            "size_bytes": section.size_bytes,
                            "other_size_bytes": section.other_size_bytes,
                        }
                        for section in difference.sections
                    ],
                    "reasons": list(difference.reasons),
                }
                for difference in self.differences
            ],
        }


def compare(binary: str, target: Target, specimens: Sequence[Specimen]) -> Comparison:
    """Return how the builds of one binary differ; each is held against the first."""
    first, *others = specimens
    equal = [first.node, *(other.node for other in others if other.data == first.data)]
    return Comparison(
        binary=binary,
        target=target,
        first=first.node,
        sha256=first.sha256,
        equal=tuple(equal),
        differences=tuple(explain(first, other) for other in others if other.data != first.data),
    )


def explain(first: Specimen, other: Specimen) -> Difference:
    """Return which sections of two builds differ, and what a person should look at."""
    here, there = _sections(first.data), _sections(other.data)
    names = dict.fromkeys((*here, *there))
    different = [name for name in names if here.get(name) != there.get(name)]
    sections = tuple(
        SectionDifference(
            name=name,
            size_bytes=_size(here.get(name)),
            other_size_bytes=_size(there.get(name)),
        )
        for name in different
    )
    pair = _Pair(first=first, other=other, here=here, there=there, different=tuple(different))
    return Difference(node=other.node, sections=sections, reasons=tuple(pair.reasons()))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    """Two builds and the sections in which they differ."""

    first: Specimen
    other: Specimen
    here: Mapping[str, bytes]
    there: Mapping[str, bytes]
    different: tuple[str, ...]

    def reasons(self) -> list[str]:
        # The cause first; what follows from it is told when nothing better is known.
        causes = [
            *self._compilers(),
            *self._environment(),
            *self._debug_information(),
            *self._paths(),
            *self._times(),
        ]
        return [*causes, *self._parts(is_explained=bool(causes))]

    def _compilers(self) -> list[str]:
        found = []
        if self.first.rustc != self.other.rustc:
            versions = (self._named(self.first.rustc), self._named(self.other.rustc, other=True))
            found.append(f"different compilers: {' and '.join(versions)}")
        here, there = (_lines(side.get(_COMMENT, b"")) for side in (self.here, self.there))
        if here != there:
            only_here, only_there = (
                ", ".join(sorted(a - b)) or "nothing" for a, b in _both(here, there)
            )
            found.append(
                f"different tools have left their names in {_COMMENT}: "
                f"{self.first.node} {only_here}; {self.other.node} {only_there}"
            )
        return found

    def _environment(self) -> list[str]:
        # Without the values: one may be a secret.
        names = sorted({name for name, _ in {*self.first.env} ^ {*self.other.env}})
        return [f"their `env` in the inventory differs: {', '.join(names)}"] if names else []

    def _debug_information(self) -> list[str]:
        missing = [
            name
            for name in self.different
            if _DEBUG.match(name) and (name in self.here) is not (name in self.there)
        ]
        if not missing:
            return []
        has = self.first.node if missing[0] in self.here else self.other.node
        return [f"only {has} has {missing[0]}: `strip` or `debug` of the profile is not the same"]

    def _named(self, rustc: str | None, *, other: bool = False) -> str:
        node = self.other.node if other else self.first.node
        return f"rustc {rustc or 'unknown'} on {node}"

    def _paths(self) -> list[str]:
        return self._strings(
            _PATH,
            "paths of the nodes are left in it",
            "remap them (--remap-path-prefix), or keep file!() and env!() out of it",
        )

    def _times(self) -> list[str]:
        return self._strings(
            _TIME,
            "times are left in it",
            "a build script that asks for the time should take SOURCE_DATE_EPOCH",
        )

    def _strings(self, pattern: re.Pattern[bytes], what: str, cure: str) -> list[str]:
        # Debug information holds thousands of names that are on both sides if it is.
        names = [
            name
            for name in self.different
            if name in self.here and name in self.there and not _DEBUG.match(name)
        ]
        here, there = (
            {
                found
                for name in names
                for found in pattern.findall(side[name])
                if not found.startswith(_MAPPED)
            }
            for side in (self.here, self.there)
        )
        if not (here - there and there - here):
            return []
        shown = (
            f"{node} {_shown(strings)}"
            for node, strings in (
                (self.first.node, here - there),
                (self.other.node, there - here),
            )
        )
        return [f"{what}: {'; '.join(shown)}. {cure[0].upper()}{cure[1:]}"]

    def _parts(self, *, is_explained: bool) -> list[str]:
        found = set(self.different)
        if not found:
            return ["only headers or padding differ: another linker, or the same in another order"]
        debug = {name for name in found if _DEBUG.match(name)}
        if found <= _DERIVED:
            return ["only what identifies the build differs, and no code or data of the program"]
        if found - _DERIVED <= debug:
            return ["only symbols and debug information differ: `strip = true` leaves them out"]
        if is_explained:
            return []
        if found & _CODE:
            return [_CODE_DIFFERS]
        return ["data differs and no code: something that a build script or a macro has put in"]


_CODE_DIFFERS: Final = (
    "the code differs: other flags (target-cpu=native, codegen-units), another linker or C "
    "compiler, or a build script that looks at its machine"
)


def _both(here: set[str], there: set[str]) -> tuple[tuple[set[str], set[str]], ...]:
    return (here, there), (there, here)


def _sections(data: bytes) -> Mapping[str, bytes]:
    """Return what the file consists of, by name; all of it under one name if nobody knows."""
    try:
        return _numbered(_read(data))
    except BuildError:
        return {"the file": data}


def _read(data: bytes) -> Iterable[tuple[str, bytes]]:
    if data[:4] == b"\x7fELF":
        return elf_sections(data)
    if data[:2] == b"MZ":
        return pe_sections(data)
    if data[:4] in MAGICS:
        return macho_sections(data)
    return [("the file", data)]


def _numbered(sections: Iterable[tuple[str, bytes]]) -> Mapping[str, bytes]:
    named: dict[str, bytes] = {}
    numbers: dict[str, int] = {}
    for name, content in sections:
        unique = name
        while unique in named:
            numbers[name] = numbers.get(name, 1) + 1
            unique = f"{name} #{numbers[name]}"
        named[unique] = content
    return named


def _size(content: bytes | None) -> int | None:
    return None if content is None else len(content)


def _lines(comment: bytes) -> set[str]:
    return {readable(line) for line in comment.split(b"\0") if line}


def _shown(strings: Iterable[bytes]) -> str:
    ordered = sorted(strings)
    shown = ", ".join(readable(each[:_SHOWN_LENGTH]) for each in ordered[:_SHOWN])
    more = len(ordered) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
