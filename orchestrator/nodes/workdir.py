"""Where jobs live on a node, when nothing else is asked of it; and a shell there for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from orchestrator.nodes.job import REQUEST_TIMEOUT, refusal
from orchestrator.nodes.probe import refuse_unsafe
from orchestrator.nodes.transport import run

if TYPE_CHECKING:
    from orchestrator.nodes.transport import Transport


async def find_workdir(transport: Transport, workdir: str | None) -> str | None:
    """Return the node's workdir as an absolute path, None if there was never a job; makes nothing.

    Without a `workdir` it is the one below the login's home.
    """
    completed = await run(transport, _FIND, workdir or "-", timeout=REQUEST_TIMEOUT)
    if completed.exit_status != 0:
        raise refusal("say where its jobs are", completed)
    # A shell's start-up files may print lines of their own before ours.
    lines = completed.stdout.decode(errors="replace").splitlines()
    said = [line.removeprefix("workdir=") for line in lines if line.startswith("workdir=")]
    if not said:
        return None
    refuse_unsafe(said[-1], "its workdir")
    return said[-1]


_FIND: Final = r"""
PATH=/usr/bin:/bin
case $1 in
-) folder=$HOME/.cache/orchestrator ;;
*) folder=$1 ;;
esac
[ ! -d "$folder/jobs" ] || { cd "$folder" && printf 'workdir=%s
' "$(pwd -P)"; }
"""


async def place_entry(transport: Transport, workdir: str) -> str:
    """Return the path of a script on the node that opens a shell in a job's folder, given its id.

    It is no file of the job's own: on systems without /proc, whoever names that folder in its
    arguments would pass for a process of the job.
    """
    completed = await run(transport, _PLACE, workdir, timeout=REQUEST_TIMEOUT)
    if completed.exit_status != 0:
        raise refusal("make the way into the job's folder", completed)
    return f"{workdir}/enter"


_PLACE: Final = r"""
PATH=/usr/bin:/bin
umask 077
cd "$1" || exit
cat >".enter.$$" <<'END'
#!/bin/sh
cd "${0%/*}/jobs/$1/work" 2>/dev/null || cd "${0%/*}/jobs/$1" || exit
printf '%s\n' "$PWD: what the build left here; its script and log are in .." \
    "to run it again by hand: sh -e ../script"
exec "${SHELL:-/bin/sh}"
END
mv -f ".enter.$$" enter
"""
