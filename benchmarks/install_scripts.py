"""The install scripts that are measured beside ours, and what each wants to find on a server.

They are other people's, so none is here: `python -m benchmarks` takes those that lie in the folder
`orchestrator-bench/scripts` of the cache, each under the name that it has below:

    rustup.sh      rust-lang/rustup, rustup-init.sh
    starship.sh    starship/starship, install/install.sh
    deno.sh        denoland/deno_install, install.sh
    mise.envsubst  jdx/mise, packaging/standalone/install.envsubst
    uv.sh          uv-installer.sh of a release of astral-sh/uv, made by cargo-dist
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

SCRIPTS: Final = (
    Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "orchestrator-bench/scripts"
)
_TARGET: Final = "x86_64-unknown-linux-gnu"


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallScript:
    """A script on the server, and how somebody runs it.

    `words` follow it and `env` goes with it; in both, HOME stands for the home directory.
    `installed` is the program that is there afterwards, from the home directory on.
    """

    tool: str
    path: str
    words: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    installed: str
    note: str = ""


def lay_out(site: Path, url: str, program: bytes) -> tuple[InstallScript, ...]:
    """Write what there is of them into the folder of a server, each with the program to install."""
    makers = {
        "rustup.sh": _rustup,
        "uv.sh": _uv,
        "starship.sh": _starship,
        "deno.sh": _deno,
        "mise.envsubst": _mise,
    }
    laid = []
    for name, maker in makers.items():
        if not (SCRIPTS / name).exists():
            print(f"left out: there is no {SCRIPTS / name}", flush=True)
            continue
        laid.append(maker((SCRIPTS / name).read_text(), _Site(site, url), program))
    return tuple(laid)


@dataclass(frozen=True, slots=True)
class _Site:
    root: Path
    url: str

    def write(self, path: str, data: bytes) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)


def _rustup(text: str, site: _Site, program: bytes) -> InstallScript:
    # What it downloads is a program that installs itself, so this one does.
    itself = b'#!/bin/sh\nmkdir -p "$HOME/.cargo/bin" && cp "$0" "$HOME/.cargo/bin/rustup" &&'
    itself += b' chmod 755 "$HOME/.cargo/bin/rustup"\nexit\n'
    site.write(f"rustup/dist/{_TARGET}/rustup-init", itself + program[len(itself) :])
    site.write("rustup.sh", text.encode())
    return InstallScript(
        tool="rustup-init.sh",
        path="rustup.sh",
        words=("-y",),
        env={"RUSTUP_UPDATE_ROOT": f"{site.url}/rustup"},
        installed=".cargo/bin/rustup",
        note="no toolchain",
    )


def _uv(text: str, site: _Site, program: bytes) -> InstallScript:
    folder = f"uv-{_TARGET}"
    archive = _tar({f"{folder}/uv": program, f"{folder}/uvx": b"#!/bin/sh\n"}, "w:gz")
    site.write(f"uv/{folder}.tar.gz", archive)
    head, own, tail = text.partition(f'"{folder}.tar.gz")')
    tail = re.sub(
        '_checksum_value="[0-9a-f]{64}"',
        f'_checksum_value="{hashlib.sha256(archive).hexdigest()}"',
        tail,
        count=1,
    )
    site.write("uv.sh", f"{head}{own}{tail}".encode())
    return InstallScript(
        tool="uv (cargo-dist)",
        path="uv.sh",
        env={"UV_DOWNLOAD_URL": f"{site.url}/uv"},
        installed=".local/bin/uv",
        note="SHA-256 in the script",
    )


def _starship(text: str, site: _Site, program: bytes) -> InstallScript:
    # It takes this build on all systems with glibc too.
    archive = _tar({"starship": program}, "w:gz")
    site.write("starship/latest/download/starship-x86_64-unknown-linux-musl.tar.gz", archive)
    site.write("starship.sh", text.encode())
    return InstallScript(
        tool="starship",
        path="starship.sh",
        words=("-y", "-b", "HOME/bin", "-B", f"{site.url}/starship"),
        installed="bin/starship",
        note="verifies nothing",
    )


def _deno(text: str, site: _Site, program: bytes) -> InstallScript:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("deno", program)
    site.write("deno/release-latest.txt", b"v1.0.0\n")
    site.write(f"deno/release/v1.0.0/deno-{_TARGET}.zip", buffer.getvalue())
    site.write("deno.sh", text.replace("https://dl.deno.land", f"{site.url}/deno").encode())
    return InstallScript(
        tool="deno", path="deno.sh", installed=".deno/bin/deno", note="verifies nothing"
    )


def _mise(text: str, site: _Site, program: bytes) -> InstallScript:
    # Upstream fills in these variables, and no others, when it releases.
    archive = _tar({"mise/bin/mise": program}, "w:gz")
    name = "mise-v1.0.0-linux-x64.tar.gz"
    site.write(f"mise/v1.0.0/{name}", archive)
    line = f"{hashlib.sha256(archive).hexdigest()}  ./{name}"
    text = text.replace("$MISE_CURRENT_VERSION", "v1.0.0")
    text = re.sub(r"\$MISE_CHECKSUM_\w+", line, text)
    site.write("mise.sh", text.replace("https://mise.jdx.dev", f"{site.url}/mise").encode())
    return InstallScript(
        tool="mise",
        path="mise.sh",
        env={"MISE_INSTALL_EXT": "tar.gz"},
        installed=".local/bin/mise",
        note="SHA-256 in the script",
    )


def _tar(files: Mapping[str, bytes], mode: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o755
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()
