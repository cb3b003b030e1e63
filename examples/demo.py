"""`make demo`: two releases of examples/trajectory on this machine, installed as a user would.

The program is built on a local node and on an SSH node that runs here on loopback. For the second
version that node is down: its target's users get the first version, and are told.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

ROOT: Final = Path(__file__).resolve().parent.parent
WORK: Final = ROOT / "dist" / "demo"
ORCHESTRATOR: Final = Path(sys.executable).parent / "orchestrator"
VERSIONS: Final = ("0.1.0", "0.2.0")
DOWNLOADERS: Final = ("curl", "wget", "fetch", "ftp")


def main() -> int:
    """Run the demo and return its exit code."""
    _check_tools()
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    _say(f"the program, in a git repository with the tags {' and '.join(map(_tag, VERSIONS))}")
    _make_repository(WORK / "trajectory")
    late = _second_target()
    with ExitStack() as running:
        node = _start_node(running)
        server = _start_server(running)
        url = server.first_line.rpartition(" ")[2]
        _write_inventory(url, json.loads(node.first_line), late)
        _orchestrate("keygen")

        _say(f"release {VERSIONS[0]}: both nodes are up")
        _orchestrate("release", "--version", VERSIONS[0])

        _say(f"release {VERSIONS[1]}: the SSH node is down, and delays nobody")
        node.stop()
        _orchestrate("release", "--version", VERSIONS[1])

        _say("what a user of this machine does")
        _install(url, WORK / "home")
        if late.is_static:
            _say(f"what a user of {late.target} does: its build of {VERSIONS[1]} is late")
            _install(url, WORK / "home-late", "--target", late.target)
        else:
            print("this toolchain builds for one target only, so the local node stood in above;")
            print("on Linux with glibc the demo shows the fallback to an older version too")
    _say("where to look next")
    _show_places()
    return 0


@dataclass(frozen=True, kw_only=True)
class SecondTarget:
    """What the SSH node builds: on Linux a static binary, which every distribution can run."""

    host: str
    target: str
    is_static: bool


def _second_target() -> SecondTarget:
    host = _host_triple()
    if host.endswith("-linux-gnu"):
        # The musl standard library is not on every machine that has cargo; a static binary that
        # needs no libc at all is what users of the musl target need, and glibc can make one.
        musl = host.removesuffix("gnu") + "musl"
        return SecondTarget(host=host, target=musl, is_static=True)
    return SecondTarget(host=host, target=host, is_static=False)


def _host_triple() -> str:
    answer = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout
    return next(line.split()[1] for line in answer.splitlines() if line.startswith("host:"))


def _check_tools() -> None:
    for tool in ("cargo", "rustc", "git"):
        if shutil.which(tool) is None:
            _stop(f"the demo needs `{tool}` on PATH")
    if not re.fullmatch(r"[A-Za-z0-9._/+-]+", str(WORK)):
        _stop(f"{WORK} is no path for a node: clone to one of letters, digits and . _ / + -")
    if not any(map(shutil.which, DOWNLOADERS)):
        _stop(f"the installer needs one of {', '.join(DOWNLOADERS)} on PATH")


def _make_repository(folder: Path) -> None:
    example = ROOT / "examples" / "trajectory"
    shutil.copytree(example, folder, ignore=shutil.ignore_patterns("target"))
    _git(folder, "init", "--quiet", "--initial-branch=main")
    for version in VERSIONS:
        for name in ("Cargo.toml", "Cargo.lock"):
            path = folder / name
            path.write_text(path.read_text().replace(f'"{VERSIONS[0]}"', f'"{version}"', 1))
        _git(folder, "add", "--all")
        _git(folder, "commit", "--quiet", "--message", f"Release {version}")
        _git(folder, "tag", _tag(version))


def _tag(version: str) -> str:
    return f"v{version}"


def _git(folder: Path, *arguments: str) -> None:
    # An empty home has no name to commit under, and somebody's own hooks have no place here.
    who = {
        f"GIT_{role}_{what}": value
        for role in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", "Demo"), ("EMAIL", "demo@localhost"))
    }
    environment = os.environ | who | {"GIT_CONFIG_GLOBAL": os.devnull}
    subprocess.run(["git", "-C", str(folder), *arguments], check=True, env=environment)


def _write_inventory(url: str, node: dict[str, str | int], late: SecondTarget) -> None:
    build = f"""
      cd {{source}}
      cargo build --release --locked --offline --target {late.host} --jobs {{jobs}}
      cp "$CARGO_TARGET_DIR/{late.host}/release/trajectory" "$ORCHESTRATOR_OUT/"
