"""install.sh begins with the archive that it expects, while the index is on its way."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from tests.installer_site import Host, Server, Site, as_shell, assert_untouched, said, serve
from tests.shells import shell_params
from tests.test_installer_transfers import each_downloader, equip

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PATIENCE = 20.0
_INDEX = "/stable.idx"


@dataclass
class Watched:
    """A server of a site's files: what was asked, and what waits for what.

    The index is not answered before an archive is asked for, if it `holds_index`. The archive
    `stuck` is sent by half, and then nothing until the client has gone; `slow` is sent in two
    halves, the second one a while after the index. `left` is what `temporary` has of an archive
    that was begun whenever another one is sent.
    """

    root: Path
    holds_index: bool = False
    stuck: str = ""
    slow: str = ""
    temporary: Path | None = None
    left: list[Path] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    archive_asked: threading.Event = field(default_factory=threading.Event)
    index_sent: threading.Event = field(default_factory=threading.Event)
    client_gone: threading.Event = field(default_factory=threading.Event)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        if handler.path == _INDEX and self.holds_index:
            self.archive_asked.wait(_PATIENCE)
        self.paths.append(handler.path)
        if handler.path.endswith(".tar.gz"):
            self.archive_asked.set()
        content = (self.root / handler.path.lstrip("/")).read_bytes()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        if handler.path not in (self.stuck, self.slow):
            if self.temporary and handler.path != _INDEX:
                self.left += self.temporary.glob("*/begun")
            handler.wfile.write(content)
            self.index_sent.set()
            return
        half = len(content) // 2
        handler.wfile.write(content[:half])
        if handler.path == self.slow:
            self.index_sent.wait(_PATIENCE)
            time.sleep(0.5)
            handler.wfile.write(content[half:])
            return
        handler.connection.settimeout(_PATIENCE)
        if handler.connection.recv(1) == b"":
            self.client_gone.set()


@contextmanager
def watched(site: Site, **what: Any) -> Iterator[Watched]:
    state = Watched(root=site.root, **what)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.answer(self)

        def log_message(self, *args: object) -> None:
            del args

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        site.url = f"http://127.0.0.1:{http.server_port}"
        try:
            yield state
        finally:
            http.shutdown()
            thread.join()


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


def released(site: Site) -> str:
    """Release a version that the installer, as it is now, knows nothing of."""
    assert site.script
    site.rows.insert(0, site.add("3.0.0"))
    site.rows.pop()
    site.publish()
    return f"/{site.rows[1].path}"


@each_downloader
def test_it_downloads_the_archive_while_it_waits_for_the_index(
    site: Site, host: Host, tool: str
) -> None:
    equip(host, tool)
    with watched(site, holds_index=True) as state:
        result = host.run(site.script)
    assert result.returncode == 0, said(result)
    assert host.binary.exists()
    assert state.paths == [f"/{site.rows[0].path}", _INDEX]


@pytest.mark.parametrize("shell", shell_params())
def test_it_waits_for_what_it_has_begun_in_every_shell(site: Site, host: Host, shell: str) -> None:
    host.shell = as_shell(host.root / "shells", shell)
    archive = f"/{site.rows[0].path}"
    with watched(site, slow=archive) as state:
        result = host.run(site.script)
    assert result.returncode == 0, said(result)
    # In one piece, and with nothing said of it by the shell.
    assert sorted(state.paths) == sorted((_INDEX, archive))
    assert len(result.stderr.splitlines()) == 5, result.stderr


def test_it_is_given_up_by_a_shell_that_has_to_ignore_signals(site: Site, host: Host) -> None:
    deaf = host.root / "deaf"
    deaf.write_text("#!/bin/sh\ntrap '' HUP INT QUIT PIPE TERM\nexec /bin/sh \"$@\"\n")
    deaf.chmod(0o755)
    host.shell = deaf
    with watched(site) as state:
        state.stuck = released(site)
        result = host.run(site.script)
        assert state.client_gone.wait(_PATIENCE)
    assert result.returncode == 0, said(result)


@pytest.mark.parametrize("shell", shell_params())
def test_nothing_is_said_of_what_was_given_up(site: Site, host: Host, shell: str) -> None:
    host.shell = as_shell(host.root / "shells", shell)
    with watched(site, stuck=f"/{site.rows[0].path}") as state:
        site.publish_text("#orchestrator-index 2\n#end 0\n")
        refused = assert_untouched(host, lambda: host.run(site.script))
        assert state.client_gone.wait(_PATIENCE)
    assert len(refused.splitlines()) == 2, refused


@each_downloader
def test_what_the_index_does_not_name_first_is_given_up(site: Site, host: Host, tool: str) -> None:
    equip(host, tool)
    with watched(site, temporary=host.temporary) as state:
        old = released(site)
        state.stuck = old
        result = host.run(site.script)
        assert state.client_gone.wait(_PATIENCE)
    assert result.returncode == 0, said(result)
    # There may be no room for both.
    assert state.left == []
    assert b"3.0.0" in host.binary.read_bytes()
    assert sorted(state.paths) == sorted((old, _INDEX, f"/{site.rows[0].path}"))
    assert not any(host.temporary.iterdir())


def test_what_is_there_already_is_not_downloaded_again(site: Site, host: Host) -> None:
    with watched(site) as state:
        assert host.run(site.script).returncode == 0
        state.paths.clear()
        result = host.run(site.script)
    assert "already installed" in said(result)
    assert state.paths == [_INDEX]


@pytest.mark.parametrize(
    "words", [["--plan"], ["--version=1.0.0"], ["--target=x86_64-unknown-linux-musl"]]
)
def test_nothing_is_begun_that_was_not_asked_for(site: Site, host: Host, words: list[str]) -> None:
    with watched(site) as state:
        host.run(site.script, *words)
    assert state.paths == [_INDEX]


def test_what_cannot_run_here_is_not_begun(server: Server, host: Host) -> None:
    site = server.site()
    site.add("2.0.0", floors="glibc>=9.0")
    site.add("1.0.0")
    site.publish()
    with watched(site) as state:
        result = host.run(site.script)
    assert result.returncode == 0, said(result)
    assert state.paths == [_INDEX, f"/{site.rows[1].path}"]


def test_an_installer_that_expects_nothing_asks_the_index_first(site: Site, host: Host) -> None:
    row = site.rows.pop()
    assert site.script
    with watched(site) as state:
        result = host.run(site.script, f"--base-url={site.url}")
    assert result.returncode == 0, said(result)
    assert state.paths == [_INDEX, f"/{row.path}"]
