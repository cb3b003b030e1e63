"""`orchestrator verify VERSION`: in the store, and through the public URL as a stranger would."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.index import Status
from orchestrator.service.directory import serve_directory
from orchestrator.stores.store import kind_of
from tests.servers import serving
from tests.verification.rows import restate
from tests.verification.site import LINUX, NETBSD, Site

if TYPE_CHECKING:
    from pathlib import Path

    from tests.verification.mirror import Mirror

FOLDER = f"releases/1.0.0/{NETBSD}"
ARCHIVE = f"{FOLDER}/demo-1.0.0-{NETBSD}.tar.gz"
COPY = "releases/1.0.0/install.sh"
FLAT = "1.0.0/demo-1.0.0-netbsd-x86_64"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong here stays wrong: nobody waits for a cache."""
    monkeypatch.setattr("orchestrator.verification.public._PAUSES", (0.0, 0.0))


def test_a_version_in_the_store_is_good(site: Site) -> None:
    site.publish(pending=("aarch64-unknown-freebsd",))
    said = site.verify("1.0.0")
    assert said.code == 0, said.data
    for triple in (NETBSD, LINUX):
        for part in ("SSH signature", "minisign signature", "provenance", "index"):
            assert said.part(part, triple) == {"good"}
    assert said.part("archive", "freebsd") == {"not checked"}
    assert said.part("provenance", "1.0.0/demo-1.0.0-netbsd-x86_64") == {"good"}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (ARCHIVE, "it has other bytes than serial 1 says"),
        (f"{ARCHIVE}.sha256", f"demo-1.0.0-{NETBSD}.tar.gz: checksum file: it has the digest of"),
        (f"{ARCHIVE}.sshsig", f"demo-1.0.0-{NETBSD}.tar.gz: SSH signature: bad signature"),
        (f"{ARCHIVE}.minisig", f"demo-1.0.0-{NETBSD}.tar.gz: minisign signature: bad signature"),
        (f"{FOLDER}/provenance.json", "not a DSSE envelope"),
        (f"{FOLDER}/sbom.cdx.json", "not the one that the provenance names"),
        (f"{FLAT}.sha256", "digest of another file"),
        ("stable.idx", "truncated, or not an index"),
    ],
)
def test_what_was_changed_in_the_store_is_named(site: Site, name: str, told: str) -> None:
    site.publish()
    (site.store / name).write_text("x")
    said = site.verify("1.0.0")
    assert said.code == 5
    assert told in said.problems


@pytest.mark.parametrize("end", ["", ".sha256", ".sshsig", ".minisig"])
def test_what_is_missing_in_the_store_is_named(site: Site, end: str) -> None:
    site.publish()
    (site.store / f"{ARCHIVE}{end}").unlink()
    said = site.verify("1.0.0")
    assert said.code == 5
    assert "it is not there" in said.problems


def test_a_version_without_evidence_is_good_and_that_is_said(site: Site) -> None:
    site.publish(evidence=False)
    said = site.verify("1.0.0")
    assert said.code == 0
    assert said.part("provenance") == said.part("bill of materials") == {"not checked"}


def test_a_flat_binary_is_looked_for_where_it_is_published(site: Site) -> None:
    site.publish()
    (site.store / f"{FLAT}.sha256").unlink()
    assert site.verify("1.0.0").code == 5
    (site.store / FLAT).unlink()
    said = site.verify("1.0.0")
    assert said.code == 0
    assert said.part("bare binary") == {"not checked"}
    site.write(flat=False)
    assert site.verify("1.0.0").part("bare binary") == set()


def test_a_flat_binary_of_another_build_is_not_vouched_for(site: Site) -> None:
    from tests.verification.site import sha256  # noqa: PLC0415 -- here only

    site.publish()
    (site.store / FLAT).write_text("another")
    line = f"{sha256(site.store / FLAT)}  {FLAT.rpartition('/')[2]}\n"
    (site.store / f"{FLAT}.sha256").write_text(line)
    said = site.verify("1.0.0")
    assert said.part("provenance", FLAT) == {"not checked"}


def test_the_flat_binary_of_a_reissue_is_the_one_that_is_checked(site: Site) -> None:
    site.publish(triples=(NETBSD,))
    index = site.reissue()
    assert [row.revision for row in index.rows] == [2]
    said = site.verify("1.0.0")
    assert said.code == 0, said.data
    flat = "1.0.0/r2/demo-1.0.0-netbsd-x86_64"
    assert said.part("provenance", flat) == {"good"}
    (site.store / flat).write_text("evil")
    said = site.verify("1.0.0")
    assert said.code == 5
    assert (
        f"{flat.rpartition('/')[2]}: checksum file: it has the digest of another" in said.problems
    )


def test_the_flat_binary_of_a_target_that_only_others_know_is_not_checked(site: Site) -> None:
    site.publish(triples=(NETBSD,))
    other = "loongarch64-unknown-linux-gnu"
    restate(site, target=other)
    said = site.verify("1.0.0")
    assert said.code == 0, said.data
    assert said.part("bare binary", other) == {"not checked"}


