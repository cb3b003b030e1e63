"""Semantic versions and their order (semver.org 2.0.0, sections 2, 9, 10 and 11)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import total_ordering
from typing import Final

from orchestrator.core.errors import ConfigError

MAX_LENGTH: Final = 64
_NUMBER: Final = r"(?:0|[1-9][0-9]*)"
_PRERELEASE_PART: Final = r"(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_SEMVER: Final = re.compile(
    rf"({_NUMBER})\.({_NUMBER})\.({_NUMBER})"
    rf"(?:-({_PRERELEASE_PART}(?:\.{_PRERELEASE_PART})*))?"
    r"(?:\+([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?"
)


@total_ordering
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Version:
    """A semantic version; build metadata is kept in the text and ignored in the order."""

    major: int
    minor: int
    patch: int
    prerelease: tuple[str, ...] = ()
    build: tuple[str, ...] = ()

    def __str__(self) -> str:
        core = f"{self.major}.{self.minor}.{self.patch}"
        pre = "-" + ".".join(self.prerelease) if self.prerelease else ""
        return core + pre + ("+" + ".".join(self.build) if self.build else "")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __lt__(self, other: Version) -> bool:
        return self._key < other._key

    @property
    def is_prerelease(self) -> bool:
        """Whether it sorts before the release of the same number."""
        return bool(self.prerelease)

    @property
    def _key(self) -> tuple[int, int, int, bool, tuple[tuple[bool, int, str], ...]]:
        # A number sorts below a word, and a release above all of its prereleases.
        parts = tuple(
            (not part.isdigit(), int(part) if part.isdigit() else 0, part)
            for part in self.prerelease
        )
        return (self.major, self.minor, self.patch, not self.prerelease, parts)


def parse_version(text: str) -> Version:
    """Return the version; raise ConfigError unless all of it is semver, at most 64 characters.

    A leading `v` is refused with a hint: versions enter commands and paths, so one spelling exists.
    """
    match = _SEMVER.fullmatch(text) if len(text) <= MAX_LENGTH and text.isascii() else None
    if match is None:
        hint = "use MAJOR.MINOR.PATCH, optionally with -prerelease, such as 1.4.0 or 2.0.0-rc.1"
        if text[:1] in {"v", "V"} and _SEMVER.fullmatch(text[1:]):
            hint = f"leave out the leading `{text[0]}`: {text[1:]}"
        raise ConfigError(f"not a semantic version: {text[:80]!r}", hint=hint)
    major, minor, patch, prerelease, build = match.groups()
    return Version(
        major=int(major),
        minor=int(minor),
        patch=int(patch),
        prerelease=tuple(prerelease.split(".")) if prerelease else (),
        build=tuple(build.split(".")) if build else (),
    )
