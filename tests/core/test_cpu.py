from __future__ import annotations

import pytest

from orchestrator.core.cpu import cpu_floors, unknown_cpus
from orchestrator.core.target import parse_target

INTEL = parse_target("x86_64-unknown-linux-gnu")
ARM = parse_target("aarch64-unknown-linux-gnu")


@pytest.mark.parametrize(
    ("texts", "floors"),
    [
        ([], []),
        (["cargo build --release"], []),
        (["-C target-cpu=x86-64"], []),
        (["-C target-cpu=x86-64-v2"], ["cpu>=2"]),
        (["-Ctarget-cpu=x86-64-v3 -C lto"], ["cpu>=3"]),
        (["RUSTFLAGS='-C target-cpu=x86-64-v2' cargo build", "-Ctarget-cpu=x86-64-v4"], ["cpu>=4"]),
        (["-C target-cpu=native"], []),
        (['-C target-cpu="x86-64-v3"'], ["cpu>=3"]),
    ],
)
def test_a_level_of_the_psabi_is_a_floor(texts: list[str], floors: list[str]) -> None:
    assert [str(floor) for floor in cpu_floors(texts, INTEL)] == floors
    assert cpu_floors(texts, ARM) == ()


def test_what_no_installer_can_tell_is_named_once() -> None:
    texts = ["-C target-cpu=native", "-C target-cpu=native -C target-cpu=x86-64-v3"]
    assert unknown_cpus(texts, INTEL) == ("native",)
    assert unknown_cpus(["-C target-cpu=generic"], ARM) == ()
    assert unknown_cpus(["-C target-cpu=neoverse-n1"], ARM) == ("neoverse-n1",)
