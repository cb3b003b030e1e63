"""The real service, looked at in a real browser while it makes a real release."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.browser import chromium

if TYPE_CHECKING:
    from pathlib import Path

    from tests.service.running import Service, Works

pytestmark = pytest.mark.thorough

TOKEN = "a-token-that-only-the-test-knows"
ENTER = ("Enter", 13, "\r")


def test_a_person_follows_a_release_reads_its_log_and_withdraws_it(
    works: Works, tmp_path: Path
) -> None:
    desk = works.desk
    works.environment["ORCHESTRATOR_ACTION_TOKEN"] = TOKEN
    loud = "printf '\\033[31mloud\\033[0m <b>and clear</b>\\n'\n"
    works.write(desk.node(build=loud + desk.wait_then_copy()))
    with works.running() as service:
        asyncio.run(visit(works, service, tmp_path / "profile"))
        status, log = service.get("/status/releases/1.0.0/logs/here")
    assert status == 200
    assert b"loud <b>and clear</b>" in log
    assert "\t1.0.0\tyanked\t" in (desk.store / "stable.idx").read_text()
    assert TOKEN not in works.log


async def visit(works: Works, service: Service, profile: Path) -> None:
    async with chromium(profile) as browser:
        page = await browser.page()
        await page.open(f"{service.url}/status")
        await page.wait_for("document.getElementById('link').textContent === 'Live.'")
        assert await asyncio.to_thread(partial(service.deliver, "v1.0.0")) == 202

        await page.wait_for("document.querySelector('[data-node=here] .badge')")
        await page.wait_for(
            "document.querySelector('[data-node=here] .badge').textContent.includes('building')"
        )
        await page.wait_for(
            "document.querySelector('[data-node=here] .last').textContent"
            " === 'loud <b>and clear</b>'"
        )
        works.desk.let_go()
        await page.wait_for("document.querySelector('#history a')")
        assert "done" in await page.run("document.querySelector('#history tr td').textContent")

        await page.run("document.querySelector('#history a').click()")
        await page.loaded()
        await page.wait_for("document.querySelectorAll('.timeline .bar.build').length === 1")
        await page.run("document.querySelector('.action.yank').open = true")
        await page.run("document.getElementById('yank-token').focus()")
        await page.write(TOKEN)
        await page.press(*ENTER)
        await page.loaded()
        await page.open(f"{service.url}/status")
        await page.wait_for("document.querySelector('#platforms').textContent.includes('none yet')")
        assert page.complaints == []
        await page.open("about:blank")
