"""The benchmarks of one machine, in their small form: that they work, never how fast."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks import doing_nothing, fleet, installer, local_target, release
from benchmarks.options import Options
from benchmarks.report import OURS, Report
from tests.nodes.sshd import needs_sshd

QUICK = Options(runs=1, is_quick=True)


def assert_complete(report: Report) -> None:
    for table in report.tables:
        for row in table.rows:
            assert row.samples, (table.title, row.tool)
            assert all(row.samples.values()), (table.title, row.tool)
        assert not table.charted or table.charted in table.rows[0].samples


@pytest.mark.thorough
def test_every_script_installs_the_program() -> None:
    report = installer.measure(QUICK)
    assert_complete(report)
    # What others want depends on which of them are here; each checks what it has installed.
    assert [table.row(OURS).samples["round_trips"] for table in report.tables] == (
        [[2]] * len(report.tables)
    )


@pytest.mark.thorough
def test_every_tool_makes_an_archive_of_the_program() -> None:
    report = local_target.measure(QUICK)
    assert_complete(report)
    assert {"cargo build --release", OURS} <= {row.tool for row in report.tables[0].rows}


@needs_sshd
@pytest.mark.thorough
def test_seven_nodes_are_released_on_and_the_archives_are_theirs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fleet, "_PORT", 2242)
    report = release.measure(replace(QUICK, has_peers=False))
    assert_complete(report)
    tools = [row.tool.removeprefix(OURS) for row in report.tables[0].rows]
    assert tools == ["", ", nodes it never saw", ", the slowest node alone"]


@pytest.mark.thorough
def test_commands_that_build_nothing_end_well() -> None:
    report = doing_nothing.measure(QUICK)
    assert_complete(report)
    assert len(report.tables) == 3
