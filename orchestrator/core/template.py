"""{placeholders} in commands, and the one door to Jinja2."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jinja2 import Template

# Of a command that builds, and of one that checks a binary.
PLACEHOLDERS: Final = ("version", "target", "name", "source", "jobs")
GATE_PLACEHOLDERS: Final = ("binary", "version", "target", "name")


def placeholders_in(command: str, names: tuple[str, ...] = PLACEHOLDERS) -> frozenset[str]:
    """Return the names of the placeholders that a command uses."""
    return frozenset(_pattern(names).findall(command))


def fill_placeholders(
    command: str, values: Mapping[str, str], names: tuple[str, ...] = PLACEHOLDERS
) -> str:
    """Return the command with the placeholders replaced; `${HOME}`, `{print $1}` survive.

    The values must be validated already: they enter a shell command as they are. One of `names`
    that the command uses and that has no value raises ConfigError.
    """

    def value(match: re.Match[str]) -> str:
        try:
            return values[match[1]]
        except KeyError:
            message = f"`{match[0]}` has no value here"
            hint = "`{source}` needs a `source:` in the project" if match[1] == "source" else None
            raise ConfigError(message, hint=hint) from None

    # One pass, so that a value is never searched for placeholders of its own.
    return _pattern(names).sub(value, command)


def _pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("{(" + "|".join(names) + ")}")


def render_template(template: str, values: Mapping[str, str]) -> str:
    """Return the Jinja2 template rendered with the values; an undefined name raises ConfigError.

    Nothing is escaped: the caller validates every value for the place where it lands.
    """
    # 25 ms of imports that only a command which renders should pay for.
    import jinja2  # noqa: PLC0415

    try:
        return _compile(template).render(values)
    except jinja2.TemplateError as error:
        raise ConfigError(f"the template cannot be rendered: {error}") from error


@cache  # 15 ms, and a release renders its installer five times
def _compile(template: str) -> Template:
    import jinja2  # noqa: PLC0415 -- see above

    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 -- shell, not HTML: every value is validated by its caller
    )
    return environment.from_string(template)
