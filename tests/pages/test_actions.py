"""Who may act on the pages, and who not."""

from __future__ import annotations

import asyncio
import io
import json
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from orchestrator.core.errors import StoreError
from orchestrator.core.order import State
from orchestrator.service import actions, pages
from orchestrator.service.actions import Gate
from tests.fakes import FakeDesk
from tests.pages.scenes import TOKEN, Clock, Scene, entry, serving
from tests.pages.test_pages import visiting

if TYPE_CHECKING:
    from collections.abc import Mapping

RETRY = "/status/releases/1.2.3/retry"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def failed_scene() -> Scene:
    scene = Scene()
    scene.desk.orders.append(entry(State.FAILED))
    return scene


async def post(session: aiohttp.ClientSession, path: str, **more: Any) -> tuple[int, str, str]:
    """Return the status, the text, and where it leads."""
    async with session.post(path, allow_redirects=False, **more) as answer:
        return answer.status, await answer.text(), answer.headers.get("Location", "")


async def send(
    scene: Scene,
    path: str = RETRY,
    *,
    data: Any = None,
    headers: Mapping[str, str] | None = None,
    token: str | None = TOKEN,
) -> tuple[int, str, str]:
    async with visiting(scene, actions=token) as session:
        return await post(session, path, data=data, headers=dict(headers or {}))


async def test_a_form_with_the_token_acts_and_leads_back_to_the_release() -> None:
    scene = failed_scene()
    mark = scene.live.mark
    status, _, address = await send(scene, data={"token": TOKEN, "user": "orchestrator"})

    assert (status, address) == (303, "/status/releases/1.2.3")
    assert scene.desk.done == [("retry", "1.2.3")]
    assert scene.live.mark != mark


@pytest.mark.parametrize(
    ("state", "action"),
    [
        (State.FAILED, "retry"),
        (State.RUNNING, "cancel"),
        (State.QUEUED, "cancel"),
        (State.DONE, "yank"),
    ],
)
async def test_a_script_with_the_token_acts_and_gets_data(state: State, action: str) -> None:
    scene = Scene()
    scene.desk.orders.append(entry(state))
    status, text, _ = await send(scene, f"/status/releases/1.2.3/{action}", headers=BEARER)

    assert (status, json.loads(text)) == (200, {"version": "1.2.3", "done": True})
    assert scene.desk.done == [(action, "1.2.3")]


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": TOKEN},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
    ],
)
async def test_a_script_without_the_token_is_refused(headers: dict[str, str]) -> None:
    scene = failed_scene()
    status, text, _ = await send(scene, headers=headers, data={"token": TOKEN})

    assert (status, json.loads(text)) == (403, {"error": "The token is not right."})
    assert scene.desk.done == []


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        {"token": ""},
        {"token": "wrong"},
        {"Token": TOKEN},
        {"token": TOKEN.upper()},
        [("token", "wrong"), ("token", TOKEN)],
        [(f"field{number}", "x") for number in range(20)] + [("token", TOKEN)],
        json.dumps({"token": TOKEN}),
        b"\xff\xfe\x00%zz&&&==",
    ],
)
async def test_a_form_without_the_token_is_refused(data: Any) -> None:
    scene = failed_scene()
    status, text, _ = await send(scene, data=data)

    assert status == 403
    assert "The token is not right." in text
    assert TOKEN not in text
    assert scene.desk.done == []


async def test_a_form_of_another_kind_is_refused() -> None:
    scene = failed_scene()
    form = aiohttp.FormData(default_to_multipart=True)
    form.add_field("token", TOKEN)

    assert (await send(scene, data=form))[0] == 403
    assert scene.desk.done == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": ""},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site", **BEARER},
    ],
)
async def test_what_another_site_makes_a_browser_send_is_refused(headers: dict[str, str]) -> None:
    scene = failed_scene()
    status, text, _ = await send(scene, data={"token": TOKEN}, headers=headers)

    assert status == 403
    assert "This comes from another site." in text
    assert scene.desk.done == []


@pytest.mark.parametrize("site", ["same-origin", "none"])
async def test_what_a_browser_sends_from_here_is_let_through(site: str) -> None:
    scene = failed_scene()
    status, *_ = await send(scene, data={"token": TOKEN}, headers={"Sec-Fetch-Site": site})

    assert status == 303


async def test_an_old_browser_says_where_it_comes_from_in_another_way() -> None:
    scene = failed_scene()
    async with visiting(scene) as session:
        origin = str(session._base_url).rstrip("/")
        status, *_ = await post(session, RETRY, data={"token": TOKEN}, headers={"Origin": origin})

    assert status == 303


async def test_who_tries_tokens_out_is_locked_out_for_a_minute_with_the_right_one_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene, clock = failed_scene(), Clock()
    monkeypatch.setattr(pages, "Gate", lambda token, _: Gate(token, lambda: clock().timestamp()))
    async with visiting(scene) as session:
        for _ in range(5):
            assert (await post(session, RETRY, data={"token": "wrong"}))[0] == 403
        status, text, _ = await post(session, RETRY, data={"token": TOKEN})
        assert (status, "wait for a minute" in text) == (429, True)
        assert (await post(session, RETRY, headers=BEARER))[0] == 429
        clock.move(61)
        assert (await post(session, RETRY, data={"token": TOKEN}))[0] == 303


