"""The judge: compares what a release says with the store, the counters and the processes."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import re
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from orchestrator.core.index import Status
from orchestrator.core.version import parse_version
from orchestrator.wiring import Operator
from tests.releases import VERSION, Outcome

if TYPE_CHECKING:
    from orchestrator.core.index import Index, Row
    from tests.faults.lab import Lab

# What every build writes at least.
LOG_LINES: Final = 30
_KNOWN_CODES: Final = frozenset((0, 2, 3, 4, 5, 130))
_ENDED_BY_US: Final = -9
_BUILD_CODE: Final = 4
_GONE_SECONDS: Final = 15
_LINE: Final = re.compile(rb"^([a-z0-9]+) line ([0-9]+) ", re.MULTILINE)


def judge_outcome(lab: Lab, outcome: Outcome) -> None:
    """Note what a release says and the store or the counters contradict."""
    for problem in (*_of_the_end(lab, outcome), *_of_the_report(lab, outcome)):
        lab.findings.wrong_report.append(problem)


def judge_end(lab: Lab) -> None:
    """Note what is wrong once the release is complete."""
    lab.findings.built_twice += _extra_builds(lab)
    lab.findings.wrong_report += [
        problem for name in lab.nodes for problem in _gaps_in_the_log(lab, name)
    ]
    lab.findings.wrong_report += _not_installable(lab, set(_targets(lab)))
    places = (lab.desk.dist, lab.desk.store)
    parts = [str(path) for place in places for path in place.rglob("*.part")]
    lab.findings.left_behind += [*parts, *_processes_that_stay(lab)]


def says(outcome: Outcome, pattern: str) -> bool:
    """Whether the report or the error has it, in any case."""
    return re.search(pattern, outcome.out + outcome.err, re.IGNORECASE) is not None


def excerpt(outcome: Outcome) -> str:
    """Return what a person needs to see of how it ended."""
    report = report_of(outcome)
    failed = [
        f"{result['node']}: {result['class']}: {result['message']}"
        for result in (report or {}).get("results", ())
        if result["result"] == "failed"
    ]
    return "; ".join(failed) or outcome.err.strip()[-1500:] or outcome.out[-500:]


def report_of(outcome: Outcome) -> dict[str, Any] | None:
    """Return the report, None if the release ended before there was one."""
    try:
        report: dict[str, Any] = json.loads(outcome.out)
    except ValueError:
        return None
    return report


def result_of(outcome: Outcome, node: str) -> dict[str, Any]:
    """Return what the report says of a node, nothing if it does not."""
    results: list[dict[str, Any]] = (report_of(outcome) or {}).get("results", [])
    return next((result for result in results if result["node"] == node), {})


def workdir(lab: Lab, name: str) -> Path:
    """Return where a node's jobs are."""
    return Path(lab.nodes[name]["workdir"])


def ended(lab: Lab, name: str) -> int:
    """Return how many builds of a node came to their end."""
    path = lab.desk.folder / f"ended-{name}"
    return len(path.read_text().split()) if path.exists() else 0


def published(lab: Lab, version: str = VERSION) -> dict[str, Row]:
    """Return what the store offers of a version, by target; its signature is checked."""
    index = _index(lab)
    rows = index.rows if index else ()
    return {
        row.target: row for row in rows if str(row.version) == version and row.status is Status.OK
    }


# --- one release -------------------------------------------------------------------------------


def _of_the_end(lab: Lab, outcome: Outcome) -> list[str]:
    if outcome.code == _ENDED_BY_US:
        return []
    problems = []
    version = (report_of(outcome) or {}).get("version", VERSION)
    if "Traceback" in outcome.err or outcome.code not in _KNOWN_CODES:
        problems.append(f"exit code {outcome.code}: {outcome.err.strip()[-3000:]}")
    if outcome.code == 0 and (missing := set(_targets(lab)) - set(published(lab, version))):
        problems.append(f"exit code 0, but the store does not offer {missing}")
    if report_of(outcome) is None and "error: " not in outcome.err:
        problems.append(f"exit code {outcome.code}, and neither a report nor an error")
    if outcome.code == _BUILD_CODE and not lab.may_blame_the_build:
        problems.append(f"blames the code for a fault of a machine: {excerpt(outcome)}")
    return problems


