"""What enters the installer and the download page, and what is kept out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.errors import ConfigError
from orchestrator.core.index import Row, Status, parse_floor
from orchestrator.core.installer import (
    Download,
    InstallerValues,
    render_download_page,
    render_installer,
    summarize_downloads,
    version_words,
)
from orchestrator.core.version import parse_version

SSH_KEY = f"ssh-ed25519 AAAA{'C3Nz' * 16}"
MINISIGN_KEY = f"RW{'Q' * 54}"
VALUES = InstallerValues(
    project="tool",
    binaries=("tool", "tool-extra"),
    base_urls=("https://example.org/tool/", "https://mirror.example.org:8443"),
    channel="stable",
    ssh_keys=(SSH_KEY,),
    minisign_keys=(MINISIGN_KEY,),
)
TEMPLATE = (
    "'{{ project }}' '{{ binaries }}' '{{ base_urls }}' "
    "'{{ channel }}' '{{ ssh_keys }}' '{{ minisign_keys }}'\n"
)


def test_every_value_has_its_place_and_lists_have_a_line_each() -> None:
    assert render_installer(TEMPLATE, VALUES) == (
        "'tool' 'tool\ntool-extra' 'https://example.org/tool\nhttps://mirror.example.org:8443' "
        f"'stable' '{SSH_KEY}' '{MINISIGN_KEY}'\n"
    )


def test_keys_may_be_absent() -> None:
    values = replace(VALUES, ssh_keys=(), minisign_keys=())
    assert render_installer(TEMPLATE, values).endswith("'stable' '' ''\n")


@pytest.mark.parametrize("word", ["", "a b", "a'b", "a\nb", "-a", "a;b", "$a", "ä", "a" * 101])
@pytest.mark.parametrize("place", ["project", "binaries", "channel"])
def test_a_name_that_a_shell_could_misread_is_refused(place: str, word: str) -> None:
    changes: dict[str, str | tuple[str, ...]] = {place: (word,) if place == "binaries" else word}
    with pytest.raises(ConfigError, match=f"^{place}: not a name"):
        render_installer(TEMPLATE, replace(VALUES, **changes))  # type: ignore[arg-type]  # a test table


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org",
        "http://127.0.0.1.example.org",
        "http://localhost@example.org",
        "https://user:word@example.org",
        "https://example.org/?a=b",
        "https://example.org/#a",
        "https://example.org/a'b",
        "https://example.org/\n",
        "https://",
        "ftp://example.org",
        "/srv/store",
    ],
)
def test_a_base_url_that_is_not_plain_https_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^base_urls: not an https URL"):
        render_installer(TEMPLATE, replace(VALUES, base_urls=(url,)))


@pytest.mark.parametrize("url", ["http://127.0.0.1:80", "http://localhost/a", "http://[::1]:8080/"])
def test_http_is_for_this_machine_only(url: str) -> None:
    assert url.rstrip("/") in render_installer(TEMPLATE, replace(VALUES, base_urls=(url,)))


@pytest.mark.parametrize(
    ("place", "key"),
    [
        ("ssh_keys", f"{SSH_KEY} comment"),
        ("ssh_keys", "ssh-rsa AAAA"),
        ("ssh_keys", f"{SSH_KEY}'"),
        ("minisign_keys", f"{MINISIGN_KEY}\n"),
        ("minisign_keys", "RWQ"),
    ],
)
def test_a_key_of_another_form_is_refused(place: str, key: str) -> None:
    changes: dict[str, tuple[str, ...]] = {place: (key,)}
    with pytest.raises(ConfigError, match=f"^{place}: not "):
        render_installer(TEMPLATE, replace(VALUES, **changes))  # type: ignore[arg-type]  # a test table


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("{binary} --version", "--version"),
        ('"{binary}" --version\n', "--version"),
        ("  {binary}   about \t --format=plain,short", "about --format=plain,short"),
        ("{binary}", ""),
        ("{binary}version", "?"),
        ("{binary} version {version}", "?"),
        ("{binary} --version\nrm x", "?"),
        ("{binary} --version; rm x", "?"),
        ("{binary} $HOME", "?"),
        ("{binary} `id`", "?"),
        ("{binary} 'a b'", "?"),
        ("{binary} ~", "?"),
        ("{binary} *", "?"),
        ("{binary} ?", "?"),
        ("{binary} --version 2>&1 | head -1", "?"),
        ("{binary} ä", "?"),
        ("{binary} a\u00a0b", "?"),
        ("exec {binary} --version", "?"),
        ("{binary} " + "a" * 100, "?"),
        ("{binary}" + " a" * 11, "?"),
    ],
)
def test_only_plain_words_of_a_version_command_enter_the_script(command: str, words: str) -> None:
    assert version_words(command) == words
    template = "W='{{ version_words }}'"
    values = replace(VALUES, version_words=version_words(command))
    assert render_installer(template, values) == f"W='{words}'"


@pytest.mark.parametrize("words", ["--version'", "a\nb", "a  b", " a", "? ?", "$x", "a;b", "a\n"])
def test_other_words_are_refused(words: str) -> None:
    with pytest.raises(ConfigError, match=r"^version_words: not up to ten words"):
        render_installer(TEMPLATE, replace(VALUES, version_words=words))


def test_every_problem_is_listed_at_once() -> None:
    values = InstallerValues(project="a b", binaries=(), base_urls=(), channel="c d")
    with pytest.raises(ConfigError) as caught:
        render_installer(TEMPLATE, values)
    places = [line.split(":")[0] for line in caught.value.message.splitlines()]
    assert places == ["project", "channel", "binaries", "base_urls"]


def row(version: str, target: str, status: Status = Status.OK, *, floors: str = "") -> Row:
    is_built = status is not Status.PENDING
    return Row(
        target=target,
        version=parse_version(version),
        status=status,
        size_bytes=2_000_000 if is_built else None,
        sha256="0" * 64 if is_built else None,
        floors=tuple(parse_floor(floor) for floor in floors.split(",") if floor),
        path=f"releases/{version}/{target}/tool.tar.gz" if is_built else None,
    )


def test_a_target_has_one_line_with_its_newest_build_and_what_is_late() -> None:
    downloads = summarize_downloads(
        (
            row("1.2.0", "aarch64-apple-darwin", floors="macos>=11.0"),
            row("1.1.0", "aarch64-apple-darwin"),
            row("1.2.0", "x86_64-unknown-netbsd", Status.PENDING),
            row("1.1.0", "x86_64-unknown-netbsd", Status.YANKED),
            row("1.0.0", "x86_64-unknown-netbsd"),
            row("0.9.0", "x86_64-unknown-netbsd", Status.PENDING),
            row("1.2.0", "x86_64-unknown-freebsd", Status.PENDING),
            row("1.0.0", "x86_64-unknown-illumos", Status.REVOKED),
            row("1.2.0", "x86_64-unknown-openbsd", floors="openbsd==7.9"),
            row("1.2.0", "x86_64-unknown-openbsd", floors="openbsd==7.8"),
        )
    )
    assert [(each.target, each.version, each.pending, each.floors) for each in downloads] == [
        ("aarch64-apple-darwin", "1.2.0", None, ("macos>=11.0",)),
        ("x86_64-unknown-netbsd", "1.0.0", "1.2.0", ()),
        ("x86_64-unknown-freebsd", None, "1.2.0", ()),
        ("x86_64-unknown-openbsd", "1.2.0", None, ("openbsd==7.9",)),
        ("x86_64-unknown-openbsd", "1.2.0", None, ("openbsd==7.8",)),
    ]


def test_a_late_build_that_names_no_os_release_is_late_on_all_of_them() -> None:
    target = "x86_64-unknown-openbsd"
    rows = (
        row("1.2.0", target, Status.PENDING),
        row("1.1.0", target, floors="openbsd==7.9"),
        row("1.1.0", target, floors="openbsd==7.8"),
        row("1.0.0", target, Status.PENDING),
    )
    assert [(each.version, each.pending, each.floors) for each in summarize_downloads(rows)] == [
        ("1.1.0", "1.2.0", ("openbsd==7.9",)),
        ("1.1.0", "1.2.0", ("openbsd==7.8",)),
    ]


def test_the_page_has_a_command_for_every_kind_of_downloader() -> None:
    page = render_download_page(VALUES, ())
    for command in (
        "curl --proto &#x27;=https&#x27; --tlsv1.2 -sSf https://example.org/tool/install.sh | sh",
        "fetch -qo - https://example.org/tool/install.sh | sh",
        "ftp -Vo - https://example.org/tool/install.sh | sh",
        "wget -qO- https://example.org/tool/install.sh | sh",
    ):
        assert f"<pre>{command}</pre>" in page
    assert "nothing is published yet" in page
    local = render_download_page(replace(VALUES, base_urls=("http://localhost:80",)), ())
    assert "<pre>curl -sSf http://localhost:80/install.sh | sh</pre>" in local


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(None, ""), (900, "900 B"), (10_240, "10.2 kB"), (5_500_000, "5.5 MB")],
)
def test_the_page_shows_what_there_is_for_a_target(size_bytes: int | None, text: str) -> None:
    download = Download(
        target="x86_64-unknown-linux-gnu",
        version="1.0.0",
        size_bytes=size_bytes,
        floors=("glibc>=2.17",),
        path="releases/a.tar.gz",
        pending="1.1.0",
    )
    page = render_download_page(VALUES, (download,))
    for cell in (
        '<th scope="row">x86_64-unknown-linux-gnu</th>',
        "<td>1.0.0<br><small>1.1.0 is not built yet</small></td>",
        "<td>glibc&gt;=2.17</td>",
        f"<td>{text}</td>",
        '<a href="https://example.org/tool/releases/a.tar.gz.minisig">minisig</a>',
    ):
        assert cell in page


def test_the_page_escapes_everything_and_has_no_script() -> None:
    hostile = "<script>alert('x')</script>"
    downloads = (
        Download(target=hostile, version=hostile, floors=(hostile,), path=hostile, pending=hostile),
        Download(target="plain"),
    )
    page = render_download_page(VALUES, downloads)
    assert "<script" not in page
    assert '<th scope="row">plain</th><td>none yet</td><td>any</td><td></td><td></td>' in page
    with pytest.raises(ConfigError):
        render_download_page(replace(VALUES, project=hostile), ())


def test_the_page_tells_how_to_verify_with_the_keys() -> None:
    page = render_download_page(VALUES, ())
    assert f"minisign -V -P {MINISIGN_KEY} -x FILE.minisig -m FILE" in page
    assert f"echo &#x27;tool {SSH_KEY}&#x27; &gt; signers" in page
    assert "-n artifact@tool -s FILE.sshsig &lt; FILE" in page
    unsigned = render_download_page(replace(VALUES, ssh_keys=(), minisign_keys=()), ())
    assert "minisign -V" not in unsigned
    assert "sha256sum -c FILE.sha256" in unsigned
