"""The shells that our scripts must run under: one of them always, all with `make test-thorough`."""

from __future__ import annotations

import shutil
from typing import Final

import pytest

SHELLS: Final = ("dash", "bash", "busybox", "mksh", "ksh93", "yash", "zsh", "posh")
_ALWAYS: Final = ("dash",)


def shell_params() -> list[object]:
    """Return the shells as parameters of a test or a fixture."""
    return [_param(name) for name in SHELLS]


def cancelling_shell_params() -> list[object]:
    """Return those under which a job can be cancelled, as parameters.

    posh 0.14.1 then reads memory that it has freed, as valgrind tells, and crashes now and then. No
    system has it as its sh.
    """
    return [_param(name) for name in SHELLS if name != "posh"]


def needs_shell(name: str) -> pytest.MarkDecorator:
    """Return the mark of a test that needs this shell, or any other program."""
    return pytest.mark.skipif(shutil.which(name) is None, reason=f"needs {name}")


def _param(name: str) -> object:
    needed = needs_shell(name)
    return pytest.param(name, marks=[needed] if name in _ALWAYS else [needed, pytest.mark.thorough])
