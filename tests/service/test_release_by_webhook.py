"""From a delivery of GitHub's to a program that runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.service.running import Works


def test_a_delivery_is_released_once_however_often_it_comes(works: Works) -> None:
    works.write(works.desk.node())
    with works.running() as service:
        assert [service.deliver() for _ in range(5)] == [202] * 5
        works.wait_until_published()
        assert service.deliver() == 202
    assert works.desk.builds("here") == ["1.0.0"]
