"""The durable queue of orders: the one door to DBOS, which keeps them through a crash.

It holds intent only: which release is asked for, and is it done. One workflow for each order, with
two steps: what its tag names is looked up once and kept, then the release is made. A release may be
made twice, by two coordinators, without harm, so all that the engine has to do is to lose nothing.
What plain DBOS would do wrong is kept out here: every process has a name of its own (or a second
one would start what the first is at), the version of the workflow is fixed (or an upgrade would
strand what is pending), values are JSON (its default is pickle), and failures are values.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from orchestrator.core.board import Board
from orchestrator.core.errors import ConfigError, StoreError
from orchestrator.core.order import Entry, Order, State
from orchestrator.core.wording import redacted
from orchestrator.service.intake import Submitted
from orchestrator.service.liveness import SQLITE, Liveness, liveness_at
from orchestrator.service.questions import Questions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from dbos import DBOSConfig, WorkflowStatus

    from orchestrator.core.errors import OrchestratorError

# Takes an order, returns it with what its tag names; and takes it then, returns what became of it.
Pin = Callable[[Order], Awaitable[Order]]
Work = Callable[[Order], Awaitable[dict[str, Any]]]

Value = TypeVar("Value")
_QUEUE: Final = "releases"
# Raised only when the steps of the workflow change: what is pending then stays with its version.
_WORKFLOW_VERSION: Final = "1"
_POLLING_SECONDS: Final = 0.5
_TAKEOVER_SECONDS: Final = 1.0
_THREADS: Final = 16
_REMEMBERED: Final = 1000
# Four minutes in all.
_LOOKUPS: Final = 7
_PAUSE_SECONDS: Final = 2.0
_STATES: Final = {
    "ENQUEUED": State.QUEUED,
    "DELAYED": State.QUEUED,
    "PENDING": State.RUNNING,
    "CANCELLED": State.CANCELLED,
}

_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class ReleaseQueue:
    """The orders of one project, shared by all coordinators that open the same database."""

    liveness: Liveness
    # The file that the queue is, and what it was at the start; None for a server.
    _file: _File | None = None
    _questions: Questions = field(default_factory=Questions)
    _known: dict[str, Order] = field(default_factory=dict)
    _submitting: dict[str, asyncio.Future[Submitted]] = field(default_factory=dict)

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, *, project: str, pin: Pin, work: Work) -> AsyncIterator[Self]:
        """Yield the queue at a database's URL, at work until the end of the block.

        `sqlite:///PATH` or `postgresql://...`; ConfigError if it cannot be opened. What is running
        at the end is left for whoever comes next. One process opens one queue.
        """
        working: set[asyncio.Task[Any]] = set()
        async with liveness_at(url, project) as liveness:
            kept = _kept_in(working, work)
            await _launch(url, project=project, name=liveness.name, pin=pin, work=kept)
            path = Path(url.removeprefix(SQLITE)) if url.startswith(SQLITE) else None
            queue = cls(liveness=liveness, _file=_File.at(path) if path else None)
            watch = asyncio.create_task(queue._take_over())
            try:
                await queue._remember()
                yield queue
            finally:
                # The work first, while there are threads for it to end in good order.
                for task in (watch, *working):
                    task.cancel()
                await asyncio.gather(watch, *working, return_exceptions=True)
                await asyncio.to_thread(_destroy)
                queue._questions.close()

    async def submit(self, order: Order) -> Submitted:
        """Return the attempt for a version, durable now: the newest there is, or this new one.

        StoreError if it cannot be kept: whoever asked must ask again.
        """
        known = self._known.get(order.version)
        if known and known.attempt >= order.attempt:
            return Submitted(order=known, is_new=False)
        # A flood of the same delivery is one question to the database.
        waiting = self._submitting.get(order.key)
        is_first = waiting is None
        if waiting is None:
            waiting = asyncio.ensure_future(self._submit(order))
            self._submitting[order.key] = waiting
            waiting.add_done_callback(partial(self._forget, order.key))
        submitted = await asyncio.shield(waiting)
        return submitted if is_first else replace(submitted, is_new=False)

    def _forget(self, key: str, done: asyncio.Future[Submitted]) -> None:
        del self._submitting[key]
        # Whoever asked may have gone, and nobody else would look at what went wrong.
        if not done.cancelled():
            done.exception()

    async def _submit(self, order: Order) -> Submitted:
        from dbos import DBOS, SetWorkflowID  # noqa: PLC0415 -- 0.3 s, and only the service has it

        def enqueue() -> None:
            # An attempt of that name that is there already stays as it is.
            with SetWorkflowID(order.key):
                DBOS.enqueue_workflow(_QUEUE, _registered["release"], order.as_data())

        await self._ask(enqueue)
        self._known[order.version] = order
        return Submitted(order=order, is_new=True)

    async def entries(self, *, version: str | None = None, limit: int = 50) -> Sequence[Entry]:
        """Return the newest orders first, of all versions or of one; StoreError if they cannot."""
        prefix = f"{version}#" if version else None
        found = await self._list(name="release", limit=limit, workflow_id_prefix=prefix)
        return [_entry(each) for each in found]

    async def _remember(self) -> None:
        """Learn which orders there are, so that the same deliveries are known after a restart."""
        found = await self._list(name="release", limit=_REMEMBERED, load_output=False)
        for each in reversed(found):
            order = _order(each)
            self._known[order.version] = order

    async def cancel(self, order: Order) -> None:
        """Take an order back; what runs for it on the nodes is another's business."""
        from dbos import DBOS  # noqa: PLC0415 -- see above

        await self._ask(partial(DBOS.cancel_workflow, order.key))

    async def _list(self, **how: Any) -> list[WorkflowStatus]:
        from dbos import DBOS  # noqa: PLC0415 -- see above

        return await self._ask(partial(DBOS.list_workflows, sort_desc=True, **how))

    async def _ask(self, question: Callable[[], Value]) -> Value:
        if self._file and not self._file.is_there():
            raise _unusable("its file was deleted", hint="start the service again")
        try:
            return await self._questions.ask(question)
        except TimeoutError:
            raise _unusable("it takes too long") from None
        except Exception as error:
            raise _unusable(error) from error

    async def _take_over(self) -> None:
        """Put the orders of coordinators that died back into the queue."""
        from dbos import DBOS  # noqa: PLC0415 -- see above

        while True:
            await asyncio.sleep(_TAKEOVER_SECONDS)
            try:
                await self.liveness.keep()
                pending = await self._list(status="PENDING", load_input=False, load_output=False)
                owners = {each.executor_id for each in pending if each.executor_id}
                for owner in owners - {self.liveness.name}:
                    if await self.liveness.is_dead(owner):
                        _log.warning("takes over from a coordinator that died: %s", owner)
                        # There is no other way without the vendor's own service.
                        await self._ask(partial(DBOS._recover_pending_workflows, [owner]))  # noqa: SLF001
            except Exception as error:  # noqa: BLE001 -- the database may be away for a while
                _log.warning("cannot look for coordinators that died: %s", error)


