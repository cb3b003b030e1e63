"""Disks that are full: on the node while it gets its source or builds, here while we collect."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from tests.faults import judge, small_disk
from tests.faults.scenario import Scenario
from tests.releases import host_target, other_target

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.lab import Lab

_NAMED: Final = "disk|space|inode"
# More than the least that a release asks of a node before it starts anything there.
_ROOM: Final = "size=700m,nr_inodes=100k"
# Fills what there is as long as the file that says so is there.
_FILL_BYTES: Final = "if [ -e {full} ]; then cat /dev/zero >filling; fi\n"
_FILL_INODES: Final = (
    "if [ -e {full} ]; then n=0; while n=$((n + 1)); : >filling$n; do :; done; fi\n"
)
# The file that fills the disk is in the job's folder, which the next attempt clears.
_ATTEMPTS: Final = 10


def _in_the_push(lab: Lab, options: str) -> None:
    lab.here()
    far = lab.far()
    lab.write()
    small_disk.mount(lab, far.workdir, options)
    _expect_full(lab)
    small_disk.enlarge(far.workdir, _ROOM)


def _in_the_build(lab: Lab, filling: str, room: str) -> None:
    """A build fills its disk; then it gets `room`, or nothing but what the attempt left there."""
    full = lab.desk.folder / "full"
    lab.here()
    filled = filling.format(full=full)
    options = "size=300m" if filling == _FILL_BYTES else "size=300m,nr_inodes=12000"
    build = lab.build("far", target=other_target())
    # Every attempt fills it, not only the first one.
    build = build.replace("i=0\n", f"{filled}i=0\n")
    far = lab.far(build_command=build)
    lab.write()
    small_disk.mount(lab, far.workdir, options)
    full.touch()
    lab.excused["far"] += _ATTEMPTS
    _expect_full(lab)
    full.unlink()
    if room:
        small_disk.enlarge(far.workdir, room)


def _expect_full(lab: Lab) -> None:
    lab.faults += 1
    outcome = lab.release()
    lab.expect(outcome, 3)
    lab.expect_named(outcome, _NAMED)
    if judge.result_of(outcome, "far").get("class") == "build":
        lab.findings.wrong_report.append("blames the code for a full disk")
    if host_target() not in judge.published(lab):
        lab.findings.wrong_report.append("the healthy node is not published")


def _here(lab: Lab, folder: str, left_bytes: int) -> None:
    """Nothing can be collected, or published, on a machine that fills up meanwhile."""
    lab.here()
    lab.far(build_command=lab.build("far", target=other_target(), hold="go"))
    lab.write()
    place = {"dist": lab.desk.dist, "store": lab.desk.store}[folder]
    # More than the least that a release wants to find here when it starts.
    small_disk.mount(lab, place, "size=150m,nr_inodes=100k")
    with lab.releasing("--json") as coordinator:
        lab.wait_for(lambda: lab.has_begun("far"), "the build begins")
        filling = small_disk.fill(place, left_bytes)
        lab.faults += 1
        lab.let_go()
        outcome = lab.end(coordinator)
    lab.expect(outcome, 3 if folder == "dist" else 5)
    lab.expect_named(outcome, _NAMED)
    filling.unlink()


def _scenario(phase: str, play: Callable[[Lab], None]) -> Scenario:
    return Scenario(fault="disk full", phase=phase, play=play, runs=3, seconds=10)


SCENARIOS: Final = (
    _scenario("push", partial(_in_the_push, options="size=1m")),
    _scenario("unpack", partial(_in_the_push, options="size=2300k")),
    _scenario("push, no inode left", partial(_in_the_push, options="size=64m,nr_inodes=6")),
    *(
        _scenario(
            f"build{what}{then}",
            partial(_in_the_build, filling=filling, room=room),
        )
        for what, filling in (("", _FILL_BYTES), (", no inode left", _FILL_INODES))
        for then, room in (("", _ROOM), ("; its own files fill it", ""))
    ),
    _scenario("collect", partial(_here, folder="dist", left_bytes=300_000)),
    _scenario("log", partial(_here, folder="dist", left_bytes=0)),
    _scenario("publish", partial(_here, folder="store", left_bytes=50_000)),
)
