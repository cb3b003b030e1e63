"""What the download page says about verifying by hand, done by hand: with the real tools."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import html5lib
import pytest

from orchestrator.core.archive import sha256_line
from orchestrator.core.installer import InstallerValues
from orchestrator.core.page import render_page
from orchestrator.core.signature import artifact_namespace
from orchestrator.signing import FileSigner, generate_key, load_signer
from tests.sample_index import make_index, make_row

if TYPE_CHECKING:
    from pathlib import Path

SIGNIFY = shutil.which("signify-openbsd") or shutil.which("signify")
needs_tools = pytest.mark.skipif(
    SIGNIFY is None or not shutil.which("minisign"), reason="needs minisign and signify-openbsd"
)
DATA = b"not really an archive"


@pytest.fixture(scope="module")
def signers(tmp_path_factory: pytest.TempPathFactory) -> tuple[FileSigner, FileSigner]:
    folder = tmp_path_factory.mktemp("keys")
    for name in "ab":
        generate_key(folder / name, passphrase=None)
    return load_signer(folder / "a", None), load_signer(folder / "b", None)


@pytest.fixture
def download(tmp_path: Path, signers: tuple[FileSigner, FileSigner]) -> Path:
    """A folder with an archive that the second key signed, and what lies beside it."""
    row = make_row("1.0.0", "x86_64-unknown-linux-gnu")
    assert row.path is not None
    name = row.path.rpartition("/")[2]
    signatures = signers[1].sign(DATA, namespace=artifact_namespace("tool"), comment="file")
    (tmp_path / name).write_bytes(DATA)
    (tmp_path / f"{name}.minisig").write_text(signatures.minisig)
    (tmp_path / f"{name}.sshsig").write_text(signatures.sshsig)
    digest = subprocess.run(
        ["sha256sum", tmp_path / name], check=True, capture_output=True, text=True
    ).stdout.split()[0]
    (tmp_path / f"{name}.sha256").write_text(sha256_line(digest, name))
    if SIGNIFY:
        (tmp_path / "signify").symlink_to(SIGNIFY)
    return tmp_path


def sections(signers: tuple[FileSigner, ...]) -> dict[str, str]:
    """Return the commands of the page's last part by the heading above each."""
    values = InstallerValues(
        project="tool",
        binaries=("tool",),
        base_urls=("https://example.org",),
        channel="stable",
        ssh_keys=tuple(each.public.ssh for each in signers),
        minisign_keys=tuple(each.public.minisign for each in signers),
    )
    page = render_page(values, make_index([make_row("1.0.0", "x86_64-unknown-linux-gnu")]))
    tree = html5lib.parse(page, namespaceHTMLElements=False)
    found, title = {}, ""
    for element in tree.iter():
        if element.tag == "h3":
            title = "".join(element.itertext())
        elif element.tag == "pre":
            found[title] = "".join(element.itertext())
    return found


def run(folder: Path, *lines: str) -> int:
    script = "PATH=.:$PATH\n" + "\n".join(lines)
    return subprocess.run(["sh", "-c", script], cwd=folder, capture_output=True).returncode  # noqa: PLW1510 -- the code is the answer


def outcomes(folder: Path, signers: tuple[FileSigner, ...]) -> dict[str, int]:
    """Return how each way ends; of several commands for one way, the best counts."""
    said = sections(signers)
    first = said["First, name the archive"]
    ssh = said["With OpenSSH 8.1 or newer"]
    minisign = said["With minisign"].splitlines()
    signify = said["With signify, which OpenBSD has"].splitlines()
    return {
        "checksum": run(folder, first, said["With a checksum"].splitlines()[0]),
        "ssh": run(folder, first, ssh),
        "minisign": min(run(folder, first, line) for line in minisign),
        "signify": min(
            run(folder, first, *signify[number : number + 2])
            for number in range(0, len(signify), 2)
        ),
    }


@needs_tools
def test_every_way_accepts_what_one_of_several_keys_signed(
    download: Path, signers: tuple[FileSigner, FileSigner]
) -> None:
    assert outcomes(download, signers) == dict.fromkeys(
        ("checksum", "ssh", "minisign", "signify"), 0
    )
    assert outcomes(download, signers[1:])["signify"] == 0


def test_the_installer_is_verified_with_the_same_keys(
    download: Path, signers: tuple[FileSigner, FileSigner]
) -> None:
    said = sections(signers)
    setup, command = said["With OpenSSH 8.1 or newer"], said["The installer itself, with OpenSSH"]
    (download / "install.sh").write_bytes(DATA)
    sshsig = signers[1].sign_ssh(DATA, namespace="installer@tool")
    (download / "install.sh.sig").write_text(sshsig)
    assert run(download, setup.rpartition("\n")[0], command) == 0
    (download / "install.sh").write_bytes(DATA + b"!")
    assert run(download, command) != 0


@needs_tools
def test_every_way_refuses_an_archive_that_was_changed(
    download: Path, signers: tuple[FileSigner, FileSigner]
) -> None:
    (archive,) = download.glob("*.tar.gz")
    archive.write_bytes(DATA + b"!")
    assert all(outcomes(download, signers).values())


@needs_tools
def test_a_key_that_is_not_on_the_page_is_not_enough(
    download: Path, signers: tuple[FileSigner, FileSigner]
) -> None:
    found = outcomes(download, signers[:1])
    assert found.pop("checksum") == 0
    assert all(found.values())
