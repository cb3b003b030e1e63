"""A network of a scenario's own, whose packets are late and lost as it says.

Not netem: few kernels of small machines have it, and a relay in this process can be told more. The
network is a namespace with one TUN device. What is sent to THERE comes back with its two addresses
exchanged, which no checksum minds: so the servers of the namespace get it as if from THERE, and
both ends are the kernel's own TCP.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import os
import random
import select
import shutil
import struct
import subprocess
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.faults.scenario import NotRunError

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE: Final = "10.213.0.1"
THERE: Final = "10.213.0.2"

_CLONE_NEWNET: Final = 0x40000000
_TUNSETIFF: Final = 0x400454CA
_IFF_TUN_NO_PI: Final = 0x1001
_IPV4: Final = 4
_LONGEST_PACKET: Final = 65536


@dataclass(slots=True, kw_only=True)
class Packets:
    """The way of all packets: each is `delay_seconds` late, and some are lost."""

    device: int
    chance: random.Random
    delay_seconds: float = 0.0
    loss: float = 0.0
    lost: int = 0
    is_over: threading.Event = field(default_factory=threading.Event)
    _waiting: list[tuple[float, int, bytes]] = field(default_factory=list)

    def disturb(self, *, delay_seconds: float = 0.0, loss: float = 0.0) -> None:
        """Treat the packets like that from now on."""
        self.delay_seconds, self.loss = delay_seconds, loss

    def relay(self) -> None:
        """Carry packets until it is over."""
        number = 0
        while not self.is_over.is_set():
            ready, _, _ = select.select([self.device], [], [], self._patience())
            if ready:
                packet = os.read(self.device, _LONGEST_PACKET)
                number += 1
                if self.chance.random() < self.loss:
                    self.lost += 1
                elif packet[0] >> 4 == _IPV4:
                    due = time.monotonic() + self.delay_seconds
                    heapq.heappush(self._waiting, (due, number, _turned_round(packet)))
            while self._waiting and self._waiting[0][0] <= time.monotonic():
                os.write(self.device, heapq.heappop(self._waiting)[2])

    def _patience(self) -> float:
        if not self._waiting:
            return 0.1
        return min(0.1, max(0.0, self._waiting[0][0] - time.monotonic()))


def _turned_round(packet: bytes) -> bytes:
    return packet[:12] + packet[16:20] + packet[12:16] + packet[20:]


@contextmanager
def own_network(seed: float) -> Iterator[Packets]:
    """Move this thread, and what it starts, into a network that has only HERE and THERE.

    Raise NotRunError where that is not allowed.
    """
    require_root("a network of one's own", "ip")
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(f"/proc/self/task/{threading.get_native_id()}/ns/net").open("rb") as before:
        if libc.unshare(_CLONE_NEWNET) != 0:
            raise NotRunError(f"no network of its own: {os.strerror(ctypes.get_errno())}")
        try:
            with _device() as device:
                yield from _carried(Packets(device=device, chance=random.Random(seed)))
        finally:
            assert libc.setns(before.fileno(), _CLONE_NEWNET) == 0, "cannot go back"


def _carried(packets: Packets) -> Iterator[Packets]:
    thread = threading.Thread(target=packets.relay, name="packets")
    thread.start()
    try:
        yield packets
    finally:
        packets.is_over.set()
        thread.join()


@contextmanager
def _device() -> Iterator[int]:
    try:
        device = os.open("/dev/net/tun", os.O_RDWR)
    except OSError as error:
        raise NotRunError(f"no TUN device: {error.strerror}") from error
    try:
        request = struct.pack("16sH22x", b"faults0", _IFF_TUN_NO_PI)
        fcntl.ioctl(device, _TUNSETIFF, request)
        for words in (
            "link set lo up",
            f"addr add {HERE}/30 dev faults0",
            "link set faults0 mtu 1500 up",
        ):
            run("ip", *words.split())
        yield device
    finally:
        os.close(device)


def require_root(what: str, *tools: str) -> None:
    """Raise NotRunError unless this is root and has the tools."""
    if os.geteuid() != 0:
        raise NotRunError(f"{what} needs root")
    for tool in tools:
        if shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
            raise NotRunError(f"{what} needs `{tool}`")


def run(*command: str) -> None:
    """Run a command of the system; raise NotRunError if it refuses."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env=os.environ | {"PATH": path}
    )
    if done.returncode != 0:
        raise NotRunError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