@dataclass(frozen=True, slots=True)
class _File:
    """A database's file: deleted while it is open, it would take orders and lose them."""

    path: Path
    identity: tuple[int, int]

    @classmethod
    def at(cls, path: Path) -> Self:
        found = path.stat()
        return cls(path, (found.st_dev, found.st_ino))

    def is_there(self) -> bool:
        try:
            found = self.path.stat()
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self.identity


def _kept_in(working: set[asyncio.Task[Any]], work: Work) -> Work:
    """Return the work, known among what runs for as long as it does."""

    async def kept(order: Order) -> dict[str, Any]:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 -- it is a coroutine that runs
        working.add(task)
        try:
            return await work(order)
        finally:
            working.discard(task)

    return kept


_registered: dict[str, Any] = {}


def _prepare(path: Path) -> None:
    """Make the file of a SQLite database, which nobody else reads; its log is written ahead."""
    path.touch(mode=0o600)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")


async def _launch(url: str, *, project: str, name: str, pin: Pin, work: Work) -> None:
    try:
        from dbos import DBOS  # noqa: PLC0415 -- see above
    except ImportError as error:
        raise missing_packages(error) from error
    _register(pin, work)
    try:
        if url.startswith(SQLITE):
            await asyncio.to_thread(_prepare, Path(url.removeprefix(SQLITE)))
        DBOS(config=_config(url, project=project, name=name))
        DBOS.launch()
        await DBOS.register_queue_async(
            _QUEUE,
            global_concurrency=1,
            polling_interval_sec=_POLLING_SECONDS,
            on_conflict="always_update",
        )
    except Exception as error:
        await asyncio.to_thread(_destroy)
        raise ConfigError(
            f"the database of the queue cannot be opened: {_first_line(error)}",
            hint=f"is it there, and may this user write to it? {redacted(url)}",
        ) from error


