"""Two network namespaces with a slow link between them: its delay, its rate, its losses.

The link is a process of ours with a TUN device at each end, which hands every IP packet on when it
is due. So it needs no netem, which many kernels lack, and is the same on all of them; TCP at both
ends is the kernel's own. It needs root.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import random
import select
import shutil
import struct
import subprocess
import sys
import time
from collections import deque
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# The range that is set aside for measuring (RFC 2544).
NEAR: Final = "198.18.0.1"
_FAR: Final = "198.19.0.0/16"
# What waits for the link is never more than it carries in this time: the rest is lost.
_QUEUE_SECONDS: Final = 0.1
_TUN: Final = Path("/dev/net/tun")
_CLONE_NEWNET: Final = 0x40000000
_TUNSETIFF: Final = 0x400454CA
_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000
_DEVICE: Final = "link0"
_MAX_PACKET: Final = 65536
_BURST: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """The words before a command that is to run at one end or the other.

    All addresses of 198.19.0.0/16 are the far end's own; the near end has NEAR.
    """

    near: tuple[str, ...]
    far: tuple[str, ...]


def far_address(number: int) -> str:
    """Return an address of the far end, another one for each number from 0 on."""
    return f"198.19.{1 + number // 250}.{1 + number % 250}"


def can_shape() -> bool:
    """Whether this machine can have such links."""
    tools = all(map(shutil.which, ("ip", "nsenter", "unshare")))
    return os.getuid() == 0 and tools and _TUN.exists()


@contextmanager
def shaped(
    *, rtt_ms: float, mbit: float | None = None, loss: float = 0, mtu: int = 1500
) -> Iterator[Link]:
    """Have a link until the end of the block.

    `mbit` is its rate each way, as much as this machine can without it; `loss` the share of packets
    that is lost each way. The namespaces have no names: they go with the last process in them.
    """
    with ExitStack() as ends:
        near, far = (ends.enter_context(_namespace()) for _ in range(2))
        numbers = (near, far, rtt_ms / 2000, mbit * 125_000 if mbit else 0, loss)
        mover = [sys.executable, "-m", "benchmarks.link", *map(str, numbers)]
        ends.enter_context(_process(mover))
        link = Link(near=_inside(near), far=_inside(far))
        # What most systems have, whatever this one is set to.
        by_link = f"dev {_DEVICE} congctl cubic"
        for place, routes in (
            (link.near, (f"addr add {NEAR}/32 dev {_DEVICE}", f"route add {_FAR} {by_link}")),
            (link.far, (f"route add local {_FAR} dev lo", f"route add {NEAR} {by_link}")),
        ):
            device = f"link set {_DEVICE} mtu {mtu} txqueuelen 5000 up"
            for words in ("link set lo up", device, *routes):
                subprocess.run([*place, "ip", *words.split()], check=True)
        yield link


def _inside(pid: int) -> tuple[str, ...]:
    return ("nsenter", f"--net=/proc/{pid}/ns/net", "--")


@contextmanager
def _namespace() -> Iterator[int]:
    with _process(["unshare", "--net", "sh", "-c", "echo ready; exec cat"]) as pid:
        yield pid


@contextmanager
def _process(command: Sequence[str]) -> Iterator[int]:
    """Have a process that has said something; it ends when its input does, be it by our death."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None  # noqa: S101 -- a pipe
        if not process.stdout.readline():
            raise OSError(f"{command[0]} could not make its end of the link")
        yield process.pid


class Direction:
    """Packets on their way from one end to the other."""

    def __init__(
        self,
        source: int,
        sink: int,
        *,
        delay: float,
        rate: float,
        losing: random.Random,
        loss: float,
    ) -> None:
        self.source = source
        self._sink = sink
        self._delay = delay
        self._rate = rate
        self._losing = losing
        self._loss = loss
        self._free_at = 0.0
        self._under_way: deque[tuple[float, bytes]] = deque()

    @property
    def due(self) -> float:
        """When the next packet arrives, in monotonic seconds."""
        return self._under_way[0][0] if self._under_way else float("inf")

    def take(self, now: float) -> None:
        """Send what waits at its source, a little at a time: the other end has its turn, too."""
        with suppress(BlockingIOError):
            for _ in range(_BURST):
                packet = os.read(self.source, _MAX_PACKET)
                begin = max(now, self._free_at)
                if begin - now > _QUEUE_SECONDS or self._losing.random() < self._loss:
                    continue
                self._free_at = begin + (len(packet) / self._rate if self._rate else 0)
                self._under_way.append((self._free_at + self._delay, packet))

    def give(self, now: float) -> None:
        """Hand over what has arrived."""
        while self._under_way and self._under_way[0][0] <= now:
            packet = self._under_way.popleft()[1]
            with suppress(OSError):  # its queue is full: a packet may be lost
                os.write(self._sink, packet)


def main(words: Sequence[str]) -> None:
    """Be the link between two namespaces until the end of the input."""
    near, far = (_open_device(int(pid)) for pid in words[:2])
    delay, rate, loss = map(float, words[2:])
    directions = [
        # The same packets are lost in each run.
        Direction(*ends, delay=delay, rate=rate, losing=random.Random(seed), loss=loss)  # noqa: S311
        for seed, ends in enumerate(((near, far), (far, near)))
    ]
    # Others use the processors too, and the link must not be slower for that.
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    print("ready", flush=True)
    sources = [direction.source for direction in directions]
    while True:
        now = time.monotonic()
        due = min(direction.due for direction in directions)
        timeout = None if due == float("inf") else max(0.0, due - now)
        ready, _, _ = select.select([*sources, sys.stdin], [], [], timeout)
        if sys.stdin in ready:
            return
        now = time.monotonic()
        for direction in directions:
            if direction.source in ready:
                direction.take(now)
            direction.give(now)


def _open_device(pid: int) -> int:
    """Return a TUN device in the namespace of the process."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(f"/proc/{pid}/ns/net").open("rb") as namespace:
        # os.setns is younger than the oldest Python that this has to run on.
        if libc.setns(namespace.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "no way into the namespace")
    device = os.open(_TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", _DEVICE.encode(), _IFF_TUN | _IFF_NO_PI))
    return device


if __name__ == "__main__":
    main(sys.argv[1:])
