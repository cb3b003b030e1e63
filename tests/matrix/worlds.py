"""What is published in each scenario, what its user asks for, and what must become of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from orchestrator.core.index import Status, sort_rows
from orchestrator.core.installer import render_installer
from orchestrator.core.target import OS, parse_target
from orchestrator.signing import FileSigner
from tests.installer_hosts import HOSTS
from tests.installer_site import TEMPLATE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.installer_site import Server, Site

OLD: Final = "1.0.0"
NEW: Final = "2.0.0"
ELSEWHERE: Final = "x86_64-unknown-haiku"
TARGETS: Final = tuple(
    sorted({target for _, candidates, _ in HOSTS.values() for target in (candidates or "").split()})
)
OPENBSD_RELEASES: Final = ("7.8", "7.7")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A state of the world: `prepare` publishes it, `arguments` are what the user says.

    `refusal` is what a refusal says, None where it is installed; `signature_refusal` is the one of
    a host that can check signatures, where it differs. `breaks` are versions that cannot run.
    `is_offline`: from the folder of the site, without its server.
    `before` and `after` are what else the user runs.
    """

    prepare: Callable[[Site], None]
    arguments: tuple[str, ...] = ()
    refusal: str | None = None
    signature_refusal: str | None = None
    breaks: tuple[str, ...] = ()
    version: str | None = None
    is_strict: bool = False
    is_plan: bool = False
    needs_verifier: bool = False
    before: str = ""
    ends_uninstalled: bool = False
    portal: str = ""
    is_offline: bool = False


# What an archive may hold beside the program.
PAGE: Final = "man/man1/tool.1"
EXTRAS: Final = {"tool.1": b".TH tool 1\n", "tool.bash": b"complete tool\n", "LICENSE": b"MIT\n"}


def program(version: str, target: str) -> str:
    """Return a program that runs everywhere and says what it is."""
    return f"#!/bin/sh\necho 'tool {version} {target}'\n"


def add(
    site: Site,
    version: str,
    *,
    status: Status = Status.OK,
    floor: bool = False,
    text: str | None = None,
) -> None:
    """Add a version for every target; `floor`: that no host reaches."""
    for name in TARGETS:
        target = parse_target(name)
        releases = OPENBSD_RELEASES if target.os is OS.OPENBSD else (None,)
        for release in releases:
            floors = f"openbsd=={'9.9' if floor else release}" if release else ""
            if floor and not release:
                floors = _floor(name)
            if status is Status.PENDING and not release:
                floors = ""
            if floor and release and release != OPENBSD_RELEASES[0]:
                continue
            site.add(
                version,
                name,
                status=status,
                floors=floors,
                program=text or program(version, name),
                extras=EXTRAS,
            )
    site.rows[:] = sort_rows(site.rows)


def _floor(target: str) -> str:
    for ending, floor in (
        ("-linux-gnu", "glibc>=99"),
        ("-linux-gnueabihf", "glibc>=99"),
        ("-freebsd", "freebsd>=99.1"),
        ("-netbsd", "netbsd>=99"),
        ("-darwin", "macos>=99"),
    ):
        if target.endswith(ending):
            return floor
    return ""


def _both(site: Site) -> None:
    add(site, OLD)
    add(site, NEW)
    site.publish()


def _newest_is(status: Status) -> Callable[[Site], None]:
    def prepare(site: Site) -> None:
        add(site, OLD)
        add(site, NEW, status=status)
        site.publish()

    return prepare


def _newest_needs_more(site: Site) -> None:
    add(site, OLD)
    add(site, NEW, floor=True)
    site.publish()


def _newest_is_broken(site: Site) -> None:
    add(site, OLD)
    add(site, NEW, text="#!/bin/sh\necho 'no such symbol' >&2\nexit 1\n")
    site.publish()


def _only_elsewhere(site: Site) -> None:
    site.add(NEW, ELSEWHERE)
    site.publish()


def _signed_by_another(site: Site) -> None:
    site.signer, own = FileSigner(Ed25519PrivateKey.generate()), site.signer
    _both(site)
    site.signer = own


def _signature_damaged(site: Site) -> None:
    _both(site)
    _flip(site, b"U1NIU0lH")
    # Behind the number of the key, at which openssl does not look.
    _flip(site, b"\nRW", offset=40)


def _flip(site: Site, place: bytes, offset: int = 5) -> None:
    content = bytearray(site.index.read_bytes())
    content[content.rindex(place) + offset] ^= 1
    site.index.write_bytes(content)


def _text_damaged(site: Site) -> None:
    _both(site)
    _flip(site, b"#serial 7", offset=8)


def _archives_damaged(site: Site) -> None:
    _both(site)
    for row in site.rows:
        file = site.archive(row)
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)


def _archives_cut(site: Site) -> None:
    _both(site)
    for row in site.rows:
        file = site.archive(row)
        file.write_bytes(file.read_bytes()[:-7])


def _archives_gone(site: Site) -> None:
    _both(site)
    for row in site.rows:
        site.archive(row).unlink()


