"""{placeholders} in commands, and templates."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.errors import ConfigError
from orchestrator.core.template import (
    GATE_PLACEHOLDERS,
    PLACEHOLDERS,
    fill_placeholders,
    placeholders_in,
    render_template,
)

VALUES = {"version": "1.2.3", "target": "x86_64-unknown-netbsd", "name": "x", "jobs": "4"}


def test_the_placeholders_of_a_build_are_exactly_five() -> None:
    assert PLACEHOLDERS == ("version", "target", "name", "source", "jobs")


def test_every_occurrence_is_replaced() -> None:
    command = "v{version}.tar.gz {version} --target {target} -j{jobs}"
    assert (
        fill_placeholders(command, VALUES)
        == "v1.2.3.tar.gz 1.2.3 --target x86_64-unknown-netbsd -j4"
    )


@pytest.mark.parametrize(
    "command",
    [
        "echo ${HOME} ${version}x".replace("version", "VERSION"),
        "awk '{print $1}'",
        "{Version} { version } {} {{}} {binary} {unknown}",
        "find . -exec ls {} +",
        "a{b,c}d",
    ],
)
def test_other_braces_survive(command: str) -> None:
    assert fill_placeholders(command, VALUES) == command
    assert placeholders_in(command) == frozenset()


def test_doubled_braces_are_not_an_escape() -> None:
    assert fill_placeholders("{{version}}", VALUES) == "{1.2.3}"


def test_a_value_is_never_searched_for_placeholders() -> None:
    values = {"version": "{target}", "target": "{version}"}
    assert fill_placeholders("{version} {target}", values) == "{target} {version}"


def test_the_placeholders_of_a_command_are_named() -> None:
    assert placeholders_in("{source}/{version} {version} {binary}") == {"source", "version"}
    assert placeholders_in("{source} {binary}", GATE_PLACEHOLDERS) == {"binary"}


def test_a_gate_has_placeholders_of_its_own() -> None:
    command = "{binary} --check {version} {jobs}"
    values = {"binary": "/tmp/x", "version": "1.2.3"}
    assert fill_placeholders(command, values, GATE_PLACEHOLDERS) == "/tmp/x --check 1.2.3 {jobs}"


def test_a_placeholder_without_a_value_is_an_error_that_names_it() -> None:
    with pytest.raises(ConfigError) as caught:
        fill_placeholders("make -j{jobs}", {})
    assert caught.value.message == "`{jobs}` has no value here"
    assert caught.value.hint is None


def test_a_missing_source_says_what_is_needed() -> None:
    with pytest.raises(ConfigError) as caught:
        fill_placeholders("cd {source}", VALUES)
    assert caught.value.hint == "`{source}` needs a `source:` in the project"


@given(st.text(alphabet="{}versionjbt $'\"\\\n", max_size=60))
def test_text_around_placeholders_is_kept_byte_for_byte(text: str) -> None:
    filled = fill_placeholders(text + "{version}" + text, {name: name for name in PLACEHOLDERS})
    plain = text
    for name in PLACEHOLDERS:
        plain = plain.replace("{" + name + "}", name)
    assert filled == plain + "version" + plain


def test_the_filled_command_is_what_the_shell_runs() -> None:
    command = "printf '%s|' {version} ${HOME} | awk -F'|' '{print $1 \"-\" $2}'"
    ran = subprocess.run(
        ["/bin/sh", "-c", fill_placeholders(command, VALUES)],
        env={"HOME": "/h", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        check=True,
        text=True,
    )
    assert ran.stdout == "1.2.3-/h\n"


def test_a_template_is_rendered_as_it_stands() -> None:
    template = "NAME='{{ name }}'\n{% for row in rows.split() %}{{ row }};{% endfor %}\n\n"
    assert render_template(template, {"name": "<&\"'>", "rows": "a b"}) == "NAME='<&\"'>'\na;b;\n\n"


def test_an_undefined_name_in_a_template_is_an_error() -> None:
    with pytest.raises(ConfigError, match="the template cannot be rendered: 'nam' is undefined"):
        render_template("{{ nam }}", {"name": "x"})


def test_a_broken_template_is_an_error() -> None:
    with pytest.raises(ConfigError, match="the template cannot be rendered"):
        render_template("{% if %}", {})
