"""Who asks, when a web server stands between."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from orchestrator.service.addresses import client_address


def address(remote: str | None, *forwarded: str) -> str:
    headers = CIMultiDict([("X-Forwarded-For", each) for each in forwarded])
    request = make_mocked_request("GET", "/", headers=headers)
    return client_address(request.clone(remote=remote or ""))


def test_a_web_server_on_this_machine_says_who_asks() -> None:
    assert address("127.0.0.1", "203.0.113.9") == "203.0.113.9"
    assert address("::1", "2001:db8::1") == "2001:db8::1"


def test_only_the_address_that_it_has_seen_itself_is_believed() -> None:
    assert address("127.0.0.1", "192.0.2.1, 203.0.113.9") == "203.0.113.9"
    assert address("127.0.0.1", "192.0.2.1", "198.51.100.1,203.0.113.9") == "203.0.113.9"


def test_who_comes_from_elsewhere_speaks_for_nobody() -> None:
    assert address("203.0.113.9", "192.0.2.1") == "203.0.113.9"


@pytest.mark.parametrize("told", ["", "unknown", "192.0.2.1:80", "\x00", "a" * 9999, "1.2.3.4,"])
def test_what_is_no_address_is_not_taken_for_one(told: str) -> None:
    assert address("127.0.0.1", told) == "127.0.0.1"


def test_nobody_knows_who_asks_on_a_socket_of_no_address() -> None:
    assert not address(None, "192.0.2.1")
    assert address("127.0.0.1") == "127.0.0.1"
