"""Who asks GitHub, and where it is: from the environment and from a file that nobody else reads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import ConfigError
from orchestrator.core.wording import redacted
from orchestrator.github.api import PUBLIC_API
from orchestrator.private import read_private
from orchestrator.web import is_allowed

if TYPE_CHECKING:
    from collections.abc import Mapping


def read_token(token_file: str | None, environment: Mapping[str, str]) -> str:
    """Return the token of the file, or of GITHUB_TOKEN if no file is named; ConfigError if none."""
    if token_file is None:
        text, place = environment.get("GITHUB_TOKEN", ""), "GITHUB_TOKEN"
    else:
        text, place = _read(Path(token_file)), token_file
    token = text.strip()
    if not token:
        raise ConfigError(
            f"there is no GitHub token in {place}",
            hint="make one with `contents: write` on the repository, and put it there; or publish "
            "without `publication.github`",
        )
    if not _TOKEN.fullmatch(token):
        # What it is instead may be half a secret: it is not shown.
        raise ConfigError(f"what is in {place} is not a GitHub token", hint="it is one word")
    return token


def api_url(environment: Mapping[str, str]) -> str:
    """Return where the API is: GITHUB_API_URL, as GitHub's own tools say it, or GitHub itself."""
    url = environment.get("GITHUB_API_URL", "").rstrip("/") or PUBLIC_API
    if not is_allowed(url) or set(url) & set("?#@"):
        raise ConfigError(
            f"GITHUB_API_URL is not an https URL: {redacted(url)[:80]!r}",
            hint=f"unset it for {PUBLIC_API}, or name your own, such as https://HOST/api/v3",
        )
    return url


_LIMIT_BYTES: Final = 4096
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,1000}")


def _read(path: Path) -> str:
    hint = "see `publication.github.token_file` in the inventory"
    data = read_private(path, "GitHub token", limit_bytes=_LIMIT_BYTES, hint=hint)
    return data.decode(errors="replace")
