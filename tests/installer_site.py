"""A published site on loopback and a simulated host: what the tests of install.sh stand on."""

from __future__ import annotations

import gzip
import hashlib
import io
import ipaddress
import shutil
import ssl
import subprocess
import tarfile
import threading
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from orchestrator.core.archive import ArchiveEntry, pack_archive
from orchestrator.core.downloads import newest_builds
from orchestrator.core.index import (
    Index,
    Row,
    Status,
    join_signed,
    parse_floor,
    render_index,
    render_row,
    sort_rows,
)
from orchestrator.core.installer import InstallerValues, render_installer
from orchestrator.core.keys import KeyStatement, join_keys, render_keys
from orchestrator.core.signature import index_namespace, keys_namespace
from orchestrator.core.version import parse_version
from orchestrator.signing import FileSigner
from orchestrator.stores.publish import revision_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

ROOT: Final = Path(__file__).parent.parent
TEMPLATE: Final = (ROOT / "install.sh.j2").read_text()
PROJECT: Final = "tool"
GNU: Final = "x86_64-unknown-linux-gnu"
MUSL: Final = "x86_64-unknown-linux-musl"

VERIFIERS: Final = ("ssh-keygen", "minisign", "signify-openbsd", "openssl")

# What every system has; downloaders, hash tools and verifiers are added by the test that is about
# them.
BASE_TOOLS: Final = tuple(
    """
    [ awk basename cat chmod cut date dd dirname echo env expr false grep gzip head kill ln ls mkdir
    mktemp mv od printf pwd rm rmdir sed sh sleep sort tail tar test touch tr true wc
    """.split()  # noqa: SIM905 -- a column of 40 names tells less
)

# Enough to install with. No verifier: most tests are not about signatures.
DEFAULT_TOOLS: Final = ("curl", "wget", "sha256sum", "shasum", "perl")


def uname(
    system: str, machine: str, *, processor: str = "unknown", release: str = "1.0", os: str = ""
) -> str:
    """Return the shell text of a `uname`; without `os` it does not know -o."""
    answers = {"-s": system, "-m": machine, "-p": processor, "-r": release, "-o": os}
    cases = " ".join(f"{flag}) echo '{answer}' ;;" for flag, answer in answers.items() if answer)
    return f"case $1 in {cases} *) exit 1 ;; esac"


LINUX: Final = {
    "uname": uname("Linux", "x86_64", release="6.1.0-18-amd64", os="GNU/Linux"),
    "getconf": '[ "$1" = GNU_LIBC_VERSION ] && echo "glibc 2.36"',
    "id": "echo 1000",
    # A 64-bit userland, whatever the tests run on.
    "od": "echo ' 02'",
}


