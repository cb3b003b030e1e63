from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.errors import BuildError, LinkError, NodeError
from orchestrator.nodes.collect import BINARIES, Collection, collect
from orchestrator.nodes.follow import require_success
from orchestrator.nodes.job import JOB_SH
from orchestrator.nodes.local import LocalTransport
from tests.nodes.bench import Bench, bench

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from orchestrator.nodes.job import Job
    from orchestrator.nodes.local import LocalProcess
    from orchestrator.nodes.transport import Completed, RemoteProcess


@pytest.fixture
async def node(scratch_home: Path) -> AsyncIterator[Bench]:
    node = bench(scratch_home)
    yield node
    await node.cancel_all()


async def built(node: Bench, command: str, path: str | None = "demo") -> Job:
    job = await node.start(node.spec(command, binaries=(("demo", path),)))
    require_success((await node.follow(job)).end)
    return job


async def test_what_was_built_arrives_with_its_hash(node: Bench, tmp_path: Path) -> None:
    job = await built(node, "seq 1 99999 >demo")
    (binary,) = await collect(node.transport, job, names=("demo",), into=tmp_path / "a/b")
    data = b"".join(b"%d\n" % number for number in range(1, 100000))
    assert binary.path.read_bytes() == data
    assert binary.path == tmp_path / "a/b/demo"
    assert (binary.size_bytes, binary.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert list((tmp_path / "a/b").iterdir()) == [binary.path]


async def test_a_command_may_deliver_by_itself(node: Bench, tmp_path: Path) -> None:
    job = await built(node, 'echo hi >"$ORCHESTRATOR_OUT/demo"', None)
    (binary,) = await collect(node.transport, job, names=("demo",), into=tmp_path)
    assert binary.path.read_bytes() == b"hi\n"


async def test_what_the_next_build_clears_away_is_kept(node: Bench, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    job = await built(node, f"mkdir {shared}; echo one >{shared}/demo", f"{shared}/demo")
    shutil.rmtree(shared)
    (binary,) = await collect(node.transport, job, names=("demo",), into=tmp_path)
    assert binary.path.read_bytes() == b"one\n"


@pytest.mark.parametrize(
    ("command", "path", "message"),
    [
        ("true", "demo", "left no binary at"),
        ("echo x >real; ln -s real demo", "demo", "is a link"),
        ("mkdir real; echo x >real/demo; ln -s real behind", "behind/demo", "behind the link"),
        ("mkfifo demo", "demo", "is not a regular file"),
        ("mkdir demo", "demo", "is not a regular file"),
        ('ln -s /etc/passwd "$ORCHESTRATOR_OUT/demo"', None, "is a link"),
        ("true", "/STALE", "it was made by an earlier one"),
    ],
)
async def test_a_build_that_delivers_no_new_file_has_failed(
    node: Bench, *, command: str, path: str | None, message: str
) -> None:
    if path == "/STALE":
        stale = node.folder.parent / "stale"
        stale.write_text("an earlier version")
        os.utime(stale, (1_700_000_000, 1_700_000_000))
        path = str(stale)
    done = await node.run(command, binaries=(("demo", path),))
    with pytest.raises(BuildError, match=message):
        require_success(done.end)
    assert message in done.log.decode()


async def test_an_old_binary_in_a_warm_folder_is_not_delivered_again(node: Bench) -> None:
    warm = node.folder / "targets/demo"
    warm.parent.mkdir()
    warm.write_text("an earlier version")
    done = await node.run("true", binaries=(("demo", str(warm)),))
    with pytest.raises(BuildError, match="left no binary"):
        require_success(done.end)


async def test_too_large_a_binary_is_refused_before_it_is_sent(node: Bench, tmp_path: Path) -> None:
    job = await built(node, "seq 1 100 >demo")
    small = replace(BINARIES, max_bytes=100)
    with pytest.raises(BuildError, match="has 292 bytes, and the limit is 100"):
        await collect(node.transport, job, names=("demo",), into=tmp_path, sort=small)


async def test_a_delivered_file_that_was_changed_later_is_refused(
    node: Bench, tmp_path: Path
) -> None:
    job = await built(node, "echo x >demo")
    out = node.folder_of(job) / "out"
    (out / "demo").unlink()
    with pytest.raises(NodeError, match="out/demo is gone"):
        await collect(node.transport, job, names=("demo",), into=tmp_path / "dist")
    (out / "demo").symlink_to("/etc/passwd")
    with pytest.raises(NodeError, match="is a link"):
        await collect(node.transport, job, names=("demo",), into=tmp_path / "dist")
    (out / "demo").unlink()
    os.mkfifo(out / "demo")
    with pytest.raises(NodeError, match="not a regular file"):
        await collect(node.transport, job, names=("demo",), into=tmp_path / "dist")
    assert list((tmp_path / "dist").iterdir()) == []


class LyingTransport(LocalTransport):
    """A node that sends something else than what it has."""

    def __init__(self, lies: dict[str, str]) -> None:
        super().__init__(os.environ)
        self._lies = lies

    async def open(self, script: str, *args: str) -> LocalProcess:
        return await super().open(self._lies.get(args[0], script), *args)


@pytest.mark.parametrize(
    ("lies", "message"),
    [
        ({"cat": "printf 'hellO\\n'"}, "arrived with other bytes"),
        ({"cat": "printf hel"}, "sent 3 bytes less of demo"),
        ({"cat": "exec cat /dev/zero"}, "sends more of demo than the 6 bytes"),
        ({"cat": "sleep 5"}, "sent nothing of demo for 0.5 s"),
        ({"hash": "echo 6 nonsense"}, "could not deliver demo"),
        ({"hash": "echo 99999999999999999999 " + "0" * 64}, "could not deliver demo"),
        ({"hash": "exec cat /dev/zero"}, "more than the 4096 bytes"),
    ],
)
async def test_a_node_that_lies_leaves_nothing_behind(
    node: Bench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    lies: dict[str, str],
    message: str,
) -> None:
    monkeypatch.setattr("orchestrator.nodes.collect._STALL", timedelta(seconds=0.5))
    job = await built(node, "echo hello >demo")
    with pytest.raises(NodeError, match=message):
        await collect(LyingTransport(lies), job, names=("demo",), into=tmp_path / "dist")
    assert list((tmp_path / "dist").iterdir()) == []


class CuttingTransport(LocalTransport):
    """A link that breaks in the middle of each of the first few transfers."""

    def __init__(self, cuts: int) -> None:
        super().__init__(os.environ)
        self.cuts = cuts
        self.sent_bytes = 0

    async def open(self, script: str, *args: str) -> RemoteProcess:  # type: ignore[override]  # wrapped
        process = await super().open(script, *args)
        return CutTransfer(process, self) if args[0] in {"cat", "pack"} else process


class CutTransfer:
    def __init__(self, process: RemoteProcess, transport: CuttingTransport) -> None:
        self._process = process
        self._transport = transport
        self._has_read = False

    async def read(self) -> bytes:
        if self._has_read and self._transport.cuts:
            self._transport.cuts -= 1
            raise LinkError("cut")
        self._has_read = True
        data = await self._process.read()
        self._transport.sent_bytes += len(data)
        return data

    async def finish(self) -> Completed:
        return await self._process.finish()

    async def close(self) -> None:
        await self._process.close()


async def test_a_transfer_goes_on_at_the_byte_where_the_link_broke(
    node: Bench, tmp_path: Path
) -> None:
    job = await built(node, "seq 1 99999 >demo")
    transport = CuttingTransport(cuts=3)
    into = tmp_path / "dist"
    reached = []
    with Collection(job, names=("demo",), into=into) as collection:
        for _ in range(3):
            with pytest.raises(LinkError, match="cut"):
                await collection.fetch(transport)
            reached.append(collection.received_bytes)
            assert not (into / "demo").exists()
        (binary,) = await collection.fetch(transport)
    assert binary.path.read_bytes() == b"".join(b"%d\n" % n for n in range(1, 100000))
    assert sorted(set(reached)) == reached
    assert transport.sent_bytes == binary.size_bytes
    assert list(into.iterdir()) == [binary.path]


async def test_a_transfer_that_is_given_up_leaves_nothing_behind(
    node: Bench, tmp_path: Path
) -> None:
    job = await built(node, "seq 1 99999 >demo")
    with Collection(job, names=("demo",), into=tmp_path / "dist") as collection:
        with pytest.raises(LinkError, match="cut"):
            await collection.fetch(CuttingTransport(cuts=1))
        assert len(list((tmp_path / "dist").iterdir())) == 1
    assert list((tmp_path / "dist").iterdir()) == []


async def test_a_file_that_changed_between_two_links_is_fetched_anew(
    node: Bench, tmp_path: Path
) -> None:
    job = await built(node, "seq 1 99999 >demo")
    with Collection(job, names=("demo",), into=tmp_path / "dist") as collection:
        with pytest.raises(LinkError, match="cut"):
            await collection.fetch(CuttingTransport(cuts=1))
        (node.folder_of(job) / "out/demo").write_text("another\n")
        (binary,) = await collection.fetch(CuttingTransport(cuts=0))
    assert binary.path.read_bytes() == b"another\n"


class FarTransport(CuttingTransport):
    """A node behind a long link, which may lie, too."""

    def __init__(self, *, cuts: int = 0, lies: dict[str, str] | None = None) -> None:
        super().__init__(cuts)
        self._lies = lies or {}
        self.verbs: list[str] = []

    @property
    def round_trip_seconds(self) -> float:
        return 0.02

    async def open(self, script: str, *args: str) -> RemoteProcess:  # type: ignore[override]  # wrapped
        self.verbs.append(args[0])
        return await super().open(self._lies.get(args[0], script), *args)


async def test_a_node_far_away_sends_it_compressed(node: Bench, tmp_path: Path) -> None:
    job = await built(node, "seq 1 99999 >demo")
    transport = FarTransport()
    (binary,) = await collect(transport, job, names=("demo",), into=tmp_path / "dist")
    assert binary.path.read_bytes() == b"".join(b"%d\n" % n for n in range(1, 100000))
    assert sorted(transport.verbs) == ["hash", "pack"]
    assert transport.sent_bytes < binary.size_bytes / 2


async def test_what_is_sent_compressed_goes_on_at_the_byte_too(node: Bench, tmp_path: Path) -> None:
    # Too random to be compressed into one chunk.
    job = await built(node, "head -c 300000 /dev/urandom >demo")
    transport = FarTransport(cuts=2)
    with Collection(job, names=("demo",), into=tmp_path / "dist") as collection:
        for _ in range(2):
            with pytest.raises(LinkError, match="cut"):
                await collection.fetch(transport)
        (binary,) = await collection.fetch(transport)
    assert binary.path.read_bytes() == (node.folder_of(job) / "out/demo").read_bytes()
    assert transport.sent_bytes < binary.size_bytes * 1.1


async def test_a_node_without_gzip_sends_it_as_it_is(node: Bench, tmp_path: Path) -> None:
    job = await built(node, "echo hello >demo")
    lies = {"pack": JOB_SH.replace("command -v gzip", "command -v no-such-gzip")}
    transport = FarTransport(lies=lies)
    (binary,) = await collect(transport, job, names=("demo",), into=tmp_path / "dist")
    assert binary.path.read_bytes() == b"hello\n"


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        ("echo zstd; echo hello", "something else than what gzip makes"),
        ("printf 'no line at all'", "something else than what gzip makes"),
        ("printf 'gzip\\nnonsense'", "something else than what gzip makes"),
        ("echo gzip; echo hel | gzip", "sent 2 bytes less of demo"),
        ("echo gzip; echo hello | gzip | head -c 12", "bytes less of demo"),
        ("echo gzip; echo hellO | gzip", "arrived with other bytes"),
        ("echo gzip; head -c 50000000 /dev/zero | gzip", "sends more of demo than the 6 bytes"),
    ],
)
async def test_a_node_far_away_that_lies_leaves_nothing_behind(
    node: Bench, tmp_path: Path, *, lie: str, message: str
) -> None:
    job = await built(node, "echo hello >demo")
    transport = FarTransport(lies={"pack": lie})
    with pytest.raises(NodeError, match=message):
        await collect(transport, job, names=("demo",), into=tmp_path / "dist")
    assert list((tmp_path / "dist").iterdir()) == []


