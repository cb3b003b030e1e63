"""A binary is replaced while it runs and is started; two installers work at the same time."""

from __future__ import annotations

import re
import subprocess
import threading
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import pytest

from tests.installer_site import PROJECT, Host, Server, Site, said, serve
from tests.life.programs import Program, compile_all, publish
from tests.shells import needs_shell

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [needs_shell("curl"), needs_shell("rustc")]

_HAMMERS: Final = 2
_BURNERS: Final = 2
_MOVE: Final = 'mv -f "$unpacked/$binary" "$bin_dir/$binary"'


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from serve(tmp_path_factory.mktemp("server"))


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> list[Program]:
    return compile_all(tmp_path_factory.mktemp("programs"))


@pytest.fixture
def site(server: Server, programs: list[Program]) -> Site:
    site = server.site()
    publish(site, programs)
    return site


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(root=tmp_path / "host")


@dataclass(kw_only=True)
class Crowd:
    """Processes that use a binary until they are told to end, by the end of their input."""

    stack: ExitStack
    binary: Path
    programs: list[Program]
    stayers: list[tuple[subprocess.Popen[str], str]] = field(default_factory=list)

    def start(self, file: Path, *words: str) -> subprocess.Popen[str]:
        return self.stack.enter_context(
            subprocess.Popen(
                [file, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        )

    def gather(self, folder: Path) -> list[subprocess.Popen[str]]:
        """Start what burns the CPU and what starts the binary over and over; return the latter."""
        elsewhere = folder / "elsewhere"
        elsewhere.write_bytes(self.programs[0].file.read_bytes())
        elsewhere.chmod(0o755)
        for _ in range(_BURNERS):
            self.start(elsewhere, "burn")
        lines = [program.line for program in self.programs]
        return [self.start(elsewhere, "hammer", str(self.binary), *lines) for _ in range(_HAMMERS)]

    def stay(self) -> None:
        """Start one that stays while its file is replaced."""
        process = self.start(self.binary, "stay")
        assert process.stdout is not None
        self.stayers.append((process, process.stdout.readline()))

    def ask(self) -> Iterator[bool]:
        """Ask all that have stayed, and yield whether each still is what it was."""
        for process, line in self.stayers:
            out, _ = process.communicate("who are you?\n")
            yield out == line and process.returncode == 0


def replace_often(host: Host, site: Site, programs: list[Program], *, times: int) -> list[str]:
    """Upgrade and downgrade in turn, in a crowd; return everything that was wrong."""
    wrong: list[str] = []
    with ExitStack() as stack:
        crowd = Crowd(stack=stack, binary=host.binary, programs=programs)
        assert host.run(site.script, "--version", programs[1].version).returncode == 0
        hammers = crowd.gather(host.root)
        for time in range(times):
            if time % 10 == 0:
                crowd.stay()
            wanted = programs[time % 2]
            result = host.run(site.script, "--version", wanted.version)
            if result.returncode != 0:
                wrong.append(said(result))
            if host.binary.read_bytes() != wanted.file.read_bytes():
                wrong.append(f"{wanted.version} is not there")
        started: Counter[int] = Counter()
        for hammer in hammers:
            out, _ = hammer.communicate()
            *bad, counts = out.splitlines()
            wrong += bad
            started.update(dict(enumerate(map(int, counts.strip("[]").split(", ")))))
        assert len(crowd.stayers) == -(-times // 10)
        wrong += ["one that stayed is another now" for is_well in crowd.ask() if not is_well]
    # Both were met, or the crowd was not there.
    assert wrong or min(started[0], started[1]) > 0
    return wrong


@pytest.mark.thorough
def test_a_binary_is_whole_at_every_moment_of_every_replacement(
    site: Site, host: Host, programs: list[Program]
) -> None:
    assert replace_often(host, site, programs, times=100) == []
    assert [path.name for path in host.bin.iterdir()] == [PROJECT]


@pytest.mark.thorough
def test_a_script_that_leaves_a_gap_or_writes_into_the_file_is_found(
    site: Site, host: Host, programs: list[Program]
) -> None:
    assert site.script.count(_MOVE) == 1
    host.provide("cp")
    for instead, sign in (
        # A moment without it, and one with a part of it.
        (
            'rm -f "$bin_dir/$binary" && cp "$unpacked/$binary" "$bin_dir/$binary"',
            "wrong: ",
        ),
        # Into the file that runs.
        ('cat "$unpacked/$binary" >"$bin_dir/$binary"', "ext file busy"),
    ):
        site.__dict__["script"] = site.script.replace(_MOVE, instead)
        wrong = replace_often(host, site, programs, times=4)
        del site.__dict__["script"]
        assert any(sign in line for line in wrong), wrong


_LINE: Final = {
    "#orchestrator-receipt": r"1",
    "version": r"[12]\.0\.0",
    "target": r"x86_64-unknown-linux-gnu",
    "serial": r"7",
    "channel": r"stable",
    "bin": r"/.*/bin",
    "require_signature": r"no",
    "archive": r"[0-9a-f]{64}",
    "keys_serial": r"\d+",
    "sha256": r"[0-9a-f]{64} /.*/tool",
    "file": r"/.*/tool",
    "rc": r"(created|newline|appended) /.*",
    "made": r"/.*",
}


def assert_whole(receipt: Path) -> None:
    text = receipt.read_text()
    assert text.endswith("\n")
    words = [line.partition(" ") for line in text.splitlines()]
    for key, _, value in words:
        assert re.fullmatch(_LINE[key], value), text
    assert {*_LINE} - {key for key, _, _ in words} <= {"keys_serial", "rc", "made"}, text


def install_at_once(host: Host, site: Site, programs: list[Program]) -> None:
    results: list[subprocess.CompletedProcess[str]] = []

    def install(version: str) -> None:
        result = host.run(site.script, "--version", version, env={"SHELL": "/bin/bash"})
        results.append(result)

    threads = [threading.Thread(target=install, args=(each.version,)) for each in programs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.returncode for result in results] == [0, 0], [*map(said, results)]


@pytest.mark.thorough
def test_two_installers_at_once_leave_one_whole_version_that_can_be_removed(
    site: Site, tmp_path: Path, programs: list[Program]
) -> None:
    for number in range(20):
        host = Host(root=tmp_path / str(number))
        rc = (None, "# mine\n", "# mine, without a line break")[number % 3]
        if rc is not None:
            (host.home / ".bashrc").write_text(rc)
        before = host.tree()
        install_at_once(host, site, programs)
        assert [path.name for path in host.bin.iterdir()] == [PROJECT]
        assert host.binary.read_bytes() in [each.file.read_bytes() for each in programs]
        assert not list(host.temporary.iterdir())
        assert [path.name for path in host.receipt.parent.iterdir()] == ["receipt"]
        assert_whole(host.receipt)
        assert (host.home / ".bashrc").read_text().count("# added by") == 1
        removed = host.run(site.script, "--uninstall")
        assert removed.returncode == 0, said(removed)
        assert host.tree() == before
