"""The benchmarks' slow link: when a packet arrives, and which are lost."""

from __future__ import annotations

import os
import random
import socket
from contextlib import suppress
from typing import Self

from benchmarks.link import Direction


class Wire:
    """Two ends, and the way from one to the other."""

    def __init__(self, *, delay: float = 0, rate: float = 0, loss: float = 0) -> None:
        self.near, near_device = socket.socketpair(type=socket.SOCK_DGRAM)
        self.far, far_device = socket.socketpair(type=socket.SOCK_DGRAM)
        self._all = (self.near, near_device, self.far, far_device)
        for end in self._all:
            os.set_blocking(end.fileno(), False)
        self.direction = Direction(
            near_device.fileno(),
            far_device.fileno(),
            delay=delay,
            rate=rate,
            losing=random.Random(1),
            loss=loss,
        )

    def send(self, *packets: bytes, at: float) -> None:
        for packet in packets:
            os.write(self.near.fileno(), packet)
        self.direction.take(at)

    def arrived(self, *, by: float) -> list[bytes]:
        self.direction.give(by)
        packets = []
        with suppress(BlockingIOError):
            while True:
                packets.append(self.far.recv(2000))
        return packets

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for end in self._all:
            end.close()


def test_a_packet_arrives_after_the_delay() -> None:
    with Wire(delay=0.04) as wire:
        wire.send(b"a", at=10)
        assert wire.arrived(by=10.039) == []
        assert wire.direction.due == 10.04
        assert wire.arrived(by=10.04) == [b"a"]
        assert wire.direction.due == float("inf")


def test_packets_arrive_in_order_no_faster_than_the_rate() -> None:
    with Wire(delay=1, rate=1000) as wire:
        wire.send(b"a" * 50, b"b" * 50, at=10)
        assert wire.arrived(by=11.049) == []
        assert wire.arrived(by=11.051) == [b"a" * 50]
        assert wire.arrived(by=11.101) == [b"b" * 50]


def test_what_the_queue_has_no_room_for_is_lost() -> None:
    with Wire(rate=1000) as wire:
        wire.send(*(b"%02d" % number * 20 for number in range(10)), at=10)
        assert len(wire.arrived(by=99)) == 3
        wire.send(b"later", at=20)
        assert wire.arrived(by=21) == [b"later"]


def test_a_share_of_the_packets_is_lost() -> None:
    with Wire(loss=0.5) as wire:
        count = 0
        for number in range(200):
            wire.send(b"x", at=number)
            count += len(wire.arrived(by=number))
    assert 60 < count < 140
