"""A real binary in two versions, published: what can be run while it is replaced."""

from __future__ import annotations

import os
import random
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.installer_site import PROJECT, pack

if TYPE_CHECKING:
    from tests.installer_site import Site

VERSIONS: Final = ("2.0.0", "1.0.0")
_SOURCE: Final = Path(__file__).with_name("tool.rs")
_PAYLOAD_BYTES: Final = 500_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One version: its file, and the line that it prints, with a sum of all that is in it."""

    version: str
    file: Path
    line: str


def compile_all(folder: Path) -> list[Program]:
    """Compile every version; they differ in half a megabyte of payload too."""
    programs = []
    for version in VERSIONS:
        payload = folder / f"payload-{version}"
        payload.write_bytes(random.Random(version).randbytes(_PAYLOAD_BYTES))
        file = folder / f"{PROJECT}-{version}"
        subprocess.run(
            ["rustc", "-O", "-C", "strip=symbols", "--crate-name", "tool", "-o", file, _SOURCE],
            check=True,
            cwd=folder,
            env=os.environ | {"TOOL_PAYLOAD": str(payload), "TOOL_VERSION": version},
        )
        line = subprocess.check_output([file], text=True).rstrip("\n")
        programs.append(Program(version=version, file=file, line=line))
    return programs


def publish(site: Site, programs: list[Program]) -> None:
    """Publish them as the site's versions, newest first."""
    for program in programs:
        row = site.add(program.version)
        folder = site.archive(row).name.removesuffix(".tar.gz")
        content = pack({f"{folder}/{PROJECT}": program.file.read_bytes()})
        site.archive(row).write_bytes(content)
        site.rows[-1] = site.relisted(row, content)
    site.publish()
