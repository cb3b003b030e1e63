"""The download page: what it says, that it is HTML, and that nothing in it is anybody else's."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import html5lib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.errors import ConfigError
from orchestrator.core.index import Index, Row, Status, sort_rows
from orchestrator.core.installer import InstallerValues
from orchestrator.core.page import render_page
from orchestrator.core.result import Floor
from orchestrator.core.version import parse_version
from tests.sample_index import make_index, make_row, sample_index

if TYPE_CHECKING:
    from collections.abc import Iterator
    from xml.etree.ElementTree import Element

LINUX = "x86_64-unknown-linux-gnu"
SSH_KEYS = tuple(f"ssh-ed25519 AAAA{letter * 64}" for letter in "CD")
MINISIGN_KEYS = tuple(f"RW{letter * 54}" for letter in "QR")
VALUES = InstallerValues(
    project="tool",
    binaries=("tool",),
    base_urls=("https://example.org/tool/",),
    channel="stable",
    ssh_keys=SSH_KEYS[:1],
    minisign_keys=MINISIGN_KEYS[:1],
)


@cache
def parse(page: str) -> Element:
    """Return the tree of a page; raise for the first thing that is not as the standard says."""
    tree: Element = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(page)
    return tree


def text_of(element: Element) -> str:
    return re.sub(r"\s+", " ", "".join(element.itertext())).strip()


def commands(page: str) -> list[str]:
    return ["".join(block.itertext()) for block in parse(page).iter("pre")]


def links(page: str) -> set[str]:
    return {link.attrib["href"] for link in parse(page).iter("a")}


def cells(page: str, title: str) -> list[str]:
    """Return the words of a platform's row, of the newest and of older versions."""
    rows = [row for row in parse(page).iter("tr") if text_of(row[0]).startswith(title)]
    return [text_of(cell) for row in rows for cell in row[1:]]


def files(page: str, name: str) -> Element:
    return next(each for each in parse(page).iter("section") if each.attrib["id"] == name)


PAGES = {
    "nothing is published": render_page(VALUES, make_index()),
    "a past": render_page(VALUES, sample_index()),
    "one version": render_page(VALUES, make_index([make_row("1.0.0", LINUX)])),
    "nothing to install": render_page(
        VALUES, make_index([make_row("1.0.0", LINUX, Status.PENDING)])
    ),
    "no key": render_page(replace(VALUES, ssh_keys=(), minisign_keys=()), sample_index()),
    "two keys and two addresses": render_page(
        replace(
            VALUES,
            ssh_keys=SSH_KEYS,
            minisign_keys=MINISIGN_KEYS,
            base_urls=("https://example.org", "https://mirror.example.org/tool"),
        ),
        sample_index(),
    ),
}
PAST = PAGES["a past"]


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_the_page_is_html_without_an_error(page: str) -> None:
    tree = parse(page)
    ids = [each.attrib["id"] for each in tree.iter() if "id" in each.attrib]
    assert len(ids) == len(set(ids))
    assert tree.attrib["lang"] == "en"


def test_the_strict_parser_does_find_errors() -> None:
    with pytest.raises(html5lib.html5parser.ParseError):
        parse(PAST.replace("</section>", "</div>", 1))


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_nothing_comes_from_elsewhere_and_nothing_runs(page: str) -> None:
    tree = parse(page)
    assert not {each.tag for each in tree.iter()} & {"script", "link", "img", "iframe", "base"}
    for element in tree.iter():
        assert not [name for name in element.attrib if name.startswith("on") or name == "src"]
    assert not re.search(r"url\(|@import", page)
    assert all(link.startswith(("./", "#")) for link in links(page))


def test_links_within_the_page_lead_somewhere() -> None:
    ids = {each.attrib["id"] for each in parse(PAST).iter() if "id" in each.attrib}
    inner = {link[1:] for link in links(PAST) if link.startswith("#")}
    assert inner
    assert inner <= ids


def test_files_that_are_linked_are_those_of_the_index_and_what_every_release_has() -> None:
    published = {row.path for row in sample_index().rows if row.status is Status.OK}
    known = published | {"install.sh", "install.sh.sig", "stable.idx", "versions.json"}
    for link in links(PAST):
        if link.startswith("./"):
            assert re.sub(r"\.(?:sha256|minisig|sshsig)$", "", link[2:]) in known