@dataclass(kw_only=True)
class Site:
    """One folder of the server: what a project has published."""

    root: Path
    url: str
    signer: FileSigner
    redirects: dict[str, str]
    rotation: FileSigner | None = None
    project: str = PROJECT
    serial: int = 7
    keys_serial: int = 0
    rows: list[Row] = field(default_factory=list)

    @property
    def values(self) -> InstallerValues:
        rotation = (self.rotation.public,) if self.rotation else ()
        return InstallerValues(
            project=self.project,
            binaries=(self.project,),
            base_urls=(self.url,),
            channel="stable",
            ssh_keys=(self.signer.public.ssh,),
            minisign_keys=(self.signer.public.minisign,),
            rotation_ssh_keys=tuple(key.ssh for key in rotation),
            rotation_minisign_keys=tuple(key.minisign for key in rotation),
            keys_serial=self.keys_serial,
            newest=tuple(map(render_row, sort_rows(newest_builds(self.rows)))),
        )

    @cached_property
    def script(self) -> str:
        return render_installer(TEMPLATE, self.values)

    @property
    def index(self) -> Path:
        return self.root / "stable.idx"

    def add(  # noqa: PLR0913 -- a test's words are clearer by name than by object
        self,
        version: str,
        target: str = GNU,
        *,
        status: Status = Status.OK,
        floors: str = "",
        program: str | None = None,
        extras: Mapping[str, bytes] | None = None,
        revision: int = 1,
    ) -> Row:
        """Add a row, and for anything but a pending one the archive that it names.

        `extras` are the files that lie beside the binary, by their names.
        """
        row = Row(
            target=target,
            version=parse_version(version),
            status=status,
            floors=tuple(parse_floor(floor) for floor in floors.split(",") if floor),
        )
        if status is not Status.PENDING:
            program = program or f'#!/bin/sh\necho "{self.project} {version}"\n'
            row = self._packed(row, program, extras or {}, revision=revision)
        self.rows.append(row)
        return row

    def _packed(self, row: Row, program: str, extras: Mapping[str, bytes], *, revision: int) -> Row:
        key = row.label
        folder = f"{self.project}-{row.version}-{key}"
        path = f"releases/{row.version}/{key}/{revision_folder(revision)}{folder}.tar.gz"
        archive = pack_archive(
            folder,
            [
                ArchiveEntry(name=self.project, data=program.encode(), is_executable=True),
                *(
                    ArchiveEntry(name=name, data=data, is_executable=False)
                    for name, data in extras.items()
                ),
            ],
        )
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(archive)
        return self.relisted(replace(row, path=path), archive)

    def relisted(self, row: Row, archive: bytes) -> Row:
        """Return the row as it would be for other bytes."""
        return replace(row, size_bytes=len(archive), sha256=hashlib.sha256(archive).hexdigest())

    def archive(self, row: Row) -> Path:
        assert row.path is not None
        return self.root / row.path

    def publish(self, *, expires_in: timedelta = timedelta(days=90)) -> None:
        """Sign and write the index of all rows; they must be in the order that an index has."""
        today = datetime.now(UTC).date()
        expires = today + expires_in
        index = Index(
            project=self.project,
            channel="stable",
            serial=self.serial,
            issued=min(today, expires),
            expires=expires,
            rows=tuple(self.rows),
        )
        self.publish_text(render_index(index))

    def publish_text(self, text: str) -> None:
        """Sign and write any text as the index."""
        namespace = index_namespace(PROJECT)
        signatures = self.signer.sign(text.encode(), namespace=namespace, comment="index")
        self.index.write_text(join_signed(text, signatures.sshsig, signatures.minisig))

    def publish_keys(
        self,
        active: Sequence[FileSigner],
        revoked: Sequence[FileSigner] = (),
        *,
        serial: int = 1,
        by: FileSigner | None = None,
    ) -> None:
        """Write keys.txt, signed by the rotation key unless somebody else does it."""
        statement = KeyStatement(
            project=self.project,
            serial=serial,
            issued=datetime.now(UTC).date(),
            active=tuple(signer.public for signer in active),
            revoked=tuple(signer.public for signer in revoked),
        )
        self.publish_keys_text(render_keys(statement), by=by)
        if by is None:
            self.keys_serial = serial

    def publish_keys_text(
        self, text: str, *, by: FileSigner | None = None, namespace: str | None = None
    ) -> None:
        """Write any text as keys.txt, signed."""
        signer = by or self.rotation
        assert signer is not None
        pair = signer.sign(
            text.encode(), namespace=namespace or keys_namespace(self.project), comment="keys"
        )
        self.keys.write_text(join_keys(text, pair.sshsig, pair.minisig))

    @property
    def keys(self) -> Path:
        return self.root / "keys.txt"


def pack(files: Mapping[str, bytes], *, link: str | None = None) -> bytes:
    """Return a .tar.gz of executable files, or of links that all lead to one place."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.mode = 0o755
            if link is None:
                entry.size = len(content)
            else:
                entry.type, entry.linkname = tarfile.SYMTYPE, link
            archive.addfile(entry, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), mtime=0)


@dataclass(kw_only=True)
class Server:
    """The HTTP server that all sites of a test session share."""

    root: Path
    url: str
    redirects: dict[str, str]
    signer: FileSigner
    _count: int = 0

    def site(self) -> Site:
        """Return a new, empty site."""
        self._count += 1
        root = self.root / str(self._count)
        root.mkdir()
        return Site(
            root=root, url=f"{self.url}/{self._count}", signer=self.signer, redirects=self.redirects
        )


def serve(root: Path, tls: ssl.SSLContext | None = None) -> Generator[Server]:
    """Yield a server of the folder on loopback."""
    redirects: dict[str, str] = {}

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, directory=str(root), **kwargs)

        def do_GET(self) -> None:
            if self.path in redirects:
                self.send_response(302)
                self.send_header("Location", redirects[self.path])
                self.end_headers()
            else:
                super().do_GET()

        def log_message(self, *args: object) -> None:
            del args

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            # The handshake is the handler's: a client that breaks it off must not hold up others.
            server.socket = tls.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield Server(
                root=root,
                url=f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}",
                redirects=redirects,
                signer=FileSigner(Ed25519PrivateKey.generate()),
            )
        finally:
            server.shutdown()
            thread.join()


def certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """Return a new certificate for 127.0.0.1 that signs itself, and a server's use of it."""
    # Of the kind that every downloader knows.
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")])
    now = datetime.now(UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, SHA256())
    )
    file = folder / "certificate.pem"
    file.write_bytes(signed.public_bytes(Encoding.PEM))
    key_file = folder / "key.pem"
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # BusyBox names no signature algorithm, which leaves SHA-1 to the server.
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.load_cert_chain(file, key_file)
    return file, context


