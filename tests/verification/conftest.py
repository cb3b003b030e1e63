from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.verification.site import Site

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Site:
    """A site with a key, and nothing published yet."""
    site = Site(folder=tmp_path / "operator", capsys=capsys)
    site.write()
    return site
