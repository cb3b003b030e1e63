"""Who asks for the root of a site: a program that downloads, or a person with a browser."""

from __future__ import annotations

import re
from typing import Final

# What downloaders call themselves; an empty name is one that somebody chose to send.
_DOWNLOADER: Final = re.compile(
    r"(?:curl|wget2?|fetch|openbsd ftp|netbsd-ftp|tnftp|aria2)(?:[/ ]|$)|$", re.IGNORECASE
)
_PAGE: Final = re.compile(r"\s*text/html\s*(?:;.*)?", re.IGNORECASE)
_NEVER: Final = re.compile(r";\s*q=0(?:\.0*)?\s*(?:;|$)", re.IGNORECASE)


def wants_page(user_agent: str, accept: str) -> bool:
    """Whether the visitor asks for HTML; anybody else may pipe what comes into a shell."""
    if _DOWNLOADER.match(user_agent):
        return False
    return any(_PAGE.fullmatch(each) and not _NEVER.search(each) for each in accept.split(","))
