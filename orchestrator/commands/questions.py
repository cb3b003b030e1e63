"""Questions to whoever sits at the terminal; elsewhere the proposals are the answers."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """Who is asked: a person, or, with `is_interactive` off, nobody."""

    is_interactive: bool

    def text(self, question: str, *, proposal: str | None = None, option: str) -> str:
        """Return the answer, the proposal for an empty one.

        Raise ConfigError where nobody can be asked and nothing is proposed: `option` says it, too.
        """
        if not self.is_interactive:
            if proposal is None:
                raise ConfigError(
                    f"{option} is missing",
                    hint="say it: without a terminal, and with --yes, nobody is asked",
                )
            return proposal
        shown = f"{question} [{proposal}]: " if proposal else f"{question}: "
        while not (answer := _read(shown).strip() or proposal):
            pass
        return answer

    def valid(
        self, ask: Callable[[], str], check: Callable[[str], object], explain: Callable[[str], None]
    ) -> str:
        """Return an answer that `check` accepts; a person is told what is wrong and asked again."""
        while True:
            answer = ask()
            try:
                check(answer)
            except ConfigError as error:
                if not self.is_interactive:
                    raise
                explain(error.message)
            else:
                return answer

    def lines(self, question: str) -> str:
        """Return several lines, up to an empty one; "" if the first one is empty."""
        if not self.is_interactive:
            return ""
        lines: list[str] = []
        while line := _read(f"{question}: " if not lines else "  > "):
            lines.append(line)
        return "".join(f"{line}\n" for line in lines)

    def yes(self, question: str, *, proposal: bool) -> bool:
        """Return whether the answer is yes; anything that is neither is asked again."""
        if not self.is_interactive:
            return proposal
        choice = "[Y/n]" if proposal else "[y/N]"
        while True:
            answer = _read(f"{question} {choice} ").strip().lower()
            if not answer:
                return proposal
            if answer in _ANSWERS:
                return _ANSWERS[answer]


_ANSWERS: Final = {"y": True, "yes": True, "n": False, "no": False}


def _read(prompt: str) -> str:
    # Not input's own prompt, which is data's way out.
    print(prompt, end="", file=sys.stderr, flush=True)
    try:
        return input()
    except EOFError:
        print(file=sys.stderr)
        raise ConfigError("the answer is missing", hint="nothing was written") from None
