"""What a node builds: a script that tells of itself, and delivers a finished program."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faults.judge import LOG_LINES
from tests.releases import VERSION

if TYPE_CHECKING:
    from pathlib import Path

    from tests.releases import Desk


def build_script(
    desk: Desk,
    name: str,
    program: Path,
    *,
    lines: int = LOG_LINES,
    hold: str = "",
    first: str = "",
) -> str:
    """Return a build that leaves word of its begin and its end, and numbers its log lines.

    With `hold` it waits until it is let go with that word; `first` are lines before all that. Only
    the first attempt holds and does what is `first`: whatever was done to it, the next one is a
    plain build, and whoever is left of it would hold for ever.
    """
    mine = f"{desk.folder}/%s-{name}"
    waits = f"while [ ! -e {desk.folder}/{hold} ]; do sleep 0.05; done\n" if hold else ""
    return (
        desk.count(name)
        # A zombie is not alive, and whoever ought to reap it may be gone.
        + f"was=$(cat {mine % 'pid'} 2>/dev/null || echo 0)\n"
        f"if [ -e /proc/$was/stat ] && ! grep -q ') [ZX] ' /proc/$was/stat; then\n"
        f"    echo overlap >>{mine % 'overlap'}\nfi\n"
        f"echo $$ >{mine % 'pid'}\n"
        f"begun=$(wc -l <{mine % 'built'})\nif [ $begun = 1 ]; then :\n{first}fi\n"
        "i=0\n"
        f"while [ $i -lt {lines} ]; do\n    i=$((i + 1))\n"
        f'    printf "{name} line %s %0990d\\n" $i 0\n    sleep 0.02\ndone\n'
        f"if [ $begun = 1 ]; then :\n{waits}fi\n"
        f"cp {program} $ORCHESTRATOR_OUT/tool\n"
        f"echo {VERSION} >>{mine % 'ended'}\n"
    )