def test_the_one_line_comes_first_then_a_command_for_every_kind_of_downloader() -> None:
    assert commands(PAST)[:4] == [
        "curl --proto '=https' --tlsv1.2 -sSf https://example.org/tool/install.sh | sh",
        "wget -qO- https://example.org/tool/install.sh | sh",
        "fetch -qo - https://example.org/tool/install.sh | sh",
        "ftp -Vo - https://example.org/tool/install.sh | sh",
    ]
    assert commands(PAST)[4] == (
        "curl --proto '=https' --tlsv1.2 -sSf -o install.sh https://example.org/tool/install.sh "
        "&& sh install.sh"
    )
    assert "Read the script before you run it" in text_of(parse(PAST))
    local = render_page(replace(VALUES, base_urls=("http://localhost:80",)), make_index())
    assert commands(local)[0] == "curl -sSf http://localhost:80/install.sh | sh"
    assert "-o install.sh http://localhost:80/install.sh && sh" in commands(local)[4]


def test_a_second_address_has_its_line_too() -> None:
    assert "If that address" not in PAST
    second = "curl --proto '=https' --tlsv1.2 -sSf https://mirror.example.org/tool/install.sh | sh"
    assert commands(PAGES["two keys and two addresses"])[5] == second


def test_the_newest_version_of_each_platform_is_told_at_a_glance() -> None:
    glance = next(each for each in parse(PAST).iter("dl") if each.attrib.get("class") == "glance")
    terms = [text_of(each) for each in glance.iter("dt")]
    assert terms == ["0.13.5", "0.13.4", "0.13.3", "none yet"]
    second = text_of(list(glance.iter("dd"))[1])
    assert "OpenBSD 7.8 arm64 (0.13.5 is not built yet), OpenBSD 7.7 arm64, NetBSD amd64" in second
    assert "0.13.5, built for 10 of 16 platforms" in text_of(parse(PAST))


def test_the_table_tells_in_words_what_became_of_each_build() -> None:
    heads = [text_of(each) for each in next(iter(parse(PAST).iter("thead"))).iter("th")]
    assert heads == ["Platform", "0.13.5", "0.13.4", "0.13.3", "0.13.2", "0.13.1"]
    assert cells(PAST, "Linux x86_64 (glibc)") == ["ok", "ok", "ok", "yanked", "ok", "revoked"]
    assert cells(PAST, "NetBSD aarch64")[:3] == ["pending", "pending", "ok"]
    assert cells(PAST, "OpenBSD 7.7 amd64")[0] == "—never built"
    assert cells(PAST, "illumos x86_64") == ["pending", *["—never built"] * 5]


def test_older_versions_are_folded_away() -> None:
    (older,) = parse(PAST).iter("details")
    assert text_of(older[0]) == "Older versions (1)"
    assert [text_of(each) for each in older.iter("th")][:2] == ["Platform", "0.13.0"]
    assert not list(parse(PAGES["one version"]).iter("details"))


def test_only_what_can_be_installed_leads_to_an_archive() -> None:
    for cell in parse(PAST).iter("td"):
        assert bool(list(cell.iter("a"))) == (text_of(cell) == "ok")


def test_the_cpu_that_a_build_is_for_is_told() -> None:
    index = sample_index()
    rows = tuple(
        replace(row, floors=(Floor(name="cpu", operator=">=", release="3"), *row.floors))
        if row.target == LINUX
        else row
        for row in index.rows
    )
    page = render_page(VALUES, replace(index, rows=rows))
    assert "needs an x86-64-v3 CPU · needs glibc" in page


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (LINUX, "needs glibc 2.34 or newer"),
        ("aarch64-apple-darwin", "needs macOS 11.0 or newer"),
        ("x86_64-unknown-freebsd", "needs FreeBSD 14.1 or newer"),
        ("x86_64-unknown-openbsd7.8", "runs on OpenBSD 7.8 only"),
    ],
)
def test_the_newest_build_has_its_size_floor_checksum_and_files(name: str, words: str) -> None:
    row = next(
        row
        for row in sample_index().rows
        if row.path and row.path.startswith(f"releases/0.13.5/{name}/")
    )
    section = files(PAST, name)
    text = text_of(section)
    assert words in text
    assert " MB · " in text
    assert f"SHA-256 {row.sha256}" in text
    found = {link.attrib["href"] for link in section.iter("a")}
    assert found == {f"./{row.path}{end}" for end in ("", ".sha256", ".minisig", ".sshsig")}


def test_a_late_build_is_told_beside_the_files_of_the_one_before() -> None:
    assert "0.13.5 is not built yet" in text_of(files(PAST, "x86_64-unknown-netbsd"))
    assert "not built yet" not in text_of(files(PAST, LINUX))


