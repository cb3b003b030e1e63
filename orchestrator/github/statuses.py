"""The statuses of one commit: how each target of its release stands."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from orchestrator.core.commit_status import StatusState
from orchestrator.github.api import Request, UncertainError

if TYPE_CHECKING:
    from orchestrator.github.api import Api

_CREATED: Final = 201
_ATTEMPTS: Final = 3
_PAUSE_SECONDS: Final = 5.0
_PAGE: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """One status: `context` tells it from the others, `page` is where its details are."""

    context: str
    state: StatusState
    description: str
    page: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Statuses:
    """The statuses of the API's repository; every call raises StoreError for what goes wrong."""

    api: Api

    async def of(self, commit: str) -> dict[str, Status]:
        """Return the newest status of each context, of the hundred that were set last."""
        path = f"commits/{commit}/statuses?per_page={_PAGE}"
        request = Request(method="GET", url=self._url(path), what=f"read the statuses of {commit}")
        reply = await self.api.ask(request)
        if not isinstance(reply.data, list):
            raise self.api.unreadable(request)
        found: dict[str, Status] = {}
        for each in reply.data:
            status = _parse(each)
            # Newest first; another program may have set any that we do not understand.
            if status is not None:
                found.setdefault(status.context, status)
        return found

    async def set(self, commit: str, status: Status) -> None:
        """Set it; what is not known to be done is done again: twice is as good as once."""
        data = {
            "state": str(status.state),
            "context": status.context,
            "description": status.description,
        }
        if status.page:
            data["target_url"] = status.page
        request = Request(
            method="POST",
            url=self._url(f"statuses/{commit}"),
            what=f"set a status of {commit}",
            body=json.dumps(data).encode(),
        )
        for attempt in range(_ATTEMPTS):
            try:
                await self.api.ask(request, accepted=(_CREATED,))
            except UncertainError:
                if attempt == _ATTEMPTS - 1:
                    raise
                await self.api.pause(_PAUSE_SECONDS)
            else:
                return

    def _url(self, path: str) -> str:
        return f"{self.api.url}/repos/{self.api.repository}/{path}"


def _parse(data: Any) -> Status | None:
    try:
        return Status(
            context=str(data["context"]),
            state=StatusState(data["state"]),
            description=str(data["description"] or ""),
            page=data["target_url"],
        )
    except (KeyError, TypeError, ValueError):
        return None