"""
    flags = "{ RUSTFLAGS: -C target-feature=+crt-static }" if late.is_static else "{}"
    (WORK / "build-nodes.yaml").write_text(f"""\
project:
  name: trajectory
  binaries: [trajectory]
  source: {{ git: {WORK}/trajectory }}
  gate: '{{binary}} --velocity 800 --bc 0.45 --range 300'
  extras:
    - man/{{name}}.1
    - completions/{{name}}.bash
    - completions/_{{name}}
    - completions/{{name}}.fish
publication:
  store: store
  url: {url}
  verify: true
  signing: {{ key: signing-key }}
nodes:
  - name: this-machine
    host: local
    target: {late.host}
    workdir: {WORK}/local-node
  - name: ssh-node
    host: {node["host"]}
    port: {node["port"]}
    host_key: {node["host_key"]}
    identity: {node["identity"]}
    workdir: {WORK}/ssh-node/workdir
    connect_timeout: 2
    target: {late.target}
    policy: best-effort
    env: {flags}
    build_command: |{build}""")


@dataclass(frozen=True, kw_only=True)
class Started:
    """A process of the demo's own, and the first line that it printed."""

    process: subprocess.Popen[str]
    first_line: str

    def stop(self) -> None:
        """End it and wait until it is gone."""
        self.process.terminate()
        self.process.wait()


def _start(running: ExitStack, *arguments: str) -> Started:
    command = [sys.executable, *arguments]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=_environment()
    )
    assert process.stdout is not None  # noqa: S101 -- because of PIPE
    started = Started(process=process, first_line=process.stdout.readline().strip())
    running.callback(process.stdout.close)
    running.callback(started.stop)
    if not started.first_line:
        _stop(f"{' '.join(arguments)} did not start")
    return started


def _start_node(running: ExitStack) -> Started:
    return _start(running, "-m", "examples.loopback_node", "--folder", str(WORK / "ssh-node"))


def _start_server(running: ExitStack) -> Started:
    store = WORK / "store"
    store.mkdir()
    return _start(running, "-m", "orchestrator", "serve", "--store", str(store), "--port", "0")


def _orchestrate(*arguments: str) -> None:
    print(f"$ orchestrator {' '.join(arguments)}", flush=True)
    subprocess.run([str(ORCHESTRATOR), *arguments], cwd=WORK, check=True, env=_environment())


def _environment() -> dict[str, str]:
    """Return an environment in which caches and locks land in the demo's own folder.

    rustup's proxies find the toolchain by their home, which is then another one.
    """
    toolchain = os.environ.get("RUSTUP_HOME") or str(Path.home() / ".rustup")
    kept = {name: text for name, text in os.environ.items() if not name.startswith("XDG_")}
    return kept | {"HOME": str(WORK / "maintainer"), "RUSTUP_HOME": toolchain}


def _install(url: str, home: Path, *arguments: str) -> None:
    home.mkdir()
    options = f" -s -- {' '.join(arguments)}" if arguments else ""
    line = f"{_fetch_command(url)} | sh{options}"
    print(f"$ {line}", flush=True)
    folder = home / ".local" / "bin"
    # Named, because for root the installer would choose a folder outside of the scratch home.
    environment = {"HOME": str(home), "XDG_BIN_HOME": str(folder), "PATH": os.environ["PATH"]}
    subprocess.run(["/bin/sh", "-c", line], check=True, env=environment, cwd=home)
    program = folder / "trajectory"
    print(f"$ {program.relative_to(WORK)} --version", flush=True)
    subprocess.run([str(program), "--version"], check=True)
    print(f"$ {program.relative_to(WORK)} --velocity 800 --bc 0.45 --range 300", flush=True)
    command = [str(program), "--velocity", "800", "--bc", "0.45", "--range", "300"]
    subprocess.run(command, check=True)


def _fetch_command(url: str) -> str:
    tool = next(tool for tool in DOWNLOADERS if shutil.which(tool))
    options = {"curl": "-sSf", "wget": "-qO-", "fetch": "-qo -", "ftp": "-Vo -"}[tool]
    return f"{tool} {options} {url}/install.sh"


def _show_places() -> None:
    folder = WORK.relative_to(ROOT)
    places = {
        f"{folder}/build-nodes.yaml": "the inventory of this demo",
        f"{folder}/store/": "what was published: stable.idx is the signed index",
        f"{folder}/dist/": "logs and archives of each node",
        "build-nodes.yaml": "the inventory that ./build.sh releases; edit it next",
        "docs/": "every key of the inventory, the installer, the formats",
    }
    for place, what in places.items():
        print(f"  {place:<28}  {what}")


def _say(what: str) -> None:
    print(f"\n== {what}", flush=True)


def _stop(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