def _index_cut(site: Site) -> None:
    _both(site)
    text = site.index.read_bytes()
    site.index.write_bytes(text[: text.index(b"#end")])


def _expired(site: Site) -> None:
    add(site, OLD)
    add(site, NEW)
    site.publish(expires_in=timedelta(days=-1))


def _of_another_project(site: Site) -> None:
    site.project = "another"
    _both(site)
    site.project = "tool"


_STRICT = "--strict"
SCENARIOS: Final[Mapping[str, Scenario]] = {
    "newest": Scenario(prepare=_both),
    "newest, then uninstalled": Scenario(prepare=_both, ends_uninstalled=True),
    "upgrade": Scenario(prepare=_both, before=OLD),
    "upgrade, then uninstalled": Scenario(prepare=_both, before=OLD, ends_uninstalled=True),
    "installed already": Scenario(prepare=_both, before=NEW),
    "downgrade by name": Scenario(
        prepare=_both, before=NEW, arguments=("--version", OLD), version=OLD
    ),
    "newest is late": Scenario(prepare=_newest_is(Status.PENDING)),
    "newest was yanked": Scenario(prepare=_newest_is(Status.YANKED)),
    "yanked, by name": Scenario(
        prepare=_newest_is(Status.YANKED), arguments=(f"--version={NEW}",), version=NEW
    ),
    "newest was revoked": Scenario(prepare=_newest_is(Status.REVOKED)),
    "newest needs a newer system": Scenario(prepare=_newest_needs_more),
    "newest cannot run": Scenario(prepare=_newest_is_broken, breaks=(NEW,)),
    "strict, and late": Scenario(
        prepare=_newest_is(Status.PENDING), arguments=(_STRICT,), is_strict=True
    ),
    "strict, and there": Scenario(prepare=_both, arguments=(_STRICT,), is_strict=True),
    "an unknown version": Scenario(
        prepare=_both, arguments=("--version", "9.9.9"), version="9.9.9"
    ),
    "only for others": Scenario(prepare=_only_elsewhere),
    "plan": Scenario(prepare=_newest_is(Status.PENDING), arguments=("--plan",), is_plan=True),
    "quiet": Scenario(prepare=_both, arguments=("--quiet", "--no-modify-path")),
    "a signature is required": Scenario(
        prepare=_both, arguments=("--require-signature",), needs_verifier=True
    ),
    "signed by another key": Scenario(prepare=_signed_by_another, signature_refusal="is bad"),
    "both signatures damaged": Scenario(prepare=_signature_damaged, signature_refusal="is bad"),
    "a digit of the index changed": Scenario(prepare=_text_damaged, signature_refusal="is bad"),
    "the index is cut off": Scenario(prepare=_index_cut, refusal="could not be downloaded"),
    "the index has expired": Scenario(prepare=_expired, refusal="the index expired on"),
    "expired, and allowed": Scenario(prepare=_expired, arguments=("--allow-expired",)),
    "the index is of another project": Scenario(
        prepare=_of_another_project, refusal="is the index of another"
    ),
    "the index went back": Scenario(prepare=_both, before="serial", refusal="refusing to go back"),
    "archives changed by a bit": Scenario(
        prepare=_archives_damaged, refusal="could not be downloaded and verified"
    ),
    "archives cut off": Scenario(
        prepare=_archives_cut, refusal="could not be downloaded and verified"
    ),
    "archives gone": Scenario(
        prepare=_archives_gone, refusal="could not be downloaded and verified"
    ),
    "a login page first": Scenario(prepare=_both, portal="login"),
    "the first address is gone": Scenario(prepare=_both, portal="gone"),
    "from a folder": Scenario(prepare=_newest_is(Status.PENDING), is_offline=True),
    "from a folder without archives": Scenario(
        prepare=_archives_gone, is_offline=True, refusal=" is not in "
    ),
    "from a folder with changed archives": Scenario(
        prepare=_archives_damaged, is_offline=True, refusal="could not be read and verified"
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A scenario, published, and the installer that leads there; `plain_urls` are without TLS."""

    scenario: Scenario
    site: Site
    script: str
    plain_urls: tuple[str, ...]


def make_worlds(server: Server, plain_url: str) -> dict[str, World]:
    """Publish every scenario on the server, whose files are at another URL without TLS too."""
    login = server.site()
    (login.root / "stable.idx").write_text("<!DOCTYPE html><html><body>Log in first</body></html>")
    portals = {"login": login.url, "gone": f"{server.url}/nothing-is-here"}
    worlds = {}
    for name, scenario in SCENARIOS.items():
        site = server.site()
        scenario.prepare(site)
        urls = [portals[scenario.portal], site.url] if scenario.portal else [site.url]
        values = replace(site.values, base_urls=tuple(urls))
        script = render_installer(TEMPLATE, values)
        plain = tuple(url.replace(server.url, plain_url) for url in urls)
        worlds[name] = World(scenario=scenario, site=site, script=script, plain_urls=plain)
    return worlds
