"""One case, for real: a scratch host, the piped script, and what became of both."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.installer_hosts import HASH_SHIMS, HOSTS
from tests.installer_site import PROJECT, Host
from tests.matrix.cases import BUSYBOX, NOBODY, OLD_SSH, REAL_HASHES, SHELLS, VERIFIERS
from tests.matrix.oracle import Installs, Refuses, expected
from tests.matrix.worlds import EXTRAS, NEW, OLD, PAGE, program

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.matrix.cases import Case
    from tests.matrix.worlds import World

_SERIAL: Final = "serial"
_OLD_SSH: Final = "echo 'unknown option -- Y' >&2; exit 1"
# As Debian's package names it.
_TNFTP: Final = "tnftp"
_REAL: Final = {name: shutil.which(name) for name in (*REAL_HASHES, *VERIFIERS, "curl", "wget")}


class WrongError(AssertionError):
    """What happened is not what must."""


def play(case: Case, world: World, certificate: Path) -> str:
    """Return `right` or `refused`; raise WrongError with everything that was printed."""
    with tempfile.TemporaryDirectory(prefix="matrix-") as folder:
        return _Play(case, world, Path(folder), certificate=certificate).run()


class _Play:
    def __init__(self, case: Case, world: World, folder: Path, *, certificate: Path) -> None:
        self.case = case
        self.world = world
        self.scenario = world.scenario
        self.certificate = certificate
        self.host = Host(root=folder / "host")
        self._equip()
        self.bin, self.options = self._place()

    def _equip(self) -> None:
        host, case = self.host, self.case
        host.simulate(HOSTS[case.host][0])
        host.provide_only()
        if case.hash in HASH_SHIMS:
            tool, arguments, form = HASH_SHIMS[case.hash]
            digits = f"$({_REAL['sha256sum']} | cut -c1-64)"
            host.simulate(
                {tool: f'[ "$*" = "{arguments}" ] || exit 1; printf "{form}\\n" "{digits}"'}
            )
        else:
            # shasum is a perl program that asks env for perl.
            host.provide(case.hash, *(["perl"] if case.hash == "shasum" else []))
        if case.verifier == "all":
            host.provide(*VERIFIERS[:4])
        elif case.verifier == OLD_SSH:
            host.simulate({"ssh-keygen": _OLD_SSH})
        elif case.verifier != NOBODY:
            host.provide(case.verifier)
        self._equip_fetcher()

    def _equip_fetcher(self) -> None:
        match self.case.fetcher:
            case "busybox wget":
                (self.host.shims / "wget").symlink_to(shutil.which(BUSYBOX) or "")
            case "fetch":
                curl = _REAL["curl"]
                self.host.simulate(
                    {"fetch": f'[ "$1 $2 $4" = "-q -T -o" ] && exec {curl} -sf -o "$5" "$6"'}
                )
            case "ftp":
                (self.host.shims / "ftp").symlink_to(shutil.which(_TNFTP) or "")
            case name:
                self.host.provide(name)

    def _place(self) -> tuple[Path, tuple[str, ...]]:
        home = self.host.home
        match self.case.place:
            case "prefix with a space":
                return home / "a place/bin", (f"--prefix={home}/a place",)
            case "through a link":
                (home / "real").mkdir()
                (home / "linked").symlink_to("real")
                return home / "linked/bin", ("--prefix", f"{home}/linked")
            case "home":
                return self.host.bin, ()
            case _:
                return home / "own bin", ()

    @property
    def environment(self) -> Mapping[str, str]:
        wgetrc = self.host.root / "wgetrc"
        wgetrc.write_text(f"ca_certificate = {self.certificate}\n")
        bins = {"XDG_BIN_HOME": str(self.bin)} if self.case.place == "XDG_BIN_HOME" else {}
        # BusyBox 1.35 and Python's TLS do not understand one another.
        plain = (
            {"INSTALL_BASE_URL": "\n".join(self.world.plain_urls)}
            if self.case.fetcher == "busybox wget"
            else {}
        )
        return {
            "HOME": str(self.host.home),
            "PATH": str(self.host.shims),
            "SHELL": "/bin/sh",
            "TMPDIR": str(self.host.temporary),
            "CURL_CA_BUNDLE": str(self.certificate),
            "SSL_CERT_FILE": str(self.certificate),
            "WGETRC": str(wgetrc),
            **bins,
            **plain,
        }

    def install(self, *arguments: str, script: str | None = None) -> Outcome:
        """Pipe the script into the shell of the case."""
        text = script or self.world.script
        if self.case.shell == BUSYBOX:
            text = self._for_busybox(text)
        words = [*self._shell()]
        if self.case.shell == "posh" and arguments:
            # It takes no arguments beside a script on standard input.
            file = self.host.root / "install.sh"
            file.write_text(text)
            words.append(str(file))
            words += arguments
        elif arguments:
            words += ["-s", "--", *arguments]
        ended = subprocess.run(
            words,
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            cwd=self.host.root,
            env=self.environment,
        )
        return Outcome(ended.returncode, ended.stdout, ended.stderr)

    def _shell(self) -> list[str]:
        name, *options = SHELLS[self.case.shell]
        found = shutil.which(self.case.shell.split()[0])
        assert found, f"{self.case.shell} is not here"
        if name != "sh":
            return [found, *options]
        link = self.host.root / "shell" / "sh"
        link.parent.mkdir(exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(found)
        return [str(link)]

    def _for_busybox(self, text: str) -> str:
        # It prefers its own tools to those on PATH, but a function to its own tools.
        simulated = HOSTS[self.case.host][0].keys() | {"id", "od"}
        functions = "".join(
            f"{name}() {{ '{self.host.shims}/{name}' \"$@\"; }}\n"
            for name in sorted(simulated)
            if (self.host.shims / name).exists() and "-" not in name
        )
        return functions + text

    def run(self) -> str:
        """Play it, and return how it ended."""
        clean = self.host.tree()
        wanted = expected(self.case, self.world)
        if self.scenario.before:
            self._install_before(is_known=HOSTS[self.case.host][1] is not None)
        before = self.host.tree()
        offline = ("--from", str(self.world.site.root)) if self.scenario.is_offline else ()
        outcome = self.install(*self.options, *self.scenario.arguments, *offline)
        if isinstance(wanted, Refuses):
            self._require(outcome.code == 1, "it was not refused", outcome)
            errors = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
            self._require(len(errors) == 1, "not one error", outcome)
            self._require(wanted.saying in errors[0], f"no {wanted.saying!r}", outcome)
            self._require(self.host.tree() == before, "something was changed", outcome)
            return "refused"
        self._require(outcome.code == 0, "it failed", outcome)
        if self.scenario.is_plan:
            self._require(self.host.tree() == before, "a plan changed something", outcome)
            line = f"  {wanted.version} {wanted.target}: taken"
            self._require(line in outcome.out.splitlines(), f"no {line!r}", outcome)
            return "right"
        self._require_installed(wanted, outcome)
        if self.scenario.ends_uninstalled:
            self._require_uninstalled(clean)
        return "right"

    def _install_before(self, *, is_known: bool) -> None:
        if not is_known:
            return
        version = OLD if self.scenario.before == OLD else NEW
        outcome = self.install(*self.options, "--version", version)
        self._require(outcome.code == 0, f"{version} could not be installed before", outcome)
        if self.scenario.before == _SERIAL:
            receipt = self.host.receipt
            receipt.write_text(receipt.read_text().replace("\nserial 7\n", "\nserial 99\n"))

    def _require_installed(self, wanted: Installs, outcome: Outcome) -> None:
        binary = self.bin / PROJECT
        self._require(binary.is_file(), "there is no binary", outcome)
        text = binary.read_text()
        self._require(
            text == program(wanted.version, wanted.target),
            f"not {wanted.version} {wanted.target}",
            outcome,
        )
        self._require(os.access(binary, os.X_OK), "it cannot be executed", outcome)
        left = [path.name for path in self.bin.iterdir() if path.name != PROJECT]
        self._require(not left, f"left beside it: {left}", outcome)
        self._require(not list(self.host.temporary.iterdir()), "left in TMPDIR", outcome)
        self._require(outcome.out == f"{binary}\n", "the path is not on its output", outcome)
        page = binary.parent.parent / "share" / PAGE
        is_placed = page.is_file() and page.read_bytes() == EXTRAS["tool.1"]
        self._require(
            is_placed == (binary.parent.name == "bin"), "the manual page is in no place", outcome
        )
        if "--quiet" not in self.scenario.arguments:
            last = f"{PROJECT} {wanted.version} "
            self._require(last in outcome.err, f"it does not say {last!r}", outcome)

    def _require_uninstalled(self, clean: Mapping[str, tuple[int, bytes]]) -> None:
        outcome = self.install("--uninstall")
        self._require(outcome.code == 0, "it was not uninstalled", outcome)
        self._require(self.host.tree() == clean, "uninstall left a change", outcome)

    def _require(self, holds: bool, problem: str, outcome: Outcome) -> None:  # noqa: FBT001 -- reads as `assert`
        if not holds:
            raise WrongError(
                f"{self.case}\n{problem}\nexit {outcome.code}\n{outcome.out}{outcome.err}"
            )


class Outcome:
    """How a run of the script ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err
