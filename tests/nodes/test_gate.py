from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.errors import BuildError, NodeError
from orchestrator.nodes.gate import Gate, GateBinary, run_gate
from tests.nodes.bench import Bench, bench, until

if TYPE_CHECKING:
    from orchestrator.nodes.gate import GateReport

GATE = Gate(version="0.13.4", target="t-linux", name="node-1", timeout=timedelta(seconds=20))


@pytest.fixture
def node(scratch_home: Path) -> Bench:
    return bench(scratch_home)


def binary(folder: Path, text: str, name: str = "demo") -> GateBinary:
    path = folder / name
    path.write_text(text)
    return GateBinary(name=name, path=path, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def says(text: str) -> str:
    return f"#!/bin/sh\necho '{text}'\n"


async def passes(node: Bench, *binaries: GateBinary, gate: Gate = GATE) -> GateReport:
    report = await run_gate(node.transport, node.facts, binaries=binaries, gate=gate)
    assert list((node.folder / "gates").iterdir()) == []
    return report


async def fails(node: Bench, text: str, tmp_path: Path, *, gate: Gate = GATE) -> str:
    with pytest.raises(BuildError) as failed:
        await run_gate(node.transport, node.facts, binaries=(binary(tmp_path, text),), gate=gate)
    assert list((node.folder / "gates").iterdir()) == []
    return failed.value.message


async def test_every_binary_says_its_version_and_every_command_passes(
    node: Bench, tmp_path: Path
) -> None:
    first = binary(tmp_path, '#!/bin/sh\necho "demo 0.13.4 $1"\necho warned >&2\n')
    second = binary(tmp_path, says("v0.13.4"), "other")
    commands = (
        "{binary} solve | grep solve",
        "test {version}-{target}-{name} = 0.13.4-t-linux-node-1",
    )
    report = await passes(node, first, second, gate=replace(GATE, commands=commands))
    assert [run.stdout for run in report.runs] == [
        b"demo 0.13.4 --version\n",
        b"v0.13.4\n",
        b"demo 0.13.4 solve\n",
        b"",
    ]
    assert report.runs[0].stderr == b"warned\n"


async def test_it_runs_in_a_clean_environment(
    node: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_PRELOAD_ISH", "1")
    gate = replace(GATE, commands=("env; pwd; cat",))
    report = await passes(node, binary(tmp_path, says("0.13.4")), gate=gate)
    lines = report.runs[1].stdout.decode().splitlines()
    assert f"HOME={node.facts.home}" in lines
    assert not any(line.startswith("LD_PRELOAD_ISH") for line in lines)
    assert lines[-1].startswith(f"{node.folder}/gates/")


@pytest.mark.parametrize(
    "said", ["0.13.40", "10.13.4", "0.13.4-rc.1", "0.13.4.1", "0.13.4+b", "1.0.13.4", "nothing"]
)
async def test_another_version_is_refused(node: Bench, tmp_path: Path, said: str) -> None:
    message = await fails(node, says(f"demo {said}"), tmp_path)
    assert "demo does not say that it is version 0.13.4" in message
    assert f"demo {said}" in message


@pytest.mark.parametrize("said", ["demo-0.13.4", "demo (0.13.4)", "version: 0.13.4.", "x=0.13.4,"])
async def test_the_version_is_found_among_other_words(
    node: Bench, tmp_path: Path, said: str
) -> None:
    await passes(node, binary(tmp_path, says(said)))


async def test_the_version_on_stderr_does_not_count(node: Bench, tmp_path: Path) -> None:
    assert "does not say" in await fails(node, "#!/bin/sh\necho 0.13.4 >&2\n", tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("#!/bin/sh\necho 0.13.4; echo it broke >&2; exit 3\n", "exited with status 3, and 0"),
        ("#!/nonexistent/interpreter\n", "cannot run there (status 12"),
        ("\x7fELF not really", "cannot run there (status 12"),
        ("#!/bin/sh\nkill -SEGV $$\n", "was killed by signal 11"),
    ],
)
async def test_what_cannot_run_is_told_from_what_is_wrong(
    node: Bench, tmp_path: Path, *, text: str, message: str
) -> None:
    said = await fails(node, text, tmp_path)
    assert message in said
    assert ("it broke" in said) == ("it broke" in text)


async def test_a_gate_command_that_fails_fails_the_build(node: Bench, tmp_path: Path) -> None:
    gate = replace(GATE, commands=("echo 42; false; echo 43",))
    said = await fails(node, says("0.13.4"), tmp_path, gate=gate)
    assert "`echo 42; false; echo 43` exited with status 1" in said
    assert said.endswith("\n  42")


@pytest.mark.thorough
async def test_what_hangs_is_ended_with_its_children(node: Bench, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    text = (
        f"#!/bin/sh\nsleep 71 & echo $! >{pids}\ntrap '' TERM\nwait\nwait\n"
        f"sleep 72 & echo $! >>{pids}\nwait\n"
    )
    gate = replace(GATE, timeout=timedelta(seconds=1))
    said = await fails(node, text, tmp_path, gate=gate)
    assert "did not come to an end within 1 s" in said
    for pid in pids.read_text().split():
        await until(lambda pid=pid: not Path(f"/proc/{pid}/fd/0").exists())  # type: ignore[misc]  # bound early


async def test_a_child_that_keeps_the_output_open_holds_nothing_up(
    node: Bench, tmp_path: Path
) -> None:
    await passes(node, binary(tmp_path, "#!/bin/sh\nsleep 73 &\necho 0.13.4\n"))


async def test_long_output_is_cut(node: Bench, tmp_path: Path) -> None:
    text = "#!/bin/sh\necho 0.13.4\nseq 1 100000\nseq 1 100000 >&2\n"
    report = await passes(node, binary(tmp_path, text))
    assert (len(report.runs[0].stdout), len(report.runs[0].stderr)) == (65536, 65536)


async def test_on_the_node_that_built_it_the_binary_is_not_sent_again(
    node: Bench, tmp_path: Path
) -> None:
    built = binary(tmp_path, says("0.13.4"))
    remote = node.folder / "remote"
    remote.write_bytes(built.path.read_bytes())
    built.path.unlink()
    await passes(node, replace(built, remote_path=str(remote)))


async def test_other_bytes_than_were_collected_are_refused(node: Bench, tmp_path: Path) -> None:
    built = binary(tmp_path, says("0.13.4"))
    remote = node.folder / "remote"
    remote.write_text(says("0.13.4 but changed"))
    with pytest.raises(NodeError, match="holds other bytes of demo than were collected"):
        await passes(node, replace(built, remote_path=str(remote)))
    remote.unlink()
    remote.symlink_to(built.path)
    with pytest.raises(NodeError, match="could not place demo for the gate"):
        await passes(node, replace(built, remote_path=str(remote)))


async def test_of_several_the_one_that_is_missing_is_named(node: Bench, tmp_path: Path) -> None:
    first = binary(tmp_path, says("0.13.4"))
    remote = node.folder / "remote"
    remote.write_text(says("0.13.4"))
    first = replace(first, remote_path=str(remote))
    second = replace(binary(tmp_path, says("0.13.4"), "other"), remote_path="/nowhere")
    with pytest.raises(NodeError, match="could not place other for the gate"):
        await passes(node, first, second)
    assert list((node.folder / "gates").iterdir()) == []


async def test_a_node_that_has_no_room_is_a_node_error(node: Bench, tmp_path: Path) -> None:
    (node.folder / "gates").write_text("in the way")
    away = binary(tmp_path, says("0.13.4"))
    for built in (away, replace(away, remote_path=str(away.path))):
        with pytest.raises(NodeError, match="could not make the gate's folder"):
            await run_gate(node.transport, node.facts, binaries=(built,), gate=GATE)
