"""Extra files of a job: where they come from, and what is refused."""

from __future__ import annotations

import os
import re
import shutil
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.errors import BuildError, ConfigError
from orchestrator.core.extras import MAX_EXTRA_BYTES
from orchestrator.nodes.collect import EXTRAS, collect
from orchestrator.nodes.follow import require_success
from tests.nodes.bench import Bench, ShellTransport, bench
from tests.shells import shell_params

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from orchestrator.core.result import CollectedFile


@pytest.fixture
async def node(scratch_home: Path) -> AsyncIterator[Bench]:
    node = bench(scratch_home)
    yield node
    await node.cancel_all()


@pytest.fixture
def source(node: Bench) -> Path:
    """A pushed source, with a file that is old and links that stay inside."""
    source = node.folder / "sources/abc/source"
    (source / "crates/cli").mkdir(parents=True)
    (source / "LICENSE").write_text("do as you please\n")
    os.utime(source / "LICENSE", (1_000_000_000, 1_000_000_000))
    (source / "crates/cli/LICENSE").symlink_to("../../LICENSE")
    (source / "cli").symlink_to("crates/cli")
    return source


async def extra(
    node: Bench, *, into: Path, path: str, name: str = "demo.1", command: str = "true"
) -> CollectedFile:
    job = await node.start(node.spec(command, extras=((name, path),)))
    require_success((await node.follow(job)).end)
    (file,) = await collect(node.transport, job, names=(name,), into=into, sort=EXTRAS)
    return file


@pytest.mark.parametrize("path", ["LICENSE", "crates/cli/LICENSE", "cli/LICENSE"])
async def test_an_extra_file_comes_from_the_source_however_old_it_is(
    node: Bench, source: Path, tmp_path: Path, *, path: str
) -> None:
    file = await extra(node, into=tmp_path / "dist", path=f"{source}/{path}", name="LICENSE")
    assert file.path.read_bytes() == b"do as you please\n"
    # It is the source's, and stays there for the next build.
    assert (source / "LICENSE").exists()


async def test_an_extra_file_may_be_what_the_command_made(node: Bench, tmp_path: Path) -> None:
    command = "mkdir man\necho .TH >man/demo.1"
    made = await extra(node, command=command, path="man/demo.1", into=tmp_path / "dist")
    assert made.path.read_bytes() == b".TH\n"
    outside = tmp_path / "elsewhere/demo.1"
    command = f"mkdir {outside.parent}\necho .TH 2 >{outside}"
    made = await extra(node, command=command, path=str(outside), into=tmp_path / "dist")
    assert made.path.read_bytes() == b".TH 2\n"


async def test_what_the_command_delivers_goes_before_the_file_of_that_name_in_the_source(
    node: Bench, source: Path, tmp_path: Path
) -> None:
    file = await extra(
        node,
        into=tmp_path / "dist",
        path=f"{source}/LICENSE",
        name="LICENSE",
        command='echo made >"$ORCHESTRATOR_OUT/LICENSE"',
    )
    assert file.path.read_bytes() == b"made\n"


@pytest.mark.parametrize(
    ("command", "path", "message"),
    [
        ("true", "man/demo.1", r"left no extra file at .*man/demo.1, nor as demo.1 in \$ORCH"),
        ("true", "SOURCE/demo.1", r"source/demo.1, nor as demo.1 in .* \(`project.extras`\)"),
        ("mkdir demo.1", "demo.1", "the extra file .* is not a regular file"),
        ("mkfifo demo.1", "demo.1", "the extra file .* is not a regular file"),
        ("ln -s /etc/passwd demo.1", "demo.1", "is a link, and links are never followed"),
        ("mkdir a; echo >a/demo.1; ln -s a b", "b/demo.1", "lies behind the link"),
        ('ln -s /etc/passwd "$ORCHESTRATOR_OUT/demo.1"', "demo.1", "is a link"),
        ("ln -s /etc/passwd SOURCE/demo.1", "SOURCE/demo.1", "behind a link that leads out of"),
        ("ln -s /etc SOURCE/man", "SOURCE/man/passwd", "behind a link that leads out of"),
        ("ln -s ../../other SOURCE/demo.1", "SOURCE/demo.1", "behind a link that leads out of"),
        ("mkdir SOURCE/demo.1", "SOURCE/demo.1", "is not a regular file"),
    ],
)
async def test_an_extra_file_that_is_missing_or_leads_elsewhere_fails_the_build(
    node: Bench, source: Path, *, command: str, path: str, message: str
) -> None:
    (node.folder / "sources/other").write_text("of somebody else")
    spec = node.spec(
        command.replace("SOURCE", str(source)),
        extras=(("demo.1", path.replace("SOURCE", str(source))),),
    )
    done = await node.follow(await node.start(spec))
    with pytest.raises(BuildError, match=message):
        require_success(done.end)
    assert re.search(message, done.log.decode())


@pytest.mark.parametrize("shell", shell_params())
async def test_extra_files_are_delivered_under_any_shell(
    node: Bench, source: Path, tmp_path: Path, *, shell: str
) -> None:
    (tmp_path / "sh").symlink_to(str(shutil.which(shell)))
    node.transport = ShellTransport(str(tmp_path / "sh"))
    (source / "passwd").symlink_to("/etc/passwd")
    inside, outside = (
        ("LICENSE", f"{source}/crates/cli/LICENSE"),
        ("passwd", f"{source}/passwd"),
    )
    done = await node.run("true", extras=(inside, outside))
    with pytest.raises(BuildError, match="passwd lies behind a link that leads out"):
        require_success(done.end)
    file = await extra(node, into=tmp_path / "dist", path=inside[1], name="LICENSE")
    assert file.path.read_bytes() == b"do as you please\n"


async def test_links_that_never_end_are_no_extra_file(node: Bench, source: Path) -> None:
    (source / "a").symlink_to("b")
    (source / "b").symlink_to("a")
    done = await node.run("true", extras=(("a", f"{source}/a"),))
    with pytest.raises(BuildError, match="left no extra file"):
        require_success(done.end)


async def test_too_large_an_extra_file_is_refused_before_it_is_sent(
    node: Bench, tmp_path: Path
) -> None:
    command = f"dd if=/dev/zero of=demo.1 bs={MAX_EXTRA_BYTES + 1} count=1"
    with pytest.raises(BuildError, match=f"the extra file demo.1 has {MAX_EXTRA_BYTES + 1} bytes"):
        await extra(node, command=command, path="demo.1", into=tmp_path / "dist")
    assert list((tmp_path / "dist").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "path"), [("..", "x"), ("a b", "x"), ("a", "../x"), ("a", "x\ny")]
)
async def test_an_extra_file_with_an_unsafe_name_is_not_asked_for(
    node: Bench, name: str, path: str
) -> None:
    with pytest.raises(ConfigError):
        await node.start(node.spec("true", extras=((name, path),)))
