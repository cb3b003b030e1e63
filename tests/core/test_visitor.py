"""Who gets the installer at the root, and who the page."""

from __future__ import annotations

import pytest

from orchestrator.core.visitor import wants_page

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


@pytest.mark.parametrize(
    "user_agent",
    [
        "curl/7.88.1",
        "Wget/1.21.3",
        "Wget/1.20.3 (linux-gnu)",
        "Wget2/2.0.1",
        "Wget",  # BusyBox
        "wget",
        "fetch libfetch/2.0",
        "OpenBSD ftp",
        "NetBSD-ftp/20210827",
        "tnftp/20210827",
        "aria2/1.36.0",
        "",
    ],
)
def test_who_downloads_gets_the_installer_whatever_else_it_says(user_agent: str) -> None:
    assert not wants_page(user_agent, "*/*")
    assert not wants_page(user_agent, BROWSER)
    assert not wants_page(user_agent, "")


@pytest.mark.parametrize(
    "user_agent",
    [
        FIREFOX,
        "Lynx/2.9.0dev.12 libwww-FM/2.14SSL-MM/1.4.1",
        "w3m/0.5.3",
        "curly/1.0",
        "Mozilla/5.0 (compatible; fetch; curl)",
        " ",
    ],
)
def test_who_asks_for_html_gets_the_page(user_agent: str) -> None:
    for accept in (BROWSER, "text/html", "*/*;q=0.1, TEXT/HTML ;q=0.5", "text/html;level=1"):
        assert wants_page(user_agent, accept)


@pytest.mark.parametrize(
    "accept",
    ["", "*/*", "text/*", "application/json", "text/html;q=0", "text/html; q=0.00", "text/htmlx"],
)
def test_who_does_not_ask_for_html_may_be_a_shell(accept: str) -> None:
    assert not wants_page(FIREFOX, accept)
    assert not wants_page("python-requests/2.34", accept)
