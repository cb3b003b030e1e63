"""The table of docs/installer-hosts.md is what the installer does."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING, Final

import pytest

from tests.installer_hosts import HOSTS, NO_GLIBC, on_linux
from tests.installer_site import ROOT, Host, said, serve

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.installer_site import Site

_PAGE: Final = (ROOT / "docs/installer-hosts.md").read_text()
_REFUSED: Final = "refused"
# What the names of the table are simulated by.
_TOOLS: Final[Mapping[str, Mapping[str, str]]] = {
    "FreeBSD amd64, only `fetch`": HOSTS["FreeBSD amd64"][0],
    "FreeBSD amd64, `curl`": HOSTS["FreeBSD amd64"][0],
    "FreeBSD arm64": HOSTS["FreeBSD arm64"][0],
    "FreeBSD armv7 (`uname -m` is `arm`)": HOSTS["FreeBSD armv7"][0],
    "OpenBSD amd64": HOSTS["OpenBSD amd64"][0],
    "OpenBSD arm64": HOSTS["OpenBSD arm64"][0],
    "NetBSD amd64": HOSTS["NetBSD amd64"][0],
    "NetBSD arm64 (`uname -m` is `evbarm`)": HOSTS["NetBSD arm64"][0],
    "Linux, glibc older than the build needs": HOSTS["Linux x86_64, only ldd"][0],
    "Linux, musl": HOSTS["Linux x86_64, musl"][0],
    "Linux without `ldd`": on_linux("x86_64", **NO_GLIBC, ldd="exit 127"),
    "Linux riscv64": HOSTS["Linux riscv64"][0],
    "macOS arm64, in a Rosetta shell": HOSTS["Mac arm64, in a Rosetta shell"][0],
    "macOS x86_64, `hw.optional.arm64` is 0": HOSTS["Mac x86_64, key 0"][0],
    "DragonFly": HOSTS["DragonFly"][0],
    "illumos": HOSTS["illumos"][0],
    "Linux i686": HOSTS["Linux i686"][0],
}


def rows() -> dict[str, str]:
    """Return our column of the table."""
    found = re.findall(r"^\| ([^|]+) \| ([a-z0-9_-]+) \|", _PAGE, re.MULTILINE)
    return {host: ours for host, ours in found if host != "host"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    for server in serve(tmp_path_factory.mktemp("server")):
        site = server.site()
        for target in sorted(
            {word for _, words, _ in HOSTS.values() for word in (words or "").split()}
        ):
            floors = "glibc>=2.28" if "linux-gnu" in target else ""
            if "openbsd" in target:
                floors = "openbsd==7.8"
            site.add("1.0.0", target, floors=floors, program=f"#!/bin/sh\necho {target}\n")
        site.publish()
        yield site


def test_the_table_has_every_host() -> None:
    assert rows().keys() == _TOOLS.keys()
    assert len(_TOOLS) == 17


@pytest.mark.parametrize("name", _TOOLS)
def test_the_table_tells_what_is_installed(site: Site, tmp_path: Path, name: str) -> None:
    host = Host(root=tmp_path / "host")
    host.simulate(_TOOLS[name])
    host.provide_only("sha256sum", "shasum", "perl", *([] if "fetch" in name else ["curl"]))
    if "fetch" in name:
        curl = shutil.which("curl")
        host.simulate({"fetch": f'[ "$1 $2 $4" = "-q -T -o" ] && exec {curl} -sf -o "$5" "$6"'})
    result = host.run(site.script)
    if rows()[name] == _REFUSED:
        assert result.returncode == 1
        assert "this installer knows no target for this host (Linux i686" in result.stderr
    else:
        assert result.returncode == 0, said(result)
        assert host.binary.read_text() == f"#!/bin/sh\necho {rows()[name]}\n"
