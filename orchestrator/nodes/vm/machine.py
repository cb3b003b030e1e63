"""A virtual machine of this host: start it, wait until it can be logged into, stop it.

Its QEMU outlives whoever has started it. What says that it runs is the lock that it holds; the next
one who needs it finds it running and goes on with it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import ConfigError, LinkError, NodeError
from orchestrator.core.vm import Accelerator
from orchestrator.core.vm_argv import qemu_argv
from orchestrator.nodes.transport import run
from orchestrator.nodes.vm.accelerator import choose_accelerator
from orchestrator.nodes.vm.diagnosis import BootError, boot_error, monitor_status
from orchestrator.nodes.vm.folder import PATHS, QEMU_LOG, way_in
from orchestrator.nodes.vm.layout import renew_disk
from orchestrator.nodes.vm.lock import open_lock, try_lock
from orchestrator.nodes.vm.qmp import open_monitor
from orchestrator.nodes.vm.tools import require_tools

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from orchestrator.core.inventory import Node
    from orchestrator.core.vm import Vm, VmPaths
    from orchestrator.nodes.vm.folder import VmFolder

# An emulated guest may take seconds for a handshake; sshd counts those that come to nothing.
_PROBE_TIMEOUT: Final = timedelta(seconds=15)
_PROBE_EVERY_SECONDS: Final = 2.0
_GLANCE_SECONDS: Final = 0.2
_SHUTDOWN_SECONDS: Final = 60
# For a guest whose disk is to be kept.
_PATIENT: Final = 5
_QUIT_SECONDS: Final = 10
# Somebody else may glance at the lock in the moment in which it is taken.
_LOCK_TRIES: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One virtual machine; `say` is told what takes long, in words for a person."""

    vm: Vm
    folder: VmFolder
    accelerators: Path
    say: Callable[[str], None]
    # The folder of the inventory that defines it: another one may have a machine of this name.
    defined_in: Path | None = None

    def way_in(self, *, user: str = "") -> Node:
        """Return the node that it is; raise ConfigError before it was made."""
        self._require_created()
        return way_in(self.vm, self.folder, _PROBE_TIMEOUT, user=user)

    async def start(self, *, on_demand: bool = False) -> bool:
        """Start it and return when it can be logged into: True, unless it was running already.

        A guest that does not come up is tried once more, with a CPU that has less to trip over.
        Raise NodeError, with what its serial line and its monitor say, if it never does.
        """
        self._require_created()
        require_tools(self.vm.arch.qemu, "qemu-img")
        async with self._alone():
            # Meanwhile somebody may have removed it.
            self._require_created()
            if self.folder.is_running:
                await self._adopt()
                if not on_demand:
                    # Whoever starts it by hand keeps it.
                    self.folder.on_demand.unlink(missing_ok=True)
                return False
            if on_demand:
                self.folder.on_demand.touch()
            else:
                self.folder.on_demand.unlink(missing_ok=True)
            await self._boot()
            return True

    async def stop(self) -> str | None:
        """Stop it, and return how: None if it was not running. Raise NodeError if it survives."""
        self._require_own()
        async with self._alone():
            return await self._stop()

    async def shut_down(self) -> None:
        """Let it end by itself, so that its disk is whole; raise NodeError if it does not."""
        async with self._alone():
            for way, _, seconds in _GENTLE_WAYS:
                told = self._shut_down() if way is None else self._tell(way)
                if await told and await self._ended(seconds * _PATIENT):
                    return
            raise NodeError(f"{self.vm.name} does not shut down: its disk is not whole")

    async def known_way(self) -> Node:
        """Return the node that it is, with the host key that it must show."""
        return self.way_in()

    async def remove(self) -> None:
        """Stop it and remove its folder, with its keys; raise NodeError if that is not possible."""
        self._require_own()
        async with self._alone():
            await self._stop()
            try:
                if self.folder.path.exists():
                    await asyncio.to_thread(shutil.rmtree, self.folder.path)
            except OSError as error:
                raise NodeError(
                    f"{self.vm.name} is stopped, but {self.folder.path} cannot be removed: {error}"
                ) from error

    async def _stop(self) -> str | None:
        how = await self._end() if self.folder.is_running else None
        self.folder.on_demand.unlink(missing_ok=True)
        return how

    async def status(self) -> str:
        """Return one word, or a few: `not created`, `stopped`, or what QEMU says."""
        if not self.folder.is_created:
            return "not created"
        if not self.folder.is_running:
            return "stopped"
        return await monitor_status(self.folder) or "hanging"

    def _require_own(self) -> None:
        made_for = self.folder.defined_in
        if None in {made_for, self.defined_in} or made_for == self.defined_in:
            return
        raise ConfigError(
            f"{self.vm.name} is a virtual machine of another inventory, the one in {made_for}",
            hint=f"give it another name here; or take it over, and make it anew: orchestrator "
            f"vm create {self.vm.name}",
        )

    def _require_created(self) -> None:
        if not self.folder.is_created:
            raise ConfigError(
                f"the virtual machine {self.vm.name} is not made yet",
                hint=f"make it, once: orchestrator vm create {self.vm.name}",
            )
        self._require_own()

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Wait until no other coordinator starts or stops it; that may be as long as a boot."""
        self.folder.path.parent.mkdir(parents=True, exist_ok=True)
        fd = open_lock(self.folder.operation_lock)
        try:
            if not try_lock(fd):
                self.say(f"{self.vm.name}: another orchestrator is at it, waiting")
                while not try_lock(fd):  # noqa: ASYNC110 -- another process opens it
                    await asyncio.sleep(_GLANCE_SECONDS)
            yield
        finally:
            os.close(fd)

    async def _adopt(self) -> None:
        """Go on with a machine that runs: its boot may have been interrupted, and not its guest."""
        try:
            await self._ready()
        except BootError as error:
            # Once it was up, somebody may be at work in it: of this machine, or of one of its name.
            if not self.folder.on_demand.exists() or self.folder.came_up.exists():
                raise
            self.say(f"{self.vm.name} runs, but {error.diagnosis}: starting it again")
            await self._end(at_once=True)
            await self._boot()

    async def _boot(self) -> None:
        try:
            await self.spawn()
            await self._ready()
        except BootError as error:
            await self._end(at_once=True)
            is_cautious = error.diagnosis.is_cpu or not error.diagnosis.is_passing
            how = "with a plainer CPU" if is_cautious else "as it is"
            self.say(f"{self.vm.name}: {error.diagnosis}; once more, {how}")
            try:
                await self.spawn(cautious=is_cautious)
                await self._ready()
            except NodeError:
                await self._end(at_once=True)
                raise
        except NodeError:
            # It is up, and not what we made: nobody shall take it for that.
            await self._end(at_once=True)
            raise

    async def spawn(self, paths: VmPaths = PATHS, *, cautious: bool = False) -> None:
        """Start QEMU as nobody's child, so that it lives on without us; wait for nothing."""
        if self.vm.fresh:
            await asyncio.to_thread(renew_disk, self.vm, self.folder)
        loop = asyncio.get_running_loop()

        def say(text: str) -> None:
            loop.call_soon_threadsafe(self.say, text)

        accelerator = await asyncio.to_thread(choose_accelerator, self.vm, self.accelerators, say)
        self.folder.note_accelerator(accelerator)
        self.folder.came_up.unlink(missing_ok=True)
        for name in (PATHS.serial_log, PATHS.pid_file, PATHS.monitor, PATHS.console):
            self.folder.file(name).unlink(missing_ok=True)
        words = qemu_argv(
            self.vm, paths, accelerator, cautious=cautious, sandboxed=sys.platform == "linux"
        )
        pinned = ("taskset", "-c", self.vm.pinned_cpus) if self.vm.pinned_cpus else ()
        fd = await self._qemu_lock()
        try:
            await asyncio.to_thread(
                subprocess.run,
                ["/bin/sh", "-c", _SPAWN, "sh", QEMU_LOG, *pinned, *words],
                cwd=self.folder.path,
                stdin=subprocess.DEVNULL,
                check=True,
                pass_fds=(fd,),
                start_new_session=True,
            )
        finally:
            os.close(fd)
        how = "emulated" if accelerator is Accelerator.TCG else f"with {accelerator}"
        self.say(f"starting {self.vm.name} ({self.vm.title}, {how})")

    async def _qemu_lock(self) -> int:
        fd = open_lock(self.folder.qemu_lock)
        for _ in range(_LOCK_TRIES):
            if try_lock(fd):
                return fd
            await asyncio.sleep(_GLANCE_SECONDS)
        os.close(fd)
        raise NodeError(f"{self.vm.name} is being started by somebody else")

    async def _ready(self) -> None:
        """Return when a login succeeds; raise BootError if that does not happen in time.

        Raise another NodeError if it is up, and shows another host key or refuses our login. Its
        port is of no interest: QEMU opens it at once.
        """
        from orchestrator.nodes.ssh import SshConnections  # noqa: PLC0415 -- see wiring

        said = ""
        begun = time.monotonic()
        deadline = begun + self.vm.boot_timeout.total_seconds()
        while self.folder.is_running and time.monotonic() < deadline:
            tried = time.monotonic()
            try:
                node = await self.known_way()
                async with SshConnections() as ssh, ssh.connect(node) as transport:
                    await run(transport, "exit 0", timeout=_PROBE_TIMEOUT)
                    self.folder.came_up.touch()
                    return
            except LinkError as error:
                said = error.message
                pause = tried + _PROBE_EVERY_SECONDS - time.monotonic()
                await asyncio.sleep(max(0.0, pause))
        waited = timedelta(seconds=time.monotonic() - begun)
        raise await boot_error(self.vm, self.folder, waited=waited, ssh=said)

    async def _end(self, *, at_once: bool = False) -> str:
        """End QEMU, the gentlest way first, and return which way it was."""
        if not self.folder.is_running:
            return "it had ended"
        # What a fresh guest has written is thrown away anyway.
        gentle = () if at_once or self.vm.fresh else _GENTLE_WAYS
        for way, how, seconds in (*gentle, _SWITCH_OFF):
            told = self._shut_down() if way is None else self._tell(way)
            if await told and await self._ended(seconds):
                return how
        for number in (signal.SIGTERM, signal.SIGKILL):
            pid = self.folder.pid
            # While its lock is held, the process of that number is our QEMU, and no other one.
            if pid is not None and self.folder.is_running:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            if await self._ended(_QUIT_SECONDS):
                return f"ended with {number.name}"
        raise NodeError(
            f"the QEMU of {self.vm.name} cannot be ended",
            hint=f"its process is {self.folder.pid}: look at it with ps",
        )

    async def _shut_down(self) -> bool:
        from orchestrator.nodes.ssh import SshConnections  # noqa: PLC0415 -- see wiring

        try:
            async with SshConnections() as ssh, ssh.connect(self.way_in(user="root")) as transport:
                await run(transport, _SHUTDOWN, timeout=_PROBE_TIMEOUT)
        except LinkError:
            return True  # it may be what cut the link
        except NodeError:
            return False
        return True

    async def _tell(self, command: str) -> bool:
        try:
            async with open_monitor(self.folder.file(PATHS.monitor)) as monitor:
                await monitor.execute(command)
        except NodeError:
            # `quit` may end it before it has answered.
            return not self.folder.is_running
        return True

    async def _ended(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.folder.is_running:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(_GLANCE_SECONDS)
        return True


# What QEMU is told, or the guest itself; what it is called; how many seconds it may take.
_GENTLE_WAYS: Final[tuple[tuple[str | None, str, float], ...]] = (
    (None, "shut down", _SHUTDOWN_SECONDS),
    ("system_powerdown", "shut down by its power button", _SHUTDOWN_SECONDS),
)
_SWITCH_OFF: Final[tuple[str | None, str, float]] = ("quit", "switched off", _QUIT_SECONDS)
# $1 gets what QEMU says.
_SPAWN: Final = 'umask 077; log=$1; shift; "$@" </dev/null >"$log" 2>&1 &'
_SHUTDOWN: Final = """
PATH=/sbin:/usr/sbin:/bin:/usr/bin
case $(uname -s) in
Linux) poweroff ;;
*) shutdown -p now ;;
esac
"""
