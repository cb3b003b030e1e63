from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.errors import NodeError
from orchestrator.nodes.local import LocalProcess, LocalTransport
from orchestrator.nodes.probe import _absolute_once, _facts, _inodes_free, probe
from orchestrator.nodes.transport import shell_words, wrap
from tests.nodes.bench import ShellTransport
from tests.shells import shell_params

if TYPE_CHECKING:
    from collections.abc import Mapping


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
    assert facts.linker == shutil.which("cc")
    assert facts.inodes_free == pytest.approx(os.statvfs(facts.workdir).f_favail, rel=0.1)
    assert facts.host_triple in facts.rust_targets
    assert (facts.workdir_runs_programs, facts.tmp_runs_programs) == (True, True)
    assert list(Path(facts.workdir).iterdir()) == []
    assert facts.clock_offset is not None
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
    assert facts.rust_targets == ()
    assert facts.cpus is None
    assert facts.glibc is None
    assert facts.disk_free_bytes is None
    assert facts.hostname is None
    assert facts.system == ""


@pytest.mark.parametrize(
    ("mounted", "allows"), [("ffs, local, nodev, wxallowed", True), ("ffs, local, nodev", False)]
)
async def test_openbsd_says_whether_jits_can_run(
    tmp_path: Path, mounted: str, *, allows: bool
) -> None:
    tools = tmp_path / "home/.cargo/bin"
    tools.mkdir(parents=True)
    (tools / "uname").write_text("#!/bin/sh\necho OpenBSD\n")
    (tools / "df").write_text("#!/bin/sh\necho head; echo '/dev/sd0k 9 1 8 1% /home'\n")
    (tools / "mount").write_text(
        f"#!/bin/sh\necho '/dev/sd0a on / type ffs (local)'\n"
        f"echo '/dev/sd0k on /home type ({mounted})'\n"
    )
    for tool in tools.iterdir():
        tool.chmod(0o755)
    facts = await probe(LocalTransport(os.environ | {"HOME": str(tmp_path / "home")}))
    assert facts.allows_wx is allows


async def test_a_cargo_that_logins_do_not_find_is_told(tmp_path: Path) -> None:
    tools = tmp_path / "home/.cargo/bin"
    tools.mkdir(parents=True)
    (tools / "cargo").write_text("#!/bin/sh\necho 'cargo 1.95.0 (f2d3ce0bd 2026-03-21)'\n")
    (tools / "cargo").chmod(0o755)
    environment = {"HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin", "SHELL": "/bin/csh"}
    facts = await probe(LocalTransport(environment))
    assert (facts.cargo_path, facts.login_finds_cargo) == (f"{tools}/cargo", False)
    assert facts.login_shell == "/bin/csh"


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
    facts = _facts({"workdir": "/w", "cpus": "many", "memory_bytes": "1024"}, datetime.now(UTC))
    assert (facts.cpus, facts.memory_bytes) == (None, 1024)


@pytest.mark.parametrize("shell", shell_params())
async def test_every_shell_says_the_same(shell: str, tmp_path: Path) -> None:
    path = tmp_path / "sh"
    path.symlink_to(shutil.which(shell) or "")
    said = await probe(ShellTransport(str(path)), workdir=f"{tmp_path}/work")
    known = await probe(LocalTransport(os.environ), workdir=f"{tmp_path}/work")
    changing = ("disk_free_bytes", "inodes_free", "clock_offset")
    # busybox has its own tar and sha256sum, and calls them by their names.
    changing = (*changing, *(("tar", "hash_tool") if shell == "busybox" else ()))
    assert replace(said, **{name: getattr(known, name) for name in changing}) == known
    assert said.tar
    assert said.hash_tool


@pytest.mark.parametrize(
    ("system", "row", "free"),
    [
        ("Linux", b"/dev/vda       16777216 491192 16286024    3% /", 16286024),
        ("Linux, btrfs", b"/dev/sdb1             0      0        0     - /home", None),
        ("Linux, FAT", b"/dev/sdb1             0      0        0    0% /media/my stick", None),
        ("Linux, full", b"tmpfs            4096   4096        0  100% /tmp", 0),
        (
            "Linux, NFS",
            b"nas.example.org:/export/with a space/build 9999 1 9998 1% /mnt/build",
            9998,
        ),
        ("FreeBSD", b"/dev/ada0p2 19801500 1529140 16688240 8% 27366 2542744 1%   /", 2542744),
        ("FreeBSD, ZFS", b"zroot/home 901120 96 901024 0% 7 1802048 0%   /home", 1802048),
        ("FreeBSD, FAT", b"/dev/da0s1 1024 512 512 50% 0 0 100%   /mnt", None),
        (
            "FreeBSD, over its limit",
            b"/dev/ada0p2 1980 1980 -158 109% 27366 2542744 1%   /",
            2542744,
        ),
        (
            "OpenBSD",
            b"/dev/sd0k     31108478   3187020  26366036    11%  118113 1921309     6%   /home",
            1921309,
        ),
        (
            "NetBSD",
            b"/dev/ld4a     29801500   4529140  23782288    16%    76811 3697395     2% /",
            3697395,
        ),
        (
            "macOS",
            b"/dev/disk3s5 971350180 612345678 330123456 65% 4294967 3301234560 0% /System/Data",
            3301234560,
        ),
        ("macOS, a map", b"map auto_home 0 0 0 100% 0 0 100% /System/Volumes/home", None),
        ("no df", b"", None),
    ],
)
def test_free_inodes_are_found_in_each_system_s_own_words(
    system: str, row: bytes, free: int | None
) -> None:
    assert _inodes_free(row.decode() + " ") == free, system


