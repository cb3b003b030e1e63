"""Archives are the same bytes every time, and every tar reads them."""

from __future__ import annotations

import gzip
import hashlib
import io
import shutil
import subprocess
import tarfile
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.archive import ArchiveEntry, archive_name, pack_archive, sha256_line
from orchestrator.core.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = "ballistics-0.13.5-x86_64-unknown-netbsd"
PROGRAM = ArchiveEntry(name="ballistics", data=b"\x7fELF" + bytes(70_000), is_executable=True)
README = ArchiveEntry(name="README.md", data=b"# Read me\n", is_executable=False)


def test_the_order_of_the_entries_does_not_matter() -> None:
    assert pack_archive(FOLDER, [PROGRAM, README]) == pack_archive(FOLDER, [README, PROGRAM])


def test_an_archive_says_nothing_about_when_and_where_it_was_made() -> None:
    data = pack_archive(FOLDER, [PROGRAM, README])
    assert data[:10] == b"\x1f\x8b\x08\0\0\0\0\0\x02\xff"
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = tar.getmembers()
    assert [(member.name, member.mode) for member in members] == [
        (f"{FOLDER}/README.md", 0o644),
        (f"{FOLDER}/ballistics", 0o755),
    ]
    for member in members:
        assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "", "")
        assert (member.mtime, member.pax_headers) == (315532800, {})


def test_the_bytes_before_compression_stay_the_same_from_one_version_to_the_next() -> None:
    """An archive that changes here is one that can no longer be reproduced."""
    content = gzip.decompress(pack_archive(FOLDER, [README]))
    assert hashlib.sha256(content).hexdigest() == EXPECTED


EXPECTED = "2c2de0082f7e432736498c91fa6c08e30e40edbf5befdf0111457ab398227f14"


TARS = [["tar"], ["bsdtar"], ["busybox", "tar"]]


@pytest.mark.parametrize("command", TARS, ids=" ".join)
def test_the_tars_of_this_machine_unpack_it(command: list[str], tmp_path: Path) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"needs {command[0]}")
    archive = tmp_path / "x.tar.gz"
    archive.write_bytes(pack_archive(FOLDER, [PROGRAM, README]))
    done = subprocess.run(
        [*command, "-xzf", archive, "-C", tmp_path], check=True, capture_output=True, text=True
    )
    assert done.stderr == ""
    program, readme = tmp_path / FOLDER / "ballistics", tmp_path / FOLDER / "README.md"
    assert program.read_bytes() == PROGRAM.data
    assert program.stat().st_mode & 0o111
    assert readme.read_bytes() == README.data
    assert not readme.stat().st_mode & 0o111


BAD_NAMES = ["", ".", "..", ".hidden", "-rf", "a/b", "a b", "a\n", "ä", "a`b", "x" * 256]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_an_unsafe_name_enters_no_archive(name: str) -> None:
    entry = ArchiveEntry(name=name, data=b"", is_executable=False)
    with pytest.raises(ConfigError, match="safe file name"):
        pack_archive("folder", [entry])
    with pytest.raises(ConfigError, match="safe file name"):
        pack_archive(name, [README])
    with pytest.raises(ConfigError, match="safe file name"):
        sha256_line("0" * 64, name)


def test_the_longest_names_fit() -> None:
    folder, name = "f" * 155, "n" * 100
    entry = ArchiveEntry(name=name, data=b"x", is_executable=True)
    with tarfile.open(fileobj=io.BytesIO(pack_archive(folder, [entry]))) as tar:
        assert tar.getnames() == [f"{folder}/{name}"]
    with pytest.raises(ConfigError, match="safe file name"):
        pack_archive(folder + "f", [entry])
    with pytest.raises(ConfigError, match="safe file name"):
        pack_archive(folder, [replace(entry, name=name + "n")])


def test_an_archive_has_files_and_each_name_once() -> None:
    with pytest.raises(ConfigError, match="needs files"):
        pack_archive(FOLDER, [])
    with pytest.raises(ConfigError, match="each with its own name"):
        pack_archive(FOLDER, [README, README])


def test_an_archive_is_named_after_what_is_in_it() -> None:
    name = archive_name("ballistics", "1.0.0-rc.1+b2", "x86_64-unknown-openbsd7.8")
    assert name == "ballistics-1.0.0-rc.1+b2-x86_64-unknown-openbsd7.8.tar.gz"
    with pytest.raises(ConfigError):
        archive_name("../x", "1.0.0", "x86_64-unknown-netbsd")


@pytest.mark.parametrize("sha256", ["", "0" * 63, "A" * 64, "0" * 64 + "\n", "g" * 64])
def test_only_a_hash_enters_a_checksum_line(sha256: str) -> None:
    with pytest.raises(ConfigError, match="SHA-256"):
        sha256_line(sha256, "x")


@pytest.mark.parametrize("command", [["sha256sum"], ["busybox", "sha256sum"], ["shasum", "-a256"]])
def test_the_checksum_tools_of_this_machine_accept_the_line(
    command: list[str], tmp_path: Path
) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"needs {command[0]}")
    data = pack_archive(FOLDER, [README])
    (tmp_path / "x.tar.gz").write_bytes(data)
    line = sha256_line(hashlib.sha256(data).hexdigest(), "x.tar.gz")
    (tmp_path / "x.sha256").write_text(line)
    check = [*command, "-c", "x.sha256"]
    assert subprocess.run(check, cwd=tmp_path, check=False).returncode == 0
    (tmp_path / "x.tar.gz").write_bytes(data[:-1] + b"x")
    assert subprocess.run(check, cwd=tmp_path, check=False).returncode != 0
