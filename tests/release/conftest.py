"""One desk for each test, and SSH nodes on loopback."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.releases import Desk, Programs, SshNode, serving_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes here refuse or answer at once; those of a command in its own process keep the times."""
    for name in ("_FIRST_PATIENCE", "_FIRST_PATIENCE_WITH_SPARE"):
        monkeypatch.setattr(f"orchestrator.reach.{name}", timedelta(seconds=0.1))
    monkeypatch.setattr("orchestrator.delivery._PAUSES", (timedelta(seconds=0.1),))


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    base = tmp_path_factory.getbasetemp()
    # With xdist each worker has a folder below the one of the run.
    shared = base.parent if base.name.startswith("popen-") else base
    folder = shared / "programs"
    folder.mkdir(exist_ok=True)
    return Programs(folder=folder)


@pytest.fixture
def desk(tmp_path: Path, programs: Programs, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(folder=tmp_path / "desk", programs=programs, capsys=capsys)


@pytest.fixture(scope="session")
def on_loop() -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    with serving_loop() as run:
        yield run


@pytest.fixture
def ssh_node(
    tmp_path: Path, on_loop: Callable[[Coroutine[Any, Any, Any]], Any]
) -> Iterator[SshNode]:
    node = SshNode(tmp_path / "ssh-node", on_loop)
    yield node
    node.stop()
