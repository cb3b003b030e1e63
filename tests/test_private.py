"""Files with a secret: who else may open one is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestrator.core.errors import ConfigError
from orchestrator.private import read_private

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_bytes(b"x" * 100)
    path.chmod(0o600)
    return path


def read(path: Path, **more: int) -> bytes:
    return read_private(path, "word", **{"limit_bytes": 50, **more}, hint="write it")


def test_a_private_file_is_read_up_to_the_limit(file: Path) -> None:
    assert read(file) == b"x" * 50


@pytest.mark.parametrize("mode", [0o640, 0o620, 0o604, 0o601])
def test_a_file_that_others_may_open_is_refused(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(ConfigError, match=f"may open the word \\(mode {mode:04o}\\)") as caught:
        read(file)
    assert caught.value.hint == f"chmod 600 {file}"


def test_which_modes_are_forbidden_may_be_said(file: Path) -> None:
    file.chmod(0o640)
    assert read(file, forbidden=0o007)
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="may open"):
        read(file, forbidden=0o007)


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no word") as caught:
        read(tmp_path / "none")
    assert caught.value.hint == "write it"
    with pytest.raises(ConfigError, match="cannot read the word: Is a directory"):
        read(tmp_path)
