"""The status pages: what they say, that they are HTML, that nothing in them is anybody else's."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import timedelta
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import html5lib
import pytest

from orchestrator.core.attachment import Attachment, AttachmentState
from orchestrator.core.board_view import LiveRelease
from orchestrator.core.errors import ConfigError
from orchestrator.core.events import NodeFinished, Phase, ReleaseStarted, Verifying, Warned
from orchestrator.core.order import Entry, State
from orchestrator.core.report import Verified
from orchestrator.core.status_data import release_as_data, status_as_data
from orchestrator.core.status_page import render_history, render_problem, render_status
from orchestrator.core.status_release import render_release
from orchestrator.core.status_shell import Present, Site
from orchestrator.core.status_style import STYLE
from tests.pages.scenes import (
    START,
    TARGETS,
    Running,
    Scene,
    built,
    busy_release,
    end_release,
    entry,
    order,
    past,
    phase,
    plan,
    platform,
    report,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from xml.etree.ElementTree import Element

SITE = Site(project="tool", downloads="/", script="abc", has_actions=True)
EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\u202e\x1b[2J"


@cache
def parse(page: str) -> Element:
    tree: Element = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(page)
    return tree


def text_of(element: Element) -> str:
    return re.sub(r"\s+", " ", "".join(element.itertext())).strip()


def section(page: str, name: str) -> Element:
    return next(each for each in parse(page).iter("section") if each.attrib["id"] == name)


def has_section(page: str, name: str) -> bool:
    return any(each.attrib["id"] == name for each in parse(page).iter("section"))


def rows(element: Element) -> list[list[str]]:
    return [[text_of(cell) for cell in row] for row in element.iter("tr")][1:]


def facts(page: str) -> dict[str, str]:
    words = [text_of(each) for each in section(page, "facts").iter() if each.tag in {"dt", "dd"}]
    return dict(zip(words[::2], words[1::2], strict=True))


def present(scene: Scene) -> Present:
    running = {each.order.key: each for each in scene.live.releases()}
    return Present(now=scene.clock(), mark="m-1", running=running)


def status(scene: Scene, site: Site = SITE) -> str:
    return render_status(
        site, present(scene), entries=scene.desk.orders, platforms=scene.desk.platforms
    )


def release(scene: Scene, shown: int = 0, site: Site = SITE) -> str:
    orders = [each for each in scene.desk.orders if each.order.version == "1.2.3"]
    return render_release(site, present(scene), entry=orders[shown], attempts=orders)


def busy() -> tuple[Scene, Running]:
    scene = Scene()
    past(scene)
    running = scene.begin()
    busy_release(running)
    return scene, running


def over() -> Scene:
    scene, running = busy()
    end_release(running)
    return scene


def hostile() -> Scene:
    """Every text that somebody else could choose is markup."""
    scene, running = busy()
    end_release(running)
    data = json.loads(
        json.dumps(scene.desk.orders[0].outcome).replace('"stable"', json.dumps(EVIL))
    )
    for key in ("error", "hint", "stage", "url"):
        data[key] = EVIL
    for key in ("warnings", "unreadable", "pending", "held_back"):
        data[key] = [EVIL]
    data["github"] = {"state": EVIL}
    data["source"] = {"description": EVIL, "digest": "<b>", "size_bytes": 1, "notes": [EVIL]}
    for row in data["rows"]:
        row |= {"node": EVIL, "target": EVIL, "message": EVIL, "hint": EVIL, "detail": EVIL}
        row |= {"warnings": [EVIL], "log_tail": [EVIL]}
        row["failure_class"] = row["failure_class"] and EVIL
    new = replace(order("1.2.3"), channel=EVIL, tag=EVIL, commit=EVIL, page=f'https://"{EVIL}')
    scene.desk.orders[0] = replace(scene.desk.orders[0], order=new, outcome=data, coordinator=EVIL)
    scene.desk.orders.append(Entry(order=new, state=State.RUNNING, coordinator=EVIL))
    scene.desk.orders.append(Entry(order=replace(new, attempt=3), state=State.QUEUED))
    scene.desk.platforms = [
        replace(each, name=EVIL, title=EVIL, version=EVIL, newest=EVIL, awaited=EVIL)
        for each in scene.desk.platforms
    ]
    return scene


def pages() -> Iterator[tuple[str, str]]:
    scene, _ = busy()
    ended = over()
    nothing = Scene()
    yield "nothing", status(nothing)
    yield "busy", status(scene)
    yield "busy release", release(scene)
    yield "over", status(ended)
    yield "over release", release(ended)
    yield "hostile", status(hostile(), replace(SITE, project=EVIL, downloads=f'"{EVIL}'))
    yield "hostile release", release(hostile(), site=replace(SITE, project=EVIL))
    yield "history", render_history(SITE, present(ended), ended.desk.orders)
    yield "empty history", render_history(SITE, present(nothing), [])
    yield "problem", render_problem(SITE, present(nothing), EVIL, hint=EVIL)


PAGES = dict(pages())


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_html_by_the_standard(name: str) -> None:
    parse(PAGES[name])


def test_the_parser_is_strict() -> None:
    with pytest.raises(html5lib.html5parser.ParseError):
        html5lib.HTMLParser(strict=True).parse(PAGES["busy"].replace("</main>", "</p></main>"))


@pytest.mark.parametrize("name", PAGES)
def test_nothing_on_a_page_comes_from_elsewhere_or_runs(name: str) -> None:
    tree = parse(PAGES[name])
    sources = [each.attrib["src"] for each in tree.iter() if "src" in each.attrib]
    linked = [each.attrib["href"] for each in tree.iter("link")]

    assert sources == ["/status/status.js?abc"]
    assert [each.partition("?")[0] for each in linked] == ["data:,", "/status/status.css"]
    assert [each.text for each in tree.iter("script")] == [None]
    assert not list(tree.iter("style"))
    assert not [
        key for each in tree.iter() for key in each.attrib if key.startswith("on") or key == "style"
    ]
    for each in tree.iter("a"):
        assert each.attrib["href"].startswith(("/", "#", "https://", '"'))


@pytest.mark.parametrize("name", ["hostile", "hostile release", "problem"])
def test_what_others_wrote_stays_text(name: str) -> None:
    tree = parse(PAGES[name])

    assert not list(tree.iter("img"))
    assert len(list(tree.iter("script"))) == 1
    assert "<script>alert(1)</script>" in text_of(tree)
    assert "\x1b" not in PAGES[name]
    assert "\u202e" not in PAGES[name]


def test_what_is_live_is_made_again_without_javascript_and_what_is_over_is_not() -> None:
    def refreshes(page: str) -> list[str]:
        return [
            each.attrib["content"]
            for each in parse(page).iter("meta")
            if each.attrib.get("http-equiv") == "refresh"
        ]

    assert refreshes(PAGES["busy"]) == refreshes(PAGES["busy release"]) == ["5"]
    assert refreshes(PAGES["over"]) == refreshes(PAGES["over release"]) == []
    assert "<noscript><meta" in PAGES["busy"]


def test_a_page_has_its_landmarks_and_a_way_past_the_links() -> None:
    tree = parse(PAGES["busy"])
    tags = [each.tag for each in tree.iter()]

    assert [tags.count(tag) for tag in ("header", "nav", "main", "footer", "h1")] == [1] * 5
    [skip] = [each for each in tree.iter("a") if each.attrib.get("class") == "skip"]
    [main] = list(tree.iter("main"))
    assert skip.attrib["href"] == f"#{main.attrib['id']}"
    for each in tree.iter("section"):
        label = each.attrib["aria-labelledby"]
        assert any(other.attrib.get("id") == label for other in each.iter("h2"))
    assert [each.attrib["aria-live"] for each in tree.iter("p") if "aria-live" in each.attrib] == [
        "polite"
    ]


def test_identities_are_unique() -> None:
    for page in PAGES.values():
        found = [each.attrib["id"] for each in parse(page).iter() if "id" in each.attrib]
        assert len(found) == len(set(found))


def test_headings_leave_out_no_level() -> None:
    for page in PAGES.values():
        levels = [int(each.tag[1]) for each in parse(page).iter() if re.match("h[1-6]$", each.tag)]
        assert levels[0] == 1
        assert all(after - before <= 1 for before, after in pairwise(levels))


def test_a_release_that_runs_has_a_row_for_each_node() -> None:
    items = [text_of(each) for each in section(PAGES["busy"], "now").iter("li")]

    assert len(list(section(PAGES["busy"], "now").iter("h3"))) == 1
    assert items[0].startswith("linux Linux x86_64 (musl) ✔ built 1.8 MB, no floor 1 min 32 s")
    assert "✘ failed (machine) cannot reach b@192.0.2.1: no route to host 39 s" in items[1]
    assert items[2].startswith("netbsd-2 NetBSD amd64 ▶ building 1 min 19 s")
    assert "▶ building 1 min 59 s expected at 08:03 UTC, in 1 min 11 s" in items[3]
    assert [each.attrib["data-node"] for each in parse(PAGES["busy"]).iter("li") if each.attrib][
        :2
    ] == ["linux", "netbsd"]


def test_a_build_shows_how_far_it_should_be() -> None:
    bars = list(section(PAGES["busy"], "now").iter("progress"))

    assert [(bar.attrib["value"], bar.attrib["max"], "hidden" in bar.attrib) for bar in bars] == [
        ("0", "90.0", True),
        ("0", "120.0", True),
        ("0", "1", True),
        ("79", "150.0", False),
        ("20", "180.0", False),
    ]


def test_a_build_that_takes_longer_than_expected_is_late() -> None:
    scene, running = busy()
    running.at(600)

    assert "expected at 08:03 UTC, late by 6 min 49 s" in text_of(section(status(scene), "now"))


def test_the_end_of_a_log_is_there_and_harmless() -> None:
    [log] = [
        each
        for each in section(PAGES["busy"], "now").iter("details")
        if "document.title" in text_of(each)
    ]

    assert "</pre></script><script>document.title='owned'" in text_of(log)
    assert "\x1b" not in PAGES["busy"]
    assert "\u202e" not in PAGES["busy"]


def test_it_says_since_when_it_runs_and_when_it_should_be_built() -> None:
    line = text_of(next(section(PAGES["busy"], "now").iter("p")))

    assert line.startswith("since 2026-11-26 08:00 UTC, 2 min expected at 08:04 UTC, in 2 min 30 s")


def test_what_is_built_and_read_back_says_so() -> None:
    scene, running = busy()
    for name in ("netbsd-2", "openbsd", "windows"):
        running.at(200, NodeFinished(node=name, result=built(name)))
    running.at(201, Verifying(where="https://example.org", is_public=True))
    line = text_of(next(section(status(scene), "now").iter("p")))

    assert line.endswith("3 min 21 s reading it back through https://example.org")


def test_a_release_that_is_not_planned_yet_says_so() -> None:
    scene = Scene()
    scene.begin()

    assert "It is being planned" in text_of(section(status(scene), "now"))


def test_a_release_of_another_coordinator_is_told_and_not_shown() -> None:
    scene = Scene()
    scene.desk.orders.append(entry(State.RUNNING, coordinator="other-1"))
    scene.desk.orders.append(entry(State.RUNNING, "1.2.4"))
    words = text_of(section(status(scene), "now"))

    assert "1.2.3 It runs on other-1, whose own page shows it live." in words
    assert "1.2.4 It runs on another coordinator" in words


def test_what_waits_is_told_in_its_order() -> None:
    scene = Scene()
    scene.desk.orders += [entry(State.QUEUED, "1.4.0"), entry(State.QUEUED, "1.3.0")]
    items = [text_of(each) for each in section(status(scene), "queue").iter("li")]

    assert items == [
        "1.3.0 for stable, asked a moment ago by the webhook",
        "1.4.0 for stable, asked a moment ago by the webhook",
    ]
    assert not has_section(PAGES["busy"], "queue")


def test_an_order_that_runs_here_already_does_not_wait_any_more() -> None:
    scene, _ = busy()
    scene.desk.orders[0] = replace(scene.desk.orders[0], state=State.QUEUED)

    assert not has_section(status(scene), "queue")


def test_each_platform_says_what_it_gets_and_whether_it_is_late() -> None:
    assert rows(section(PAGES["busy"], "platforms")) == [
        ["Linux x86_64 (musl)x86_64-unknown-linux-musl", "1.2.2", "3 days ago", "✔ newest"],
        [
            "NetBSD amd64x86_64-unknown-netbsd",
            "1.2.0",
            "3 days ago",
            "✘ late: 1.2.2 was due 3 days ago",
        ],
        ["OpenBSD arm64aarch64-unknown-openbsd", "1.2.0", "3 days ago", "○ 1 version behind"],
        [
            "Windows x64 (MSVC)x86_64-pc-windows-msvc",
            "none yet",
            "—",
            "○ waits: 1.2.2 was due 3 h ago",
        ],
    ]


def test_a_platform_may_be_many_versions_behind_or_have_none() -> None:
    scene = Scene()
    scene.desk.platforms += [
        platform("linux", "1.0.0", behind=2),
        platform("netbsd", None),
        platform("openbsd", "1.0.0", behind=1, awaited="1.1.0"),
    ]

    assert [row[-1] for row in rows(section(status(scene), "platforms"))] == [
        "○ 2 versions behind",
        "○ never built",
        "○ waits: 1.1.0 was due",
    ]


def test_the_top_of_the_page_says_it_in_a_sentence() -> None:
    def top(page: str) -> str:
        return text_of(next(parse(page).iter("header")))

    assert top(PAGES["busy"]).endswith(
        "1.2.3 is being released. 1 of 4 platforms are late. The newest version is 1.2.2."
    )
    assert top(PAGES["nothing"]).endswith("Nothing is being released.")


def test_the_history_says_what_became_of_each_release() -> None:
    assert rows(section(PAGES["over"], "history")) == [
        ["1.2.3", "✘ failed", "a moment ago", "3 min 23 s", "3 published"],
        ["1.2.2", "✔ done", "2 days ago", "4 min", "4 published"],
        ["1.2.1", "✘ failed", "5 days ago", "4 min", "the tag v1.2.1 moved"],
        ["1.2.0", "■ cancelled", "8 days ago", "4 min", "cancelled by a person"],
    ]
    assert rows(section(PAGES["history"], "history")) == rows(section(PAGES["over"], "history"))


def test_an_attempt_is_counted_and_one_that_never_began_took_no_time() -> None:
    scene = Scene()
    scene.desk.orders.append(entry(State.CANCELLED, attempt=2))

    assert rows(section(status(scene), "history")) == [
        ["1.2.3 attempt 2", "■ cancelled", "—", "—", ""]
    ]


def test_the_page_of_a_release_lists_what_became_of_each_node() -> None:
    assert rows(section(PAGES["over release"], "results")) == [
        [
            "linux",
            "Linux x86_64 (musl)",
            "✔ built",
            "1 min 32 s",
            "1.8 MB, no floor. Published. log",
        ],
        [
            "netbsd",
            "NetBSD amd64",
            "✘ failed (machine)",
            "39 s",
            "cannot reach b@192.0.2.1: no route to host log",
        ],
        ["netbsd-2", "NetBSD amd64", "✔ built", "1 min 43 s", "1.8 MB, no floor. Published. log"],
        ["openbsd", "OpenBSD arm64", "✔ built", "2 min 12 s", "1.8 MB, no floor. Published. log"],
        [
            "windows",
            "Windows x64 (MSVC)",
            "✘ failed (build)",
            "3 min 19 s",
            "error[E0308]: mismatched types log",
        ],
    ]


def test_a_log_is_linked_where_there_is_one() -> None:
    scene, running = busy()
    running.at(0, ReleaseStarted(plan=plan(names=("linux", "openbsd"))))
    running.at(1, phase("linux", Phase.BUILDING))
    running.end(9, error="stopped")
    links = [each.attrib["href"] for each in section(release(scene), "results").iter("a")]

    assert links == ["/status/releases/1.2.3/logs/linux"]
    assert rows(section(release(scene), "results"))[1][2:4] == ["○ waiting", "—"]


def test_messages_say_what_failed_and_what_to_do() -> None:
    words = text_of(section(PAGES["over release"], "messages"))

    assert "windows: failed (build) error[E0308]: mismatched types" in words
    assert "--> src/main.rs:7:5 What to do: fix the code, then release again" in words
    assert "Warnings netbsd-2: disk 91 %" in words


def test_an_error_that_stopped_all_of_it_is_told_first() -> None:
    scene, running = busy()
    running.at(7, Warned(message="the disk is nearly full"))
    running.board.finish(scene.clock(), error=ConfigError("no key", hint="make one"))
    running.end(8, error="no key")
    words = text_of(section(release(scene), "messages"))

    assert words.startswith("Messages It was stopped no key What to do: make one")
    assert words.endswith("the disk is nearly full")


def test_a_release_without_trouble_has_no_messages() -> None:
    scene = Scene()
    running = scene.begin()
    running.at(0, ReleaseStarted(plan=plan(names=("linux",))))
    running.end(1, report(built("linux")))

    assert not has_section(release(scene), "messages")


def test_what_does_not_read_back_is_told() -> None:
    scene = Scene()
    running = scene.begin()
    running.end(1, report(verified=Verified(is_public=True, problems=("stable.idx: gone",))))

    assert text_of(section(release(scene), "messages")).endswith(
        "It does not read back stable.idx: gone"
    )
    assert facts(release(scene))["Verified"] == "it does not read back"


def test_the_facts_of_a_release() -> None:
    scene = over()
    first = scene.desk.orders[0]
    scene.desk.orders[0] = replace(
        first,
        order=replace(first.order, tag="v1.2.3", commit="abc", page="https://example.org/r"),
    )

    assert facts(release(scene)) == {
        "Asked": "2026-11-26 08:00 UTC, by the webhook",
        "Began": "2026-11-26 08:00 UTC",
        "Ended": "2026-11-26 08:03 UTC, a moment ago",
        "Took": "3 min 23 s",
        "Channel": "stable",
        "Tag": "v1.2.3 at abc",
        "Announced": "https://example.org/r",
        "Source": "git tool at v1.2.3, 1.2 MB, abababababab",
        "Published": "Linux x86_64 (musl), OpenBSD arm64, NetBSD amd64",
        "Pending": "Windows x64 (MSVC)",
        "Index": "serial 10",
        "Install": "curl --proto '=https' --tlsv1.2 -sSf https://example.org/tool/install.sh | sh",
    }


def test_a_release_that_waits_has_few_facts() -> None:
    scene = Scene()
    scene.desk.orders.append(
        Entry(order=replace(order(), tag="v1.2.3", page="javascript:alert(1)"), state=State.QUEUED)
    )
    page = release(scene)

    assert facts(page) == {
        "Asked": "2026-11-26 08:00 UTC, by the webhook",
        "Channel": "stable",
        "Tag": "v1.2.3 at ?",
    }
    assert not has_section(page, "timeline")
    assert not has_section(page, "results")
    assert not has_section(page, "attempts")


def test_what_became_of_it_elsewhere_and_in_the_store_is_a_fact() -> None:
    scene = Scene()
    attachment = Attachment(state=AttachmentState.DRAFT, url="https://x", message="it waits")
    running = scene.begin()
    running.end(
        1,
        report(
            attachment=attachment,
            verified=Verified(is_public=False, problems=()),
            held_back=(TARGETS["linux"],),
        ),
    )
    told = facts(release(scene))

    assert told["GitHub"] == "draft https://x it waits"
    assert told["Verified"] == "read back in the store"
    assert told["Held back"] == "Linux x86_64 (musl)"


def test_other_attempts_are_listed_and_one_is_shown() -> None:
    scene = over()
    scene.desk.orders.insert(
        1,
        entry(State.FAILED, attempt=2, outcome={"error": "no tag\nat all"}, ended=START),
    )
    newest, older = release(scene), release(scene, 1)
    items = [text_of(each) for each in section(newest, "attempts").iter("li")]

    assert items == [
        "attempt 1 (shown here), asked 3 min ago by the webhook: ✘ failed",
        "attempt 2, asked 3 min ago by the webhook: ✘ failed: no tag",
    ]
    links = [each.attrib["href"] for each in section(newest, "attempts").iter("a")]
    assert links == ["/status/releases/1.2.3?attempt=2"]
    assert "attempt 2" in text_of(next(parse(older).iter("header")))


@pytest.mark.parametrize(
    ("state", "actions"),
    [
        (State.QUEUED, ["cancel"]),
        (State.RUNNING, ["cancel"]),
        (State.DONE, ["yank"]),
        (State.FAILED, ["retry", "yank"]),
        (State.CANCELLED, ["retry", "yank"]),
    ],
)
def test_forms_are_there_for_what_can_be_done_now(state: State, actions: list[str]) -> None:
    scene = Scene()
    scene.desk.orders.append(entry(state))
    forms = list(section(release(scene), "actions").iter("form"))

    assert [each.attrib["action"] for each in forms] == [
        f"/status/releases/1.2.3/{action}" for action in actions
    ]
    assert {each.attrib["method"] for each in forms} == {"post"}
    for form in forms:
        [field] = [each for each in form.iter("input") if each.attrib["type"] == "password"]
        assert field.attrib["autocomplete"] == "current-password"
        [label] = list(form.iter("label"))
        assert label.attrib["for"] == field.attrib["id"]


def test_without_a_token_nothing_can_be_done() -> None:
    page = release(over(), site=replace(SITE, has_actions=False))

    assert not list(parse(page).iter("form"))
    assert not has_section(page, "actions")


def test_a_page_that_says_what_went_wrong_is_not_asked_for_again() -> None:
    assert next(parse(PAGES["problem"]).iter("main")).attrib["data-mark"] == ""
    assert next(parse(PAGES["busy"]).iter("main")).attrib["data-mark"] == "m-1"


def test_the_same_is_there_as_data() -> None:
    scene, running = busy()
    data: Any = status_as_data(
        SITE, present(scene), scene.desk.orders, platforms=scene.desk.platforms
    )

    assert json.loads(json.dumps(data)) == data
    assert data["project"] == "tool"
    assert [each["version"] for each in data["running"]] == ["1.2.3"]
    assert [each["order"]["version"] for each in data["releases"]] == [
        "1.2.3",
        "1.2.2",
        "1.2.1",
        "1.2.0",
    ]
    assert data["releases"][1]["outcome"]["published"] == list(TARGETS.values())
    assert data["platforms"][1]["late"] is True

    end_release(running)
    told: Any = release_as_data(present(scene), scene.desk.orders[:1])
    assert told["version"] == "1.2.3"
    assert told["attempts"][0]["outcome"]["exit_code"] == 4


def test_a_release_that_runs_is_data_as_it_is_now() -> None:
    scene, _ = busy()
    told: Any = release_as_data(present(scene), scene.desk.orders[:1])

    assert told["attempts"][0]["state"] == "running"
    assert len(told["attempts"][0]["outcome"]["rows"]) == 5
    assert isinstance(present(scene).running["1.2.3#1"], LiveRelease)


def test_the_style_has_a_dark_side_and_loads_nothing() -> None:
    assert "prefers-color-scheme: dark" in STYLE
    assert "url(" not in STYLE
    assert "@import" not in STYLE


def test_every_class_that_a_picture_needs_has_a_style() -> None:
    for name in ("wait", "prepare", "build", "check", "publish"):
        assert f".bar.{name} " in STYLE


def test_a_running_release_is_told_with_its_age() -> None:
    scene, running = busy()
    running.at(timedelta(hours=2, minutes=5).total_seconds())

    assert ", 2 h 05 min" in text_of(next(section(status(scene), "now").iter("p")))
