"""Small systems to install on: Debian suites from this machine's mirror, and BusyBox alone.

What is made of packages is kept in the cache folder of whoever runs this, so that it is made once.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.conftest import HOME

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    # Mode, owner, group, and the content: a digest, the end of a link, the number of a device.
    Entry = tuple[int, int, int, str]

PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
USER: Final = "player"
USER_ID: Final = 1000

# From new to old; the first that the mirror has stands for an older system.
OLDER_SUITES: Final = ("bullseye", "buster")

# Nobody reads these there.
_LEFT_OUT: Final = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")


@dataclass(frozen=True, slots=True)
class Root:
    """A system in a folder."""

    folder: Path
    # Digests of files, by what changes whenever somebody writes to them.
    _digests: dict[tuple[int, int, int], str] = field(default_factory=dict)

    def run(
        self, command: str, *, user: str = "root", stdin: str = "", patience: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a line with the system's own `sh`; `patience` is in seconds.

        Its processes and the one mount that they need are gone when it ends, however it ends.
        """
        who = 0 if user == "root" else USER_ID
        home = "/root" if user == "root" else f"/home/{user}"
        # The network stays the machine's: servers listen on its loopback.
        alone = ["--mount", "--pid", "--fork", "--kill-child", "--propagation=private"]
        # The first process stays root: who becomes another user forgets to die with his parent.
        first = ["/bin/sh", "-c", '"$@"; exit $?', "sh"]
        # `cd` in that line: `chroot` goes to /, where not everybody may write.
        argv = [
            *("unshare", *alone, f"--mount-proc={self.folder}/proc", *first),
            *("chroot", f"--userspec={who}:{who}", "--groups=", str(self.folder)),
            *("/bin/sh", "-c", f"cd && {command}"),
        ]
        shell = "/bin/bash" if (self.folder / "bin/bash").exists() else "/bin/sh"
        environment = {"HOME": home, "PATH": PATH, "SHELL": shell, "USER": user}
        found = shutil.which("unshare")
        assert found is not None
        return subprocess.run(
            argv,
            executable=found,
            input=stdin,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=patience,
        )

    def tree(self) -> dict[str, Entry]:
        """Return everything that is in it."""
        found = {}
        for top, folders, files in os.walk(self.folder):
            for name in (*folders, *files):
                path = Path(top, name)
                found[str(path.relative_to(self.folder))] = self._entry(path)
        return found

    def _entry(self, path: Path) -> Entry:
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            content = str(path.readlink())
        elif stat.S_ISREG(status.st_mode):
            key = (status.st_ino, status.st_ctime_ns, status.st_size)
            if key not in self._digests:
                self._digests[key] = hashlib.sha256(path.read_bytes()).hexdigest()
            content = self._digests[key]
        else:
            content = str(status.st_rdev)
        return status.st_mode, status.st_uid, status.st_gid, content

    def home(self, user: str) -> Path:
        return self.folder / ("root" if user == "root" else f"home/{user}")


# Debian


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a Debian system is made of, beside the packages that each one has."""

    suites: tuple[str, ...]
    packages: tuple[str, ...] = ()

    def made(self) -> Path:
        """Return its archive in the cache; make it of the first of the suites that there is."""
        complaints = []
        for suite in self.suites:
            kept = self._kept(suite)
            if kept.exists():
                return kept
            kept.parent.mkdir(parents=True, exist_ok=True)
            partial = kept.with_suffix(f".{os.getpid()}.tar")
            try:
                complaint = self._make(suite, partial)
                if complaint is None:
                    partial.replace(kept)
                    return kept
            finally:
                partial.unlink(missing_ok=True)
            complaints.append(f"{suite}: {complaint}")
        raise AssertionError("; ".join(complaints))

    def _kept(self, suite: str) -> Path:
        name = "+".join((suite, *self.packages))
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path(HOME, ".cache"))
        return cache / "orchestrator-test-roots" / f"{name}.tar"

    def _make(self, suite: str, archive: Path) -> str | None:
        """Return what is wrong, in the words of the tool."""
        ended = subprocess.run(
            [
                *("unshare", "--mount", "--propagation=private", "--fork", "--kill-child"),
                *("mmdebstrap", "--quiet", "--mode=root", "--variant=essential"),
                # An older suite is not signed again.
                '--aptopt=Acquire::Check-Valid-Until "false"',
                *(f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT),
                *(f"--include={package}" for package in self.packages),
                '--customize-hook=rm -f "$1/etc/apt/sources.list"',
                *(suite, archive, mirror()),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        return None if ended.returncode == 0 else ended.stderr[-500:].strip()


def mirror() -> str:
    """Return where this machine's own packages come from."""
    form = "$(LABEL) $(REPO_URI)"
    told = subprocess.run(
        ["apt-get", "indextargets", "--format", form, "Created-By: Packages"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    mirrors = [line.split()[1] for line in told.splitlines() if line.startswith("Debian ")]
    assert mirrors, "apt on this machine knows no mirror of Debian: run apt-get update"
    return mirrors[0]


@contextmanager
def debian(archive: Path, folder: Path) -> Iterator[Root]:
    """Yield a system of its own, with one user in it; it is removed at the end."""
    folder.mkdir()
    try:
        subprocess.run(
            ["tar", "--extract", f"--file={archive}", f"--directory={folder}", "--numeric-owner"],
            check=True,
        )
        root = Root(folder)
        with (folder / "etc/passwd").open("a") as passwd:
            passwd.write(f"{USER}:x:{USER_ID}:{USER_ID}::/home/{USER}:/bin/bash\n")
        shutil.copytree(folder / "etc/skel", root.home(USER))
        _give(root.home(USER))
        yield root
    finally:
        shutil.rmtree(folder)


# BusyBox


@contextmanager
def busybox(
    folder: Path, *, shell: str = "busybox", without: Sequence[str] = (), bare: bool = False
) -> Iterator[Root]:
    """Yield a system whose only program is a static BusyBox; it is removed at the end.

    `shell` is another static program to be its `sh`: one that takes no tool for granted. Then
    `without` says which tools are left out; `bare` leaves out all but printf, which most shells
    have built in.
    """
    root = Root(folder)
    try:
        for name in ("bin", "etc", "proc", "root", "tmp", "usr/local", f"home/{USER}"):
            (folder / name).mkdir(parents=True)
        (folder / "tmp").chmod(0o1777)
        (folder / "etc/passwd").write_text(
            f"root:x:0:0::/root:/bin/sh\n{USER}:x:{USER_ID}:{USER_ID}::/home/{USER}:/bin/sh\n"
        )
        # The one device that a shell cannot do without.
        (folder / "dev").mkdir()
        os.mknod(folder / "dev/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        (folder / "dev/null").chmod(0o666)
        _give(root.home(USER))
        program = folder / "bin/busybox"
        shutil.copy2(_static("busybox"), program)
        listed = subprocess.run([program, "--list"], check=True, capture_output=True, text=True)
        for applet in listed.stdout.split():
            is_there = applet == "printf" if bare else applet not in (*without, "busybox", "sh")
            if is_there:
                (folder / "bin" / applet).symlink_to("busybox")
        shutil.copy2(_static(shell), folder / "bin/sh")
        yield root
    finally:
        shutil.rmtree(folder)


def _static(name: str) -> str:
    found = shutil.which(name)
    assert found is not None, f"there is no {name} here"
    return found


def _give(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        os.chown(path, USER_ID, USER_ID)
