"""What install.sh puts where, and what it says to whom."""

from __future__ import annotations

import os
import pty
import random
import shutil
import subprocess
from typing import TYPE_CHECKING, Final

import pytest

from tests.installer_hosts import on_bsd
from tests.installer_site import Host, Server, Site, assert_untouched, needs, said, serve, uname

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EXTRAS: Final = {
    "tool.1": b".TH tool 1\n",
    "tool-run.8": b".TH tool-run 8\n",
    "tool.bash": b"complete tool\n",
    "_tool": b"#compdef tool\n",
    "tool.fish": b"complete -c tool\n",
    "LICENSE": b"MIT\n",
    "README.md": b"# tool\n",
}
PLACES: Final = {
    "man/man1/tool.1": "tool.1",
    "man/man8/tool-run.8": "tool-run.8",
    "bash-completion/completions/tool": "tool.bash",
    "zsh/site-functions/_tool": "_tool",
    "fish/vendor_completions.d/tool.fish": "tool.fish",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from serve(tmp_path_factory.mktemp("server"))


@pytest.fixture
def site(server: Server) -> Site:
    return server.site()


@pytest.fixture
def published(site: Site) -> Site:
    site.add("1.0.0", extras=EXTRAS)
    site.publish()
    return site


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(root=tmp_path / "host")


def share(host: Host) -> Path:
    return host.home / ".local/share"


# Completions and manual pages


def test_completions_and_manual_pages_get_their_places(published: Site, host: Host) -> None:
    before = host.tree()
    result = host.run(published.script)
    assert result.returncode == 0, said(result)
    found = {
        str(file.relative_to(share(host))): file.read_bytes()
        for file in share(host).rglob("*")
        if file.is_file()
    }
    assert found == {place: EXTRAS[name] for place, name in PLACES.items()}
    assert (share(host) / "man/man1/tool.1").stat().st_mode & 0o777 == 0o644
    assert f"added {share(host)}/man/man1/tool.1\n" in result.stderr
    assert result.stderr.endswith(f"installed tool 1.0.0 to {host.binary}\n")
    assert [path.name for path in host.bin.iterdir()] == ["tool"]
    assert host.run(published.script).returncode == 0
    assert host.run(published.script, "--uninstall").returncode == 0
    assert host.tree() == before


def test_uninstall_takes_no_version(published: Site, host: Host) -> None:
    assert host.run(published.script).returncode == 0
    before = host.tree()
    refused = host.run(published.script, "--uninstall", "--version", "0.9.0")
    assert refused.returncode == 2
    assert "--uninstall removes everything" in refused.stderr
    assert host.tree() == before


def test_who_uses_csh_is_told_its_own_command(published: Site, host: Host) -> None:
    result = host.run(published.script, env={"SHELL": "/bin/tcsh"})
    assert f': open a new one, or run: setenv PATH "{host.bin}:$PATH"\n' in result.stderr
    elsewhere = host.home / "opt/bin"
    hint = host.run(published.script, "--no-modify-path", "--prefix", str(elsewhere.parent))
    assert f'{elsewhere} is not on PATH: run: export PATH="{elsewhere}:$PATH"\n' in hint.stderr


def test_an_upgrade_replaces_them(site: Site, host: Host) -> None:
    site.add("1.0.0", extras={"tool.1": b"old"})
    site.publish()
    before = host.tree()
    assert host.run(site.script).returncode == 0
    site.rows.clear()
    site.add("2.0.0", extras={"tool.1": b"new", "tool.fish": b"fish"})
    site.publish()
    assert host.run(site.script).returncode == 0
    assert (share(host) / "man/man1/tool.1").read_bytes() == b"new"
    assert (share(host) / "fish/vendor_completions.d/tool.fish").read_bytes() == b"fish"
    assert host.run(site.script, "--uninstall").returncode == 0
    assert host.tree() == before


def test_a_file_of_somebody_else_is_left_alone(published: Site, host: Host) -> None:
    page = share(host) / "man/man1/tool.1"
    page.parent.mkdir(parents=True)
    page.write_text("mine")
    link = share(host) / "zsh/site-functions/_tool"
    link.parent.mkdir(parents=True)
    link.symlink_to("nowhere")
    before = host.tree()
    result = host.run(published.script)
    assert result.returncode == 0
    assert page.read_text() == "mine"
    assert f"left {page} as it is" in result.stderr
    assert link.is_symlink()
    assert (share(host) / "man/man8/tool-run.8").exists()
    assert host.run(published.script, "--uninstall").returncode == 0
    assert host.tree() == before


def test_a_place_that_cannot_be_made_is_no_reason_to_fail(published: Site, host: Host) -> None:
    share(host).parent.mkdir(parents=True)
    share(host).write_text("a file in the way")
    before = host.tree()
    result = host.run(published.script)
    assert result.returncode == 0, said(result)
    assert host.binary.exists()
    assert host.run(published.script, "--uninstall").returncode == 0
    assert host.tree() == before


def test_beside_a_destination_of_another_name_there_is_no_place(
    published: Site, host: Host
) -> None:
    result = host.run(published.script, env={"XDG_BIN_HOME": f"{host.home}/programs"})
    assert result.returncode == 0, said(result)
    assert not (host.home / "share").exists()
    assert not share(host).exists()
    assert [path.name for path in (host.home / "programs").iterdir()] == ["tool"]


def test_without_a_receipt_they_are_not_placed(published: Site, host: Host) -> None:
    (host.home / ".config").write_text("in the way")
    assert host.run(published.script).returncode == 0
    assert host.binary.exists()
    assert not share(host).exists()


# Places that are not as one would wish


def mounted(host: Host, *commands: str, at_the_end: str = "") -> None:
    """Let the host's shell run these commands first, with mounts that nobody else sees."""
    unshare, shell = shutil.which("unshare"), shutil.which("sh")
    steps = " && ".join(commands)
    script = host.root / "mounted"
    script.write_text(
        f"all=$PATH PATH={os.environ['PATH']}\n{steps} || exit 99\n"
        f'PATH=$all {shell} "$@" || status=$?\nPATH={os.environ["PATH"]}\n'
        f"{at_the_end}\nexit ${{status:-0}}\n"
    )
    wrapper = host.root / "mount"
    wrapper.write_text(f"#!{shell}\nexec {unshare} -rm {shell} '{script}' \"$@\"\n")
    wrapper.chmod(0o755)
    host.shell = wrapper


def quoted(path: Path) -> str:
    return f'"{path}"'


@needs("unshare")
def test_a_temporary_folder_without_execution_is_enough(published: Site, host: Host) -> None:
    mounted(host, f"mount -t tmpfs -o noexec tmpfs {quoted(host.temporary)}")
    result = host.run(published.script)
    assert result.returncode == 0, said(result)
    assert host.binary.exists()


@needs("unshare")
def test_a_destination_without_execution_is_named(published: Site, host: Host) -> None:
    host.bin.mkdir(parents=True)
    mounted(host, f"mount -t tmpfs -o noexec tmpfs {quoted(host.bin)}")
    refused = assert_untouched(host, lambda: host.run(published.script))
    assert f"no program can be started in {host.bin} (is it mounted noexec?)" in refused
    assert "--prefix" in refused


@needs("unshare")
def test_a_home_that_cannot_be_written_is_named(published: Site, host: Host) -> None:
    home = quoted(host.home)
    mounted(host, f"mount --bind {home} {home}", f"mount -o remount,bind,ro {home}")
    refused = assert_untouched(host, lambda: host.run(published.script))
    assert f"cannot make the directory {host.bin}" in refused


@needs("unshare")
def test_a_full_destination_keeps_what_it_has(site: Site, host: Host) -> None:
    host.bin.mkdir(parents=True)
    noise = "".join(random.Random(1).choices("abcdefgh", k=300_000))
    site.add("1.0.0", program=f"#!/bin/sh\necho tool\nexit\n{noise}\n")
    site.publish()
    mounted(
        host,
        f"mount -t tmpfs -o size=64k tmpfs {quoted(host.bin)}",
        f"echo old >{quoted(host.binary)}",
        at_the_end=f"cat {quoted(host.binary)}; ls -A {quoted(host.bin)}",
    )
    result = host.run(site.script)
    assert result.returncode == 1, said(result)
    assert "error: cannot unpack the archive of 1.0.0" in result.stderr
    assert result.stdout.splitlines() == ["old", "tool"]
    assert not list(host.temporary.iterdir())


def test_a_home_that_is_missing_is_made_and_taken_away_again(published: Site, host: Host) -> None:
    home = host.root / "not yet" / "there"
    env = {"HOME": str(home), "XDG_BIN_HOME": ""}
    result = host.run(published.script, env=env)
    assert result.returncode == 0, said(result)
    assert (home / ".local/bin/tool").exists()
    assert host.run(published.script, "--uninstall", env=env).returncode == 0
    assert not (host.root / "not yet").exists()


def test_a_link_at_the_destination_is_replaced_and_not_followed(
    published: Site, host: Host
) -> None:
    other = host.home / "elsewhere"
    other.write_text("precious")
    host.bin.mkdir(parents=True)
    host.binary.symlink_to(other)
    assert host.run(published.script).returncode == 0
    assert not host.binary.is_symlink()
    assert other.read_text() == "precious"


def test_a_destination_behind_a_link_is_that_destination(published: Site, host: Host) -> None:
    (host.home / "real").mkdir()
    host.bin.parent.mkdir()
    host.bin.symlink_to(host.home / "real")
    before = host.tree()
    assert host.run(published.script).returncode == 0
    assert (host.home / "real/tool").exists()
    assert host.run(published.script, "--uninstall").returncode == 0
    assert host.tree() == before


# Whom it speaks to


def at_a_terminal(host: Host, script: str, **env: str) -> tuple[int, str]:
    """Run it with a terminal as its output, and return what was shown there."""
    ours, theirs = pty.openpty()
    file = host.root / "install.sh"
    file.write_text(script)
    process = subprocess.Popen(
        ["/bin/sh", str(file)],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env={
            "HOME": str(host.home),
            "PATH": str(host.shims),
            "TMPDIR": str(host.temporary),
            "SHELL": "/bin/sh",
            "TERM": "xterm",
            **env,
        },
    )
    os.close(theirs)
    shown = bytearray()
    try:
        while data := os.read(ours, 65536):
            shown += data
    except OSError:
        pass  # Linux says so at the end
    finally:
        os.close(ours)
    return process.wait(timeout=60), shown.decode().replace("\r\n", "\n")


def test_a_person_at_a_terminal_sees_colours_and_the_path_once(published: Site, host: Host) -> None:
    status, shown = at_a_terminal(host, published.script)
    assert status == 0, shown
    assert f"\n\x1b[1;32minstalled\x1b[0m tool 1.0.0 to {host.binary}\n" in shown
    assert "\x1b[1;33mwarning:\x1b[0m no key" in shown or "warning:\x1b[0m no ssh-keygen" in shown
    assert shown.count(str(host.binary)) == 1
    (published.root / "stable.idx").unlink()
    status, shown = at_a_terminal(host, published.script)
    assert status == 1
    assert "\x1b[1;31merror:\x1b[0m the index of tool" in shown


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_who_wants_no_colours_gets_none(published: Site, host: Host, env: dict[str, str]) -> None:
    status, shown = at_a_terminal(host, published.script, **env)
    assert status == 0
    assert "\x1b" not in shown


def test_a_script_gets_the_path_and_no_colours(published: Site, host: Host) -> None:
    result = host.run(published.script, env={"TERM": "xterm"})
    assert result.stdout == f"{host.binary}\n"
    assert "\x1b" not in result.stderr
    again = host.run(published.script, "--quiet")
    assert again.stdout == f"{host.binary}\n"
    refused = host.run(published.script, "--version=9.9.9")
    assert (refused.returncode, refused.stdout) == (1, "")


# CI


@pytest.mark.parametrize("value", ["", "0", "false"])
def test_who_says_that_it_is_no_ci_is_believed(published: Site, host: Host, value: str) -> None:
    assert host.run(published.script, env={"CI": value}).returncode == 0
    assert (host.home / ".profile").exists()


def test_in_ci_no_start_up_file_is_edited_and_the_next_steps_find_it(
    published: Site, host: Host
) -> None:
    steps = host.temporary / "path"
    steps.write_text("/elsewhere\n")
    result = host.run(published.script, env={"CI": "true", "GITHUB_PATH": str(steps)})
    assert result.returncode == 0, said(result)
    assert steps.read_text() == f"/elsewhere\n{host.bin}\n"
    assert not (host.home / ".profile").exists()
    # It may be a variable of another job, or none.
    result = host.run(published.script, env={"CI": "1", "GITHUB_PATH": str(host.root / "none")})
    assert result.returncode == 0, said(result)
    assert not (host.root / "none").exists()
    quiet = host.run(
        published.script, "--no-modify-path", env={"CI": "1", "GITHUB_PATH": str(steps)}
    )
    assert quiet.returncode == 0
    assert steps.read_text().count(str(host.bin)) == 1


# Root


def test_root_with_the_home_of_another_user_keeps_out_of_it(
    published: Site, host: Host, tmp_path: Path
) -> None:
    own = tmp_path / "home of root"
    own.mkdir()
    host.simulate(
        {
            "id": "echo 0",
            "getent": f"echo 'root:x:0:0:root:{own}:/bin/sh'",
            "ls": "echo 'drwx------ 5 1000 1000 4096 May 1 10:00 home'",
        }
    )
    before = host.tree()
    result = host.run(published.script, "--prefix", str(tmp_path / "opt"))
    assert result.returncode == 0, said(result)
    assert host.tree() == before
    assert (own / ".config/tool/receipt").exists()


def test_root_with_its_own_home_keeps_it(published: Site, host: Host, tmp_path: Path) -> None:
    host.simulate({"id": "echo 0", "getent": "echo root:x:0:0:root:/nonexistent:/bin/sh"})
    if os.getuid():
        host.simulate({"ls": "echo 'drwx------ 5 0 0 4096 May 1 10:00 x'"})
    result = host.run(published.script, "--prefix", str(tmp_path / "opt"))
    assert result.returncode == 0, said(result)
    assert host.receipt.exists()


# The CPU

V2: Final = "fpu cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3"
V3: Final = f"{V2} avx avx2 bmi1 bmi2 f16c fma abm movbe xsave"
V4: Final = f"{V3} avx512f avx512bw avx512cd avx512dq avx512vl"


@pytest.mark.parametrize(
    ("flags", "taken"),
    [
        ("fpu sse2", "1.0.0"),
        (V2, "2.0.0"),
        (V3.replace("movbe ", ""), "2.0.0"),
        (V3, "3.0.0"),
        (V4, "4.0.0"),
        (V4.replace("avx2 ", ""), "2.0.0"),
        (None, "4.0.0"),
    ],
)
def test_a_build_for_newer_cpus_is_for_those_only(
    site: Site, host: Host, *, flags: str | None, taken: str
) -> None:
    for level in ("4", "3", "2"):
        site.add(f"{level}.0.0", floors=f"cpu>={level},glibc>=2.17")
    site.add("1.0.0")
    site.publish()
    cpus = host.root / "cpuinfo"
    if flags is not None:
        cpus.write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: none\n\nprocessor\t: 1\n")
    result = host.run(site.script.replace("/proc/cpuinfo", str(cpus).replace(" ", "\\ ")))
    assert result.returncode == 0, said(result)
    assert subprocess.check_output([host.binary], text=True) == f"tool {taken}\n"
    if taken == "3.0.0":
        assert (
            "needs an x86-64-v4 CPU, and this one is x86-64-v3: installing 3.0.0" in result.stderr
        )


@pytest.mark.parametrize(
    ("flags", "taken"), [(V4, "v3"), (V3, "v3"), (V2, "any"), ("fpu sse2", "any"), (None, "any")]
)
def test_of_one_version_a_cpu_gets_the_build_that_is_made_for_it(
    site: Site, host: Host, *, flags: str | None, taken: str
) -> None:
    for floors, name in (("", "any"), ("cpu>=3", "v3")):
        site.add("1.0.0", floors=floors, program=f"#!/bin/sh\necho 'tool 1.0.0 {name}'\n")
    site.publish()
    cpus = host.root / "cpuinfo"
    if flags is not None:
        cpus.write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    result = host.run(site.script.replace("/proc/cpuinfo", str(cpus).replace(" ", "\\ ")))
    assert result.returncode == 0, said(result)
    assert subprocess.check_output([host.binary], text=True) == f"tool 1.0.0 {taken}\n"


def test_other_cpus_know_nothing_of_that(site: Site, host: Host) -> None:
    host.simulate({"uname": uname("Linux", "aarch64", release="6.1.0", os="GNU/Linux")})
    site.add("1.0.0", "aarch64-unknown-linux-gnu")
    site.publish()
    assert host.run(site.script).returncode == 0


# Every system has tar, and its own idea of it


def test_there_is_nothing_but_short_options_in_tar(published: Site, host: Host) -> None:
    real = shutil.which("tar")
    host.simulate(
        {
            **on_bsd("OpenBSD amd64 amd64 7.8"),
            "tar": f'case "$*" in *--*) exit 1 ;; esac; exec {real} "$@"',
        }
    )
    published.rows.clear()
    published.add("1.0.0", "x86_64-unknown-openbsd", floors="openbsd==7.8")
    published.publish()
    assert host.run(published.script).returncode == 0
