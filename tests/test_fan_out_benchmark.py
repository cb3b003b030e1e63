"""The benchmarks of many nodes, on few: that they work, never how fast."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.report import OURS, Report, load
from tests.nodes.sshd import needs_sshd

ROOT = Path(__file__).parents[1]


def _measured(name: str, folder: Path) -> Report:
    command = [sys.executable, "-m", "benchmarks", name, "--quick", "--runs", "1"]
    subprocess.run([*command, "--into", str(folder)], cwd=ROOT, check=True)
    return load(folder / "performance" / f"{name}.json")[0]


@needs_sshd
@pytest.mark.thorough
def test_every_tool_reaches_a_few_nodes(tmp_path: Path) -> None:
    few, on_one_host, on_ours = _measured("fan-out", tmp_path).tables
    for row in few.rows:
        assert row.samples["answered"] == [7], row.tool
    assert {row.tool for row in few.rows} >= {OURS, "ssh processes", "ansible shell", "pyinfra"}
    assert on_one_host.row(OURS).samples["answered"] == [40]
    assert [row.samples["answered"] for row in on_ours.rows] == [[100], [100]]
    assert on_ours.rows[1].samples["kib_per_node"][0] > 0


@pytest.mark.thorough
def test_nodes_that_repeat_a_real_one_are_released_on(tmp_path: Path) -> None:
    (table,) = _measured("scale", tmp_path).tables
    assert [row.samples["answered"] for row in table.rows] == [[20], [60]]
    assert all(row.samples["cpu_seconds"][0] > 0 for row in table.rows)
