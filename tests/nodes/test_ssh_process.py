"""What asyncssh hands over, as it is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from orchestrator.nodes.ssh_process import SshProcess

if TYPE_CHECKING:
    import asyncssh

PACKET = 32 * 1024


class Channel:
    """A channel with packets to come; like asyncssh's, it hands them over from within resume."""

    def __init__(self, process: SshProcess, packets: int) -> None:
        self._process = process
        self._left = packets
        self._is_paused = False

    def pause_reading(self) -> None:
        self._is_paused = True

    def resume_reading(self) -> None:
        self._is_paused = False
        while self._left and not self._is_paused:
            self._left -= 1
            self._process.data_received(b"x" * PACKET, None)
        if not self._left:
            self._process.eof_received()


async def test_what_has_come_is_read_at_once_and_never_much_of_it() -> None:
    process = SshProcess("a node", on_close=lambda _: None)
    channel = Channel(process, packets=50)
    process.connection_made(cast("asyncssh.SSHClientChannel[bytes]", channel))
    channel.resume_reading()
    sizes = []
    while data := await process.read():
        sizes.append(len(data))
    assert sum(sizes) == 50 * PACKET
    assert sizes == [8 * PACKET] * 6 + [2 * PACKET]
