"""The man page and the completions of the example program tell of every option that it has."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Final

import pytest

from tests.installer_site import needs
from tests.releases import ROOT

EXAMPLE: Final = ROOT / "examples/trajectory"
OPTIONS: Final = sorted(
    set(re.findall(r"^  (--[a-z]+) ", (EXAMPLE / "src/main.rs").read_text(), re.MULTILINE))
)


def said_by(*command: str) -> list[str]:
    told = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=EXAMPLE / "completions"
    )
    assert told.stderr == ""
    return told.stdout.splitlines()


def test_the_man_page_has_every_option() -> None:
    assert len(OPTIONS) == 6
    page = (EXAMPLE / "man/trajectory.1").read_text()
    found = re.findall(r"^\.TP\n\.BI? (\\-\\-[a-z]+)", page, re.MULTILINE)
    assert sorted(option.replace("\\", "") for option in found) == OPTIONS


@needs("bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [("--", OPTIONS), ("--v", ["--velocity", "--version"]), ("--range ''", [])],
)
def test_bash_completes_options_and_leaves_numbers_alone(words: str, expected: list[str]) -> None:
    line = (
        f"source trajectory.bash; COMP_WORDS=(trajectory {words}); "
        "COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _trajectory; printf '%s\n' \"${COMPREPLY[@]}\""
    )
    assert sorted(filter(None, said_by("bash", "-c", line))) == expected


@needs("fish")
def test_fish_completes_the_same_options() -> None:
    line = "source trajectory.fish; complete -C 'trajectory --'"
    told = said_by(str(shutil.which("fish")), "--no-config", "-c", line)
    assert sorted(each.split("\t")[0] for each in told) == OPTIONS


@needs("zsh")
def test_zsh_is_told_the_same_options() -> None:
    said_by("zsh", "-n", "_trajectory")
    # What it hands to _arguments, without an interactive shell around it.
    line = "_arguments() { print -rl -- $@ }; source ./_trajectory"
    told = [re.findall(r"--[a-z]+", each)[0] for each in said_by("zsh", "-fc", line)]
    assert sorted(told) == OPTIONS
    assert (EXAMPLE / "completions/_trajectory").read_text().startswith("#compdef trajectory\n")
