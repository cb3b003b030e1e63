"""A program in the place of QEMU: it takes its command line, speaks QMP, and has a real sshd.

FAKE_QEMU says what is wrong with it, in words: `dies` ends at once, `silent` is up without sshd,
`waits` has one as soon as there is a file `up`, `plain` only with the cautious CPU, `stranger` has
another host key, `deaf` ends for SIGKILL alone.
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

from tests.nodes.sshd import SSHD

MOOD = os.environ.get("FAKE_QEMU", "").split()
# What comes over SSH is written down and not run: `poweroff` would switch off the machine.
TYPED = Path("typed")
_PR_SET_PDEATHSIG = 1


def main(words: list[str]) -> int:
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
    if "deaf" in MOOD:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    port = int(option(words, "-netdev").rpartition("tcp:127.0.0.1:")[2].partition("-")[0])
    server: subprocess.Popen[bytes] | None = None
    try:
        while "poweroff" not in TYPED.read_text():
            if server is None and is_up(words):
                server = serve_ssh(port)
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


def serve_ssh(port: int) -> subprocess.Popen[bytes]:
    assert SSHD is not None
    here = Path.cwd()
    key = here / "ssh_host_ed25519_key"
    if "stranger" in MOOD:
        key = here / "stranger"
        key.unlink(missing_ok=True)
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
        subprocess.run(command, check=True)
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
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
