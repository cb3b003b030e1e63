"""The judge of the fault suite: a suite that finds nothing must be one that could."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.faults import judge
from tests.faults.lab import lab
from tests.faults.stage import stage
from tests.nodes.sshd import needs_sshd
from tests.releases import VERSION, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.faults.lab import Lab
    from tests.faults.scenario import Findings
    from tests.faults.stage import Stage

pytestmark = [pytest.mark.thorough, needs_sshd]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(tmp_path_factory.mktemp("stage")) as made:
        yield made


@pytest.fixture
def good(made: Stage, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A lab whose release went well."""
    with lab(made, str(hash(request.node.name)), "1") as good:
        good.here()
        good.far()
        good.write()
        good.survive(good.release())
        yield good


def test_a_release_without_a_fault_is_found_to_be_good(good: Lab) -> None:
    good.complete()

    assert not good.findings, good.findings


def spoil_archive(good: Lab) -> None:
    for path in good.desk.store.rglob("*.tar.gz"):
        path.write_bytes(path.read_bytes() + b"more")


def lose_signature(good: Lab) -> None:
    next(good.desk.store.rglob("*.sshsig")).unlink()


def lose_log_line(good: Lab) -> None:
    log = good.desk.dist / VERSION / "far" / "build.log"
    log.write_text(log.read_text().replace("far line 7 ", "far line ? "))


def lose_end_of_log(good: Lab) -> None:
    log = good.desk.dist / VERSION / "far" / "build.log"
    log.write_text(log.read_text().partition("far line 20 ")[0])


def build_again(good: Lab) -> None:
    with (good.desk.folder / "built-here").open("a") as file:
        file.write(f"{VERSION}\n")


def build_at_once(good: Lab) -> None:
    (good.desk.folder / "overlap-far").touch()


def leave_part(good: Lab) -> None:
    (good.desk.dist / VERSION / "tool.part").touch()


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (spoil_archive, "wrong_report"),
        (lose_signature, "wrong_report"),
        (lose_log_line, "wrong_report"),
        (lose_end_of_log, "wrong_report"),
        (build_again, "built_twice"),
        (build_at_once, "built_twice"),
        (leave_part, "left_behind"),
    ],
)
def test_what_is_not_as_it_has_to_be_is_found(
    good: Lab, spoil: Callable[[Lab], None], found: str
) -> None:
    spoil(good)
    good.complete()

    assert _kinds(good.findings) == {found}, good.findings


def _kinds(findings: Findings) -> set[str]:
    return {name for name in findings.__slots__ if getattr(findings, name)}


def test_a_report_that_is_not_true_is_found(good: Lab) -> None:
    assert good.last is not None
    for change in (
        {"exit_code": 3},
        {"published": ["aarch64-unknown-netbsd"]},
        {"results": [{"node": "here", "target": "x", "result": "built"}]},
        {"results": [_failed("", "")]},
        {"results": [_failed("lost", "")]},
    ):
        good.findings.wrong_report.clear()
        report = judge.report_of(good.last) or {}
        judge.judge_outcome(good, Outcome(code=0, out=json.dumps(report | change), err=""))
        assert good.findings.wrong_report, change


def _failed(message: str, hint: str) -> dict[str, str]:
    said = {"node": "far", "result": "failed", "class": "machine"}
    return said | {"target": "aarch64-unknown-netbsd", "message": message, "hint": hint}


@pytest.mark.parametrize(
    ("code", "err"), [(1, "error: x"), (4, "error: x"), (3, ""), (3, "Traceback (most recent")]
)
def test_an_end_that_no_fault_may_have_is_found(good: Lab, code: int, err: str) -> None:
    judge.judge_outcome(good, Outcome(code=code, out="", err=err))

    assert good.findings.wrong_report


def test_a_release_that_says_it_is_done_and_is_not_is_found(good: Lab) -> None:
    assert good.last is not None
    good.here("another", target="x86_64-unknown-freebsd")
    judge.judge_outcome(good, good.last)

    assert good.findings.wrong_report


def test_a_process_of_a_job_that_stays_is_found(good: Lab) -> None:
    mark = {"ORCHESTRATOR_OUT": f"{good.folder}/far/home/work/jobs/x/out", "PATH": "/usr/bin:/bin"}
    with subprocess.Popen(["sleep", "100"], env=mark) as process:
        good.complete()
        process.kill()

    assert _kinds(good.findings) == {"left_behind"}
