"""Plays scenarios, several at once, each in a lab of its own."""

from __future__ import annotations

import re
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from tests.faults.lab import lab
from tests.faults.scenario import COLUMNS, NotRunError, Run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.faults.catalogue import Chosen
    from tests.faults.scenario import Scenario
    from tests.faults.stage import Stage


# Whatever takes so long spends it waiting, and hinders nobody.
_PATIENT_SECONDS: Final = 60


def play_all(stage: Stage, chosen: Sequence[Chosen], *, seed: str, jobs: int) -> list[Run]:
    """Return how each run went, in their order; each is shown as it ends."""
    alone = [one for one in chosen if one[0].alone]
    patient: list[Chosen] = []
    busy: list[Chosen] = []
    # The long ones first: nobody waits for them in the end.
    for one in sorted(chosen, key=lambda one: -one[0].seconds):
        if not one[0].alone:
            (patient if one[0].seconds >= _PATIENT_SECONDS else busy).append(one)
    runs: dict[tuple[str, int], Run] = {}
    for groups in ([(alone, 1)], [(patient, jobs), (busy, jobs)]):
        with ExitStack() as pools:
            futures = []
            for group, width in groups:
                pool = pools.enter_context(ThreadPoolExecutor(width))
                futures += [pool.submit(play, stage, *one, seed=seed) for one in group]
            for future in as_completed(futures):
                run = future.result()
                runs[run.scenario.name, run.number] = run
                print(f"[{len(runs):4}/{len(chosen)}] {_line(run)}", flush=True)
    return [runs[scenario.name, number] for scenario, number in chosen]


def play(stage: Stage, scenario: Scenario, number: int, *, seed: str) -> Run:
    """Return how one run went; an error of the suite itself is a finding too."""
    begun = time.monotonic()
    name = re.sub(r"[^a-z0-9]+", "-", f"{scenario.name} {number}".lower()).strip("-")
    run = Run(scenario=scenario, number=number)
    try:
        with lab(stage, name, f"{seed} {name}") as made:
            run.findings = made.findings
            try:
                scenario.play(made)
                made.complete()
            finally:
                run.faults, run.notes = made.faults, tuple(made.notes)
    except NotRunError as reason:
        run.not_run = str(reason)
    except Exception:  # noqa: BLE001 -- one run that cannot be played must not hide the others
        run.findings.wrong_report.append(f"the suite: {traceback.format_exc()[-3000:]}")
    run.seconds = time.monotonic() - begun
    return run


def _line(run: Run) -> str:
    what = "ok"
    if run.not_run:
        what = f"not run: {run.not_run}"
    elif run.findings:
        found = [name for name, column in zip(COLUMNS, run.findings.columns, strict=True) if column]
        what = ", ".join(found).upper()
    elif not run.faults:
        what = "ok, but the fault did not happen"
    notes = "".join(f" ({note})" for note in run.notes)
    return f"{run.scenario.name} #{run.number}: {what}, {run.seconds:.1f} s{notes}"


if sys.platform != "linux":
    raise SystemExit("the fault suite reads /proc: it needs Linux")
