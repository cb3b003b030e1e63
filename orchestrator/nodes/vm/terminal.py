"""This terminal on the serial line of a guest, until Ctrl-]."""

from __future__ import annotations

import os
import select
import socket
import termios
import tty
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import NodeError
from orchestrator.nodes.vm.qmp import short_way

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# As in telnet.
_LEAVE: Final = b"\x1d"
_CHUNK_BYTES: Final = 4096


def attach(console: Path, terminal: int) -> None:
    """Join a terminal and a serial line until Ctrl-], or until the guest ends.

    Raise NodeError if there is no such line. The terminal is as before at the end.
    """
    with socket.socket(socket.AF_UNIX) as line:
        try:
            with short_way(console) as way:
                line.connect(str(way))
        except OSError as error:
            raise NodeError(f"the serial line cannot be reached: {error.strerror}") from error
        with _raw(terminal):
            _join(line, terminal)


def _join(line: socket.socket, terminal: int) -> None:
    while True:
        ready, _, _ = select.select([line.fileno(), terminal], [], [])
        if line.fileno() in ready:
            said = line.recv(_CHUNK_BYTES)
            if not said:
                return
            _write(terminal, said)
        if terminal in ready:
            typed = os.read(terminal, _CHUNK_BYTES)
            before, leave, _ = typed.partition(_LEAVE)
            line.sendall(before)
            if leave or not typed:
                return


def _write(terminal: int, data: bytes) -> None:
    while data:
        data = data[os.write(terminal, data) :]


@contextmanager
def _raw(terminal: int) -> Iterator[None]:
    before = termios.tcgetattr(terminal)
    try:
        tty.setraw(terminal)
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
