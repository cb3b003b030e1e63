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


def _here(lab: Lab, folder: str, size: str) -> None:
    """Nothing can be collected, or published, on a machine without room; nothing is lost by it."""
    lab.here()
    lab.far()
    lab.write()
    place = {"dist": lab.desk.dist, "store": lab.desk.store}[folder]
    small_disk.mount(lab, place, f"size={size}")
    lab.faults += 1
    outcome = lab.release()
    lab.expect(outcome, 3 if folder == "dist" else 5)
    lab.expect_named(outcome, _NAMED)
    small_disk.enlarge(place, _ROOM)


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
    _scenario("collect", partial(_here, folder="dist", size="300k")),
    _scenario("log", partial(_here, folder="dist", size="16k")),
    _scenario("publish", partial(_here, folder="store", size="100k")),
)
