"""Follow a job to its end: live log bytes, states, and what the end means."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final, assert_never

from orchestrator.core.diagnosis import diagnose
from orchestrator.core.errors import BuildError, CancelledError, NodeError, PassingError
from orchestrator.nodes.job import (
    JOB_SH,
    Job,
    address,
    cancel_job,
    read_job,
    refusal,
)
from orchestrator.nodes.job_state import (
    Finished,
    JobEnd,
    JobState,
    NeverStarted,
    Queued,
    Running,
    Stopped,
    StopReason,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.nodes.transport import Transport


@dataclass(slots=True, kw_only=True)
class LogCursor:
    """How far a log was read; it outlives the link, so that the next one goes on from there."""

    offset: int = 0
    grew_at: float | None = None
    # Why we have ended the job, if we have; the link may be lost before that can be told.
    verdict: BuildError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Follower:
    """Who is told: `on_log` of bytes as they come, `on_state` whenever the job is looked at.

    A job that runs and writes nothing for `silence_timeout` is cancelled; so is one that has
    outlived its own `timeout`, whose guard on the node must be gone then.
    """

    on_log: Callable[[bytes], None]
    on_state: Callable[[JobState], None]
    silence_timeout: timedelta
    timeout: timedelta | None = None
    cursor: LogCursor = field(default_factory=LogCursor)


async def follow_job(transport: Transport, job: Job, follower: Follower) -> JobEnd:
    """Return how the job ended, after all of its log from the cursor on was handed over.

    Raise LinkError when the link is lost: the job runs on, and the cursor tells where to go on.
    Raise BuildError when the job was silent for too long; it is cancelled then.
    """
    seen: JobState | None = None
    # What the job wrote while there was no link is not known yet: that was no silence of its own.
    follower.cursor.grew_at = None
    while True:
        state = await read_job(transport, workdir=job.workdir, job=job.id)
        _refuse_other_attempt(job, state)
        follower.on_state(state)
        match state:
            case Finished() | Stopped():
                # The end is known first and the log read after it, so no last line is missed.
                await _hand_over(transport, "rest", job, follower=follower)
                _raise_verdict(follower.cursor.verdict, state)
                return state
            case NeverStarted():
                raise PassingError(
                    f"job {job.id} is gone from the node: {state.evidence}",
                    hint="its workdir was cleared; run the same command again",
                )
            case Queued():
                # Waiting is no silence of the build's own.
                follower.cursor.grew_at = None
                await _hand_over(transport, "queue", job, follower=follower)
            case Running():
                if isinstance(seen, Queued):
                    follower.cursor.grew_at = None
                await _follow_running(transport, job, follower, ran=state.ran)
            case _:
                assert_never(state)
        if state == seen:
            # The node's side of the channel was ended, not the job: don't ask in a tight loop.
            await asyncio.sleep(1)
        seen = state


async def hand_over_log(transport: Transport, job: Job, follower: Follower) -> None:
    """Hand over the log as it is now, from the cursor on."""
    await _hand_over(transport, "rest", job, follower=follower)


def require_success(end: JobEnd, log_tail: bytes = b"") -> Finished:
    """Return the end if the job delivered, or raise BuildError or NodeError, by who is at fault.

    `log_tail` is the end of the job's log: it may tell that the machine was at fault.
    """
    match end:
        case Finished(exit_status=0):
            return end
        case Finished():
            raise _failure(end, log_tail)
        case Stopped(reason=StopReason.DEADLINE):
            raise BuildError(
                f"the build was ended: {end.evidence}",
                hint="raise the node's `timeout` if it needs longer than that",
            )
        case Stopped(reason=StopReason.FLOODED):
            raise BuildError(
                f"the build was ended: {end.evidence}",
                hint="raise the node's `log_limit` if it needs to write more than that",
            )
        case Stopped(reason=StopReason.CANCELLED):
            raise CancelledError(
                "the job was cancelled", hint="run the same command to start it again"
            )
        case Stopped(reason=StopReason.UNABLE):
            raise NodeError(
                f"the node could not build: {end.evidence}",
                hint="make room on its disk, or make its folders writable",
            )
        case Stopped():
            raise PassingError(
                f"the job was lost: {end.evidence}",
                hint="out of memory, a reboot or a kill: look at the node, then run it again",
            )
        case _:
            assert_never(end)


def _failure(end: Finished, log_tail: bytes) -> BuildError | NodeError:
    reason = diagnose(
        exit_status=end.exit_status,
        # Why a binary could not be delivered stands in the evidence.
        log_tail=log_tail + b"\n" + end.evidence.encode(),
        strain=end.strain,
    )
    if reason is None:
        return BuildError(f"the build failed: {end.evidence}")
    kind = PassingError if reason.may_pass else NodeError
    return kind(f"the build failed: {reason.message}", hint=reason.hint)


def _refuse_other_attempt(job: Job, state: JobState) -> None:
    if not isinstance(state, NeverStarted) and state.attempt != job.attempt:
        raise NodeError(
            f"attempt {state.attempt} of job {job.id} has taken the place of {job.attempt}",
            hint="another coordinator started it; run the same command to attach to it",
        )


# The guard on the node looks every few seconds, and gives TERM and KILL their time.
_GUARD_GRACE: Final = timedelta(seconds=60)


async def _follow_running(
    transport: Transport, job: Job, follower: Follower, *, ran: timedelta | None
) -> None:
    end = None
    if ran is not None and follower.timeout is not None:
        end = time.monotonic() + (follower.timeout + _GUARD_GRACE - ran).total_seconds()
    try:
        await _hand_over(
            transport,
            "follow",
            job,
            follower=follower,
            silence_timeout=follower.silence_timeout,
            end=end,
        )
    except TimeoutError:
        follower.cursor.verdict = _verdict(
            follower, is_late=end is not None and time.monotonic() >= end
        )
        await cancel_job(transport, job)


def _verdict(follower: Follower, *, is_late: bool) -> BuildError:
    if is_late:
        return BuildError(
            f"the build ran longer than its {follower.timeout} and was cancelled",
            hint="raise the node's `timeout` if it needs longer than that",
        )
    return BuildError(
        f"the build wrote nothing for {follower.silence_timeout} and was cancelled",
        hint="it hangs, or needs a longer `silence_timeout`",
    )


def _raise_verdict(verdict: BuildError | None, end: JobEnd) -> None:
    """Raise why we have ended the job, unless it came to an end of its own before that."""
    if verdict is None or isinstance(end, Finished) or end.reason is not StopReason.CANCELLED:
        return
    left = ", ".join(map(str, end.survivors))
    message = f"{verdict.message}; still there: {left}" if left else verdict.message
    raise BuildError(message, hint=verdict.hint)


async def _hand_over(
    transport: Transport,
    verb: str,
    job: Job,
    *,
    follower: Follower,
    silence_timeout: timedelta | None = None,
    end: float | None = None,
) -> None:
    """Hand over what the verb prints; raise TimeoutError after too long a silence, or at the end.

    `end` is in monotonic seconds.
    """
    cursor = follower.cursor
    if cursor.grew_at is None:
        cursor.grew_at = time.monotonic()
    process = await transport.open(JOB_SH, verb, *address(job), str(cursor.offset + 1))
    try:
        while True:
            limits = [] if end is None else [end]
            if silence_timeout is not None:
                limits.append(cursor.grew_at + silence_timeout.total_seconds())
            left = max(0.0, min(limits) - time.monotonic()) if limits else None
            async with asyncio.timeout(left):
                data = await process.read()
            if not data:
                break
            cursor.offset += len(data)
            cursor.grew_at = time.monotonic()
            follower.on_log(data)
        completed = await process.finish()
    finally:
        await process.close()
    if completed.exit_status != 0:
        raise refusal("show the log of the job", completed)
