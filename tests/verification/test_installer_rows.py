"""The rows of an index that an installer carries."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.core.index import Row, Status, parse_floor
from orchestrator.core.version import parse_version
from orchestrator.site import installer_values

if TYPE_CHECKING:
    from tests.verification.site import Site


def test_the_build_for_newer_cpus_comes_before_the_one_for_all(site: Site) -> None:
    version = parse_version("1.0.0")
    channel = site.operator.outlet(version).channel
    plain = Row(
        target="x86_64-unknown-linux-gnu",
        version=version,
        status=Status.OK,
        size_bytes=5,
        sha256="0" * 64,
        path="releases/1.0.0/x86_64-unknown-linux-gnu/tool.tar.gz",
    )
    rows = (plain, replace(plain, floors=(parse_floor("cpu>=3"),)))
    project = site.operator.inventory.project
    values = installer_values(project, "https://example.org", channel, keys_serial=0, rows=rows)
    # The first one that fits is the one that is begun.
    assert ["cpu>=3" in line for line in values.newest] == [True, False]
