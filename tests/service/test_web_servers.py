"""The web servers before the service, configured as docs/operating.md says."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.certificates import make_certificate
from tests.releases import wait_for
from tests.service.running import payload, signed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.certificates import Certificate
    from tests.service.running import Works

pytestmark = pytest.mark.thorough

NAME: Final = "releases.example.org"
DOCUMENT: Final = (Path(__file__).parents[2] / "docs/operating.md").read_text()
UPSTREAM: Final = "127.0.0.1:8000"

NGINX: Final = """\
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
{user}
events {{}}
http {{
access_log off;
client_body_temp_path {folder}/body;
proxy_temp_path {folder}/proxy;
fastcgi_temp_path {folder}/fastcgi;
uwsgi_temp_path {folder}/uwsgi;
scgi_temp_path {folder}/scgi;
{block}
}}
"""


def block_of(language: str) -> str:
    (block,) = re.findall(rf"^```{language}\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert UPSTREAM in block
    return str(block)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """A web server that speaks TLS on a port, in plain HTTP on another one if it has that."""

    port: int
    certificate: Path
    plain_port: int | None = None

    def curl(self, path: str, *words: str) -> list[str]:
        """Return the command that asks for a path as the world does."""
        return [
            *("curl", "-sS", "--cacert", str(self.certificate), "--tlsv1.2"),
            *("--resolve", f"{NAME}:{self.port}:127.0.0.1", *words),
            f"https://{NAME}:{self.port}{path}",
        ]

    def ask(self, path: str, *words: str, body: bytes = b"") -> tuple[int, str]:
        command = self.curl(path, "-w", "\n%{http_code}", *words)
        done = subprocess.run(command, input=body, capture_output=True, check=True)
        told, _, status = done.stdout.decode().rpartition("\n")
        return int(status), told

    def refuses(self, body: bytes) -> bool:
        """Whether a delivery is not taken; who refuses before it is whole may just hang up."""
        command = self.curl("/webhook", "-w", "%{http_code}", "-o", "/dev/null")
        words = ["--data-binary", "@-", "-H", "Content-Type: application/json"]
        done = subprocess.run([*command, *words], input=body, capture_output=True, check=False)
        return done.stdout in {b"413", b"502", b"000"}

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, str]:
        said = [word for item in headers.items() for word in ("-H", ": ".join(item))]
        return self.ask(path, "--data-binary", "@-", *said, body=body)


@contextmanager
def nginx(folder: Path, upstream: str, certificate: Certificate) -> Iterator[Front]:
    front = Front(port=free_port(), plain_port=free_port(), certificate=certificate.certificate)
    block = block_of("nginx")
    for old, new in (
        ("listen [::]:80;", ""),
        ("listen [::]:443 ssl;", ""),
        ("listen 80;", f"listen 127.0.0.1:{front.plain_port};"),
        ("listen 443 ssl;", f"listen 127.0.0.1:{front.port} ssl;"),
        (f"/etc/letsencrypt/live/{NAME}/fullchain.pem", str(certificate.certificate)),
        (f"/etc/letsencrypt/live/{NAME}/privkey.pem", str(certificate.key)),
        (UPSTREAM, upstream),
    ):
        assert old in block, old
        block = block.replace(old, new)
    file = folder / "nginx.conf"
    # Who is root becomes another user, who may not look into this folder.
    user = "user root;" if os.getuid() == 0 else ""
    file.write_text(NGINX.format(folder=folder, user=user, block=block))
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program, "nginx is missing: apt-get install nginx-light"
    checked = subprocess.run(
        [program, "-t", "-c", str(file)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    assert "[warn]" not in checked.stderr
    with running([program, "-c", str(file)], front):
        yield front


@contextmanager
def caddy(folder: Path, upstream: str, certificate: Certificate) -> Iterator[Front]:
    front = Front(port=free_port(), certificate=certificate.certificate)
    block = block_of("caddyfile")
    home = {**os.environ, "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    program = shutil.which("caddy")
    assert program, "caddy is missing: apt-get install caddy"
    file = folder / "Caddyfile"
    file.write_text(block)
    words = ["--adapter", "caddyfile", "--config", str(file)]
    checked = subprocess.run(
        [program, "validate", *words], capture_output=True, text=True, check=False, env=home
    )
    assert checked.returncode == 0, checked.stderr
    tls = f"\tbind 127.0.0.1\n\ttls {certificate.certificate} {certificate.key}\n"
    site = f"https://{NAME}:{front.port} {{\n{tls}"
    rest = "{\n\tadmin off\n\tauto_https disable_redirects\n}\n"
    file.write_text(rest + block.replace(f"{NAME} {{\n", site).replace(UPSTREAM, upstream))
    with running([program, "run", *words], front, env=home):
        yield front


@contextmanager
def running(
    command: list[str], front: Front, *, env: Mapping[str, str] | None = None
) -> Iterator[None]:
    log = front.certificate.with_name(f"{front.port}.log")
    with log.open("wb") as file, subprocess.Popen(command, stderr=file, env=env) as process:
        try:
            wait_for(lambda: answers(front.port) or process.poll() is not None)
            assert process.poll() is None, log.read_text()
            yield
        finally:
            process.terminate()


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


Server = Callable[[Path, str, "Certificate"], AbstractContextManager[Front]]
SERVERS: Final[list[Server]] = [nginx, caddy]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"), NAME)


@pytest.mark.parametrize("server", SERVERS)
def test_the_service_is_reached_through_it(
    works: Works, tmp_path: Path, certificate: Certificate, *, server: Server
) -> None:
    works.environment["ORCHESTRATOR_ACTION_TOKEN"] = "a-token-that-is-long-enough"
    works.write(works.desk.node())
    with (
        works.running() as service,
        server(tmp_path, service.url.removeprefix("http://"), certificate) as front,
    ):
        assert front.ask("/healthz") == (200, '{"status": "ok"}')
        assert front.ask("/metrics")[0] == 404
        # A page that follows a release is answered before it ends.
        command = front.curl("/status/events", "-N")
        with subprocess.Popen(command, stdout=subprocess.PIPE) as follower:
            assert follower.stdout is not None
            assert follower.stdout.readline()
            follower.kill()
        body = payload()
        status, told = front.post("/webhook", body, signed(body))
        assert (status, json.loads(told)["message"]) == (202, "1.0.0 is queued")
        assert front.post("/webhook", body + b" ", signed(body))[0] == 401
        works.wait_until_published()
        wait_for(lambda: works.orders()["1.0.0#1"][0] == "SUCCESS")
        status, page = front.ask("/status", "-H", "Accept: text/html")
        assert status == 200
        assert "1.0.0" in page
        whole = front.ask("/")[1]
        assert whole.startswith("#!/bin/sh")
        assert front.ask("/", "-r", "0-8") == (206, "#!/bin/sh")
        # Larger than the service takes, and than the web server does.
        assert front.refuses(b"x" * 5_500_000)
        assert front.refuses(b"x" * 7_000_000)
        # A form of this very site, at this port, with a token that is wrong.
        form = {
            "Origin": f"https://{NAME}:{front.port}",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        status, told = front.post("/status/releases/1.0.0/retry", b"token=wrong", form)
        assert status == 403
        assert "token is not right" in told
        form["Origin"] = "https://evil.example.org"
        assert "another site" in front.post("/status/releases/1.0.0/retry", b"token=x", form)[1]


def test_who_comes_without_tls_is_sent_to_it(tmp_path: Path, certificate: Certificate) -> None:
    with nginx(tmp_path, UPSTREAM, certificate) as front:
        told = ["-sS", "-o", "/dev/null", "-w", "%{http_code} %{redirect_url}"]
        address = ["-H", f"Host: {NAME}", f"http://127.0.0.1:{front.plain_port}/install.sh"]
        done = subprocess.run(["curl", *told, *address], capture_output=True, text=True, check=True)
    assert done.stdout == f"301 https://{NAME}/install.sh"
