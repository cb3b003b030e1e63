"""Forms for those who may act: release again, cancel, withdraw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from orchestrator.core.order import State
from orchestrator.core.status_words import plain, release_address

if TYPE_CHECKING:
    from orchestrator.core.order import Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """Something that can be done with a release: `words` say what comes of it."""

    name: str
    title: str
    words: str
    is_final: bool = False


RETRY: Final = Action(
    name="retry",
    title="Release it again",
    words="What is published stays as it is, and what is built is not built again: only what is "
    "missing is done.",
)
CANCEL: Final = Action(
    name="cancel",
    title="Cancel it",
    words="What waits is taken back, and what runs on the nodes is ended.",
)
YANK: Final = Action(
    name="yank",
    title="Withdraw it",
    words="This version is offered to nobody any more. Who has it keeps it, and who asks for this "
    "very version still gets it.",
    is_final=True,
)
ACTIONS: Final = (RETRY, CANCEL, YANK)


def actions_of(entry: Entry) -> tuple[Action, ...]:
    """Return what can be done with a release now."""
    if entry.state is State.DONE and not (entry.outcome or {}).get("pending"):
        return (YANK,)
    return (RETRY, YANK) if entry.state.is_final else (CANCEL,)


def render_actions(entry: Entry) -> str:
    """Return a form for each thing that can be done with the release now.

    Each asks for the token: nothing is remembered that another site could make use of.
    """
    return "\n".join(_form(action, entry.order.version) for action in actions_of(entry))


def _form(action: Action, version: str) -> str:
    address = plain(f"{release_address(version)}/{action.name}")
    kind = ' class="danger"' if action.is_final else ""
    return (
        f'<details class="action {action.name}">\n<summary>{action.title}</summary>\n'
        f'<form method="post" action="{address}">\n<p>{action.words}</p>\n'
        '<input class="hidden" type="text" name="user" value="orchestrator" '
        'autocomplete="username" tabindex="-1" aria-hidden="true" readonly>\n'
        f'<label for="{action.name}-token">Token</label>\n'
        f'<input id="{action.name}-token" type="password" name="token" '
        'autocomplete="current-password" required>\n'
        f"<p><button{kind}>{action.title}</button></p>\n</form>\n</details>"
    )