async def test_behind_a_web_server_a_stranger_locks_nobody_else_out() -> None:
    scene = failed_scene()
    async with visiting(scene) as session:
        stranger = {"X-Forwarded-For": "203.0.113.9"}
        for _ in range(5):
            await post(session, RETRY, data={"token": "wrong"}, headers=stranger)

        assert (await post(session, RETRY, data={"token": TOKEN}, headers=stranger))[0] == 429
        owner = {"X-Forwarded-For": "192.0.2.7"}
        assert (await post(session, RETRY, data={"token": TOKEN}, headers=owner))[0] == 303


async def test_a_few_mistakes_lock_nobody_out() -> None:
    scene = failed_scene()
    async with visiting(scene) as session:
        for _ in range(4):
            await post(session, RETRY, data={"token": "wrong"})

        assert (await post(session, RETRY, data={"token": TOKEN}))[0] == 303


def test_mistakes_of_many_addresses_take_little_memory() -> None:
    gate = Gate(TOKEN, lambda: 7.0)
    for number in range(5000):
        for _ in range(20):
            gate._note_mistake(f"192.0.2.{number}")

    assert len(gate._mistakes) == 1000
    assert max(map(len, gate._mistakes.values())) == 5


@pytest.mark.parametrize("size", [5000, 5_000_000])
async def test_a_body_that_is_too_large_is_not_read(size: int) -> None:
    scene = failed_scene()
    async with serving(scene) as url, aiohttp.ClientSession(url) as session:
        body = io.BytesIO(b"token=" + TOKEN.encode() + b"&x=" + b"y" * size)
        try:
            status, *_ = await post(
                session,
                RETRY,
                data=body,
                headers={"Content-Type": "application/x-www-form-urlencoded"},
            )
        except aiohttp.ClientError:
            # The answer was there before the body was sent.
            status = 413
    assert status == 413
    assert scene.desk.done == []


async def test_a_body_that_never_comes_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "_PATIENCE_SECONDS", 0.05)
    scene = failed_scene()

    async def slowly() -> Any:
        yield b"token="
        await asyncio.sleep(1)

    status, *_ = await send(
        scene, data=slowly(), headers={"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert status == 413
    assert scene.desk.done == []


@pytest.mark.parametrize("method", ["get", "put", "delete", "patch"])
async def test_only_a_post_acts(method: str) -> None:
    scene = failed_scene()
    async with visiting(scene) as session, session.request(method, RETRY, headers=BEARER) as answer:
        assert answer.status in {404, 405}
    assert scene.desk.done == []


async def test_without_a_token_in_the_configuration_nobody_can_act() -> None:
    for token in (None, ""):
        scene = failed_scene()
        for headers in (BEARER, {"Authorization": "Bearer "}):
            status, *_ = await send(scene, headers=headers, token=token)
            assert status in {403, 404, 405}
        assert (await send(scene, data={"token": ""}, token=token))[0] in {403, 404, 405}
        assert scene.desk.done == []


async def test_what_cannot_be_done_says_why_and_what_to_do() -> None:
    scene = Scene()
    scene.desk.orders.append(entry(State.RUNNING))
    status, page, _ = await send(scene, data={"token": TOKEN})
    assert (status, "1.2.3 is running" in page, "cancel it first" in page) == (409, True, True)

    status, text, _ = await send(scene, headers=BEARER)
    assert (status, json.loads(text)) == (
        409,
        {"error": "1.2.3 is running", "hint": "cancel it first"},
    )


class AwayDesk(FakeDesk):
    """A desk whose store is away."""

    async def yank(self, version: str) -> None:
        raise StoreError(f"cannot read the index for {version}")


async def test_a_store_that_is_away_is_no_mistake_of_who_asked() -> None:
    scene = Scene(desk=AwayDesk())

    assert (await send(scene, "/status/releases/1.2.3/yank", headers=BEARER))[0] == 503


@pytest.mark.parametrize("version", ["..", "%2e%2e", "v1", "%3Cb%3E", "1.2.3%0d%0aX:%20y"])
async def test_a_version_that_is_none_is_a_404(version: str) -> None:
    scene = failed_scene()
    status, text, _ = await send(scene, f"/status/releases/{version}/retry", headers=BEARER)

    assert (status, "<b>" in text) == (404, False)
    assert (await send(scene, f"/status/releases/{version}/retry", data={"token": TOKEN}))[0] == 404
    assert scene.desk.done == []


async def test_a_wrong_token_is_logged_without_it(caplog: pytest.LogCaptureFixture) -> None:
    await send(failed_scene(), data={"token": "almost-the-token"})

    [record] = [each for each in caplog.records if each.message == "wrong token"]
    assert record.fields["path"] == RETRY  # type: ignore[attr-defined]  # what `extra` adds
    assert "almost" not in caplog.text
    assert "almost" not in str(record.__dict__)
    assert TOKEN not in repr(Gate(TOKEN, float))
