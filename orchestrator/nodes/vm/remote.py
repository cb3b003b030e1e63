"""A virtual machine on another host of the maintainer's, where systemd runs it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import LinkError, NodeError
from orchestrator.core.inventory import Node
from orchestrator.nodes.transport import run

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.core.vm import Vm
    from orchestrator.nodes.transport import Connect
    from orchestrator.nodes.vm.folder import VmFolder

_REQUEST_TIMEOUT: Final = timedelta(seconds=30)
# Its ExecStop may ask the guest, press its power button and wait: `core.vm_unit`.
_STOP_TIMEOUT: Final = timedelta(minutes=5)
_PROBE_EVERY_SECONDS: Final = 2.0

# Prints what was there before: `active`, or another word.
_UNIT: Final = """
PATH=$PATH:/usr/bin:/bin:/usr/sbin:/sbin
was=$(systemctl is-active "$2")
case $(id -u) in
0) systemctl "$1" "$2" ;;
*) sudo -n systemctl "$1" "$2" ;;
esac >&2 || exit
echo "$was"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteMachine:
    """One virtual machine as a unit of `vm.host`; `folder` here says who uses it, and no more."""

    vm: Vm
    folder: VmFolder
    say: Callable[[str], None]

    async def start(self, connect: Connect, node: Node) -> bool:
        """Start the unit and return when the node can be logged into: True if it was off.

        Raise NodeError if the host refuses, or if the node does not come up in `boot_timeout`.
        """
        self.say(f"starting {self.vm.unit} on {self.vm.host}")
        was = await self._tell(connect, "start", _REQUEST_TIMEOUT)
        if was != "active":
            self.folder.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.folder.on_demand.touch()
        await self._ready(connect, node)
        return was != "active"

    async def status(self) -> str:
        """Return where it runs: its host is not asked."""
        return f"{self.vm.unit} on {self.vm.host}"

    async def stop(self, connect: Connect) -> None:
        """Stop the unit."""
        await self._tell(connect, "stop", _STOP_TIMEOUT)
        self.folder.on_demand.unlink(missing_ok=True)

    async def _tell(self, connect: Connect, verb: str, timeout: timedelta) -> str:  # noqa: ASYNC109 -- see run
        host = Node(
            name=f"host-of-{self.vm.name}",
            host=str(self.vm.host),
            target=self.vm.target,
            host_key=self.vm.host_key,
        )
        async with connect(host) as transport:
            done = await run(transport, _UNIT, verb, str(self.vm.unit), timeout=timeout)
        if done.exit_status != 0:
            said = done.stderr.decode(errors="replace").strip()[-500:]
            raise NodeError(
                f"{self.vm.host} cannot {verb} {self.vm.unit}: {said or 'it does not say why'}",
                hint=f"log in there: `systemctl status {self.vm.unit}`; who is not root needs "
                "`sudo -n systemctl`",
            )
        return done.stdout.decode(errors="replace").strip()

    async def _ready(self, connect: Connect, node: Node) -> None:
        begun = time.monotonic()
        while True:
            tried = time.monotonic()
            try:
                async with connect(node) as transport:
                    await run(transport, "exit 0", timeout=_REQUEST_TIMEOUT)
                    return
            except LinkError as error:
                waited = time.monotonic() - begun
                if waited > self.vm.boot_timeout.total_seconds():
                    raise NodeError(
                        f"{self.vm.unit} runs on {self.vm.host}, but {error.message} "
                        f"after {waited:.0f} s",
                        hint=f"look there: journalctl -u {self.vm.unit}, and its serial.log",
                    ) from error
                await asyncio.sleep(max(0.0, tried + _PROBE_EVERY_SECONDS - time.monotonic()))
