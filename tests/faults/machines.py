"""Machines that fail: servers that restart, keys that change, reboots, kills, clocks."""

from __future__ import annotations

import signal
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.faults import judge, processes
from tests.faults.scenario import Scenario
from tests.faults.trouble import Kind
from tests.releases import host_target, other_target

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.lab import Far, Lab
    from tests.releases import Outcome

_OTHER_BOOT: Final = "0d0e0a0d-0000-4000-8000-000000000000"
_HELD: Final = "go"


def _held(lab: Lab) -> Far:
    """Return a node whose first build holds, beside one that is well."""
    lab.here()
    far = lab.far(build_command=lab.build("far", target=other_target(), hold=_HELD))
    lab.write()
    return far


# --- the server --------------------------------------------------------------------------------


def _server_restarts(lab: Lab) -> None:
    far = _held(lab)
    with lab.releasing("--json") as coordinator:
        lab.wait_for(lambda: lab.has_begun("far"), "the build begins")
        _stop_server(lab, far)
        time.sleep(lab.random.uniform(0, 2))
        lab.replace_server(far)
        lab.let_go()
        lab.faults += 1
        lab.survive(lab.end(coordinator))


def _stop_server(lab: Lab, far: Far) -> None:
    far.server.disconnect()
    processes.kill(far.server.pid)
    lab.fail_now(far, Kind.RESET)


def _another_key_from_the_start(lab: Lab) -> None:
    lab.here()
    far = lab.far()
    lab.write()
    impostor = lab.serve(lab.folder / "impostor")
    far.wire.backend = impostor.port
    lab.faults += 1
    outcome = lab.release()
    _expect_refusal(lab, far)
    lab.expect(outcome, 3)
    lab.expect_named(outcome, "host key")
    far.wire.backend = far.server.port


def _another_key_in_the_middle(lab: Lab) -> None:
    far = _held(lab)
    impostor = lab.serve(lab.folder / "impostor")
    with lab.releasing("--json") as coordinator:
        lab.wait_for(lambda: lab.has_begun("far"), "the build begins")
        far.wire.backend = impostor.port
        lab.fail_now(far, Kind.RESET)
        lab.faults += 1
        outcome = lab.end(coordinator)
    lab.let_go()
    _expect_refusal(lab, far, begun=1)
    lab.expect(outcome, 3)
    lab.expect_named(outcome, "host key")
    far.wire.backend = far.server.port


def _expect_refusal(lab: Lab, far: Far, begun: int = 0) -> None:
    """Nothing may reach whoever shows another key; the others are published."""
    if list((lab.folder / "impostor" / "home").rglob("*")):
        lab.findings.wrong_report.append("something was sent to a node with another host key")
    if len(lab.desk.builds(far.name)) != begun:
        lab.findings.built_twice.append("a build began on a node with another host key")
    if host_target() not in judge.published(lab):
        lab.findings.wrong_report.append("the healthy node is not published")


# --- reboots -----------------------------------------------------------------------------------


def _reboots_in_the_build(lab: Lab) -> None:
    far = _held(lab)
    with lab.releasing("--json") as coordinator:
        lab.wait_for(lambda: lab.has_begun("far"), "the build begins")
        _reboot(lab, far, is_building=True)
        outcome = lab.end(coordinator)
    lab.survive(outcome)
    _expect_lost(lab, outcome, "reboot")


def _reboots_after_the_build(lab: Lab) -> None:
    far = _held(lab)
    with lab.releasing("--json") as coordinator:
        lab.wait_for(lambda: lab.has_begun("far"), "the build begins")
        coordinator.signal(signal.SIGSTOP)
        lab.let_go()
        lab.wait_for(lambda: lab.has_ended("far"), "the build ends")
        _reboot(lab, far, is_building=False)
        coordinator.signal(signal.SIGCONT)
        lab.survive(lab.end(coordinator))


def _reboots_unattended(lab: Lab) -> None:
    """Nobody is there when it reboots: the next coordinator sees it from the evidence."""
    far = _held(lab)
    with lab.releasing() as coordinator:
        lab.wait_for(lambda: lab.has_begun("far"), "the build begins")
        coordinator.signal(signal.SIGKILL)
        coordinator.process.wait()
    _reboot(lab, far, is_building=True)


def _reboot(lab: Lab, far: Far, *, is_building: bool) -> None:
    """Do to the node what a reboot does: no process is left, and the boot is another one."""
    far.server.disconnect()
    processes.kill(far.server.pid)
    processes.kill_together(processes.of_jobs(far.home))
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    # The old boot has another name now, wherever it was written down.
    for path in far.workdir.parent.rglob("*"):
        if path.is_file() and path.stat().st_size < 1000 and boot in path.read_text("latin-1"):
            path.write_text(path.read_text().replace(boot, _OTHER_BOOT))
    lab.excused[far.name] += is_building
    lab.faults += 1
    lab.replace_server(far)
    lab.fail_now(far, Kind.RESET)


# --- kills -------------------------------------------------------------------------------------


