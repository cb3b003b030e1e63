"""Follow a job to its end: live log bytes, states, and what the end means."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, assert_never

from orchestrator.core.diagnosis import diagnose
from orchestrator.core.errors import BuildError, NodeError
from orchestrator.nodes.job import (
    JOB_SH,
    Finished,
    Job,
    JobEnd,
    JobState,
    NeverStarted,
    Queued,
    Running,
    Stopped,
    StopReason,
    address,
    cancel_job,
    read_job,
    refusal,
)
from orchestrator.nodes.transport import Transport

if TYPE_CHECKING:
    from datetime import timedelta

OpenTransport = Callable[[], AbstractAsyncContextManager[Transport]]


@dataclass(slots=True, kw_only=True)
class LogCursor:
    """How far a log was read; it outlives the link, so that the next one goes on from there."""

    offset: int = 0
    grew_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Follower:
    """Who is told: `on_log` of bytes as they come, `on_state` whenever the job is looked at.

    A job that runs and writes nothing for `silence_timeout` is cancelled.
    """

    on_log: Callable[[bytes], None]
    on_state: Callable[[JobState], None]
    silence_timeout: timedelta
    cursor: LogCursor = field(default_factory=LogCursor)


async def follow_job(transport: Transport, job: Job, follower: Follower) -> JobEnd:
    """Return how the job ended, after all of its log from the cursor on was handed over.

    Raise NodeError when the link is lost: the job runs on, and the cursor tells where to go on.
    Raise BuildError when the job was silent for too long; it is cancelled then.
    """
    seen: JobState | None = None
    while True:
        state = await read_job(transport, workdir=job.workdir, job=job.id)
        _refuse_other_attempt(job, state)
        follower.on_state(state)
        match state:
            case Finished() | Stopped():
                # The end is known first and the log read after it, so no last line is missed.
                await _hand_over(transport, "rest", job, follower=follower)
                return state
            case NeverStarted():
                raise NodeError(
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
                await _follow_running(transport, job, follower)
            case _:
                assert_never(state)
        if state == seen:
            # The node's side of the channel was ended, not the job: don't ask in a tight loop.
            await asyncio.sleep(1)
        seen = state


async def follow_through(
    open_transport: OpenTransport, job: Job, follower: Follower, *, patience: timedelta
) -> JobEnd:
    """Return what `follow_job` does, over as many links as it takes.

    Raise the last NodeError when the node was out of reach for `patience`, or when links that were
    made brought nothing several times in a row: then it is not the link that is at fault.
    """
    reached_at = time.monotonic()
    delays = iter(_BACKOFF)
    delay = next(delays)
    fruitless = 0
    while True:
        offset = follower.cursor.offset
        has_link = False
        try:
            async with open_transport() as transport:
                has_link = True
                reached_at = time.monotonic()
                return await follow_job(transport, job, follower)
        except NodeError:
            elapsed = time.monotonic() - reached_at
            if not has_link and elapsed > patience.total_seconds():
                raise
            if follower.cursor.offset > offset or (has_link and elapsed > _FRUITFUL_SECONDS):
                delays, fruitless = iter(_BACKOFF), 0
            fruitless += has_link
            if fruitless > _MAX_FRUITLESS:
                raise
        delay = next(delays, delay)
        await asyncio.sleep(delay)


# A link that held for so long was a link; a silent compile brings no bytes either.
_FRUITFUL_SECONDS: Final = 5
_MAX_FRUITLESS: Final = 3
# Seconds. sshd counts connections that come to nothing against their source, so never faster.
_BACKOFF: Final = (1, 2, 4, 8, 15, 30)


def require_success(end: JobEnd, log_tail: bytes = b"") -> None:
    """Raise BuildError or NodeError, by who is at fault, unless the job delivered.

    `log_tail` is the end of the job's log: it may tell that the machine was at fault.
    """
    match end:
        case Finished(exit_status=0):
            return
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
            raise NodeError("the job was cancelled", hint="run the same command to start it again")
        case Stopped(reason=StopReason.UNABLE):
            raise NodeError(
                f"the node could not build: {end.evidence}",
                hint="make room on its disk, or make its folders writable",
            )
        case Stopped():
            raise NodeError(
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
    return NodeError(f"the build failed: {reason.message}", hint=reason.hint)


def _refuse_other_attempt(job: Job, state: JobState) -> None:
    if not isinstance(state, NeverStarted) and state.attempt != job.attempt:
        raise NodeError(
            f"attempt {state.attempt} of job {job.id} has taken the place of {job.attempt}",
            hint="another coordinator started it; run the same command to attach to it",
        )


async def _follow_running(transport: Transport, job: Job, follower: Follower) -> None:
    try:
        await _hand_over(
            transport,
            "follow",
            job,
            follower=follower,
            silence_timeout=follower.silence_timeout,
        )
    except TimeoutError:
        survivors = await cancel_job(transport, job)
        await _hand_over(transport, "rest", job, follower=follower)
        left = f"; still there: {'; '.join(survivors)}" if survivors else ""
        raise BuildError(
            f"the build wrote nothing for {follower.silence_timeout} and was cancelled{left}",
            hint="it hangs, or needs a longer `silence_timeout`",
        ) from None


async def _hand_over(
    transport: Transport,
    verb: str,
    job: Job,
    *,
    follower: Follower,
    silence_timeout: timedelta | None = None,
) -> None:
    """Hand over what the verb prints; raise TimeoutError when it is silent for too long."""
    cursor = follower.cursor
    if cursor.grew_at is None:
        cursor.grew_at = time.monotonic()
    process = await transport.open(JOB_SH, verb, *address(job), str(cursor.offset + 1))
    try:
        while True:
            deadline = None
            if silence_timeout is not None:
                allowed = silence_timeout.total_seconds()
                deadline = max(0.0, cursor.grew_at + allowed - time.monotonic())
            async with asyncio.timeout(deadline):
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
