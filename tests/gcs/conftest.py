"""A service for each test, and the desk of the release tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.gcs.server import serving
from tests.release.conftest import programs  # noqa: F401 -- a fixture here too
from tests.releases import Desk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.gcs.server import Service
    from tests.releases import Programs


@pytest.fixture
def service() -> Iterator[Service]:
    with serving("bucket") as service:
        yield service


@pytest.fixture
def desk(tmp_path: Path, programs: Programs, service: Service) -> Desk:  # noqa: F811 -- see above
    """A desk whose commands run in processes of their own and publish into the bucket."""
    desk = Desk(folder=tmp_path / "desk", programs=programs)
    desk.environment["STORAGE_EMULATOR_HOST"] = service.url
    desk.publication |= {"store": "gs://bucket/tool", "url": f"{service.url}/bucket/tool"}
    return desk
