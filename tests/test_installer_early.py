"""install.sh asks for the archive that it will probably need while it asks for the index."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
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
    needs,
    said,
    serve,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_SECONDS = 30

pytestmark = needs("curl")


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
    host = Host(root=tmp_path / "host")
    host.provide_only("curl", "sha256sum", "ssh-keygen")
    return host


@dataclass
class Holding:
    """A server of a site's files that keeps one kind of them back until the other is asked for.

    Without a kind nothing is kept back.
    """

    root: Path
    held: str = ""
    awaited: str = ""
    paths: list[str] = field(default_factory=list)
    arrived: threading.Event = field(default_factory=threading.Event)
    was_in_time: bool = True

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.paths.append(handler.path)
        file = self.root / handler.path.lstrip("/")
        if self.awaited and file.suffix == self.awaited:
            self.arrived.set()
        if self.held and file.suffix == self.held:
            self.was_in_time = self.arrived.wait(PATIENCE_SECONDS)
        if not file.is_file():
            handler.send_error(404)
            return
        content = file.read_bytes()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)


@contextmanager
def holding(site: Site, *, held: str = "", awaited: str = "") -> Iterator[tuple[Holding, str]]:
    state = Holding(root=site.root, held=held, awaited=awaited)

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
            state.arrived.set()
            http.shutdown()
            thread.join()


@pytest.mark.parametrize("order", [(".idx", ".gz"), (".gz", ".idx")])
def test_neither_waits_for_the_other(site: Site, host: Host, order: tuple[str, str]) -> None:
    with holding(site, held=order[0], awaited=order[1]) as (state, url):
        result = host.run(site.script, f"--base-url={url}")
    assert result.returncode == 0, said(result)
    assert state.was_in_time
    assert len(state.paths) == 2


def test_the_index_decides_when_the_script_is_older(site: Site, host: Host) -> None:
    script = site.script
    site.rows.insert(0, site.add("2.1.0"))
    site.rows.pop()
    site.publish()
    with holding(site) as (state, url):
        result = host.run(script, f"--base-url={url}")
    assert result.returncode == 0, said(result)
    assert "installed tool 2.1.0" in result.stderr
    assert "warning" not in result.stderr
    assert len(state.paths) == 3
    assert list(host.temporary.iterdir()) == []


def test_what_came_early_is_held_against_the_index(site: Site, host: Host) -> None:
    archive = site.archive(site.rows[0])
    archive.write_bytes(archive.read_bytes()[:-1] + b"x")
    refused = assert_untouched(host, lambda: host.run(site.script))
    assert "the SHA-256 of " in refused


@pytest.mark.parametrize("likely", ["releases/gone.tar.gz", "stable.idx"])
def test_a_guess_that_is_wrong_costs_nothing_else(site: Site, host: Host, likely: str) -> None:
    values = replace(site.values, likely=(f"{GNU} {likely}",))
    result = host.run(render_installer(TEMPLATE, values))
    assert result.returncode == 0, said(result)
    assert "warning" not in result.stderr


def test_a_build_that_was_withdrawn_since_is_not_installed(site: Site, host: Host) -> None:
    script = site.script
    site.rows[:] = [replace(site.rows[0], status=Status.REVOKED)]
    site.publish()
    refused = assert_untouched(host, lambda: host.run(script))
    assert "was revoked" in refused


@pytest.mark.parametrize(
    "options", [["--plan"], ["--version", "2.0.0"], ["--target", MUSL], ["--channel", "beta"]]
)
def test_nothing_is_asked_for_early_where_it_may_not_be_wanted(
    site: Site, host: Host, options: list[str]
) -> None:
    with holding(site, held=".idx", awaited=".nothing") as (state, url):
        state.arrived.set()
        host.run(site.script, f"--base-url={url}", *options)
    assert state.paths[0].endswith(".idx")


def test_who_has_it_already_downloads_no_archive(site: Site, host: Host) -> None:
    assert host.run(site.script).returncode == 0
    with holding(site) as (state, url):
        result = host.run(site.script, f"--base-url={url}")
    assert "already installed" in result.stderr
    assert state.paths == ["/stable.idx"]


def test_a_signal_ends_the_download_too(site: Site, host: Host, tmp_path: Path) -> None:
    # It says who it is, and waits for the signal that ends the installation.
    host.simulate({"curl": f'echo $$ >>"{tmp_path}/curls"; exec sleep 600'})
    (tmp_path / "curls").touch()
    script = tmp_path / "install.sh"
    script.write_text(site.script)
    environment = {
        "HOME": str(host.home),
        "PATH": ":".join(host.path),
        "TMPDIR": str(host.temporary),
    }
    with subprocess.Popen(
        [host.shell, script], env=environment, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        end = time.monotonic() + PATIENCE_SECONDS
        while len(curls := (tmp_path / "curls").read_text().split()) < 2 and time.monotonic() < end:
            assert process.poll() is None
        # As the terminal and the system do: to all of them; a child in the background ignores INT.
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(PATIENCE_SECONDS) == 130
    assert len(curls) == 2
    assert not [pid for pid in curls if Path(f"/proc/{pid}/cmdline").exists()]
    assert list(host.temporary.iterdir()) == []
