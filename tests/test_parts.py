from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from orchestrator.parts import create_part, sweep_parts, write_whole
from tests.releases import ROOT, wait_for

if TYPE_CHECKING:
    from pathlib import Path


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    write_whole(tmp_path / "file", b"one")
    write_whole(tmp_path / "file", b"another")
    assert (tmp_path / "file").read_bytes() == b"another"
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_whole(tmp_path / "folder", b"one")
    assert names_in(tmp_path) == ["file", "folder"]


def test_only_a_part_that_nobody_writes_is_swept(tmp_path: Path) -> None:
    part, file = create_part(tmp_path / "file")
    with file:
        sweep_parts(tmp_path)
        assert part.exists()
    sweep_parts(tmp_path)
    assert names_in(tmp_path) == []
    sweep_parts(tmp_path / "missing")


def test_what_a_killed_writer_left_is_swept(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from orchestrator.parts import create_part\n"
        f"create_part(Path({str(tmp_path)!r}) / 'file'); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) as writer:
        wait_for(lambda: names_in(tmp_path))
        writer.kill()
    sweep_parts(tmp_path)
    assert names_in(tmp_path) == []


def test_a_part_that_was_swept_before_it_was_held_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = fcntl.flock
    swept: list[Path] = []

    def sweep_first(descriptor: int, operation: int) -> None:
        if not swept:
            swept.extend(tmp_path.glob("*.part"))
            swept[0].unlink()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", sweep_first)
    part, file = create_part(tmp_path / "file")
    file.close()
    assert part != swept[0]
    assert part.exists()


def test_without_locks_only_age_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    part, file = create_part(tmp_path / "file")
    file.close()
    sweep_parts(tmp_path)
    assert part.exists()
    os.utime(part, (1, 1))
    sweep_parts(tmp_path)
    assert not part.exists()