def _the_job(lab: Lab) -> list[int]:
    return [process.pid for process in processes.of_jobs(lab.folder / "far") if process.is_marked]


def _the_wrapper(lab: Lab) -> list[int]:
    return [int((lab.job_of("far") / "pid").read_text())]


def _the_build(lab: Lab) -> list[int]:
    return [int((lab.desk.folder / "pid-far").read_text())]


def _everything(lab: Lab) -> list[int]:
    return _the_wrapper(lab) + _the_job(lab)


def _killed(lab: Lab, victims: Callable[[Lab], list[int]]) -> None:
    _held(lab)
    with lab.releasing("--json") as coordinator:
        lab.wait_for(
            lambda: lab.has_begun("far") and (lab.desk.folder / "pid-far").exists(), "a build"
        )
        time.sleep(lab.random.uniform(0, 0.5))
        for pid in victims(lab):
            processes.kill(pid)
        lab.excused["far"] += 1
        lab.faults += 1
        outcome = lab.end(coordinator)
    lab.survive(outcome)
    _expect_lost(lab, outcome, "killed|signal")


def _killed_unattended(lab: Lab, victims: Callable[[Lab], list[int]]) -> None:
    _held(lab)
    with lab.releasing() as coordinator:
        lab.wait_for(
            lambda: lab.has_begun("far") and (lab.desk.folder / "pid-far").exists(), "a build"
        )
        coordinator.signal(signal.SIGKILL)
        coordinator.process.wait()
    for pid in victims(lab):
        processes.kill(pid)
    lab.excused["far"] += 1
    lab.faults += 1


def _expect_lost(lab: Lab, outcome: Outcome, pattern: str) -> None:
    if outcome.code != 0:
        lab.expect(outcome, 3)
        lab.expect_named(outcome, pattern)


# --- the coordinator's machine, and clocks -----------------------------------------------------


def _suspended(lab: Lab) -> None:
    """The laptop is closed while a node builds, and its links are gone when it is opened."""
    far = _held(lab)
    with lab.releasing("--json") as coordinator:
        lab.wait_for(lambda: lab.has_begun("far"), "the build begins")
        coordinator.signal(signal.SIGSTOP)
        lab.let_go()
        lab.wait_for(lambda: lab.has_ended("far"), "the build ends")
        lab.fail_now(far, lab.random.choice((Kind.RESET, Kind.CLOSE)))
        time.sleep(lab.random.uniform(0, 3))
        coordinator.signal(signal.SIGCONT)
        lab.faults += 1
        lab.survive(lab.end(coordinator))


def _interrupted(lab: Lab) -> None:
    """Ctrl-C once: the coordinator goes, the job stays."""
    _held(lab)
    with lab.releasing() as coordinator:
        lab.wait_for(lambda: lab.has_begun("far"), "the build begins")
        coordinator.signal(signal.SIGINT)
        outcome = lab.end(coordinator)
    lab.faults += 1
    lab.expect(outcome, 130)
    if not _the_job(lab):
        lab.findings.lost.append("the job did not go on after Ctrl-C")
    lab.let_go()


def _clock(lab: Lab, seconds: int) -> None:
    lab.here()
    far = lab.far()
    lab.write()
    tools = far.home / ".cargo" / "bin"
    tools.mkdir(parents=True)
    (tools / "date").write_text(
        '#!/bin/sh\n[ "$1" = +%s ] || exec /bin/date "$@"\n'
        f"echo $(($(/bin/date +%s) + {seconds}))\n"
    )
    (tools / "date").chmod(0o755)
    outcome = lab.release()
    lab.faults += 1
    lab.survive(outcome)
    lab.expect_named(outcome, "clock")


_KILLED: Final = "job killed (-9)"
_VICTIMS: Final = (
    ("wrapper and build", _everything),
    ("the build alone, as when memory runs out", _the_build),
    ("the wrapper, but not its child", _the_wrapper),
)

_PLAYS: Final[tuple[tuple[str, str, Callable[[Lab], None], int], ...]] = (
    ("sshd restarted", "build", _server_restarts, 5),
    ("host key changed", "from the start", _another_key_from_the_start, 3),
    ("host key changed", "build", _another_key_in_the_middle, 3),
    ("node rebooted", "build", _reboots_in_the_build, 4),
    ("node rebooted", "after the build", _reboots_after_the_build, 4),
    ("node rebooted", "nobody is watching", _reboots_unattended, 4),
    *(
        (_KILLED, f"{phase}{where}", partial(play, victims=victims), 3)
        for phase, victims in _VICTIMS
        for where, play in (("", _killed), ("; nobody is watching", _killed_unattended))
    ),
    ("coordinator suspended", "build", _suspended, 5),
    ("coordinator interrupted (Ctrl-C)", "build", _interrupted, 4),
    ("clock off", "an hour ahead", partial(_clock, seconds=3600), 2),
    ("clock off", "an hour behind", partial(_clock, seconds=-3600), 2),
)

SCENARIOS: Final = tuple(
    Scenario(fault=fault, phase=phase, play=play, runs=runs, seconds=12)
    for fault, phase, play, runs in _PLAYS
)
