"""Random damage to what an installer gets: nothing of it may be installed."""

from __future__ import annotations

import hashlib
import itertools
import random
import shutil
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.installer_site import VERIFIERS, Host, as_shell, said
from tests.life.answers import Answer, Framing, tell_lies
from tests.life.corruptions import INDEX, KINDS, NEW, NOBODY, Published, publish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tests.life.answers import Liar
    from tests.life.corruptions import Kind

SHELLS: Final = ("dash", "bash", "mksh")
DOWNLOADERS: Final = ("curl", "wget", "busybox wget", "ftp")
HASHES: Final = ("sha256sum", "shasum", "perl")
_WELL: Final = (Framing.WHOLE, Framing.SLOWLY, Framing.UNTIL_CLOSED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What a host has to install with, and whether something is at the destination already."""

    shell: str
    downloader: str
    hash: str
    verifier: str
    has_old: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Damage for one host; without a kind all is well, and it must be installed."""

    number: int
    kind: Kind | None
    tools: Tools
    answers: Mapping[str, Answer]


def choose(seed: str, number: int, published: Published) -> list[Case]:
    """Return so many cases that differ, with kinds, verifiers and downloaders in turn."""
    chance = random.Random(seed)
    cases: list[Case] = []
    known: set[bytes] = set()
    for kind, (verifier, downloader) in zip(itertools.cycle(KINDS), _pairs(chance), strict=False):
        if len(cases) == number:
            break
        if not kind.is_seen_by(verifier):
            continue
        tools = _some_tools(chance, verifier, downloader)
        answers = kind.make(chance, published, verifier)
        identity = hashlib.sha256(repr((tools, answers)).encode()).digest()
        if identity not in known:
            known.add(identity)
            cases.append(Case(number=len(cases), kind=kind, tools=tools, answers=answers))
    return cases


def controls(seed: str, published: Published) -> Iterator[Case]:
    """Yield a case without damage for every verifier with every downloader."""
    chance = random.Random(seed)
    pairs = itertools.product((*VERIFIERS, NOBODY), DOWNLOADERS)
    for number, (verifier, downloader) in enumerate(pairs):
        framing = _WELL[number % len(_WELL)]
        answers = {
            path: Answer(body=published.files[path], framing=framing)
            for path in (INDEX, published.newest)
        }
        tools = _some_tools(chance, verifier, downloader)
        yield Case(number=-1 - number, kind=None, tools=tools, answers=answers)


def _pairs(chance: random.Random) -> Iterator[tuple[str, str]]:
    """Yield verifiers with downloaders, each pair as often, in an order that no kind follows."""
    pairs = list(itertools.product((*VERIFIERS, NOBODY), DOWNLOADERS))
    while True:
        chance.shuffle(pairs)
        yield from pairs


def _some_tools(chance: random.Random, verifier: str, downloader: str) -> Tools:
    return Tools(
        shell=chance.choice(SHELLS),
        downloader=downloader,
        # One that verifies is there to hash as well.
        hash="openssl" if verifier == "openssl" else chance.choice(HASHES),
        verifier=verifier,
        has_old=chance.random() < 0.5,
    )


def play(case: Case, published: Published, liar: Liar) -> str:
    """Return what is wrong, or nothing."""
    for path, content in published.files.items():
        answer = case.answers.get(path) or Answer(body=content)
        liar.answers[f"/{case.number}/{path}"] = answer
    try:
        with tempfile.TemporaryDirectory(prefix="corruption-") as folder:
            host = _equipped(case.tools, Path(folder))
            return _play(case, published, host, url=f"{liar.url}/{case.number}")
    finally:
        for path in published.files:
            del liar.answers[f"/{case.number}/{path}"]


def _play(case: Case, published: Published, host: Host, *, url: str) -> str:
    before = host.tree()
    ended = host.run(published.script, env={"INSTALL_BASE_URL": url, "NO_MODIFY_PATH": "1"})
    text = said(ended)
    if case.kind is None:
        is_new = host.binary.exists() and f"tool {NEW}" in host.binary.read_text()
        return "" if ended.returncode == 0 and is_new else f"it was not installed\n{text}"
    problems = []
    if host.tree() != before:
        problems.append("something was changed")
    if ended.returncode != 1:
        problems.append(f"exit status {ended.returncode}")
    errors = [line for line in text.splitlines() if line.startswith("error: ")]
    if len(errors) != 1:
        problems.append(f"{len(errors)} errors")
    return f"{', '.join(problems)}\n{text}" if problems else ""


def _equipped(tools: Tools, folder: Path) -> Host:
    host = Host(root=folder / "host")
    host.shell = as_shell(folder / "shells", tools.shell)
    host.provide_only()
    match tools.downloader:
        case "busybox wget":
            (host.shims / "wget").symlink_to(shutil.which("busybox") or "")
        case "ftp":
            (host.shims / "ftp").symlink_to(shutil.which("tnftp") or "")
        case name:
            host.provide(name)
    # shasum is a perl program that asks env for perl.
    host.provide(tools.hash, *(["perl"] if tools.hash == "shasum" else []))
    if tools.verifier != NOBODY:
        host.provide(tools.verifier)
    if tools.has_old:
        host.bin.mkdir(parents=True)
        host.binary.write_text("#!/bin/sh\necho an old one\n")
        host.binary.chmod(0o755)
    return host


def main(*, seed: str, number: int, jobs: int) -> int:
    """Play the cases and print one table; 0 if all of them were refused."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="corruption-site-") as folder, tell_lies() as liar:
        published = publish(Path(folder), random.Random(seed))
        cases = [*controls(seed, published), *choose(seed, number, published)]
        with ThreadPoolExecutor(jobs) as pool:
            problems = list(pool.map(partial(_told, published=published, liar=liar), cases))
    damaged = [(case, problem) for case, problem in zip(cases, problems, strict=True) if case.kind]
    _show(damaged)
    sound = len(cases) - len(damaged)
    wrong = sum(bool(problem) for problem in problems)
    refused = sum(not problem for _, problem in damaged)
    print(
        f"\nseed {seed}: {sound} without damage, and {len(damaged)} damaged, each differently, "
        f"in {time.monotonic() - begun:.0f} s: {refused} refused, {wrong} wrong"
    )
    return 1 if wrong else 0


def _told(case: Case, *, published: Published, liar: Liar) -> str:
    problem = play(case, published, liar)
    if problem:
        name = case.kind.name if case.kind else "no damage"
        print(f"\nWRONG: case {case.number}: {name}\n{case.tools}\n{problem}", flush=True)
    return problem


def _show(damaged: Sequence[tuple[Case, str]]) -> None:
    print("| what varies | value | cases | refused | wrong |")
    print("|---" * 5 + "|")
    columns: Mapping[str, Callable[[Case], str]] = {
        "damage": lambda case: case.kind.name if case.kind else "none",
        "verifier": lambda case: case.tools.verifier,
        "downloader": lambda case: case.tools.downloader,
        "hash tool": lambda case: case.tools.hash,
        "shell": lambda case: case.tools.shell,
    }
    for column, value_of in columns.items():
        cases = Counter(value_of(case) for case, _ in damaged)
        wrong = Counter(value_of(case) for case, problem in damaged if problem)
        for value, count in sorted(cases.items()):
            print(f"| {column} | {value} | {count} | {count - wrong[value]} | {wrong[value]} |")
