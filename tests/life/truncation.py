"""The script cut off after every byte, in every shell."""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from orchestrator.core.installer import InstallerValues, render_installer
from tests.installer_site import PROJECT, TEMPLATE
from tests.life import prefixes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Keys of the right form that belong to nobody: what is cut off reads none of them.
_VALUES: Final = InstallerValues(
    project=PROJECT,
    binaries=(PROJECT,),
    base_urls=("http://127.0.0.1:9/nothing-is-here",),
    channel="stable",
    ssh_keys=(f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{'A' * 43}",),
    minisign_keys=(f"RW{'A' * 54}",),
)


def rendered() -> bytes:
    """Return the script as a project would publish it."""
    return render_installer(TEMPLATE, _VALUES).encode()


def choose(
    script: bytes, shells: Sequence[str], *, seed: str, number: int | None
) -> Mapping[str, Sequence[int]]:
    """Return where to cut for each shell: everywhere, or a sample that has both ends in dash."""
    # Without the last line break it is whole.
    everywhere = range(len(script) - 1)
    if number is None:
        return dict.fromkeys(shells, everywhere)
    chance = random.Random(seed)
    chosen = {shell: set(chance.sample(everywhere, number)) for shell in shells}
    if "dash" in chosen:
        chosen["dash"].update(everywhere[:2000], everywhere[-200:])
    return {shell: sorted(cuts) for shell, cuts in chosen.items()}


def is_start_of_document(script: bytes, cut: int) -> bool:
    """Whether it is cut behind a line with `<<`, where one shell never ends; see prefixes.py."""
    return script[:cut].endswith(b"\n") and b"<<" in script[:cut].splitlines()[-1]


def main(shells: Sequence[str], *, seed: str, number: int | None, jobs: int, through: str) -> int:
    """Cut, and print one table; 0 if nothing but failures was seen."""
    script = rendered()
    begun = time.monotonic()
    for shell in shells:
        if not prefixes.rings(shell, script):
            print(f"{shell}: the whole script sets off no alarm, so this would prove nothing")
            return 1
    cuts = choose(script, shells, seed=seed, number=number)
    tried: Counter[str] = Counter()
    found: Counter[str] = Counter()
    endless: Counter[str] = Counter()
    for shell, count, findings in prefixes.play(script, cuts, jobs=jobs, through=through):
        tried[shell] += count
        for finding in findings:
            if finding.is_endless and is_start_of_document(script, finding.cut):
                endless[shell] += 1
                continue
            found[shell] += 1
            print(f"\nFOUND: {finding.shell}, the first {finding.cut} bytes: {finding.what}")
        if tried[shell] == len(cuts[shell]):
            print(f"{shell}: {tried[shell]} prefixes", file=sys.stderr, flush=True)
    print(f"| shell | prefixes of {len(script)} bytes | acted, or ended well | never ended |")
    print("|---" * 4 + "|")
    for shell in shells:
        print(f"| {shell} | {tried[shell]} | {found[shell]} | {endless[shell]} |")
    seconds = time.monotonic() - begun
    print(
        f"\n{tried.total()} prefixes through a {through} in {seconds:.0f} s: {found.total()} found"
    )
    return 1 if found.total() else 0
