"""The virtual machines of one run: each started for the first who needs it, stopped after the last.

Only machines that were started for a job are stopped, and not while another run uses them. A run
that breaks off leaves them as they are: the jobs in them go on, and the next run finds them.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Self

from orchestrator.core.errors import ConfigError, NodeError, OrchestratorError, PassingError
from orchestrator.nodes.vm.lock import open_lock, try_lock
from orchestrator.nodes.vm.machine import Machine
from orchestrator.nodes.vm.remote import RemoteMachine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from orchestrator.core.inventory import Node
    from orchestrator.nodes.transport import Connect, Transport

_GLANCE_SECONDS: Final = 0.2


@dataclass(slots=True, kw_only=True, eq=False)
class _Use:
    """One machine as this run uses it."""

    machine: Machine | RemoteMachine
    users_lock: int
    starting: asyncio.Task[None]


@dataclass(slots=True, kw_only=True)
class Guests:
    """Connects to nodes like the `connect` that it wraps, and starts their machines before that.

    With `starts` false nothing is started or stopped: whoever only looks finds a machine that is
    off to be a node that does not answer. `on_boot` is told, in words for a person, what a node's
    machine is waited for, and "" when it is up; `warn`, of a machine that could not be stopped.
    """

    connect: Connect
    machine_of: Callable[[str, Callable[[str], None]], Machine | RemoteMachine]
    on_boot: Callable[[Node, str], None]
    warn: Callable[[str], None]
    starts: bool = True
    _uses: dict[str, _Use] = field(default_factory=dict)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        uses = list(self._uses.values())
        self._uses.clear()
        for use in uses:
            use.starting.cancel()
        await asyncio.gather(*(use.starting for use in uses), return_exceptions=True)
        await asyncio.gather(*(self._leave(use, is_broken_off=kind is not None) for use in uses))

    @asynccontextmanager
    async def open(self, node: Node) -> AsyncIterator[Transport]:
        """Open the way to a node; raise NodeError if its machine does not come up."""
        if node.vm is None:
            async with self.connect(node) as transport:
                yield transport
            return
        # One boot for all that ask meanwhile; whoever is cancelled does not cancel it for others.
        try:
            use = self._use(node)
            await asyncio.shield(use.starting)
        except ConfigError as error:
            # Of this node: the other ones build on.
            raise NodeError(error.message, hint=error.hint) from error
        except OSError as error:
            raise NodeError(
                f"the virtual machine {node.vm} cannot be started: {error}",
                hint="is the disk full, or its folder another user's?",
            ) from error
        self.on_boot(node, "")
        async with self.connect(as_reached(node, use.machine)) as transport:
            yield transport

    def _use(self, node: Node) -> _Use:
        name = str(node.vm)
        self._forget_if_gone(name)
        if name not in self._uses:
            machine = self.machine_of(name, lambda text: self.on_boot(node, text))
            machine.folder.path.parent.mkdir(parents=True, exist_ok=True)
            users_lock = open_lock(machine.folder.users_lock)
            starting = asyncio.create_task(self._share_and_start(machine, node, users_lock))
            self._uses[name] = _Use(machine=machine, users_lock=users_lock, starting=starting)
        return self._uses[name]

    def _forget_if_gone(self, name: str) -> None:
        """Raise PassingError if the machine came up and has ended since: another one may not."""
        use = self._uses.get(name)
        if use is None or not use.starting.done() or use.starting.cancelled():
            return
        is_local = isinstance(use.machine, Machine)
        if is_local and not use.starting.exception() and not use.machine.folder.is_running:
            os.close(self._uses.pop(name).users_lock)
            raise PassingError(
                f"the virtual machine {name} has ended while it was used",
                hint=f"look at {use.machine.folder.path}: its serial.log and qemu.log",
            )

    async def _share_and_start(
        self, machine: Machine | RemoteMachine, node: Node, users_lock: int
    ) -> None:
        # Who only looks keeps nothing on. And whoever stops it, as the last one, holds the lock
        # alone: without our share, the next one that leaves would stop it under us.
        if self.starts and not try_lock(users_lock, shared=True):
            self.on_boot(node, f"waiting for another orchestrator, which stops {machine.vm.name}")
            while not try_lock(users_lock, shared=True):  # noqa: ASYNC110 -- another process opens it
                await asyncio.sleep(_GLANCE_SECONDS)
        await self._start(machine, node)

    async def _start(self, machine: Machine | RemoteMachine, node: Node) -> None:
        if isinstance(machine, RemoteMachine):
            if node.is_guest:
                raise ConfigError(
                    f"the virtual machine of {node.name} is on {machine.vm.host}",
                    hint="say in the inventory how the node is reached: `host`, `port`, `host_key`",
                )
            if self.starts:
                await machine.start(self.connect, node)
        elif self.starts:
            await machine.start(on_demand=True)
        elif not machine.folder.is_running:
            raise NodeError(
                f"the virtual machine {machine.vm.name} is not running",
                hint=f"start it: orchestrator vm start {machine.vm.name}",
            )

    async def _leave(self, use: _Use, *, is_broken_off: bool) -> None:
        machine = use.machine
        try:
            if is_broken_off or not self.starts or not machine.folder.on_demand.exists():
                return
            # Alone, it is held by nobody else: this was the last run that used it.
            if try_lock(use.users_lock):
                await (
                    machine.stop() if isinstance(machine, Machine) else machine.stop(self.connect)
                )
        except OrchestratorError as error:
            # What the run has done is done.
            self.warn(f"the virtual machine {machine.vm.name} is not stopped: {error.message}")
        finally:
            os.close(use.users_lock)


def as_reached(node: Node, machine: Machine | RemoteMachine) -> Node:
    """Return the node with the address and the keys of its machine, if it has none of its own."""
    if not node.is_guest or isinstance(machine, RemoteMachine):
        return node
    way = machine.way_in()
    return replace(
        node,
        host=way.host,
        port=way.port,
        host_key=way.host_key,
        identity=way.identity,
        # An emulated machine takes its time for a handshake.
        connect_timeout=max(node.connect_timeout, way.connect_timeout),
    )