def test_a_version_is_no_file_where_a_folder_has_its_name(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.publish()
    monkeypatch.chdir(site.store)
    assert (site.store / "1.0.0").is_dir()
    assert site.verify("1.0.0").code == 0


def test_a_revoked_build_is_no_fault_of_its_version_and_that_is_said(site: Site) -> None:
    site.publish()
    restate(site, status=Status.REVOKED)
    said = site.verify("1.0.0")
    assert said.code == 0, said.data
    messages = [check["message"] for check in said.data["checks"] if check["part"] == "index"]
    assert "revoked: nobody is to use it, serial 2" in messages


def test_a_version_that_nobody_published_is_a_failure(site: Site) -> None:
    assert "not in" in site.verify("1.0.0").problems
    site.publish("1.0.0")
    said = site.verify("2.0.0")
    assert said.code == 5
    assert "serial 1 has nothing of it" in said.problems


def test_a_version_that_is_only_announced_is_a_failure(site: Site) -> None:
    site.publish("1.0.0")
    site.publish("2.0.0", triples=(), pending=(NETBSD,))
    assert "nothing of it is published yet" in site.verify("2.0.0").problems


def test_a_rolled_back_index_is_refused(site: Site) -> None:
    site.publish("1.0.0")
    old = site.index().read_bytes()
    site.publish("2.0.0")
    site.index().write_bytes(old)
    said = site.verify("1.0.0")
    assert said.code == 5
    assert "rolled back: it has serial 1, and 2 was published" in said.problems


def test_a_second_index_with_the_same_serial_is_refused(site: Site, tmp_path: Path) -> None:
    site.publish("1.0.0")
    shutil.copytree(site.store, tmp_path / "fork")
    site.publish("2.0.0")
    history = (site.store / "index" / "stable" / "2.idx").read_bytes()
    shutil.rmtree(site.store)
    shutil.copytree(tmp_path / "fork", site.store)
    site.publish("3.0.0")
    (site.store / "index" / "stable" / "2.idx").write_bytes(history)
    said = site.verify("3.0.0")
    assert said.code == 5
    assert "another index was published with the serial 2" in said.problems


def test_a_planted_history_copy_says_nothing(site: Site) -> None:
    site.publish()
    history = site.store / "index" / "stable"
    (history / "9.idx").write_text("planted")
    shutil.copy(history / "1.idx", history / "8.idx")
    assert site.verify("1.0.0").code == 0


def test_an_index_is_not_given_for_a_version(site: Site) -> None:
    site.publish()
    assert site.verify("1.0.0", "--index", str(site.index())).code == 2


def test_without_a_url_nothing_is_public(site: Site) -> None:
    site.publish()
    said = site.verify("1.0.0", "--public")
    assert said.code == 2
    assert "publication.url" in said.err


def test_a_stranger_reads_all_of_a_real_server(site: Site) -> None:
    with ExitStack() as stack:
        site.store.mkdir()
        site.write(url=stack.enter_context(serve_directory(site.store, port=0)))
        site.publish(pending=("aarch64-unknown-freebsd",))
        said = site.verify("1.0.0", "--public")
        assert said.code == 0, said.data
        assert said.part("object", "install.sh") == said.part("object", "index.html") == {"good"}
        assert said.part("provenance", FLAT) == {"good"}
        # The same, by the key alone: how the installer would be rendered is then not known.
        key = site.signer.public.ssh
        assert site.verify("1.0.0", "--public", "--key", key).code == 0


def test_a_prerelease_is_read_from_its_own_channel(site: Site, mirror: Mirror) -> None:
    site.publish("2.0.0-rc.1")
    said = site.verify("2.0.0-rc.1", "--public")
    assert said.code == 0, said.data
    assert "install.sh" not in mirror.asked
    assert "prerelease.idx" in mirror.asked


NAMES = (
    ARCHIVE,
    f"{ARCHIVE}.sha256",
    f"{ARCHIVE}.sshsig",
    f"{ARCHIVE}.minisig",
    f"{FOLDER}/provenance.json",
    f"{FOLDER}/sbom.cdx.json",
    FLAT,
    f"{FLAT}.sha256",
    "stable.idx",
    "install.sh",
    "install.sh.sig",
    "index.html",
    COPY,
    f"{COPY}.sig",
)


def test_every_wrong_header_is_named(site: Site, mirror: Mirror) -> None:
    for name in NAMES:
        mirror.headers[name] = {"Content-Type": "text/x-wrong", "Cache-Control": None}
    said = site.verify("1.0.0", "--public")
    assert said.code == 5
    for name in NAMES:
        kind = kind_of(name)
        assert kind is not None
        assert (
            f"{name}: Content-Type: it is `text/x-wrong`, and should be `{kind.content_type}`"
            in said.problems
        )
        assert (
            f"{name}: Cache-Control: it is missing, and should be `{kind.cache_control}`"
            in said.problems
        )


def test_the_case_and_the_blanks_of_a_header_do_not_matter(site: Site, mirror: Mirror) -> None:
    mirror.headers["stable.idx"] = {"Content-Type": "Text/Plain;charset=UTF-8"}
    assert site.verify("1.0.0", "--public").code == 0


@pytest.mark.parametrize("name", NAMES)
def test_wrong_bytes_are_named(site: Site, mirror: Mirror, name: str) -> None:
    mirror.bodies[name] = lambda data: data + b"\n"
    said = site.verify("1.0.0", "--public")
    assert said.code == 5
    assert name in said.problems


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("status", [404, 500])
def test_what_the_server_withholds_is_named(
    site: Site, mirror: Mirror, *, name: str, status: int
) -> None:
    mirror.statuses[name] = [status]
    said = site.verify("1.0.0", "--public")
    assert said.code == 5
    assert f"{name}: " in said.problems
    assert f"the server says {status}" in said.problems


@pytest.mark.parametrize("name", [ARCHIVE, "stable.idx", "install.sh"])
def test_what_is_cut_off_is_named(site: Site, mirror: Mirror, name: str) -> None:
    size = (site.store / name).stat().st_size
    mirror.bodies[name] = lambda data: data[: len(data) // 2]
    mirror.headers[name] = {"Content-Length": str(size)}
    said = site.verify("1.0.0", "--public")
    assert said.code == 5
    assert "cut off" in said.problems


def test_an_old_index_is_waited_for(site: Site, mirror: Mirror) -> None:
    old = site.index().read_bytes()
    site.publish("2.0.0")
    served = [old, old]
    mirror.bodies["stable.idx"] = lambda data: served.pop() if served else data
    assert site.verify("2.0.0", "--public").code == 0
    assert mirror.asked.count("stable.idx") == 3


def test_an_index_that_stays_old_is_named(site: Site, mirror: Mirror) -> None:
    old = site.index().read_bytes()
    site.publish("2.0.0")
    mirror.bodies["stable.idx"] = lambda _: old
    said = site.verify("2.0.0", "--public")
    assert said.code == 5
    assert "rolled back: it has serial 1, and 2 was published" in said.problems


def test_a_server_that_is_away_for_a_moment_is_waited_for(site: Site, mirror: Mirror) -> None:
    mirror.statuses["stable.idx"] = [503, 200]
    assert site.verify("1.0.0", "--public").code == 0


def test_a_page_that_a_cache_still_holds_is_accepted_and_said(site: Site, mirror: Mirror) -> None:
    mirror.bodies["index.html"] = lambda _: b"<p>old</p>"
    mirror.headers["index.html"] = {"Age": "30"}
    said = site.verify("1.0.0", "--public")
    assert said.code == 0, said.data
    messages = [check["message"] for check in said.data["checks"]]
    assert "an older copy, 30 s old, from a cache" in messages
    mirror.headers["index.html"] = {"Age": "61"}
    assert "it is not what the store has" in site.verify("1.0.0", "--public").problems


def test_an_old_installer_is_accepted_from_no_cache(site: Site, mirror: Mirror) -> None:
    mirror.bodies["install.sh"] = lambda _: b"old"
    mirror.headers["install.sh"] = {"Age": "30"}
    assert site.verify("1.0.0", "--public").code == 5


def test_a_store_without_a_signature_of_the_installer_is_told_what_to_do(
    site: Site, mirror: Mirror
) -> None:
    (site.store / "install.sh.sig").unlink()
    said = site.verify("1.0.0", "--public")
    assert said.code == 0, said.data
    assert said.part("signature of the installer", "install.sh.sig") == {"not checked"}
    assert "orchestrator renew" in str(said.data)
    assert "install.sh.sig" not in mirror.asked


def test_an_old_signature_of_the_installer_is_waited_for(site: Site, mirror: Mirror) -> None:
    served = [b"old", b"old"]
    mirror.bodies["install.sh.sig"] = lambda data: served.pop() if served else data
    assert site.verify("1.0.0", "--public").code == 0
    assert mirror.asked.count("install.sh.sig") == 3


def test_an_installer_that_somebody_changed_in_the_store_too_is_named(
    site: Site, mirror: Mirror
) -> None:
    (site.store / "install.sh").write_text("#!/bin/sh\nevil\n")
    said = site.verify("1.0.0", "--public")
    assert mirror.asked.count("install.sh") == 3
    assert "install.sh: object: it is not" in said.problems


def test_a_store_whose_index_is_wrong_is_told_before_anything_public(
    site: Site, mirror: Mirror
) -> None:
    site.index().write_text("x")
    assert site.verify("1.0.0", "--public").code == 5
    assert mirror.asked == []


def test_a_server_that_is_not_there_is_a_failure(site: Site) -> None:
    with serving(lambda _: None) as url:
        site.write(url=url)
        site.publish()
    said = site.verify("1.0.0", "--public")
    assert said.code == 5
    assert "it cannot be read" in said.problems
