from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.servers import serving
from tests.verification.mirror import Mirror
from tests.verification.site import Site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Site:
    """A site with a key, and nothing published yet."""
    site = Site(folder=tmp_path / "operator", capsys=capsys)
    site.write()
    return site


@pytest.fixture
def mirror(site: Site) -> Iterator[Mirror]:
    """A published version, served by somebody who may lie."""
    mirror = Mirror(site.store)
    with serving(mirror.answer) as url:
        site.write(url=url)
        site.publish()
        yield mirror
