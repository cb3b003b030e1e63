"""The commit that a tag named when it was asked for is the one that is built."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.errors import ConfigError
from orchestrator.core.events import Warned
from orchestrator.core.inventory import CrateSource, GitSource, PathSource
from orchestrator.core.version import parse_version
from orchestrator.release import pinned
from orchestrator.source import Bundle

if TYPE_CHECKING:
    from orchestrator.core.events import Event
    from orchestrator.core.inventory import Source
    from orchestrator.core.version import Version

ASKED, NOW = "a" * 40, "b" * 40


async def made(source: Source, revision: str | None) -> tuple[Bundle, list[Event]]:
    heard: list[Event] = []

    async def make(source: Source, version: Version, binaries: tuple[str, ...]) -> Bundle:
        assert (source, str(version), binaries) == (source, "1.0.0", ("tool",))
        return Bundle(
            path=Path("bundle"),
            digest="d",
            archive_sha256="s",
            size_bytes=1,
            subdirectory="",
            revision=revision,
            is_dirty=False,
            description="the source",
            notes=(),
        )

    make_pinned = pinned(make, ASKED, heard.append)
    return await make_pinned(source, parse_version("1.0.0"), ("tool",)), heard


@pytest.mark.parametrize("revision", [ASKED, None])
async def test_what_is_the_same_or_says_nothing_is_built(revision: str | None) -> None:
    bundle, heard = await made(GitSource(git="https://example.org/tool"), revision)
    assert bundle.revision == revision
    assert heard == []


@pytest.mark.parametrize("source", [GitSource(git="https://example.org/t"), PathSource(path="/t")])
async def test_another_commit_than_the_one_that_was_asked_for_is_not_built(source: Source) -> None:
    with pytest.raises(ConfigError, match=f"names {NOW} now, and named {ASKED}") as caught:
        await made(source, NOW)
    assert "find out who moved the tag" in str(caught.value.hint)


async def test_a_crate_that_was_made_from_another_commit_is_told_of() -> None:
    bundle, [event] = await made(CrateSource(crate="tool"), NOW)
    assert bundle.revision == NOW
    assert isinstance(event, Warned)
    assert event.message == f"the source was made from {NOW}, and the tag names {ASKED}"