class HeldTransport(CuttingTransport):
    """A node whose hash comes when it is let go: by the first bytes of the file, or later."""

    def __init__(self, cuts: int, *, let_go: asyncio.Event) -> None:
        super().__init__(cuts)
        self._let_go = let_go

    async def open(self, script: str, *args: str) -> RemoteProcess:  # type: ignore[override]  # wrapped
        if args[0] == "hash":
            await self._let_go.wait()
        process = await super().open(script, *args)
        if args[0] == "cat" and not self.cuts:
            self._let_go.set()
        return process


async def test_the_node_hashes_a_file_while_it_sends_it(node: Bench, tmp_path: Path) -> None:
    job = await built(node, "echo hello >demo")
    transport = HeldTransport(cuts=0, let_go=asyncio.Event())
    async with asyncio.timeout(30):
        (binary,) = await collect(transport, job, names=("demo",), into=tmp_path / "dist")
    assert binary.path.read_bytes() == b"hello\n"


async def test_bytes_that_came_before_the_hash_are_kept_when_the_link_breaks(
    node: Bench, tmp_path: Path
) -> None:
    job = await built(node, "seq 1 99999 >demo")
    let_go = asyncio.Event()
    transport = HeldTransport(cuts=1, let_go=let_go)
    with Collection(job, names=("demo",), into=tmp_path / "dist") as collection:
        with pytest.raises(LinkError, match="cut"):
            await collection.fetch(transport)
        assert collection.received_bytes
        let_go.set()
        (binary,) = await collection.fetch(transport)
    assert binary.path.read_bytes() == b"".join(b"%d\n" % n for n in range(1, 100000))
    assert transport.sent_bytes == binary.size_bytes