def test_provenance_and_sbom_are_linked_where_they_exist() -> None:
    folder = f"releases/1.0.0/{LINUX}"
    index = make_index([make_row("1.0.0", LINUX)])
    both = {f"{folder}/provenance.json", f"{folder}/sbom.cdx.json"}
    for statements in (both, {f"{folder}/sbom.cdx.json"}, {"releases/2.0.0/provenance.json"}):
        page = render_page(VALUES, index, statements=statements)
        shown = {link[2:] for link in links(page) if link.endswith(".json")} - {"versions.json"}
        assert shown == statements & both


def test_the_page_says_which_index_it_follows() -> None:
    metas = {
        each.attrib.get("name"): each.attrib.get("content") for each in parse(PAST).iter("meta")
    }
    assert metas["index-serial"] == "42"
    assert metas["index-issued"] == "2026-11-21"
    assert metas["index-expires"] == "2027-02-19"
    footer = text_of(next(iter(parse(PAST).iter("footer"))))
    assert "serial 42, issued on 2026-11-21, valid until 2027-02-19" in footer


def test_it_is_told_that_there_is_nothing_yet() -> None:
    assert "Nothing is published yet." in PAGES["nothing is published"]
    assert "No build can be installed now." in PAGES["nothing to install"]
    assert "for 0 of 1 platforms" in PAGES["nothing to install"]
    assert cells(PAGES["nothing to install"], "Linux") == ["pending"]


def test_each_key_can_be_used_to_verify_by_hand() -> None:
    page = PAGES["two keys and two addresses"]
    said = "\n".join(commands(page))
    for ssh, minisign in zip(SSH_KEYS, MINISIGN_KEYS, strict=True):
        assert f'tool namespaces="index@tool,artifact@tool,installer@tool" {ssh}\n' in said
        assert f'minisign -V -P {minisign} -x "$file.minisig" -m "$file"' in said
        assert f"{minisign}\\n' > tool-" in said
    assert "one command must succeed" in text_of(parse(page))
    assert "tool.pub" in "\n".join(commands(PAST))
    assert "one command must succeed" not in text_of(parse(PAST))


def test_without_keys_only_the_checksum_is_left() -> None:
    said = "\n".join(commands(PAGES["no key"]))
    assert "sha256sum -c" in said
    assert not re.search("ssh-keygen|minisign -V|signify -V", said)


def test_a_value_that_may_not_enter_a_script_may_not_enter_the_page_either() -> None:
    with pytest.raises(ConfigError, match=r"^project: not a name"):
        render_page(replace(VALUES, project="<b>"), make_index())


ANYTHING = st.text(max_size=30) | st.sampled_from(
    ["<script>alert('x')</script>", '" onclick="x', "&amp;", "</style><b>", "javascript:x", "{0}"]
)


@st.composite
def hostile_rows(draw: st.DrawFn) -> Row:
    """Return a row whose every text is anything, which no index could hold."""
    return Row(
        target=draw(ANYTHING),
        version=parse_version(draw(st.sampled_from(["1.0.0", "0.9.0-rc.1+b"]))),
        status=draw(st.sampled_from(Status)),
        size_bytes=draw(st.none() | st.integers(min_value=1)),
        sha256=draw(ANYTHING),
        floors=(
            Floor(name=draw(ANYTHING), operator=draw(st.sampled_from([">=", "=="])), release="1"),
        ),
        path=draw(st.none() | ANYTHING),
    )


@given(rows=st.lists(hostile_rows(), max_size=4), statement=ANYTHING)
def test_whatever_a_row_says_is_text(rows: list[Row], statement: str) -> None:
    index = make_index()
    page = render_page(VALUES, _with_rows(index, rows), statements={statement, f"{statement}/x"})
    # Not strict: characters that HTML does not allow are errors, and stay text.
    tree = html5lib.HTMLParser(namespaceHTMLElements=False).parse(page)
    assert {each.tag for each in tree.iter() if isinstance(each.tag, str)} <= _known_tags()
    for element in tree.iter():
        assert set(element.attrib) <= _KNOWN_ATTRIBUTES
    assert all(link.attrib["href"].startswith(("./", "#")) for link in tree.iter("a"))


def _with_rows(index: Index, rows: list[Row]) -> Index:
    return replace(index, rows=sort_rows(rows))


_KNOWN_ATTRIBUTES = {
    *("lang", "charset", "name", "content", "class", "href", "id", "scope", "role", "tabindex"),
    *("aria-label", "aria-hidden", "datetime"),
}


@cache
def _known_tags() -> set[str]:
    return {each.tag for page in PAGES.values() for each in parse(page).iter()}


def _attributes(page: str) -> Iterator[str]:
    for element in parse(page).iter():
        yield from element.attrib


def test_the_list_of_known_attributes_is_exact() -> None:
    assert {name for page in PAGES.values() for name in _attributes(page)} == _KNOWN_ATTRIBUTES
