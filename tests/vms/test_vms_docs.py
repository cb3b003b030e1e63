"""docs/vms.md says what a definition may say, and every fact that QEMU's command line follows."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
import yaml

from orchestrator.core.vm_facts import ROWS, Row
from orchestrator.core.vm_parser import parse_vm
from orchestrator.core.vm_schema import VM_RECORDS
from orchestrator.core.vm_symptoms import SYMPTOMS
from tests.vms.definitions import NAMES, TOP, shipped

if TYPE_CHECKING:
    from orchestrator.core.kinds import Record

PAGE = TOP / "docs/vms.md"


def default_in_words(record: Record, key: str) -> str:
    known = next(each for each in record.fields if each.key == key)
    if known.required:
        return "required"
    value = record.default_of(known)
    if value in (None, []):
        return ""
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def rows_of(record: Record) -> list[str]:
    return [
        f"| `{known.key}` | {known.kind.words} | {default_in_words(record, known.key)}"
        f" | {known.summary} |"
        for known in record.fields
    ]


def where(row: Row) -> str:
    words = [row.guest and row.guest.proper_name, row.arch, row.accelerator]
    said = " ".join(str(word) for word in words if word)
    releases = f" {', '.join(row.releases)}" if row.releases else ""
    return f"{said}{releases}" or "everywhere else"


def fact_rows() -> list[str]:
    return [
        f"| {row.setting} | {where(row)} | {f'`{row.value}`' if row.value else 'nothing'}"
        f" | {row.because} |"
        for row in ROWS
    ]


@pytest.mark.parametrize("record", VM_RECORDS, ids=lambda record: record.title)
def test_the_page_has_every_key_and_no_other(record: Record) -> None:
    section = PAGE.read_text().split(f"### {record.title}\n")[1].split("\n##")[0]

    assert record.summary in section
    assert [line for line in section.split("\n") if line.startswith("| `")] == rows_of(record)


def test_the_page_has_every_fact_with_its_reason() -> None:
    section = PAGE.read_text().split("## What QEMU is told, and why\n")[1]

    rows = [line for line in section.split("\n") if line.startswith("| ")]
    assert rows[1:] == fact_rows()


def test_the_definitions_that_the_page_shows_are_good_ones() -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    definitions = [block for block in blocks if block.startswith("guest:")]

    assert definitions
    for block in definitions:
        parse_vm(yaml.safe_load(block), name="x", place="docs/vms.md")


def test_every_shipped_definition_has_its_line_on_the_page() -> None:
    for name in NAMES:
        vm = shipped(name)
        (line,) = [each for each in PAGE.read_text().split("\n") if f"| `{name}` |" in each]
        assert f"| {vm.guest.proper_name} {vm.release} |" in line
        assert ("not run here" in line) == (vm.guest != "debian")


def test_the_page_names_every_reason_that_the_doctor_knows() -> None:
    section = PAGE.read_text().split("## When it does not come up\n")[1].split("\n## ")[0]
    named = {" ".join(words.split()) for words in re.findall(r"\*\*([^*]+)\*\*", section)}
    assert {symptom.name for symptom in SYMPTOMS} <= named