def missing_packages(error: ImportError) -> ConfigError:
    """Return the error of who installed what commands need, and wants the service."""
    return ConfigError(
        f"the service needs packages that are not installed: {error.name}",
        hint="run `make service`",
    )


def _config(url: str, *, project: str, name: str) -> DBOSConfig:
    from dbos._serialization import DBOSPortableJSON  # noqa: PLC0415 -- see above

    return {
        "name": "orchestrator",
        "system_database_url": url,
        "dbos_system_schema": schema_of(project),
        "executor_id": name,
        "application_version": _WORKFLOW_VERSION,
        "max_executor_threads": _THREADS,
        "serializer": DBOSPortableJSON,
        "log_level": "CRITICAL",
    }


def _register(pin: Pin, work: Work) -> None:
    from dbos import DBOS  # noqa: PLC0415 -- see above

    # The tag may follow its release by a moment, and GitHub may be away; a mistake stays one.
    @DBOS.step(
        name="pin",
        retries_allowed=True,
        interval_seconds=_PAUSE_SECONDS,
        max_attempts=_LOOKUPS,
    )
    async def pin_step(data: dict[str, Any]) -> dict[str, Any]:
        order = Order.from_data(data)
        try:
            return {"order": (await pin(order)).as_data()}
        except ConfigError as error:
            return {"outcome": _failure(order, error)}

    @DBOS.step(name="make", preemptible=True)
    async def make_step(data: dict[str, Any]) -> dict[str, Any]:
        return await work(Order.from_data(data))

    @DBOS.workflow(name="release", max_recovery_attempts=None)
    async def release(data: dict[str, Any]) -> dict[str, Any]:
        try:
            pinned = await pin_step(data)
        except Exception as error:  # noqa: BLE001 -- the last of many tries, or its record
            last = getattr(error, "errors", [error])[-1]
            away = StoreError(f"the tag cannot be looked up: {_first_line(last)}")
            return _failure(Order.from_data(data), away)
        return pinned.get("outcome") or await make_step(pinned["order"])

    _registered["release"] = release


async def probe_database(url: str) -> str:
    """Return which database it is; ConfigError if a queue cannot be opened there."""
    async with liveness_at(url, "probe"):
        if url.startswith(SQLITE):
            return url.removeprefix(SQLITE)
        return f"{redacted(url)}, which answers"


def _destroy() -> None:
    from dbos import DBOS  # noqa: PLC0415 -- see above

    DBOS.destroy(destroy_registry=True)


def schema_of(project: str) -> str:
    """Return where the project's tables are in a PostgreSQL database that several may share."""
    return "orchestrator_" + "".join(c if c.isalnum() else "_" for c in project)


def _order(status: WorkflowStatus) -> Order:
    arguments: Any = status.input
    return Order.from_data(arguments["args"][0])


def _entry(status: WorkflowStatus) -> Entry:
    order = _order(status)
    outcome = status.output if isinstance(status.output, dict) else None
    if outcome:
        # Looked up after it was queued, and the same for every attempt that follows.
        order = replace(order, commit=outcome.get("commit"), reference=outcome.get("reference"))
    state = _STATES.get(status.status)
    if state is None:
        is_done = status.status == "SUCCESS" and outcome and outcome.get("exit_code") == 0
        state = State.DONE if is_done else State.FAILED
    if state is State.FAILED and outcome is None:
        outcome = {"error": _first_line(status.error) if status.error else "it ended unexpectedly"}
    return Entry(
        order=order,
        state=state,
        began=_time(status.dequeued_at),
        ended=_time(status.completed_at) if state.is_final else None,
        outcome=outcome,
        coordinator=None if state is State.QUEUED else status.executor_id,
    )


def _failure(order: Order, error: OrchestratorError) -> dict[str, Any]:
    now = datetime.now(UTC)
    board = Board(order, now)
    board.finish(now, error=error)
    return board.as_data()


def _time(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, tz=UTC)


def _unusable(
    error: object, *, hint: str = "is it running? what was asked for has to be asked for again"
) -> StoreError:
    why = _first_line(error)
    return StoreError(f"the database of the queue does not answer: {why}", hint=hint)


def _first_line(error: object) -> str:
    lines = str(error).strip().splitlines()
    return redacted(lines[0])[:300] if lines else type(error).__name__
