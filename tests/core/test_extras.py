"""Extra files of an archive: their names, and what cannot lie beside what."""

from __future__ import annotations

import pytest

from orchestrator.core.errors import ConfigError
from orchestrator.core.extras import clashes, extra_name, require_extras


def test_an_extra_file_is_called_by_the_last_component_of_its_path() -> None:
    assert extra_name("man/tool.1") == "tool.1"
    assert extra_name("LICENSE") == "LICENSE"


def test_names_that_a_file_system_takes_for_one_clash() -> None:
    paths = ("README.md", "doc/Readme.md", "x/TOOL", "tool.exe", "tool.1", "_tool")
    assert clashes(("tool",), paths) == (
        (1, "`README.md`"),
        (2, "the binary `tool`"),
        (3, "the binary `tool`"),
    )


def test_files_that_do_not_fit_into_one_archive_are_refused() -> None:
    require_extras(("tool",), ("LICENSE", "tool.1"))
    with pytest.raises(ConfigError, match=r"`b/1.0.0` has the same name"):
        require_extras(("tool",), ("1.0.0", "b/1.0.0"))
    with pytest.raises(ConfigError, match="is longer than 100 characters"):
        require_extras(("tool",), ("x" * 101,))
