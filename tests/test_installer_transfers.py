"""How install.sh gets its bytes: broken connections, proxies, and a folder without a network."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.index import Status
from orchestrator.core.installer import render_installer
from tests.installer_site import (
    GNU,
    MUSL,
    TEMPLATE,
    Host,
    Server,
    Site,
    assert_untouched,
    certificate,
    needs,
    said,
    serve,
    verdicts,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HASHES = ("sha256sum", "shasum", "perl")
# Debian's package of tnftp has another name.
DOWNLOADERS = {"curl": "curl", "wget": "wget", "busybox": "wget", "tnftp": "ftp"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from serve(tmp_path_factory.mktemp("server"))


@pytest.fixture
def site(server: Server) -> Site:
    site = server.site()
    site.add("2.0.0")
    site.publish()
    return site


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(root=tmp_path / "host")


def equip(host: Host, tool: str) -> None:
    """Leave one downloader on PATH, by the name that it has on its own system."""
    host.provide_only(*HASHES)
    (host.shims / DOWNLOADERS[tool]).symlink_to(shutil.which(tool) or "")


# Broken connections


@dataclass
class Flaky:
    """A server of a site's files that breaks off in the middle of archives."""

    root: Path
    breaks: int
    knows_ranges: bool
    requests: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.paths.append(handler.path)
        file = self.root / handler.path.lstrip("/")
        if not file.is_file():
            handler.send_error(404)
            return
        content = file.read_bytes()
        total, start = len(content), 0
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        if file.suffix == ".gz":
            self.requests.append(asked[0] if asked else "")
        if asked and self.knows_ranges:
            start = int(asked[1])
            if start >= total:
                handler.send_error(416)
                return
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        handler.send_header("Content-Length", str(total - start))
        handler.end_headers()
        rest = content[start:]
        if file.suffix == ".gz" and self.breaks:
            self.breaks -= 1
            rest = rest[: len(rest) // 2]
        handler.wfile.write(rest)


@contextmanager
def flaky(site: Site, *, breaks: int, knows_ranges: bool = True) -> Iterator[tuple[Flaky, str]]:
    state = Flaky(root=site.root, breaks=breaks, knows_ranges=knows_ranges)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.answer(self)

        def log_message(self, *args: object) -> None:
            del args

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield state, f"http://127.0.0.1:{http.server_port}"
        finally:
            http.shutdown()
            thread.join()


each_downloader = pytest.mark.parametrize(
    "tool", [pytest.param(tool, marks=needs(tool)) for tool in DOWNLOADERS]
)


@each_downloader
def test_a_broken_transfer_goes_on_where_it_broke(site: Site, host: Host, tool: str) -> None:
    equip(host, tool)
    with flaky(site, breaks=1) as (state, url):
        result = host.run(site.script, f"--base-url={url}")
    assert result.returncode == 0, said(result)
    first, *others = state.requests
    assert first == ""
    assert others, said(result)
    assert all(request.startswith("bytes=") for request in others), state.requests


@each_downloader
def test_where_there_is_no_going_on_it_starts_again(site: Site, host: Host, tool: str) -> None:
    equip(host, tool)
    with flaky(site, breaks=1, knows_ranges=False) as (_, url):
        result = host.run(site.script, f"--base-url={url}")
    assert result.returncode == 0, said(result)


@each_downloader
def test_an_index_and_an_archive_are_all_that_is_fetched(site: Site, host: Host, tool: str) -> None:
    equip(host, tool)
    with flaky(site, breaks=0) as (state, url):
        assert host.run(site.script, f"--base-url={url}").returncode == 0
    # At once, and so in either order.
    assert sorted(state.paths) == sorted(("/stable.idx", f"/{site.rows[0].path}"))


@needs("curl")
def test_a_connection_that_always_breaks_is_given_up(site: Site, host: Host) -> None:
    equip(host, "curl")
    with flaky(site, breaks=99) as (state, url):
        refused = assert_untouched(host, lambda: host.run(site.script, f"--base-url={url}"))
    assert "the connection broke after " in refused
    assert "could not be downloaded and verified" in refused
    assert len(state.requests) == 5


@needs("curl")
def test_a_rest_of_another_archive_is_never_installed(
    site: Site, host: Host, server: Server
) -> None:
    equip(host, "curl")
    other = server.site()
    row = other.add("2.0.0", program="#!/bin/sh\necho 'tool 2.0.0'; echo evil\n")
    other.publish()
    path = str(site.archive(row).relative_to(site.root))
    wanted = (site.root / path).read_bytes()
    forged = (other.root / path).read_bytes()
    half = len(wanted) // 2
    with flaky(site, breaks=1) as (state, url):
        state.root = other.root
        (other.root / path).write_bytes(wanted[:half] + forged[half:])
        (other.root / "stable.idx").write_bytes(site.index.read_bytes())
        refused = assert_untouched(host, lambda: host.run(site.script, f"--base-url={url}"))
    assert "could not be downloaded and verified" in refused


# Proxies


@contextmanager
def proxy() -> Iterator[tuple[str, list[str]]]:
    """A proxy that knows CONNECT and nothing else, and what it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            asked.append(self.path)
            name, _, port = self.path.rpartition(":")
            assert name == "127.0.0.1"
            with socket.create_connection((name, int(port))) as there:
                self.send_response(200)
                self.end_headers()
                back = threading.Thread(target=_copy, args=(there, self.connection), daemon=True)
                back.start()
                _copy(self.connection, there)
                back.join()

        def log_message(self, *args: object) -> None:
            del args

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}", asked
        finally:
            http.shutdown()
            thread.join()


def _copy(source: socket.socket, to: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            to.sendall(data)
        to.shutdown(socket.SHUT_WR)
    except OSError:
        return  # the other end is gone, and with it the reason to copy


@pytest.mark.parametrize(
    "tool", [pytest.param(tool, marks=needs(tool)) for tool in ("curl", "wget")]
)
@pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY"])
def test_a_proxy_is_used_in_either_case(
    host: Host, tmp_path: Path, *, tool: str, variable: str
) -> None:
    equip(host, tool)
    file, tls = certificate(tmp_path)
    (tmp_path / "secure").mkdir()
    (tmp_path / "wgetrc").write_text(f"ca_certificate = {file}\n")
    servers = serve(tmp_path / "secure", tls)
    site = next(servers).site()
    site.add("1.0.0")
    site.publish()
    environment = {"CURL_CA_BUNDLE": str(file), "WGETRC": str(tmp_path / "wgetrc")}
    with proxy() as (url, asked):
        result = host.run(site.script, env=environment | {variable: url})
        assert result.returncode == 0, said(result)
        assert len(asked) == 2
        exempt = {
            variable: url,
            variable.replace("https", "no").replace("HTTPS", "NO"): "127.0.0.1",
        }
        assert host.run(site.script, "--reinstall", env=environment | exempt).returncode == 0
        assert len(asked) == 2
    servers.close()


@needs("curl")
def test_openbsd_has_one_variable_for_both(site: Site, host: Host) -> None:
    host.simulate({"ftp": 'echo "proxy=$http_proxy" >&2; exit 1', "uname": "echo OpenBSD"})
    host.provide_only(*HASHES)
    script = site.script.replace("host_candidates=$candidates", f"candidates={GNU}")
    result = host.run(script, env={"HTTPS_PROXY": "http://127.0.0.1:3128"})
    assert "with ftp: proxy=http://127.0.0.1:3128" in result.stderr


# A folder


def test_a_folder_is_enough_without_any_downloader(site: Site, host: Host, tmp_path: Path) -> None:
    host.provide_only(*HASHES)
    bundle = tmp_path / "on a stick"
    shutil.copytree(site.root, bundle)
    site.index.unlink()
    before = host.tree()
    assert host.run(site.script, f"--from={bundle}").returncode == 0
    result = host.run(site.script, "--from", "../on a stick", "--reinstall")
    assert result.returncode == 0, said(result)
    assert f"reading {host.root}/../on a stick/releases/" in result.stderr
    assert subprocess.check_output([host.binary], text=True) == "tool 2.0.0\n"
    assert host.run(site.script, "--uninstall").returncode == 0
    assert host.tree() == before


def test_what_the_folder_lacks_is_passed_over(site: Site, host: Host) -> None:
    site.rows.clear()
    newest = site.add("3.0.0")
    site.add("2.0.0")
    site.add("2.0.0", MUSL)
    site.publish()
    site.archive(newest).unlink()
    result = host.run(site.script, f"--from={site.root}")
    assert result.returncode == 0, said(result)
    assert f"3.0.0 for {GNU} is not in {site.root}: installing 2.0.0" in result.stderr
    plan = host.run(site.script, f"--from={site.root}", "--plan")
    assert [line.split(":")[0] for line in verdicts(plan.stdout)][:1] == [f"3.0.0 {GNU}"]
    strict = host.run(site.script, f"--from={site.root}", "--strict", "--reinstall")
    assert strict.returncode == 1
    assert "is not in" in strict.stderr


def test_a_folder_is_verified_like_everything_else(site: Site, host: Host) -> None:
    host.provide("ssh-keygen")
    row = site.rows[0]
    archive = site.archive(row)
    archive.write_bytes(archive.read_bytes()[:-1] + b"x")
    refused = assert_untouched(host, lambda: host.run(site.script, f"--from={site.root}"))
    assert "the SHA-256 of" in refused
    assert "could not be read and verified" in refused
    archive.write_bytes(archive.read_bytes()[:-9])
    refused = assert_untouched(host, lambda: host.run(site.script, f"--from={site.root}"))
    assert f" bytes instead of {row.size_bytes}" in refused
    assert "connection" not in refused
    text = site.index.read_text()
    site.index.write_text(text.replace("2.0.0", "2.0.1"))
    refused = assert_untouched(host, lambda: host.run(site.script, f"--from={site.root}"))
    assert "is bad: refusing" in refused
    site.index.unlink()
    refused = assert_untouched(host, lambda: host.run(site.script, f"--from={site.root}"))
    assert "the index of tool could not be read" in refused


@pytest.mark.parametrize("words", [["--from"], ["--from="], ["--from", "nowhere"]])
def test_a_folder_that_is_not_there_is_a_wrong_option(
    site: Site, host: Host, words: list[str]
) -> None:
    result = host.run(site.script, *words)
    assert result.returncode == 2
    assert "--from" in result.stderr


def test_an_address_in_the_environment_does_not_matter_to_a_folder(site: Site, host: Host) -> None:
    site.rows.clear()
    site.add("2.0.0", status=Status.OK)
    site.publish()
    script = render_installer(TEMPLATE, replace(site.values, base_urls=("https://example.org",)))
    result = host.run(script, f"--from={site.root}", env={"INSTALL_BASE_URL": "nonsense"})
    assert result.returncode == 0, said(result)