class Namespace(LocalTransport):
    """This machine with other mounts: `start` makes them and then starts the script, "$@"."""

    def __init__(self, start: str, environment: Mapping[str, str] = os.environ) -> None:
        super().__init__(environment)
        self._script = f"set -e\n{start}"

    async def open(self, script: str, *args: str) -> LocalProcess:
        words = ("unshare", "-rm", "sh", "-c", self._script, "sh", *shell_words(args))
        return LocalProcess(*self._start(words, wrap(script)))


def can_mount() -> bool:
    inner = ["unshare", "-U", "--map-user=1000", "mount", "--version"]
    words = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs none /mnt && exec "$@"', "sh", *inner]
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


needs_namespaces = pytest.mark.skipif(not can_mount(), reason="needs user namespaces")


@needs_namespaces
async def test_where_nothing_can_be_started_is_said(tmp_path: Path) -> None:
    mount = 'mount -t tmpfs -o noexec,mode=700 none {}\nexec "$@"'
    work = tmp_path / "work"
    work.mkdir()
    facts = await probe(Namespace(mount.format(work)), workdir=str(work))
    assert (facts.workdir_runs_programs, facts.tmp_runs_programs) == (False, True)
    facts = await probe(Namespace(mount.format("/tmp")), workdir="/tmp/work")
    assert (facts.workdir_runs_programs, facts.tmp_runs_programs) == (False, False)


@needs_namespaces
@pytest.mark.parametrize(
    ("answer", "lingers", "kills"),
    [
        ("b true", False, True),
        ("b true", True, False),
        ("b false", False, False),
        ("Failed to connect to bus", False, None),
    ],
)
async def test_a_system_that_ends_what_a_login_left_is_said_to(
    answer: str, *, lingers: bool, kills: bool | None, tools: Path
) -> None:
    put(tools, "busctl", f"echo '{answer}'")
    (tools.parent / "linger").mkdir()
    (tools.parent / "linger" / ("builder" if lingers else "other")).touch()
    put(tools, "id", "case $1 in -un) echo builder ;; *) exec /usr/bin/id $1 ;; esac")
    start = f"""\
mount -t tmpfs none /run
mkdir -p /run/systemd/system
mount -t tmpfs none /var/lib
mkdir -p /var/lib/systemd
ln -s {tools.parent}/linger /var/lib/systemd/linger
exec unshare -U --map-user=1000 "$@"
"""
    home = str(tools.parent.parent)
    facts = await probe(Namespace(start, os.environ | {"HOME": home}))
    assert facts.kills_processes is kills


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """The folder that comes first in the PATH of a login in `tmp_path`/home."""
    folder = tmp_path / "home/.cargo/bin"
    folder.mkdir(parents=True)
    return folder


def put(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def login(tools: Path) -> LocalTransport:
    return LocalTransport(os.environ | {"HOME": str(tools.parent.parent)})


async def test_the_compiler_of_a_mac_counts_when_apple_s_tools_are_there(tools: Path) -> None:
    put(tools, "uname", "echo Darwin")
    put(tools, "cc", "")
    put(tools, "xcode-select", "exit 2")
    assert (await probe(login(tools))).linker is None
    put(tools, "xcode-select", "echo /Library/Developer/CommandLineTools")
    assert (await probe(login(tools))).linker == str(tools / "cc")


async def test_a_node_whose_clock_is_wrong_or_unknown(tools: Path) -> None:
    put(tools, "date", "echo $(($(/bin/date +%s) + 3600))")
    offset = (await probe(login(tools))).clock_offset
    assert offset is not None
    assert abs(offset + timedelta(hours=1)) <= timedelta(seconds=10)
    put(tools, "date", "exit 1")
    assert (await probe(login(tools))).clock_offset is None


async def test_a_limit_of_memory_is_the_one_that_cannot_be_raised() -> None:
    class Limited(LocalTransport):
        async def open(self, script: str, *args: str) -> LocalProcess:
            return await super().open(f"ulimit -d 1572864\n{script}", *args)

    facts = await probe(Limited(os.environ))
    assert facts.data_limit_bytes == 1536 * 1024**2


def test_a_claim_is_a_yes_a_no_or_nothing() -> None:
    for said, claim in (("yes", True), ("no", False), ("perhaps", None)):
        facts = _facts({"workdir": "/w", "kills_processes": said}, datetime.now(UTC))
        assert facts.kills_processes is claim
