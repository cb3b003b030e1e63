"""The secrets of the service: from private files, the environment, or systemd's credentials."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, assert_never
from urllib.parse import quote, quote_plus, urlsplit

from orchestrator.core.errors import ConfigError
from orchestrator.core.service_settings import NoticeByMail, NoticeByWebhook
from orchestrator.private import read_private
from orchestrator.web import is_allowed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from orchestrator.core.service_settings import Notice, Service

WEBHOOK_SECRET: Final = "ORCHESTRATOR_WEBHOOK_SECRET"  # noqa: S105 -- the name of a variable
ACTION_TOKEN: Final = "ORCHESTRATOR_ACTION_TOKEN"  # noqa: S105 -- so is this
GITHUB_TOKEN: Final = "GITHUB_TOKEN"  # noqa: S105 -- and this
DATABASE: Final = "ORCHESTRATOR_DATABASE"
# Where systemd puts what LoadCredential= names: files that only the service's user may open.
CREDENTIALS: Final = "CREDENTIALS_DIRECTORY"
SHORTEST: Final = 16

_LIMIT_BYTES: Final = 4096
_OTHER_USERS: Final = 0o007
_HIDDEN: Final = "…"


@dataclass(frozen=True, kw_only=True)
class Secrets:
    """What nobody else may know; None is what is not there.

    `notices` has one for each of the settings' notices, in their order: a URL, or a password.
    `database` is the URL of the queue's database where the inventory names none.
    """

    webhook: str | None = field(default=None, repr=False)
    action_token: str | None = field(default=None, repr=False)
    github_token: str | None = field(default=None, repr=False)
    database: str | None = field(default=None, repr=False)
    notices: tuple[str | None, ...] = field(default=(), repr=False)

    def redact(self, text: str) -> str:
        """Return the text without any of them, in whatever form they are usually written."""
        return self._pattern.sub(_HIDDEN, text) if self._pattern else text

    @cached_property
    def _pattern(self) -> re.Pattern[str] | None:
        whole = {self.webhook, self.action_token, self.github_token, *self.notices}
        if self.database and (password := urlsplit(self.database).password):
            whole.add(password)
        forms = {form for secret in whole if secret for form in _forms(secret)}
        longest_first = sorted(forms, key=lambda form: (-len(form), form))
        return re.compile("|".join(map(re.escape, longest_first))) if forms else None


def read_secrets(settings: Service, environment: Mapping[str, str]) -> Secrets:
    """Return the secrets; ConfigError names every one that cannot be used, and shows none."""
    errors: list[ConfigError] = []

    def attempt(read: Callable[[], str | None]) -> str | None:
        try:
            return read()
        except ConfigError as error:
            errors.append(error)
            return None

    files = _Files(environment)
    webhook = _Named("webhook secret", settings.webhook_secret_file, WEBHOOK_SECRET)
    action = _Named("action token", settings.action_token_file, ACTION_TOKEN)
    github = _Named("GitHub token", settings.github_token_file, GITHUB_TOKEN)
    database = _Named("database's URL", None, DATABASE)
    found = Secrets(
        webhook=attempt(lambda: _word(files, webhook, shortest=SHORTEST)),
        action_token=attempt(lambda: _word(files, action, shortest=SHORTEST)),
        github_token=attempt(lambda: _word(files, github, shortest=1)),
        database=attempt(lambda: files.read(database)),
        notices=tuple(
            attempt(partial(_of_notice, files, f"service.notices[{number}]", notice))
            for number, notice in enumerate(settings.notices)
        ),
    )
    if errors:
        hints = [error.hint for error in errors if error.hint]
        raise ConfigError(
            "\n".join(error.message for error in errors), hint="; ".join(dict.fromkeys(hints))
        )
    return found


class _Named(NamedTuple):
    what: str
    file: str | None
    variable: str | None

    @property
    def place(self) -> str | None:
        return self.file or self.variable


@dataclass(frozen=True, slots=True)
class _Files:
    """Reads text from where a secret is."""

    environment: Mapping[str, str]

    def read(self, named: _Named) -> str | None:
        """Return what is in the file, else in the variable, else in the credential of its name."""
        what, file, variable = named
        if file is not None:
            return self._file(what, Path(file))
        if variable is None:
            return None
        text = self.environment.get(variable, "").strip()
        folder = self.environment.get(CREDENTIALS)
        if not text and folder and (path := Path(folder) / variable).exists():
            # systemd lets its user in by an access list, which shows as bits of the group.
            return self._file(what, path, forbidden=_OTHER_USERS)
        return text or None

    def _file(self, what: str, path: Path, **more: int) -> str:
        hint = f"write the {what} into it, and chmod 600 {path}"
        data = read_private(path, what, limit_bytes=_LIMIT_BYTES, hint=hint, **more)
        text = data.decode(errors="replace").strip()
        if not text:
            raise ConfigError(f"{path}: there is no {what} in it", hint=hint)
        return text


def _word(files: _Files, named: _Named, *, shortest: int) -> str | None:
    """Return a secret of printable letters without spaces; None where nothing was said."""
    text = files.read(named)
    if text is not None and not _WORD.fullmatch(text):
        raise ConfigError(
            f"{named.place}: the {named.what} is not one word of printable ASCII letters"
        )
    if text is not None and len(text) < shortest:
        raise ConfigError(
            f"{named.place}: the {named.what} is shorter than {shortest} letters",
            hint="openssl rand -hex 32 makes a good one",
        )
    return text


def _of_notice(files: _Files, place: str, notice: Notice) -> str | None:
    match notice:
        case NoticeByWebhook():
            named = _Named("notices' URL", notice.url_file, notice.url_env)
            url = files.read(named)
            if url is None:
                raise ConfigError(
                    f"{place}: the variable {notice.url_env} is not set",
                    hint=f"set {notice.url_env} to the URL that is posted to",
                )
            if not is_allowed(url):
                raise ConfigError(f"{named.place}: what it holds is not an https URL")
            return url
        case NoticeByMail():
            if (notice.user is None) != (notice.password_file is None):
                raise ConfigError(f"{place}: `user` and `password_file` go together")
            return files.read(_Named("mail password", notice.password_file, None))
        case _:
            assert_never(notice)


_WORD: Final = re.compile(r"[\x21-\x7e]{1,1000}")
# What is shorter would be found in words that have nothing to do with it.
_SHORTEST_FORM: Final = 4
_SHORTEST_PART: Final = 12


def _forms(secret: str) -> Iterator[str]:
    """Yield how a secret may be written: plain, escaped, in a URL, in base64 within other text."""
    forms = {secret, quote(secret, safe=""), quote(secret), quote_plus(secret)}
    forms |= {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    parts = urlsplit(secret) if secret.startswith(("https://", "http://")) else None
    if parts:
        # Whoever knows the path of such a URL can write there: its host is no secret.
        forms |= {parts.path, parts.query}
        last = parts.path.rpartition("/")[2]
        forms |= {last} if len(last) >= _SHORTEST_PART else set()
    for form in tuple(forms):
        forms |= set(_in_base64(form))
    return (form for form in forms if len(form) >= _SHORTEST_FORM)


def _in_base64(text: str) -> Iterator[str]:
    data = text.encode()
    for before in range(3):
        # The first and last letters also hold bits of what is beside it.
        cut = (before * 8 + 5) // 6
        whole = (before + len(data)) * 8 // 6
        if whole - cut < _SHORTEST_FORM * 2:
            continue
        padded = b"\0" * before + data
        yield base64.b64encode(padded).decode()[cut:whole]
        yield base64.urlsafe_b64encode(padded).decode()[cut:whole]