def _of_the_report(lab: Lab, outcome: Outcome) -> list[str]:
    report = report_of(outcome)
    if report is None:
        return []
    problems = [] if report["exit_code"] == outcome.code else ["the report has another exit code"]
    offered = set(published(lab, report["version"]))
    if extra := set(report["published"]) - offered:
        problems.append(f"says that {extra} is published, and the store does not offer it")
    problems += _not_installable(lab, set(report["published"]) & offered, report["version"])
    return problems + [
        problem for result in report["results"] for problem in _of_a_result(lab, result, offered)
    ]


def _of_a_result(lab: Lab, result: dict[str, Any], offered: set[str]) -> list[str]:
    node, target = result["node"], result["target"]
    match result["result"]:
        case "built" if not ended(lab, node):
            return [f"says that {node} has built, and it did not"]
        case "built" if target not in offered and not lab.desk.publication.get("policy"):
            return [f"says that {node} has built, and {target} is not offered"]
        case "failed" if target in offered and not _has_a_spare(lab, target):
            return [f"says that {node} failed, and {target} is offered: {result['message']}"]
        case "failed" if not result["message"]:
            return [f"does not say why {node} failed"]
        case "failed" if result["class"] == "machine" and not result["hint"]:
            return [f"does not say what to do about {node}: {result['message']}"]
    return []


def _has_a_spare(lab: Lab, target: str) -> bool:
    return list(_targets(lab)).count(target) > 1


# --- the end -----------------------------------------------------------------------------------


def _extra_builds(lab: Lab) -> list[str]:
    problems = []
    for name in lab.nodes:
        begun, whole, allowed = len(lab.desk.builds(name)), ended(lab, name), lab.excused[name] + 1
        if begun > allowed or whole > 1 + lab.allowed_ends[name]:
            problems.append(f"{name}: begun {begun} times, {allowed} allowed; ended {whole} times")
        if (lab.desk.folder / f"overlap-{name}").exists():
            problems.append(f"{name}: a build began while another one was alive")
    return problems


def _gaps_in_the_log(lab: Lab, name: str) -> list[str]:
    path = lab.desk.dist / VERSION / name / "build.log"
    if not path.exists():
        return []
    numbers = [int(match[2]) for match in _LINE.finditer(path.read_bytes())]
    wanted = range(1, max(numbers, default=LOG_LINES) + 1)
    missing = sorted({*wanted, *range(1, LOG_LINES + 1)} - set(numbers))
    return [f"{path} lacks the lines {missing[:10]}"] if missing else []


def _not_installable(lab: Lab, targets: set[str], version: str = VERSION) -> list[str]:
    """Compare every published archive with the very bytes that were built."""
    rows = published(lab, version)
    problems = [f"{target} is not offered" for target in targets - set(rows)]
    return problems + [
        f"{target}: {problem}"
        for target in targets & set(rows)
        for problem in _damage(lab, rows[target])
    ]


def _damage(lab: Lab, row: Row) -> list[str]:
    assert row.path is not None
    path = lab.desk.store / row.path
    if not path.exists():
        return [f"{row.path} is not in the store"]
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != row.sha256:
        return [f"{row.path} has other bytes than the index says"]
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        (member,) = (member for member in archive.getmembers() if member.name.endswith("/tool"))
        file = archive.extractfile(member)
        assert file is not None
        if file.read() != lab.stage.program(row.target, str(row.version)).read_bytes():
            return [f"{row.path} holds other bytes than were built"]
    lacking = [
        end for end in (".sha256", ".sshsig", ".minisig") if not Path(f"{path}{end}").exists()
    ]
    return [f"{row.path} has no {end}" for end in lacking]


def _processes_that_stay(lab: Lab) -> list[str]:
    deadline = time.monotonic() + _GONE_SECONDS
    while (remains := lab.remains) and time.monotonic() < deadline:
        time.sleep(0.2)
    return [f"process {process.pid}: {process.arguments[:200]}" for process in remains]


def _targets(lab: Lab) -> list[str]:
    """Return the targets that a release has to deliver."""
    entries = lab.nodes.values()
    return [entry["target"] for entry in entries if entry.get("policy") != "best-effort"]


def _index(lab: Lab) -> Index | None:
    operator = Operator.at(str(lab.desk.inventory))
    channel = operator.channel(parse_version(VERSION), operator.public_keys())
    return asyncio.run(operator.index(channel))
