from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.github_server import serving_github
from tests.release.conftest import on_loop, programs, ssh_node
from tests.releases import Desk
from tests.service.running import Works

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.github_server import FakeGitHub
    from tests.releases import Programs

__all__ = ["github", "on_loop", "programs", "ssh_node", "works"]


@pytest.fixture
def github() -> Iterator[FakeGitHub]:
    with serving_github() as fake:
        yield fake


@pytest.fixture
def works(tmp_path: Path, programs: Programs, github: FakeGitHub) -> Works:
    desk = Desk(folder=tmp_path / "desk", programs=programs)
    return Works(desk=desk, github=github)
