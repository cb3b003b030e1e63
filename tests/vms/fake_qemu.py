"""A program in the place of QEMU: it takes its command line, speaks QMP, and has a real sshd.

FAKE_QEMU says what is wrong with it, in words: `dies` ends at once, `silent` is up without sshd,
`waits` has one as soon as there is a file `up`, `plain` only with the cautious CPU, `stranger` has
another host key, `deaf` ends for SIGKILL alone. `ready` says that it is finished, `own` names the
fingerprint of a stranger's key on its serial line and takes the seed's when it is told to. With a
medium it is OpenBSD's installer, which with `mute` asks nothing, and with `broken` does not work.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

from orchestrator.core.vm_seed import READY_LINE
from tests.nodes.sshd import SSHD

MOOD = os.environ.get("FAKE_QEMU", "").split()
# What comes over SSH is written down and not run: `poweroff` would switch off the machine.
TYPED = Path("typed")
_PR_SET_PDEATHSIG = 1


def main(words: list[str]) -> int:  # noqa: C901 -- one mood after the other
    with Path("starts").open("a") as starts:
        starts.write(f"{option(words, '-cpu')}\n")
    if "dies" in MOOD:
        sys.stderr.write("qemu: Could not set up host forwarding rule\n")
        return 1
    Path(option(words, "-pidfile")).write_text(f"{os.getpid()}\n")
    TYPED.write_text("")
    Path("serial.log").write_text("Linux version 6.1\nReached target Network\n")
    monitor = listen("monitor.sock")
    console = listen("console.sock")
    if any("id=medium" in word for word in words):
        return install_system(console)
    if "deaf" in MOOD:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    port = int(option(words, "-netdev").rpartition("tcp:127.0.0.1:")[2].partition("-")[0])
    server: subprocess.Popen[bytes] | None = None
    try:
        while "poweroff" not in TYPED.read_text():
            if server is None and is_up(words):
                server = serve_ssh(port, has_own_key="stranger" in MOOD)
            if server and is_re_keyed():
                server.kill()
                server.wait()
                server = serve_ssh(port, has_own_key=False)
            if has_to_end(monitor):
                return 0
            echo(console)
        return 0
    finally:
        if server:
            server.kill()
            server.wait()


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


def listen(path: str) -> socket.socket:
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()
    server.settimeout(0.05)
    return server


def is_up(words: list[str]) -> bool:
    if "silent" in MOOD or ("plain" in MOOD and option(words, "-cpu") != "qemu64"):
        return False
    return "waits" not in MOOD or Path("up").exists()


def is_re_keyed() -> bool:
    if "own" not in MOOD or "provision.sh" not in TYPED.read_text():
        return False
    MOOD.remove("own")
    return True


def tell(text: str) -> None:
    with Path("serial.log").open("a") as log:
        log.write(text)


def install_system(console: socket.socket) -> int:
    """Ask like a boot loader and an installer, take what is typed, and end when it is done."""
    console.settimeout(10)
    link, _ = console.accept()
    with link, link.makefile("r", newline="\r") as typed:
        if "mute" in MOOD:
            return 0
        for prompt, answer in (
            ("\x1b[2;1Hboot> ", "set tty com0"),
            ("\nswitching console\nboot> ", "boot"),
            ("\ndmesg\n(I)nstall or (S)hell? root on rd0a\n", "s"),
            ("\n# ", "sh /seed/install.sh"),
        ):
            tell(prompt)
            said = typed.readline().rstrip("\r")
            tell(said)
            if answer not in said:
                return 1
        if "broken" in MOOD:
            tell("\nmount: no such disk\n# ")
            typed.readline()
            return 1
        disk = Path("disk.qcow2")
        disk.write_bytes(disk.read_bytes() + b"installed")
        return 0


def serve_ssh(port: int, *, has_own_key: bool) -> subprocess.Popen[bytes]:
    assert SSHD is not None
    here = Path.cwd()
    key = here / "ssh_host_ed25519_key"
    if has_own_key:
        key = here / "stranger"
        key.unlink(missing_ok=True)
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
        subprocess.run(command, check=True)
        if "own" in MOOD:
            command = ["ssh-keygen", "-l", "-f", f"{key}.pub"]
            tell(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    if "ready" in MOOD:
        tell(f"{READY_LINE}\n")
    Path("sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {key}\nStrictModes no\nPidFile none\n"
        f"AuthorizedKeysFile {here}/client-key.pub\nPermitRootLogin prohibit-password\n"
        f"ForceCommand cat >>{here}/{TYPED}\n"
    )
    return subprocess.Popen(
        [SSHD, "-D", "-e", "-f", str(here / "sshd_config")],
        stderr=subprocess.DEVNULL,
        # What is killed takes its sshd along; this program has no threads.
        preexec_fn=lambda: ctypes.CDLL(None).prctl(  # noqa: PLW1509
            _PR_SET_PDEATHSIG, signal.SIGKILL
        ),
    )


def has_to_end(monitor: socket.socket) -> bool:
    try:
        link, _ = monitor.accept()
    except TimeoutError:
        return False
    with link, link.makefile("rw") as talk:
        say(talk, {"QMP": {"version": {}, "capabilities": []}})
        for line in talk:
            command = json.loads(line)["execute"]
            if command == "query-status":
                say(talk, {"event": "RTC_CHANGE"})
                say(talk, {"return": {"status": "running"}})
            else:
                say(talk, {"return": {}})
            if command in {"quit", "system_powerdown"} and "deaf" not in MOOD:
                return True
    return False


def say(talk: object, message: object) -> None:
    print(json.dumps(message), file=talk, flush=True)  # type: ignore[call-overload]


def echo(console: socket.socket) -> None:
    try:
        link, _ = console.accept()
    except TimeoutError:
        return
    with link:
        link.sendall(b"login: ")
        link.settimeout(10)
        link.sendall(link.recv(100).upper())


def install(folder: Path, architecture: str = "x86_64") -> None:
    """Put it into a folder for PATH."""
    folder.mkdir(exist_ok=True)
    program = folder / f"qemu-system-{architecture}"
    top = Path(__file__).parents[2]
    program.write_text(
        f'#!/bin/sh\nPYTHONPATH={top} exec {sys.executable} {Path(__file__).resolve()} "$@"\n'
    )
    program.chmod(0o755)
    assert shutil.which(program.name, path=str(folder))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