@pytest.mark.parametrize("tool", ["openssl", "sha256sum"])
async def test_any_hash_tool_will_do(node: Bench, tmp_path: Path, *, tool: str) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in (tool, "tr", "grep", "wc", "cat", "mkdir"):
        (tools / name).symlink_to(str(shutil.which(name)))
    job = await built(node, "echo hello >demo")
    script = JOB_SH.replace("PATH=/usr/bin:", f"PATH={tools}:/nonexistent:").replace(
        ":/bin:/usr/sbin:/sbin:/usr/local/bin", ""
    )
    transport = LyingTransport({"hash": script})
    (binary,) = await collect(transport, job, names=("demo",), into=tmp_path / "dist")
    assert binary.sha256 == hashlib.sha256(b"hello\n").hexdigest()


# --- no path of the node in a binary ------------------------------------------------------------

MANIFEST = """
[package]
name = "demo"
version = "1.0.0"
edition = "2021"
[profile.release]
debug = 1
"""
MAIN = """
fn main() {
    if std::env::args().count() > 9 {
        panic!("at {}", file!());
    }
    println!("demo 1.0.0");
}
"""


@pytest.mark.thorough
async def test_no_path_of_the_node_enters_a_binary(node: Bench, tmp_path: Path) -> None:
    images = []
    for number in (1, 2):
        bundle = node.folder.parent / f"sources-{number}" / ("x" * number)
        source = bundle / "source"
        (source / "src").mkdir(parents=True)
        (source / "Cargo.toml").write_text(MANIFEST)
        (source / "src/main.rs").write_text(MAIN)
        (source / ".cargo").mkdir()
        (source / ".cargo/config.toml").write_text('[build]\nrustflags = ["--cfg=ours"]\n')
        spec = node.spec(
            f"cd {source}\ncargo build --release --offline --verbose\n: {number}\n"
            'cp "$CARGO_TARGET_DIR/release/demo" "$ORCHESTRATOR_OUT/"',
            binaries=(("demo", None),),
            source=str(bundle),
            target_dir=str(node.folder / f"targets/{number}"),
            env=(("RUSTC_WRAPPER", str(inner_wrapper(tmp_path))),),
        )
        job = await node.start(spec)
        done = await node.follow(job)
        assert done.end.evidence == "the command exited with status 0", done.log.decode()
        assert b"--cfg=ours" in done.log
        (binary,) = await collect(node.transport, job, names=("demo",), into=tmp_path / str(number))
        image = binary.path.read_bytes()
        for path in (source, node.facts.home, node.folder, node.facts.rustup_home, tmp_path):
            assert os.fsencode(str(path)) not in image, path
        images.append(image)
    assert b"/build/source" in images[0]
    assert images[0] == images[1]
    assert (tmp_path / "used").exists()


def inner_wrapper(folder: Path) -> Path:
    wrapper = folder / "inner wrapper"
    wrapper.write_text(f'#!/bin/sh\n: >{folder}/used\nexec "$@"\n')
    wrapper.chmod(0o755)
    return wrapper
