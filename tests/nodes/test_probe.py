from __future__ import annotations

import os
import platform
import socket
from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator.core.errors import NodeError
from orchestrator.nodes.local import LocalTransport
from orchestrator.nodes.probe import _absolute_once, _facts, probe

ME = LocalTransport


async def test_a_machine_is_described_by_its_own_tools(scratch_home: Path) -> None:
    facts = await probe(LocalTransport(os.environ))
    assert facts.system == platform.system()
    assert facts.machine == platform.machine()
    assert facts.kernel == platform.release()
    assert facts.hostname == socket.gethostname()
    assert facts.home == str(scratch_home)
    assert facts.workdir == str(scratch_home.resolve() / ".cache/orchestrator")
    assert Path(facts.workdir).stat().st_mode & 0o777 == 0o700
    assert facts.cpus == os.cpu_count()
    assert facts.memory_bytes is not None
    assert facts.memory_bytes > 100 * 1024**2
    assert facts.disk_free_bytes is not None
    assert facts.disk_free_bytes > 1024**2
    assert facts.boot_id
    assert facts.tar
    assert facts.hash_tool
    assert abs(facts.clock_offset) <= timedelta(seconds=2)
    assert all(folder.startswith("/") for folder in facts.path.split(":"))
    assert facts.path.split(":")[0] == f"{scratch_home}/.cargo/bin"


async def test_a_toolchain_is_named_with_its_versions(tmp_path: Path) -> None:
    tools = tmp_path / "home/.cargo/bin"
    tools.mkdir(parents=True)
    (tools / "cargo").write_text("#!/bin/sh\necho 'cargo 1.95.0 (f2d3ce0bd 2026-03-21)'\n")
    (tools / "rustc").write_text(
        "#!/bin/sh\nprintf 'rustc 1.95.0\\nhost: x86_64-unknown-openbsd\\nrelease: 1.95.0\\n'\n"
    )
    for tool in tools.iterdir():
        tool.chmod(0o755)
    facts = await probe(LocalTransport(os.environ | {"HOME": str(tmp_path / "home")}))
    assert facts.cargo == "1.95.0 (f2d3ce0bd 2026-03-21)"
    assert (facts.rustc, facts.host_triple) == ("1.95.0", "x86_64-unknown-openbsd")


async def test_what_is_missing_is_none(tmp_path: Path) -> None:
    tools = tmp_path / "home/.cargo/bin"
    tools.mkdir(parents=True)
    for name in ("cargo", "rustc", "nproc", "getconf", "df", "sysctl", "uname"):
        (tools / name).write_text("#!/bin/sh\nexit 1\n")
        (tools / name).chmod(0o755)
    facts = await probe(LocalTransport(os.environ | {"HOME": str(tmp_path / "home")}))
    assert facts.cargo is None
    assert facts.rustc is None
    assert facts.host_triple is None
    assert facts.cpus is None
    assert facts.glibc is None
    assert facts.disk_free_bytes is None
    assert facts.hostname is None
    assert facts.system == ""


async def test_a_workdir_is_made_and_resolved(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    facts = await probe(LocalTransport(os.environ), workdir=f"{tmp_path}/link/a/b")
    assert facts.workdir == f"{tmp_path}/real/a/b"


@pytest.mark.parametrize("workdir", ["/tmp/a b", "relative", "/tmp/$(id)", "/tmp/../etc", "/é"])
async def test_a_workdir_that_a_shell_would_read_is_refused(workdir: str) -> None:
    with pytest.raises(NodeError, match=r"its workdir is .* builds need a plain absolute path"):
        await probe(LocalTransport(os.environ), workdir=workdir)


async def test_a_home_that_a_shell_would_read_needs_a_workdir(tmp_path: Path) -> None:
    home = tmp_path / "my home"
    home.mkdir()
    transport = LocalTransport(os.environ | {"HOME": str(home)})
    with pytest.raises(NodeError, match="its workdir is"):
        await probe(transport)
    assert (await probe(transport, workdir=f"{tmp_path}/work")).home == str(home)


async def test_a_folder_that_others_may_change_is_refused(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(NodeError, match="everybody may write to it"):
        await probe(LocalTransport(os.environ), workdir=str(shared))


async def test_a_workdir_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(NodeError, match="cannot make the workdir") as refused:
        await probe(LocalTransport(os.environ), workdir=f"{tmp_path}/file/work")
    assert refused.value.hint is not None


async def test_a_node_that_answers_nonsense_is_a_node_error() -> None:
    class Nonsense(LocalTransport):
        async def open(self, script: str, *args: str):  # type: ignore[no-untyped-def]  # noqa: ANN202 -- as the parent's
            del script
            return await super().open("echo welcome; echo 'no shell here' >&2", *args)

    with pytest.raises(NodeError, match="did not say what it is: no shell here"):
        await probe(Nonsense(os.environ))


def test_a_path_keeps_absolute_folders_once() -> None:
    assert _absolute_once("/b:.:/a::/b:bin") == "/b:/a"


def test_numbers_that_are_none_are_unknown() -> None:
    from datetime import UTC, datetime  # noqa: PLC0415 -- the only use

    facts = _facts({"workdir": "/w", "cpus": "many", "memory_bytes": "1024"}, datetime.now(UTC))
    assert (facts.cpus, facts.memory_bytes) == (None, 1024)
