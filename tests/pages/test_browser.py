"""The pages as a person has them: in Chromium, with a keyboard, on a phone, in the dark."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.core.events import LogAppended, NodeFinished, Phase, PhaseChanged
from orchestrator.core.order import State
from tests.browser import chromium
from tests.pages.scenes import (
    HOSTILE,
    TOKEN,
    Running,
    Scene,
    built,
    busy_release,
    end_release,
    entry,
    past,
    serving,
)
from tests.servers import bytes_of
from tests.servers import serving as another_site

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.browser import Page

pytestmark = pytest.mark.thorough

TAB, ENTER, SPACE = ("Tab", 9), ("Enter", 13, "\r"), (" ", 32, " ")


def busy() -> tuple[Scene, Running]:
    scene = Scene()
    past(scene)
    running = scene.begin()
    busy_release(running)
    return scene, running


@asynccontextmanager
async def visiting(
    scene: Scene, folder: Path, path: str = "/status", **look: Any
) -> AsyncIterator[Page]:
    """Yield a page of a scene; at its end, nothing in it may have complained."""
    async with chromium(folder) as browser, serving(scene) as url:
        page = await browser.page(**look)
        await page.open(url + path)
        yield page
        assert page.complaints == []
        await page.open("about:blank")


def node(name: str, part: str) -> str:
    return f"document.querySelector('[data-node={name}] {part}')"


async def words(page: Page, selector: str) -> str:
    return str(await page.run(f"document.querySelector({selector!r}).textContent.trim()"))


async def test_what_happens_is_seen_without_asking_again(tmp_path: Path) -> None:
    scene, running = busy()
    async with visiting(scene, tmp_path) as page:
        await page.wait_for("document.getElementById('link').textContent === 'Live.'")
        await page.run("window.isSamePage = true")
        running.at(
            125,
            PhaseChanged(node="windows", phase=Phase.GATING, detail="on windows-2"),
            LogAppended(node="windows", data=b"Finished release\n"),
        )
        await page.wait_for(f"{node('windows', '.badge')}.textContent.includes('gating')")

        assert await page.run(f"{node('windows', '.note')}.textContent") == "on windows-2"
        assert await page.run(f"{node('windows', '.last')}.textContent") == "Finished release"
        assert await page.run(f"{node('windows', 'progress')}.hidden")

        running.at(130, NodeFinished(node="windows", result=built("windows")))
        await page.wait_for(f"{node('windows', '.badge')}.textContent.includes('built')")
        await page.wait_for("document.getElementById('said').textContent === 'windows: built'")
        assert await page.run("window.isSamePage")


async def test_a_release_that_begins_and_ends_comes_and_goes(tmp_path: Path) -> None:
    scene = Scene()
    past(scene)
    async with visiting(scene, tmp_path) as page:
        assert "Nothing is being released." in await words(page, "#now")
        running = scene.begin()
        busy_release(running)
        await page.wait_for("document.querySelectorAll('.node').length === 5")
        assert "1.2.3 is being released." in await words(page, "header p")
        end_release(running)
        await page.wait_for("document.querySelectorAll('.node').length === 0")

        assert (await words(page, "#history tbody tr")).startswith("1.2.3")


async def test_lines_that_come_are_added_to_the_log_that_is_open(tmp_path: Path) -> None:
    scene, running = busy()
    async with visiting(scene, tmp_path) as page:
        await page.run(f"{node('linux', 'details')}.open = true")
        for number in range(300):
            running.tell(LogAppended(node="linux", data=b"line %d\n" % number))
            if number in {3, 150}:
                await page.wait_for(f"{node('linux', '.last')}.textContent === 'line {number}'")
        await page.wait_for(f"{node('linux', '.last')}.textContent === 'line 299'")
        lines = str(await page.run(f"{node('linux', 'pre')}.textContent")).split("\n")
        assert (len(lines), lines[0], lines[-1]) == (200, "line 100", "line 299")
        log = node("linux", "pre")
        below = await page.run(f"{log}.scrollHeight - {log}.scrollTop - {log}.clientHeight")
        assert below < 4

        scene.live.touch()
        await page.wait_for(f"document.getElementById('main').dataset.mark === '{scene.live.mark}'")
        assert await page.run(f"{node('linux', 'details')}.open")
        assert (await page.run(f"{node('linux', 'pre')}.textContent")).split("\n") == lines


async def test_what_a_node_writes_is_shown_and_does_nothing(tmp_path: Path) -> None:
    scene, running = busy()
    async with visiting(scene, tmp_path) as page:
        title = await page.run("document.title")
        running.tell(LogAppended(node="linux", data=HOSTILE))
        running.tell(
            PhaseChanged(node="linux", phase=Phase.GATING, detail=HOSTILE.decode("latin-1"))
        )
        await page.wait_for(f"{node('linux', '.last')}.textContent.includes('</script>')")

        assert await page.run(f"{node('linux', '.last')}.textContent") == await page.run(
            f"{node('netbsd', '.last')}.textContent"
        )
        assert await page.run("document.querySelectorAll('.node img, .node script').length") == 0
        assert await page.run("document.title") == title


async def test_markup_that_got_in_would_still_not_run(tmp_path: Path) -> None:
    scene, _ = busy()
    async with visiting(scene, tmp_path) as page:
        await page.run(
            "document.getElementById('said').innerHTML = '<p id=styled style=\"color: red\">x</p>"
            '<img src=data:,x onerror="window.isOwned = true">\''
        )
        await page.wait_for("document.getElementById('styled')")

        assert await page.run("window.isOwned") is None
        assert len(page.complaints) >= 2
        assert all("Content Security Policy" in each for each in page.complaints)
        page.complaints.clear()


async def test_time_goes_on_by_itself(tmp_path: Path) -> None:
    scene, _ = busy()
    async with visiting(scene, tmp_path) as page:
        await page.wait_for("document.getElementById('link').textContent === 'Live.'")
        before = await page.run(f"{node('windows', '.elapsed')}.textContent")
        left = await page.run(f"{node('windows', '.left')}.textContent")
        await page.wait_for(f"{node('windows', '.elapsed')}.textContent !== '{before}'")

        assert before in {"1 min 59 s", "2 min"}
        assert await page.run(f"{node('windows', '.left')}.textContent") != left


async def test_a_server_that_goes_away_and_comes_back_is_found_again(tmp_path: Path) -> None:
    scene, running = busy()
    async with chromium(tmp_path) as browser:
        async with serving(scene) as url:
            page = await browser.page()
            await page.open(f"{url}/status")
            await page.wait_for("document.getElementById('link').textContent === 'Live.'")
            port = int(url.rpartition(":")[2])
        await page.wait_for("document.getElementById('link').textContent.startsWith('Not live')")
        again, other = busy()
        other.at(140, PhaseChanged(node="windows", phase=Phase.CHECKING))
        async with serving(again, port=port):
            await page.wait_for(f"{node('windows', '.badge')}.textContent.includes('checking')")
            assert await words(page, "#link") == "Live."
            await page.open("about:blank")
    assert running.order.version == "1.2.3"


@pytest.mark.parametrize("is_over", [False, True])
async def test_no_page_is_wider_than_its_screen(*, is_over: bool, tmp_path: Path) -> None:
    scene, running = busy()
    if is_over:
        end_release(running)
    wide = []
    async with chromium(tmp_path) as browser, serving(scene) as url:
        for width in (320, 390, 768, 1280):
            page = await browser.page(width=width)
            for path in ("/status", "/status/releases", "/status/releases/1.2.3"):
                await page.open(url + path)
                await page.run(
                    "for (const each of document.querySelectorAll('details')) each.open = true"
                )
                if await page.run("document.documentElement.scrollWidth") > width:
                    wide.append((width, path))
            await page.open("about:blank")

    assert wide == []


async def test_all_can_be_done_with_the_keyboard(tmp_path: Path) -> None:
    scene, _ = busy()
    async with visiting(scene, tmp_path) as page:
        reached = []
        for _ in range(40):
            await page.press(*TAB)
            reached.append(
                await page.run(
                    "(e => `${e.tagName} ${e.getAttribute('href') || e.ariaLabel || e.className}`)"
                    "(document.activeElement)"
                )
            )
            outline = await page.run("getComputedStyle(document.activeElement).outlineStyle")
            assert outline == "solid" or reached[-1].startswith("BODY")
        assert reached[:4] == ["A #main", "A /status", "A /status/releases", "A /"]
        assert "SUMMARY " in reached
        assert "DIV history" in reached
        assert "A /status/releases/1.2.0?attempt=1" in reached


async def test_the_first_key_leads_past_the_links(tmp_path: Path) -> None:
    scene, _ = busy()
    async with visiting(scene, tmp_path) as page:
        await page.press(*TAB)
        assert await page.run("document.activeElement.getBoundingClientRect().left") >= 0
        await page.press(*ENTER)

        await page.wait_for("document.activeElement.id === 'main'")


async def test_a_log_opens_with_a_key_and_the_focus_stays_when_the_page_changes(
    tmp_path: Path,
) -> None:
    scene, running = busy()
    async with visiting(scene, tmp_path) as page:
        await page.run(f"{node('linux', 'summary')}.focus()")
        await page.press(*ENTER)
        await page.wait_for(f"{node('linux', 'details')}.open")
        await page.run(f"window.old = {node('linux', '')}")
        running.at(130, NodeFinished(node="windows", result=built("windows")))
        await page.wait_for(f"window.old !== {node('linux', '')}")

        assert await page.run("document.activeElement.tagName") == "SUMMARY"
        assert await page.run("document.activeElement.closest('.node').dataset.node") == "linux"
        assert await page.run(f"{node('linux', 'details')}.open")


async def test_the_timeline_is_drawn(tmp_path: Path) -> None:
    scene, running = busy()
    end_release(running)
    async with visiting(scene, tmp_path, "/status/releases/1.2.3") as page:
        boxes = await page.run(
            "[...document.querySelectorAll('.timeline .bar.build')].map(bar => {"
            "const box = bar.getBoundingClientRect(), style = getComputedStyle(bar);"
            "return [box.width, box.height, style.fill]; })"
        )
        critical = await page.run(
            "getComputedStyle(document.querySelector('.timeline .critical')).stroke"
        )

    assert len(boxes) == 5
    assert all(width > 50 and height == 20 for width, height, _ in boxes)
    assert {fill for *_, fill in boxes} == {"rgb(11, 87, 164)"}
    assert critical == "rgb(180, 80, 11)"


async def test_the_timeline_grows_while_it_is_followed(tmp_path: Path) -> None:
    scene, running = busy()
    async with visiting(scene, tmp_path, "/status/releases/1.2.3") as page:
        running.at(150, NodeFinished(node="windows", result=built("windows")))
        await page.wait_for(
            "[...document.querySelectorAll('.timeline .end')]"
            ".some(text => text.textContent === '✔ 2 min 29 s')"
        )


@pytest.mark.parametrize(
    ("is_dark", "paper", "ink"),
    [
        (False, "rgb(253, 253, 251)", "rgb(29, 31, 33)"),
        (True, "rgb(22, 24, 26)", "rgb(227, 228, 230)"),
    ],
)
async def test_the_page_is_dark_in_the_dark(
    paper: str, ink: str, *, is_dark: bool, tmp_path: Path
) -> None:
    scene, running = busy()
    end_release(running)
    async with visiting(scene, tmp_path, "/status/releases/1.2.3", is_dark=is_dark) as page:
        body = await page.run(
            "(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))"
        )
        name = await page.run("getComputedStyle(document.querySelector('.timeline .name')).fill")

    assert body == [paper, ink]
    assert name == ink


@pytest.mark.parametrize("is_dark", [False, True])
async def test_all_text_can_be_read(*, is_dark: bool, tmp_path: Path) -> None:
    scene, running = busy()
    scene.desk.orders.append(entry(State.QUEUED, "1.3.0"))
    async with visiting(scene, tmp_path, is_dark=is_dark) as page:
        faint = await page.run(_FAINT_TEXT)
        end_release(running)
        await page.wait_for("document.querySelectorAll('.node').length === 0")
        await page.open(str(await page.run("location.origin")) + "/status/releases/1.2.3")
        faint += await page.run(_FAINT_TEXT)

    assert faint == []


# WCAG's contrast of 4.5, over whatever is painted behind the text.
_FAINT_TEXT = """
(() => {
  const parts = (text) => text.match(/[0-9.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parts(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const hasText = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!hasText || !element.getClientRects().length) continue;
    const style = getComputedStyle(element);
    const ink = parts(element.closest("svg") ? style.fill : style.color);
    const [a, b] = [light(ink), light(behind(element))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) found.push(element.textContent.trim().slice(0, 40));
  }
  return found;
})()
"""


async def test_without_javascript_all_is_there_and_is_made_again(tmp_path: Path) -> None:
    scene, running = busy()
    async with visiting(scene, tmp_path, has_script=False) as page:
        end_release(running)
        await page.loaded()
        tree = await page.call("DOM.getDocument", depth=-1)

    assert "1.2.3?attempt=1" in str(tree)
    assert "data-node" not in str(tree)


async def test_a_person_with_the_token_releases_again(tmp_path: Path) -> None:
    scene, running = busy()
    end_release(running)
    async with visiting(scene, tmp_path, "/status/releases/1.2.3") as page:
        await page.run("document.querySelector('.action.retry summary').focus()")
        await page.press(*ENTER)
        await page.press(*TAB)
        assert await page.run("document.activeElement.id") == "retry-token"
        await page.write(TOKEN)
        await page.press(*ENTER)
        await page.loaded()

        assert await page.run("location.pathname") == "/status/releases/1.2.3"
        assert "attempt 2" in await words(page, "header")
    assert scene.desk.done == [("retry", "1.2.3")]


async def test_a_form_that_is_being_filled_in_stays_as_it_is(tmp_path: Path) -> None:
    scene, running = busy()
    async with visiting(scene, tmp_path, "/status/releases/1.2.3") as page:
        await page.run("document.querySelector('.action.cancel').open = true")
        await page.run("document.getElementById('cancel-token').focus()")
        await page.write("half of it")
        running.at(130, NodeFinished(node="windows", result=built("windows")))
        await page.wait_for(f"{node('windows', '.badge')}.textContent.includes('built')")

        assert await page.run("document.getElementById('cancel-token').value") == "half of it"
        assert await page.run("document.activeElement.id") == "cancel-token"


async def test_a_wrong_token_says_so(tmp_path: Path) -> None:
    scene, running = busy()
    end_release(running)
    async with visiting(scene, tmp_path, "/status/releases/1.2.3") as page:
        await page.run("document.querySelector('.action.retry').open = true")
        await page.run("document.getElementById('retry-token').focus()")
        await page.write("wrong")
        await page.press(*ENTER)
        await page.loaded()

        assert "The token is not right." in await words(page, "main")
        assert await words(page, "#link") == ""
        scene.live.touch()
        # The browser tells of every answer that is an error.
        assert all("403" in each for each in page.complaints)
        page.complaints.clear()
    assert scene.desk.done == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_another_site_cannot_act_whatever_it_knows(host: str, tmp_path: Path) -> None:
    scene, running = busy()
    end_release(running)
    async with chromium(tmp_path) as browser, serving(scene) as url:
        form = (
            f"<form method=post action={url}/status/releases/1.2.3/yank>"
            f"<input name=token value={TOKEN}></form><script>document.forms[0].submit()</script>"
        )
        with another_site(bytes_of(form.encode(), Content_Type="text/html")) as other:
            page = await browser.page()
            await page.open(other.replace("127.0.0.1", host))
            await page.wait_for(f"location.origin === '{url}' && document.querySelector('main')")

            assert "This comes from another site." in await words(page, "main")
            await page.open("about:blank")
    assert scene.desk.done == []
