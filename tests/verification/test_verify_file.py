"""`orchestrator verify FILE`: what somebody downloaded, without a network."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from tests.verification.site import LINUX, SBOM, Site, sha256

if TYPE_CHECKING:
    from pathlib import Path

PARTS = ("checksum file", "SSH signature", "minisign signature", "provenance", "bill of materials")


def copied(site: Site, folder: Path, *, with_sides: bool = True) -> Path:
    """Return the archive as somebody has it who downloaded it."""
    folder.mkdir(exist_ok=True)
    source = site.archive()
    names = source.parent.iterdir() if with_sides else [source]
    for path in names:
        shutil.copy(path, folder / path.name)
    return folder / source.name


def test_a_whole_download_is_good(site: Site, tmp_path: Path) -> None:
    site.publish()
    said = site.verify(copied(site, tmp_path / "here"))
    assert said.code == 0, said.data
    assert [said.part(part) for part in (*PARTS, "index")] == [{"good"}] * 6


def test_a_stranger_needs_only_the_key(site: Site, tmp_path: Path) -> None:
    site.publish()
    archive = copied(site, tmp_path / "here")
    shutil.copy(site.index(), tmp_path / "here")
    key = site.signer.public.ssh
    site.inventory.unlink()
    said = site.verify(archive, "--key", key, "--index", str(tmp_path / "here" / "stable.idx"))
    assert said.code == 0, said.data
    assert [said.part(part) for part in (*PARTS, "index")] == [{"good"}] * 6


def test_what_is_not_there_is_named_and_is_no_failure(site: Site, tmp_path: Path) -> None:
    site.publish()
    archive = copied(site, tmp_path / "here", with_sides=False)
    said = site.verify(archive)
    assert said.code == 0
    assert [said.part(part) for part in PARTS] == [{"not checked"}] * 5
    assert said.part("index") == {"good"}


def test_nothing_that_vouches_is_a_failure(site: Site, tmp_path: Path) -> None:
    site.publish()
    archive = copied(site, tmp_path / "here", with_sides=False)
    shutil.copy(site.archive().with_name(f"{archive.name}.sha256"), archive.parent)
    key = site.signer.public.ssh
    site.inventory.unlink()
    said = site.verify(archive, "--key", key)
    assert said.code == 5
    assert "nothing that a trusted key has signed vouches for it" in said.problems


def test_evidence_may_lie_beside_it_under_its_own_name(site: Site, tmp_path: Path) -> None:
    site.publish()
    archive = copied(site, tmp_path / "here")
    for name in ("provenance.json", "sbom.cdx.json"):
        (archive.parent / name).rename(archive.parent / f"{archive.name}.{name}")
    said = site.verify(archive)
    assert said.code == 0
    assert (said.part("provenance"), said.part("bill of materials")) == ({"good"}, {"good"})


@pytest.mark.parametrize(
    ("end", "part", "told"),
    [
        (".sha256", "checksum file", "it has the digest of another file"),
        (".sshsig", "SSH signature", "bad signature"),
        (".minisig", "minisign signature", "bad signature"),
        ("provenance.json", "provenance", "it is about another archive"),
        ("sbom.cdx.json", "bill of materials", "not the one that the provenance names"),
    ],
)
def test_a_part_of_another_archive_is_refused(
    site: Site, tmp_path: Path, *, end: str, part: str, told: str
) -> None:
    site.publish()
    archive = copied(site, tmp_path / "here")
    other = site.archive(triple=LINUX)
    if end == "sbom.cdx.json":
        (archive.parent / end).write_bytes(SBOM + b"\n")
    elif end.startswith("."):
        shutil.copy(f"{other}{end}", f"{archive}{end}")
    else:
        shutil.copy(other.parent / end, archive.parent / end)
    said = site.verify(archive)
    assert said.code == 5
    assert said.part(part) == {"wrong"}
    assert told in said.problems


def test_one_flipped_bit_is_seen_by_every_part(site: Site, tmp_path: Path) -> None:
    site.publish()
    archive = copied(site, tmp_path / "here")
    data = bytearray(archive.read_bytes())
    data[3] ^= 1
    archive.write_bytes(data)
    said = site.verify(archive)
    assert said.code == 5
    assert [said.part(part) for part in PARTS[:4]] == [{"wrong"}] * 4
    assert said.part("index", archive.name) == {"wrong"}


def test_another_version_under_this_name_is_refused(site: Site, tmp_path: Path) -> None:
    """A valid old archive with its valid signatures, renamed: the signed comment tells."""
    site.publish("1.0.0")
    site.publish("2.0.0")
    archive = copied(site, tmp_path / "here")
    fresh = archive.with_name(site.archive("2.0.0").name)
    for end in ("", ".sshsig", ".minisig"):
        archive.with_name(archive.name + end).rename(fresh.with_name(fresh.name + end))
    said = site.verify(fresh)
    assert said.code == 5
    assert "it was made for the file demo-1.0.0-" in said.problems
    assert "it lists other bytes under this name" in said.problems


@pytest.mark.parametrize("end", ["sshsig", "minisig", "sha256"])
def test_bytes_that_are_no_text_are_refused(site: Site, tmp_path: Path, end: str) -> None:
    site.publish()
    archive = copied(site, tmp_path / "here")
    archive.with_name(f"{archive.name}.{end}").write_bytes(b"\xff\xfe")
    assert site.verify(archive).code == 5


def test_a_checksum_line_that_the_tool_would_refuse_is_refused(site: Site, tmp_path: Path) -> None:
    site.publish()
    archive = copied(site, tmp_path / "here")
    archive.with_name(f"{archive.name}.sha256").write_text(f"{sha256(archive)}\n")
    said = site.verify(archive)
    assert "not a line that `sha256sum -c` accepts" in said.problems


def test_provenance_of_a_stranger_is_refused(site: Site, tmp_path: Path) -> None:
    site.publish()
    archive = copied(site, tmp_path / "here")
    site.write(key="other")
    said = site.verify(archive)
    assert said.code == 5
    assert "no trusted key has signed the statement" in said.problems


def test_a_bill_without_provenance_is_not_checked(site: Site, tmp_path: Path) -> None:
    site.publish()
    archive = copied(site, tmp_path / "here")
    (archive.parent / "provenance.json").unlink()
    said = site.verify(archive)
    assert said.code == 0
    assert said.part("bill of materials") == {"not checked"}


def test_a_stale_index_is_refused(site: Site, tmp_path: Path) -> None:
    today = datetime.now(UTC).date()
    site.publish(today=today - timedelta(days=91))
    said = site.verify(copied(site, tmp_path / "here"))
    assert said.code == 5
    assert "stale: it expired on" in said.problems


def test_an_index_from_the_future_is_refused(site: Site) -> None:
    today = datetime.now(UTC).date()
    site.publish(today=today + timedelta(days=3))
    assert "yet to come" in site.verify(site.index()).problems


def test_an_index_below_a_serial_that_was_seen_is_refused(site: Site) -> None:
    site.publish()
    assert site.verify(site.index(), "--min-serial", "1").code == 0
    said = site.verify(site.index(), "--min-serial", "2")
    assert said.code == 5
    assert "rolled back: it has serial 1, and 2 is the least that is accepted" in said.problems


def test_a_truncated_index_is_refused(site: Site) -> None:
    site.publish()
    data = site.index().read_bytes()
    place = site.folder / "stable.idx"
    for size in (0, 10, len(data) // 2, len(data) - 1):
        place.write_bytes(data[:size])
        said = site.verify(place)
        assert said.code == 5
        assert "truncated, or not an index" in said.problems


def test_an_index_that_another_key_signed_is_refused(site: Site) -> None:
    site.publish()
    old = site.folder / "old.idx"
    shutil.copy(site.index(), old)
    site.write(key="other")
    said = site.verify(old)
    assert said.code == 5
    assert "signed by another key (" in said.problems


def test_an_index_that_was_changed_is_refused(site: Site) -> None:
    site.publish()
    place = site.folder / "stable.idx"
    place.write_bytes(site.index().read_bytes().replace(b"\tok\t", b"\tyanked\t", 1))
    said = site.verify(place)
    assert said.code == 5
    assert "changed after it was signed" in said.problems


def test_a_mixed_index_is_refused(site: Site) -> None:
    """The text and one signature of one serial, the other signature of the next."""
    site.publish("1.0.0")
    one = site.index().read_text()
    site.publish("2.0.0")
    two = site.index().read_text()
    place = site.folder / "stable.idx"
    mark = "untrusted comment:"
    place.write_text(one.partition(mark)[0] + mark + two.partition(mark)[2])
    said = site.verify(place)
    assert said.code == 5
    assert "mixed: only one of its two signatures" in said.problems


def test_an_index_of_another_project_is_refused(site: Site) -> None:
    site.publish()
    text = site.inventory.read_text()
    site.inventory.write_text(text.replace('"name": "demo"', '"name": "other"'))
    assert site.verify(site.index()).code == 5


def test_bytes_that_are_no_index_are_refused(site: Site) -> None:
    place = site.folder / "stable.idx"
    place.write_bytes(b"\xff")
    assert "it is not ASCII text" in site.verify(place).problems
    place.write_text("untrusted\n")
    key = site.signer.public.ssh
    site.inventory.unlink()
    assert site.verify(place, "--key", key).code == 5


def test_an_index_tells_by_itself_what_project_it_is_of(site: Site) -> None:
    site.publish()
    key = site.signer.public.ssh
    site.inventory.unlink()
    assert site.verify(site.index(), "--key", key).code == 0


def test_a_revoked_archive_is_refused_and_a_yanked_one_is_told(site: Site, tmp_path: Path) -> None:
    from orchestrator.core.index import Status  # noqa: PLC0415 -- here only
    from tests.verification.rows import restate  # noqa: PLC0415 -- here only

    site.publish()
    archive = copied(site, tmp_path / "here")
    restate(site, status=Status.YANKED)
    said = site.verify(archive)
    assert said.code == 0
    assert "not offered any more" in json.dumps(said.data)
    restate(site, status=Status.REVOKED)
    said = site.verify(archive)
    assert said.code == 5
    assert "it is revoked" in said.problems


def test_a_name_that_is_no_archive_s_is_refused(site: Site, tmp_path: Path) -> None:
    site.publish()
    (tmp_path / "x.tar.gz").write_bytes(b"x")
    said = site.verify(tmp_path / "x.tar.gz")
    assert said.code == 2
    assert "is not the name of an archive of demo" in said.err


@pytest.mark.parametrize("name", ["gone.idx", "demo-1.0.0-x86_64-unknown-netbsd.tar.gz"])
def test_a_file_that_is_not_there_is_said(site: Site, tmp_path: Path, name: str) -> None:
    said = site.verify(tmp_path / name)
    assert said.code == 2
    assert "cannot be read" in said.err


def test_without_a_key_nothing_can_vouch(site: Site, tmp_path: Path) -> None:
    site.publish()
    archive = copied(site, tmp_path / "here")
    (site.folder / "key.pub").unlink()
    said = site.verify(archive)
    assert said.code == 2
    assert "no key is known" in said.err


def test_a_file_is_not_read_in_public(site: Site) -> None:
    site.publish()
    assert site.verify(site.archive(), "--public").code == 2


def test_a_store_that_cannot_be_read_leaves_the_index_unchecked(site: Site, tmp_path: Path) -> None:
    site.publish()
    archive = copied(site, tmp_path / "here")
    site.index().unlink()
    site.index().symlink_to("/nowhere")
    said = site.verify(archive)
    assert said.code == 0
    assert said.part("index") == {"not checked"}


def test_people_get_a_table(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from orchestrator.cli import main  # noqa: PLC0415 -- here only

    site.publish()
    archive = copied(site, tmp_path / "here")
    capsys.readouterr()
    words = ["verify", str(archive), "--inventory", str(site.inventory)]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert f"{archive.name} is what was signed" in out
    archive.write_bytes(b"x")
    assert main(words) == 5
    out = capsys.readouterr().out
    assert "is not to be trusted as it is" in out
