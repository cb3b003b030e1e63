"""What an installation varies in, and cases in which every pair of values meets."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final

from tests.installer_hosts import HASH_SHIMS, HOSTS
from tests.matrix.worlds import SCENARIOS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

BUSYBOX: Final = "busybox"
# The words that start each shell; `sh` is a link to it, which is how most learn to be one.
SHELLS: Final[Mapping[str, tuple[str, ...]]] = {
    "dash": ("sh",),
    "bash": ("bash",),
    "bash as sh": ("sh",),
    "bash --posix": ("bash", "--posix"),
    BUSYBOX: ("sh",),
    "mksh": ("mksh",),
    "ksh93": ("ksh93",),
    "yash": ("sh",),
    "posh": ("posh",),
    "zsh": ("zsh", "--emulate", "sh"),
}
FETCHERS: Final = ("curl", "wget", "busybox wget", "fetch", "ftp")
REAL_HASHES: Final = ("sha256sum", "shasum", "openssl", "perl")
HASHES: Final = (*REAL_HASHES, *HASH_SHIMS)
OLD_SSH: Final = "ssh-keygen too old"
NOBODY: Final = "none"
VERIFIERS: Final = ("ssh-keygen", "minisign", "signify-openbsd", "openssl", OLD_SSH, NOBODY, "all")
PLACES: Final = ("XDG_BIN_HOME", "prefix with a space", "home", "through a link")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One installation: a value of each kind."""

    shell: str
    host: str
    fetcher: str
    hash: str
    verifier: str
    scenario: str
    place: str

    @property
    def can_verify(self) -> bool:
        """Whether something there can check a signature."""
        return self.verifier not in {OLD_SSH, NOBODY} or self.hash == "openssl"

    @property
    def is_possible(self) -> bool:
        """Whether such a host can exist."""
        if self.shell == BUSYBOX:
            # Its own tools come before all others.
            is_its_own = self.hash == "sha256sum"
            return is_its_own and self.fetcher in {"curl", "busybox wget"}
        # One name, two tools.
        is_shim = self.hash in HASH_SHIMS and HASH_SHIMS[self.hash][0] == "openssl"
        return not (is_shim and self.verifier in {"openssl", "all"})


Values = dict[str, tuple[str, ...]]
FACTORS: Final[Values] = {
    "shell": tuple(SHELLS),
    "host": tuple(HOSTS),
    "fetcher": FETCHERS,
    "hash": HASHES,
    "verifier": VERIFIERS,
    "scenario": tuple(SCENARIOS),
    "place": PLACES,
}
Pair = tuple[str, str, str, str]


def pairs_of(case: Case) -> Iterator[Pair]:
    """Yield every two values that meet in a case."""
    for one, other in itertools.combinations((each.name for each in fields(case)), 2):
        yield one, getattr(case, one), other, getattr(case, other)


def possible_pairs() -> set[Pair]:
    """Return every two values that can meet."""
    return {
        (one, first, other, second)
        for one, other in itertools.combinations(FACTORS, 2)
        for first in FACTORS[one]
        for second in FACTORS[other]
        if _can_meet({one: first, other: second})
    }


def choose(seed: str, number: int) -> list[Case]:
    """Return so many different cases: first those in which all pairs meet, then random ones."""
    chance = random.Random(seed)
    cases: dict[Case, None] = {}
    left = possible_pairs()
    for pair in sorted(left):
        if pair in left and len(cases) < number:
            case = max(
                (_random_case(chance, pair) for _ in range(12)),
                key=lambda each: len(left.intersection(pairs_of(each))),
            )
            cases[case] = None
            left.difference_update(pairs_of(case))
    while len(cases) < number:
        cases[_random_case(chance, None)] = None
    chosen = list(cases)
    chance.shuffle(chosen)
    return chosen


def _random_case(chance: random.Random, pair: Pair | None) -> Case:
    fixed = {pair[0]: pair[1], pair[2]: pair[3]} if pair else {}
    while True:
        values = {name: chance.choice(known) for name, known in FACTORS.items()}
        case = Case(**{**values, **fixed})
        if case.is_possible:
            return case


_ANY: Final = Case(
    shell="dash",
    host="Linux x86_64",
    fetcher="curl",
    hash="sha256sum",
    verifier=NOBODY,
    scenario="newest",
    place="home",
)


def _can_meet(fixed: dict[str, str]) -> bool:
    base = {each.name: getattr(_ANY, each.name) for each in fields(_ANY)}
    return Case(**{**base, **fixed}).is_possible
