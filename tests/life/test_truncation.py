"""A script that was cut off does nothing, and whoever looks at the exit status learns of it."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.life import prefixes
from tests.life.truncation import choose, is_start_of_document, rendered
from tests.shells import needs_shell

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def found(
    script: bytes, shell: str, cuts: Sequence[int], *, jobs: int = 1
) -> list[prefixes.Finding]:
    parts = prefixes.play(script, {shell: cuts}, jobs=jobs)
    return [finding for _, _, findings in parts for finding in findings]


@pytest.mark.parametrize(
    "shell",
    [
        pytest.param(
            name,
            marks=[
                needs_shell(words[0]),
                *([] if name == "dash" else [pytest.mark.thorough]),
            ],
        )
        for name, words in prefixes.SHELLS.items()
    ],
)
def test_no_prefix_of_the_script_acts(shell: str) -> None:
    script = rendered()
    breaks = [at + 1 for at, byte in enumerate(script) if byte == ord("\n")]
    end = len(script) - 1
    step = 8 if shell == "dash" else 80
    cuts = sorted({0, 1, 2, *breaks[:12], *breaks[12:-1:step], *range(end - 30, end)})
    assert prefixes.rings(shell, script)
    assert [
        finding
        for finding in found(script, shell, cuts)
        if not (finding.is_endless and is_start_of_document(script, finding.cut))
    ] == []


@needs_shell("ksh93")
@pytest.mark.thorough
def test_a_shell_that_never_ends_is_found_and_stopped() -> None:
    script = b"# A comment.\n{\nf() {\nwhile read a; do\n:\ndone <<X\nhello\n"
    cut = script.index(b"hello")
    [finding] = found(script, "ksh93", [cut])
    assert finding.is_endless
    assert is_start_of_document(script, cut)
    assert not is_start_of_document(script, cut - 1)


def test_the_last_line_break_may_be_missing() -> None:
    script = rendered()
    [finding] = found(script, "dash", [len(script) - 1])
    assert "called" in finding.what


def test_a_script_that_is_not_one_command_is_found() -> None:
    script = rendered()
    start = prefixes.start_of_command(script)
    # The first command is complete, and the comment at the top ends where it did.
    bare = script[:start] + b"{ :; }\n" + script[start + 2 : script.rindex(b"}")]
    [finding] = found(bare, "dash", [bare.index(b"    set -e\n") + 11])
    assert finding.what == "exit status 0"
    # The letters of the last line's `main "$@"` install without the arguments.
    [finding] = found(bare, "dash", [bare.rindex(b'main "$@"\n') + len(b"main")])
    assert "called" in finding.what


def test_what_a_prefix_prints_or_leaves_is_found() -> None:
    for line in (b"echo hello", b": >file", b"uname", b"no-such-command"):
        script = b"# A comment.\n{\n    :\n}\n" + line + b"\n{\n"
        [finding] = found(script, "dash", [len(script) - 1])
        assert finding.what.startswith("effect: ")


def test_a_sample_has_both_ends_in_dash_and_is_the_same_for_the_same_seed() -> None:
    script = rendered()
    chosen = choose(script, ["dash", "bash"], seed="1", number=20)
    assert chosen == choose(script, ["dash", "bash"], seed="1", number=20)
    assert len(chosen["bash"]) == 20
    assert {*range(2000), *range(len(script) - 200, len(script) - 1)} <= {*chosen["dash"]}
    whole = choose(script, ["bash"], seed="1", number=None)
    assert list(whole["bash"]) == list(range(len(script) - 1))


# Port 9 of loopback refuses; in CI nobody may listen there.
_CURL = "curl --proto '=http' -sSf http://127.0.0.1:9/install.sh"


@needs_shell("curl")
@pytest.mark.parametrize(
    "shell", [pytest.param(name, marks=needs_shell(name)) for name in ("dash", "bash")]
)
def test_a_pipe_hides_a_download_that_failed_and_the_form_for_scripts_does_not(
    tmp_path: Path, shell: str
) -> None:
    def ended(command: str) -> int:
        ran = subprocess.run(
            [shell, "-c", command], capture_output=True, text=True, check=False, cwd=tmp_path
        )
        assert "curl: (7)" in ran.stderr
        assert ran.stdout == ""
        return ran.returncode

    assert ended(f"{_CURL} | sh") == 0
    assert ended(_CURL.replace("-sSf", "-sSf -o install.sh") + " && sh install.sh") == 7
    if shell == "bash":
        assert ended(f"set -o pipefail; {_CURL} | sh") == 7
    assert list(tmp_path.iterdir()) == []
