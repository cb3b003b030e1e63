from __future__ import annotations

import tarfile
from datetime import UTC, datetime

import pytest

from orchestrator.core.errors import ConfigError
from orchestrator.core.index import Status
from orchestrator.core.offline import (
    BundleReport,
    BundleRequest,
    bundle_command,
    bundle_folder,
    bundle_member,
    bundled_rows,
    parent_folders,
)
from orchestrator.core.version import parse_version
from tests.sample_index import make_index, make_row

LINUX, NETBSD = "x86_64-unknown-linux-gnu", "x86_64-unknown-netbsd"
OPENBSD = "x86_64-unknown-openbsd"
INDEX = make_index(
    [
        make_row("1.1.0", LINUX),
        make_row("1.0.0", LINUX),
        make_row("1.1.0", NETBSD, Status.PENDING),
        make_row("1.0.0", NETBSD),
        make_row("1.1.0", OPENBSD, floors="openbsd==7.8"),
        make_row("1.0.0", "aarch64-apple-darwin", Status.YANKED),
    ]
)


def ask(version: str | None = None, *targets: str) -> BundleRequest:
    return BundleRequest(
        installer_channel="stable",
        version=parse_version(version) if version else None,
        targets=targets,
    )


def chosen(request: BundleRequest) -> set[str]:
    return {f"{row.version} {row.label}" for row in bundled_rows(INDEX.rows, request)}


def test_without_a_version_each_target_has_its_newest_build() -> None:
    assert chosen(ask()) == {f"1.1.0 {LINUX}", f"1.0.0 {NETBSD}", f"1.1.0 {OPENBSD}7.8"}


def test_a_version_and_targets_narrow_it() -> None:
    assert chosen(ask("1.0.0")) == {f"1.0.0 {LINUX}", f"1.0.0 {NETBSD}"}
    assert chosen(ask(None, NETBSD)) == {f"1.0.0 {NETBSD}"}
    assert chosen(ask(None, OPENBSD)) == chosen(ask(None, f"{OPENBSD}7.8"))
    assert chosen(ask("1.0.0", LINUX)) == {f"1.0.0 {LINUX}"}


@pytest.mark.parametrize(
    ("request_", "said", "hint"),
    [
        (ask("3.0.0"), "no version 3.0.0", "1.1.0, 1.0.0"),
        (ask("1.1.0", NETBSD), f"no build for {NETBSD}", f"1.1.0 {NETBSD} is pending"),
        (ask("1.1.0", "mips"), "1.1.0 has no target mips", LINUX),
        (ask(None, "mips"), "no build for mips", "no index row names it"),
        (ask(None, "aarch64-apple-darwin"), "no build for aarch64-apple-darwin", "is yanked"),
    ],
)
def test_what_is_not_there_is_refused_with_what_there_is(
    request_: BundleRequest, said: str, hint: str
) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        bundled_rows(INDEX.rows, request_)
    assert hint in str(refused.value.hint)


def test_an_index_without_builds_is_no_bundle() -> None:
    for rows in ([], [make_row("1.0.0", LINUX, Status.REVOKED)]):
        with pytest.raises(ConfigError, match="there is no build"):
            bundled_rows(rows, ask())
    with pytest.raises(ConfigError) as refused:
        bundled_rows([make_row("1.0.0", LINUX, Status.REVOKED)], ask("1.0.0", LINUX))
    assert "there are builds for nothing" in str(refused.value.hint)


def test_the_folder_names_the_version_or_the_serial() -> None:
    assert bundle_folder(INDEX, ask("1.0.0")) == "tool-1.0.0-offline"
    assert bundle_folder(INDEX, ask()) == f"tool-stable-{INDEX.serial}-offline"


def test_the_command_says_what_the_installer_would_not_know() -> None:
    folder = f"tool-stable-{INDEX.serial}-offline"
    assert bundle_command(INDEX, ask(), output="a b.tar", is_tar=True) == (
        f"tar -xf 'a b.tar' && sh {folder}/install.sh --from {folder}"
    )
    other = BundleRequest(installer_channel="lts", version=parse_version("1.0.0"))
    assert bundle_command(INDEX, other, output="/a/", is_tar=False) == (
        "sh /a/tool-1.0.0-offline/install.sh --from /a/tool-1.0.0-offline "
        "--channel stable --version 1.0.0"
    )


def test_the_members_of_the_tar_are_the_same_every_day() -> None:
    file = bundle_member("a/b", INDEX, size_bytes=3)
    assert (file.mode, file.size, file.uid, file.uname, file.isfile()) == (0o644, 3, 0, "", True)
    assert datetime.fromtimestamp(file.mtime, UTC).date() == INDEX.issued
    assert bundle_member("a/b", INDEX, is_executable=True).mode == 0o755
    folder = bundle_member("a/", INDEX)
    assert (folder.name, folder.mode, folder.isdir()) == ("a", 0o755, True)


def test_a_name_is_as_long_as_a_plain_tar_has_room_for() -> None:
    long = f"{'f' * 60}/{'g' * 60}/{'n' * 90}"
    assert bundle_member(long, INDEX).tobuf(tarfile.USTAR_FORMAT)
    with pytest.raises(ConfigError, match="no room for the name"):
        bundle_member("n" * 101, INDEX)


def test_the_folders_above_a_file_are_the_outermost_first() -> None:
    assert parent_folders("a/b/c") == ("a/", "a/b/")
    assert parent_folders("a") == ()


def test_the_report_as_data() -> None:
    row = make_row("1.1.0", LINUX)
    report = BundleReport(
        index=INDEX,
        output="x.tar",
        folder="x",
        rows=(row,),
        files=("install.sh",),
        size_bytes=5,
        command="sh",
    )
    assert report.as_data() == {
        "project": "tool",
        "channel": "stable",
        "serial": INDEX.serial,
        "expires": INDEX.expires.isoformat(),
        "output": "x.tar",
        "folder": "x",
        "builds": [{"version": "1.1.0", "target": LINUX, "path": row.path}],
        "files": ["install.sh"],
        "size": 5,
        "command": "sh",
    }
