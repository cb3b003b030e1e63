"""Kinds of values in a file that a person writes: each reads itself and describes itself.

One table of fields made of these is the parser and the JSON Schema at once. Reading reports every
problem at its place and goes on; `INVALID` stands where a value could not be read.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Protocol

from orchestrator.core.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

INVALID: Final = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a value stands, and the problems found in its file so far."""

    file: str
    path: str = ""
    problems: list[Problem] = field(default_factory=list)

    def key(self, name: str) -> Place:
        """Return the place of a mapping's value."""
        return dataclasses.replace(self, path=f"{self.path}.{name}" if self.path else name)

    def item(self, index: int) -> Place:
        """Return the place of a list's item."""
        return dataclasses.replace(self, path=f"{self.path}[{index}]")

    def refuse(self, message: str) -> object:
        """Report a problem here; return INVALID."""
        place = f"{self.file}: {self.path}" if self.path else self.file
        self.problems.append(Problem(place, message))
        return INVALID


class Kind(Protocol):
    """What a value may be."""

    @property
    def words(self) -> str:
        """What it is, as it stands in `must be ...`."""
        ...

    def read(self, raw: object, place: Place) -> Any:
        """Return the value, or report why there is none and return INVALID."""
        ...

    def schema(self) -> dict[str, Any]:
        """Return its JSON Schema."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Text that matches a pattern as a whole, without the `refused` parts, with the `needed` one.

    `complaint` may see more than a pattern can, and says what is wrong; `convert` is applied last.
    """

    words: str
    pattern: str
    max_length: int = 255
    refused: tuple[str, ...] = ()
    needed: str = ""
    complaint: Callable[[str], str | None] = lambda _text: None
    convert: Callable[[str], Any] = str

    def read(self, raw: object, place: Place) -> Any:
        """Return the text, converted."""
        if not isinstance(raw, str):
            return place.refuse(f"must be {self.words}, {_instead_of_text(raw)}")
        wrong = self._complaint_about(raw)
        return place.refuse(wrong) if wrong else self.convert(raw)

    def matches(self, text: str) -> bool:
        """Whether the text would be accepted."""
        return self._complaint_about(text) is None

    def schema(self) -> dict[str, Any]:
        """Return a string with a pattern."""
        schema: dict[str, Any] = {"type": "string", "maxLength": self.max_length}
        needed = f"(?=[\\s\\S]*{re.escape(self.needed)})" if self.needed else ""
        schema["pattern"] = f"^{needed}(?:{self.pattern})$"
        if self.refused:
            schema["not"] = {"pattern": "|".join(re.escape(part) for part in self.refused)}
        return schema

    def _complaint_about(self, text: str) -> str | None:
        if wrong := self.complaint(text):
            return wrong
        if len(text) > self.max_length:
            return f"is longer than {self.max_length} characters"
        if refused := [part for part in self.refused if part in text]:
            return f"`{refused[0]}` has no value here"
        if self.needed not in text:
            return f"must use `{self.needed}`"
        if not re.fullmatch(self.pattern, text):
            return f"must be {self.words}, not {shown(text)}"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One word of a few."""

    noun: str
    choices: tuple[str, ...]
    convert: Callable[[str], Any] = str

    @property
    def words(self) -> str:
        """Return the choices."""
        if len(self.choices) > _MANY:
            return f"a known {self.noun}"
        return "one of " + ", ".join(f"`{choice}`" for choice in self.choices)

    def read(self, raw: object, place: Place) -> Any:
        """Return the choice, converted."""
        if not isinstance(raw, str):
            return place.refuse(f"must be {self.words}, {_instead_of_text(raw)}")
        if raw not in self.choices:
            known = "" if len(self.choices) > _MANY else f", must be {self.words}"
            near = suggestion(raw, self.choices) or known
            return place.refuse(f"unknown {self.noun} {shown(raw)}{near}")
        return self.convert(raw)

    def schema(self) -> dict[str, Any]:
        """Return an enumeration."""
        return {"enum": list(self.choices)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """Yes or no."""

    words: str = "true or false"

    def read(self, raw: object, place: Place) -> Any:
        """Return the boolean."""
        if not isinstance(raw, bool):
            return place.refuse(f"must be {self.words}, not {shown(raw)}")
        return raw

    def schema(self) -> dict[str, Any]:
        """Return a boolean."""
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """A whole number within limits."""

    minimum: int
    maximum: int

    @property
    def words(self) -> str:
        """Return the limits."""
        return f"a whole number from {self.minimum} to {self.maximum}"

    def read(self, raw: object, place: Place) -> Any:
        """Return the number."""
        # In Python a boolean is a number too; in the file it is a mistake.
        if isinstance(raw, bool) or not isinstance(raw, int):
            return place.refuse(f"must be {self.words}, not {shown(raw)}")
        if not self.minimum <= raw <= self.maximum:
            return place.refuse(f"must be {self.words}, not {shown(raw)}")
        return raw

    def schema(self) -> dict[str, Any]:
        """Return an integer."""
        return {"type": "integer", "minimum": self.minimum, "maximum": self.maximum}


@dataclass(frozen=True, slots=True, kw_only=True)
class Duration:
    """A length of time: a number of seconds, or a number with a unit."""

    words: str = "a duration such as `90s`, `45m`, `4h` or `2d`, or a number of seconds"
    maximum: timedelta = timedelta(days=3660)

    def read(self, raw: object, place: Place) -> Any:
        """Return the timedelta."""
        seconds = 0
        if isinstance(raw, str) and (match := re.fullmatch(_DURATION, raw)):
            seconds = int(match[1]) * _UNITS[match[2]]
        elif isinstance(raw, int) and not isinstance(raw, bool):
            seconds = raw
        if seconds <= 0:
            return place.refuse(f"must be {self.words}, not {shown(raw)}")
        if seconds > self.maximum.total_seconds():
            return place.refuse(f"must be at most {self.maximum.days}d, not {shown(raw)}")
        return timedelta(seconds=seconds)

    def schema(self) -> dict[str, Any]:
        """Return an integer or a string."""
        maximum = int(self.maximum.total_seconds())
        return {
            "oneOf": [
                {"type": "integer", "minimum": 1, "maximum": maximum},
                {"type": "string", "pattern": f"^{_DURATION}$"},
            ]
        }


class Bytes(int):
    """A number of bytes, as `Size` reads it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A number of bytes, with or without one of the units."""

    words: str = "a size such as `800kB`, `500MB` or `2GB`, or a number of bytes"
    units: tuple[str, ...] = ("B", "kB", "MB", "GB")
    minimum_bytes: int = 1
    maximum_bytes: int = 10**15

    def read(self, raw: object, place: Place) -> Any:
        """Return the Bytes."""
        size_bytes = 0
        if isinstance(raw, str) and (match := re.fullmatch(self._pattern, raw)):
            size_bytes = int(match[1]) * _SIZE_UNITS[match[2]]
        elif isinstance(raw, int) and not isinstance(raw, bool):
            size_bytes = raw
        if size_bytes <= 0:
            return place.refuse(f"must be {self.words}, not {shown(raw)}")
        if size_bytes < self.minimum_bytes:
            minimum = written(Bytes(self.minimum_bytes))
            return place.refuse(f"must be at least {minimum}, not {shown(raw)}")
        if size_bytes > self.maximum_bytes:
            maximum = written(Bytes(self.maximum_bytes))
            return place.refuse(f"must be at most {maximum}, not {shown(raw)}")
        return Bytes(size_bytes)

    def schema(self) -> dict[str, Any]:
        """Return an integer or a string."""
        return {
            "oneOf": [
                {
                    "type": "integer",
                    "minimum": self.minimum_bytes,
                    "maximum": self.maximum_bytes,
                },
                {"type": "string", "pattern": f"^{self._pattern}$"},
            ]
        }

    @property
    def _pattern(self) -> str:
        return f"([1-9][0-9]{{0,14}})({'|'.join(self.units)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOf:
    """One value or several of one kind; INVALID stays in its position."""

    item: Kind
    unique: bool = False
    max_items: int | None = None

    @property
    def words(self) -> str:
        """Return what its items are."""
        return f"a list; each item is {self.item.words}"

    def read(self, raw: object, place: Place) -> Any:
        """Return a tuple."""
        if not isinstance(raw, list):
            return place.refuse(f"must be a list, not {shown(raw)}")
        if not raw:
            return place.refuse("is empty")
        if self.max_items is not None and len(raw) > self.max_items:
            return place.refuse(f"has more than {self.max_items} items")
        values = tuple(self.item.read(each, place.item(index)) for index, each in enumerate(raw))
        if self.unique:
            seen = {INVALID}
            for index, value in enumerate(values):
                if value in seen and value is not INVALID:
                    place.item(index).refuse(f"{shown(raw[index])} stands in the list twice")
                seen.add(value)
        return values

    def schema(self) -> dict[str, Any]:
        """Return an array."""
        schema = {"type": "array", "minItems": 1, "items": self.item.schema()}
        limit = {} if self.max_items is None else {"maxItems": self.max_items}
        return schema | limit | ({"uniqueItems": True} if self.unique else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class OneOrMany:
    """A value, or a list of such values."""

    item: Kind
    unique: bool = False

    @property
    def words(self) -> str:
        """Return what it is."""
        return f"{self.item.words}; or a list of them"

    def read(self, raw: object, place: Place) -> Any:
        """Return a tuple, also of one."""
        if isinstance(raw, list):
            return self._many.read(raw, place)
        value = self.item.read(raw, place)
        return INVALID if value is INVALID else (value,)

    def schema(self) -> dict[str, Any]:
        """Return either form."""
        return {"oneOf": [self.item.schema(), self._many.schema()]}

    @property
    def _many(self) -> ListOf:
        return ListOf(item=self.item, unique=self.unique)


@dataclass(frozen=True, slots=True, kw_only=True)
class MapOf:
    """A mapping with keys of the writer's own."""

    words: str
    key: Text
    value: Text

    def read(self, raw: object, place: Place) -> Any:
        """Return a tuple of pairs, sorted by key."""
        if not isinstance(raw, dict):
            return place.refuse(f"must be {self.words}, not {shown(raw)}")
        pairs = [
            (self.key.read(key, at), self.value.read(value, at))
            for key, value in raw.items()
            for at in [place.key(_label(key))]
        ]
        is_whole = all(INVALID not in pair for pair in pairs)
        return tuple(sorted(pairs)) if is_whole else INVALID

    def schema(self) -> dict[str, Any]:
        """Return an object with any number of properties."""
        return {
            "type": "object",
            "propertyNames": self.key.schema(),
            "additionalProperties": self.value.schema(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class TextOrMap:
    """A text, or a mapping."""

    text: Text
    mapping: MapOf

    @property
    def words(self) -> str:
        """Return both."""
        return f"{self.text.words}; or {self.mapping.words}"

    def read(self, raw: object, place: Place) -> Any:
        """Return what the form that was chosen gives."""
        return (self.mapping if isinstance(raw, dict) else self.text).read(raw, place)

    def schema(self) -> dict[str, Any]:
        """Return either form."""
        return {"oneOf": [self.text.schema(), self.mapping.schema()]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One key of a mapping."""

    key: str
    kind: Kind
    summary: str
    example: object
    required: bool = False
    # Another mapping may give it instead, so that its absence here is no problem yet.
    inherited: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A mapping with known keys; `value` is the dataclass whose defaults apply."""

    title: str
    summary: str
    fields: tuple[Field, ...]
    value: type[Any]

    @property
    def words(self) -> str:
        """Return its title."""
        return f"a mapping, see `{self.title}`"

    def read(self, raw: object, place: Place) -> Any:
        """Return a dict with the keys that are there; INVALID is the value of a wrong one."""
        if not isinstance(raw, dict):
            return place.refuse(f"must be a mapping of keys, not {shown(raw)}")
        kinds = {known.key: known.kind for known in self.fields}
        values = {}
        for key, value in raw.items():
            if isinstance(key, str) and key in kinds:
                values[key] = kinds[key].read(value, place.key(key))
            else:
                _refuse_key(key, kinds, place)
        for known in self.fields:
            if known.required and not known.inherited and known.key not in raw:
                place.refuse(f"`{known.key}` is missing")
        return values

    def schema(self) -> dict[str, Any]:
        """Return a closed object."""
        schema: dict[str, Any] = {
            "type": "object",
            "description": self.summary,
            "additionalProperties": False,
            "properties": {known.key: self._field_schema(known) for known in self.fields},
        }
        if required := [known.key for known in self.fields if known.required]:
            schema["required"] = required
        return schema

    def default_of(self, known: Field) -> object:
        """Return a key's default as it would be written in the file; None if there is none."""
        defaults = {each.name: each.default for each in dataclasses.fields(self.value)}
        default = defaults.get(known.key, dataclasses.MISSING)
        return None if default is dataclasses.MISSING else written(default)

    def _field_schema(self, known: Field) -> dict[str, Any]:
        schema = {"description": known.summary} | known.kind.schema()
        default = self.default_of(known)
        if default is not None and not known.required:
            schema["default"] = default
        schema["examples"] = [known.example]
        return schema


@dataclass(frozen=True, slots=True, kw_only=True)
class Variants:
    """One of several records, told apart by the first key of each."""

    records: tuple[Record, ...]

    @property
    def words(self) -> str:
        """Return the keys that tell."""
        return "a mapping with one of " + ", ".join(f"`{key}`" for key in self._by_key)

    def read(self, raw: object, place: Place) -> Any:
        """Return the record's class and its keys, or INVALID."""
        if not isinstance(raw, dict):
            return place.refuse(f"must be {self.words}, not {shown(raw)}")
        match [key for key in self._by_key if key in raw]:
            case [key]:
                record = self._by_key[key]
                values = record.read(raw, place)
                return (record.value, values)
            case []:
                near = [suggestion(_label(key), self._by_key) for key in raw]
                return place.refuse(f"must be {self.words}{next(filter(None, near), '')}")
            case keys:
                named = " and ".join(f"`{key}`" for key in keys)
                return place.refuse(f"{named} exclude one another")

    def schema(self) -> dict[str, Any]:
        """Return the alternatives."""
        return {"oneOf": [record.schema() for record in self.records]}

    @property
    def _by_key(self) -> dict[str, Record]:
        return {record.fields[0].key: record for record in self.records}


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return `, did you mean ...?` with the nearest known word, or nothing."""
    near = difflib.get_close_matches(word[:_SHOWN], list(known), n=1)
    return f", did you mean `{near[0]}`?" if near else ""


def shown(raw: object) -> str:
    """Return a wrong value for a message: short, one line, nothing that moves a cursor."""
    match raw:
        case "":
            return "empty"
        case str():
            cut = raw if len(raw) <= _SHOWN else raw[:_SHOWN] + "..."
            return f"`{cut}`" if cut.isprintable() and cut.isascii() else f"`{cut!a}`"
        # Python refuses to write out a number of more than 4,300 digits.
        case int() if raw.bit_length() > _SHOWN:
            return "a very large number"
        case bool() | int() | float():
            return f"`{str(raw).lower()}`"
        case _:
            return _OTHERS.get(type(raw), f"a {type(raw).__name__}")


def written(value: object) -> object:
    """Return a value as it would be written in the file: plain data."""
    match value:
        case Enum():
            return value.value
        case timedelta():
            seconds = int(value.total_seconds())
            unit = next(unit for unit in "dhms" if seconds % _UNITS[unit] == 0)
            return f"{seconds // _UNITS[unit]}{unit}"
        case Bytes():
            size_unit = next(
                unit
                for unit in ("GiB", "GB", "MB", "MiB", "kB", "B")
                if not value % _SIZE_UNITS[unit]
            )
            return f"{value // _SIZE_UNITS[size_unit]}{size_unit}"
        case tuple():
            return [written(each) for each in value]
        case _:
            return value


_DURATION: Final = "([1-9][0-9]{0,8})([smhd])"
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZE_UNITS: Final = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "MiB": 2**20,
    "GB": 10**9,
    "GiB": 2**30,
}
_SHOWN: Final = 60
_MANY: Final = 8
_OTHERS: Final = {type(None): "empty", list: "a list", dict: "a mapping"}


def _instead_of_text(raw: object) -> str:
    match raw:
        case bool():
            return f"but YAML reads this word as {str(raw).lower()}: put it in quotes"
        case int() | float():
            return f"but {shown(raw)} is a number: put it in quotes"
        case _:
            return f"not {shown(raw)}"


def _label(key: object) -> str:
    return shown(key).strip("`")


def _refuse_key(key: object, known: Iterable[str], place: Place) -> None:
    if isinstance(key, str):
        place.key(_label(key)).refuse(f"unknown key{suggestion(key, known)}")
    else:
        place.refuse(f"a key must be text, {_instead_of_text(key)}")
