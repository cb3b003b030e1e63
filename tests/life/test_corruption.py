"""Whatever is damaged on the way is refused; all of it: make test-corruption."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.installer_site import VERIFIERS
from tests.life.answers import Liar, tell_lies
from tests.life.corruption import DOWNLOADERS, choose, play
from tests.life.corruptions import KINDS, NOBODY, Published, publish
from tests.shells import needs_shell

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.life.corruption import Case


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return publish(tmp_path_factory.mktemp("published"), random.Random("published"))


@pytest.fixture
def liar() -> Iterator[Liar]:
    with tell_lies() as liar:
        yield liar


def test_every_kind_changes_what_arrives_and_every_case_is_another(published: Published) -> None:
    cases = choose("1", 400, published)
    assert {case.kind for case in cases} == {*KINDS}
    assert len({repr((case.tools, case.answers)) for case in cases}) == 400
    for case in cases:
        assert case.answers
        for path, answer in case.answers.items():
            assert answer.status != 200 or answer.body != published.files[path]
    assert cases == choose("1", 400, published)
    assert cases[:10] != choose("2", 10, published)


def test_verifiers_and_downloaders_take_turns(published: Published) -> None:
    cases = choose("1", 400, published)
    met = Counter((case.tools.verifier, case.tools.downloader) for case in cases)
    assert len(met) == (len(VERIFIERS) + 1) * len(DOWNLOADERS)
    assert not any(
        case.kind.name.startswith(("index", "signature"))
        for case in cases
        if case.kind and case.tools.verifier == NOBODY
    )


def cases_of(name: str, published: Published, number: int) -> list[Case]:
    cases = [case for case in choose("1", 900, published) if case.kind and case.kind.name == name]
    # The quickest of the downloaders.
    return [case for case in cases if case.tools.downloader == "curl"][:number]


@needs_shell("mksh")
@pytest.mark.parametrize(
    ("name", "check"),
    [
        (
            "index: a row changed and signed by a thief",
            'die "$fault of $index_url is $fault_state: refusing, nothing was changed"',
        ),
        (
            "archive: a forged one of the same size",
            'warn "the SHA-256 of $url is not the one in the index"\n            return 1',
        ),
    ],
)
@pytest.mark.thorough
def test_a_script_that_checks_less_is_found(
    published: Published, liar: Liar, *, name: str, check: str
) -> None:
    assert published.script.count(check) == 1
    careless = replace(published, script=published.script.replace(check, ":"))
    cases = cases_of(name, published, 4)
    assert [play(case, published, liar) for case in cases] == [""] * 4
    assert any("something was changed" in play(case, careless, liar) for case in cases)
