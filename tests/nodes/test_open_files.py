from __future__ import annotations

import resource
import subprocess
import sys
from typing import TYPE_CHECKING

from orchestrator.nodes import open_files

if TYPE_CHECKING:
    import pytest

SOFT, HARD = 64, 128


def _limits_after(soft: int, hard: int) -> str:
    """Return the limits of a process that had these, and asked for more."""
    code = (
        "import resource\n"
        "from orchestrator.nodes.open_files import allow_many_open_files\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
        "allow_many_open_files()\n"
        "print(*resource.getrlimit(resource.RLIMIT_NOFILE))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_the_soft_limit_is_raised_as_far_as_the_hard_one_lets_us() -> None:
    assert _limits_after(SOFT, HARD) == f"{HARD} {HARD}"


def test_a_limit_that_is_high_already_stays() -> None:
    assert _limits_after(HARD, HARD) == f"{HARD} {HARD}"


def test_a_system_that_takes_less_gets_less(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def set_limit(_: int, limits: tuple[int, int]) -> None:
        tried.append(limits[0])
        if limits[0] > 10240:
            raise ValueError("current limit exceeds maximum limit")

    unlimited = resource.RLIM_INFINITY
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, unlimited))
    monkeypatch.setattr(resource, "setrlimit", set_limit)
    open_files.allow_many_open_files()
    assert tried == [65536, 10240]
