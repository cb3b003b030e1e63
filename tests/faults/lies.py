"""Nodes that lie, and files that are not what they have to be: nothing of it is published."""

from __future__ import annotations

import os
import re
import signal
from functools import partial
from typing import TYPE_CHECKING, Final

from tests.faults import judge
from tests.faults.lying_node import LyingNode
from tests.faults.scenario import Scenario
from tests.releases import VERSION, host_target, other_target

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.faults.lab import Lab
    from tests.releases import Outcome


# --- answers -----------------------------------------------------------------------------------


def _another_hash(answer: bytes) -> bytes:
    return re.sub(rb"[0-9a-f]{64}", b"0" * 64, answer)


def _another_size(answer: bytes) -> bytes:
    return re.sub(rb"^[0-9]+", b"999", answer)


def _half(answer: bytes) -> bytes:
    return answer[: len(answer) // 2]


def _more(answer: bytes) -> bytes:
    return answer + b"more"


def _one_bit(answer: bytes) -> bytes:
    middle = len(answer) // 2
    return answer[:middle] + bytes((answer[middle] ^ 1,)) + answer[middle + 1 :]


def _nothing(_: bytes) -> bytes:
    return b""


def _endless(_: bytes) -> None:
    return None


def _garbage(_: bytes) -> bytes:
    return b"\0\xff\x1b[2J" * 1000


def _answers(lab: Lab, verb: str, lie: Callable[[bytes], bytes | None]) -> None:
    lab.here()
    node = _lying_node(lab)
    lab.write()
    node.verb, node.lie = verb, lie
    outcome = lab.release()
    lab.faults += bool(node.lies)
    _expect_refused(lab, outcome, 3)
    node.verb = ""


def _lying_node(lab: Lab) -> LyingNode:
    folder = lab.folder / "far"
    node = LyingNode(folder, folder / "home", "/usr/bin:/bin")
    lab.stage.wires.run(node.listen())
    lab.stack.callback(lambda: lab.stage.wires.run(node.stop()))
    said = node.description()
    keys = {key: said[key] for key in ("host", "port", "host_key", "identity")}
    lab.node("far", target=other_target(), workdir=str(folder / "home" / "work"), **keys)
    return node


def _expect_refused(lab: Lab, outcome: Outcome, *codes: int) -> None:
    """The node's part failed, and only that."""
    lab.expect(outcome, *codes)
    offered = judge.published(lab)
    if other_target() in offered:
        lab.findings.wrong_report.append("what a lying node sent is published")
    if host_target() not in offered:
        lab.findings.wrong_report.append("the healthy node is not published")
    if (lab.desk.dist / VERSION / "far" / "tool").exists() and outcome.code == _MACHINE:
        lab.findings.left_behind.append("what a lying node sent stands under its final name")


_MACHINE: Final = 3


# --- files -------------------------------------------------------------------------------------


def _delivers(lab: Lab, line: str) -> None:
    """The build itself leaves something that is no regular file, as long as `bad` is there."""
    bad = lab.desk.folder / "bad"
    bad.touch()
    build = lab.build("far", target=other_target())
    # After the copy, and instead of what it copied.
    spoiled = f'if [ -e {bad} ]; then cd "$ORCHESTRATOR_OUT"; rm tool; {line}; fi\n'
    lab.here()
    lab.far(build_command=build.replace(f"echo {VERSION} >>", f"{spoiled}echo {VERSION} >>"))
    lab.write()
    lab.may_blame_the_build = True
    lab.faults += 1
    # A build that delivers no binary has failed, and a failed one is not a finished one.
    lab.excused["far"] += 1
    lab.allowed_ends["far"] += 1
    _expect_refused(lab, lab.release(), 3, 4)
    bad.unlink()


def _swapped(lab: Lab, swap: Callable[[Path], None]) -> None:
    """Something on the node changes the delivered file before it is collected."""
    lab.here()
    lab.far(build_command=lab.build("far", target=other_target(), hold="go"))
    lab.write()
    with lab.releasing("--json") as coordinator:
        lab.wait_for(lambda: lab.has_begun("far"), "the build begins")
        coordinator.signal(signal.SIGSTOP)
        lab.let_go()
        lab.wait_for(lambda: lab.has_ended("far"), "the build ends")
        delivered = lab.job_of("far") / "out" / "tool"
        kept = delivered.with_name("kept")
        delivered.rename(kept)
        swap(delivered)
        coordinator.signal(signal.SIGCONT)
        lab.faults += 1
        # Nobody can tell, once it is there, bytes that are wrong from bytes that were built.
        lab.may_blame_the_build = True
        _expect_refused(lab, lab.end(coordinator), 3, 4)
    delivered.unlink()
    kept.rename(delivered)


def _link(path: Path) -> None:
    path.symlink_to("kept")


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _cut_off(path: Path) -> None:
    path.write_bytes(path.with_name("kept").read_bytes()[:5000])


def _link_to_endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


_ANSWERS: Final = (
    ("another hash", "hash", _another_hash),
    ("another size", "hash", _another_size),
    ("no hash", "hash", _nothing),
    ("endless hash", "hash", _endless),
    ("a truncated file", "cat", _half),
    ("one bit of a file", "cat", _one_bit),
    ("more than the file", "cat", _more),
    ("an endless file", "cat", _endless),
    ("an empty file", "cat", _nothing),
    ("a garbled state", "state", _garbage),
    ("an endless state", "state", _endless),
    ("an endless probe", "probe", _endless),
    ("a garbled probe", "probe", _garbage),
)
_LINES: Final = (
    ("delivers a link", "ln -s /etc/passwd tool"),
    ("delivers a FIFO", "mkfifo tool"),
    ("delivers a folder", "mkdir tool"),
    ("delivers /dev/zero by a link", "ln -s /dev/zero tool"),
)
_SWAPS: Final = (
    ("swaps in a link", _link),
    ("swaps in a FIFO", _fifo),
    ("swaps in /dev/zero by a link", _link_to_endless),
    ("swaps in a truncated file", _cut_off),
)


def _scenario(phase: str, play: Callable[[Lab], None]) -> Scenario:
    return Scenario(fault="a node that lies", phase=phase, play=play, runs=2, seconds=8)


SCENARIOS: Final = (
    *(_scenario(phase, partial(_answers, verb=verb, lie=lie)) for phase, verb, lie in _ANSWERS),
    *(_scenario(phase, partial(_delivers, line=line)) for phase, line in _LINES),
    *(_scenario(phase, partial(_swapped, swap=swap)) for phase, swap in _SWAPS),
)