@dataclass(kw_only=True)
class Host:
    """A machine to install on: a scratch home, and nothing on PATH but what its system has."""

    root: Path
    path: list[str] = field(default_factory=list)
    shell: Path = Path("/bin/sh")

    def __post_init__(self) -> None:
        for folder in (self.home, self.shims, self.temporary):
            folder.mkdir(parents=True)
        self.path = [str(self.shims)]
        self.simulate(LINUX)
        self.provide(*BASE_TOOLS, *DEFAULT_TOOLS)

    @property
    def home(self) -> Path:
        return self.root / "home of a user"

    @property
    def bin(self) -> Path:
        return self.home / ".local/bin"

    @property
    def binary(self) -> Path:
        return self.bin / PROJECT

    @property
    def receipt(self) -> Path:
        return self.home / ".config" / PROJECT / "receipt"

    @property
    def shims(self) -> Path:
        return self.root / "shims"

    @property
    def temporary(self) -> Path:
        return self.root / "tmp dir"

    def simulate(self, tools: Mapping[str, str]) -> None:
        """Put tools, given as shell text, before all others."""
        for name, text in tools.items():
            shim = self.shims / name
            shim.unlink(missing_ok=True)
            shim.write_text(f"#!/bin/sh\n{text}\n")
            shim.chmod(0o755)

    def provide(self, *tools: str) -> None:
        """Put tools of this machine on PATH, if it has them; a simulated one stays."""
        for name in tools:
            found = shutil.which(name)
            if found and not (self.shims / name).exists():
                (self.shims / name).symlink_to(found)

    def provide_only(self, *tools: str) -> None:
        """Leave these tools, the simulated ones, and what every system has."""
        for name in DEFAULT_TOOLS:
            if (self.shims / name).is_symlink():
                (self.shims / name).unlink()
        self.provide(*tools)

    def run(
        self, script: str, *arguments: str, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Pipe the script into the shell, as `curl … | sh -s -- ARGUMENTS` does."""
        # posh has no -s; without arguments it reads its input all the same.
        options = ["-s", "--", *arguments] if arguments else []
        environment = {
            "HOME": str(self.home),
            "PATH": ":".join(self.path),
            "SHELL": "/bin/sh",
            "TMPDIR": str(self.temporary),
            "XDG_BIN_HOME": str(self.bin),
        }
        return subprocess.run(
            [self.shell, *options],
            input=script,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            cwd=self.root,
            env=environment | dict(env or {}),
        )

    def tree(self) -> dict[str, tuple[int, bytes]]:
        """Return every file and folder that an installer could have touched, with its content."""
        return {
            str(path.relative_to(self.root)): (path.lstat().st_mode, _content(path))
            for top in (self.home, self.temporary)
            for path in sorted(top.rglob("*"))
        }


def _content(path: Path) -> bytes:
    if path.is_symlink():
        return str(path.readlink()).encode()
    return path.read_bytes() if path.is_file() else b""


def as_shell(folder: Path, program: str) -> Path:
    """Return a shell that is called by the name `sh`, which is how it learns to be one."""
    found = shutil.which(program)
    assert found is not None
    link = folder / program / "sh"
    link.parent.mkdir(parents=True)
    link.symlink_to(found)
    return link


def said(result: subprocess.CompletedProcess[str]) -> str:
    """Return everything that was printed."""
    return result.stdout + result.stderr


def verdicts(plan: str) -> Sequence[str]:
    """Return the candidate lines of a `--plan`."""
    return [line.strip() for line in plan.splitlines() if line.startswith("  ")]


def assert_untouched(host: Host, action: Callable[[], subprocess.CompletedProcess[str]]) -> str:
    """Run what must be refused; return what was printed."""
    before = host.tree()
    result = action()
    assert result.returncode == 1, said(result)
    assert host.tree() == before
    assert result.stderr.count("\nerror: ") + result.stderr.startswith("error: ") == 1
    return said(result)


def needs(tool: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(tool) is None, reason=f"needs {tool}")


def _knows_rawin() -> bool:
    """Whether there is an openssl that can check an Ed25519 signature: not LibreSSL's."""
    if shutil.which("openssl") is None:
        return False
    command = ["openssl", "pkeyutl", "-help"]
    return b"-rawin" in subprocess.run(command, capture_output=True, check=False).stderr


needs_openssl_3: Final = pytest.mark.skipif(not _knows_rawin(), reason="needs openssl 3")


def verifier_params() -> list[object]:
    """Return the verifiers of an installer as parameters of a test."""
    return [
        *(pytest.param(name, marks=needs(name)) for name in VERIFIERS[:-1]),
        pytest.param("openssl", marks=needs_openssl_3),
    ]
