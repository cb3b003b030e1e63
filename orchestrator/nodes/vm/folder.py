"""The state of a virtual machine on this host: one folder, which only its owner can look into."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orchestrator.core.inventory import Node
from orchestrator.core.vm import Accelerator, VmPaths
from orchestrator.nodes.vm.lock import is_locked
from orchestrator.nodes.vm.seed import public_line

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from orchestrator.core.vm import Vm

PATHS: Final = VmPaths(seed="seed.img")
HOST_KEY: Final = "ssh_host_ed25519_key"
CLIENT_KEY: Final = "client-key"
KNOWN_HOSTS: Final = "known-hosts"
QEMU_LOG: Final = "qemu.log"


@dataclass(frozen=True, slots=True)
class VmFolder:
    """The folder of one virtual machine; what is in it, and who uses it."""

    path: Path

    def file(self, name: str) -> Path:
        """Return one of its files."""
        return self.path / name

    @property
    def is_created(self) -> bool:
        """Whether everything is there that a start needs."""
        return self.file("created").exists()

    @property
    def defined_in(self) -> Path | None:
        """The folder of the inventory whose machine it was made as; None if nobody noted it."""
        try:
            return Path(self.file("inventory").read_text(encoding="utf-8"))
        except OSError:
            return None

    def note_definition(self, folder: Path) -> None:
        """Remember the folder of the inventory whose machine it is."""
        self.file("inventory").write_text(str(folder), encoding="utf-8")

    @property
    def is_running(self) -> bool:
        """Whether its QEMU runs, whoever has started it."""
        return is_locked(self.qemu_lock)

    @property
    def qemu_lock(self) -> Path:
        """What QEMU holds for as long as it runs."""
        return self.file("qemu.lock")

    @property
    def operation_lock(self) -> Path:
        """What is held while the machine is made, started, stopped or removed.

        Beside the folder, so that it is still the same one after the folder was removed.
        """
        return self.path.with_name(f".{self.path.name}.lock")

    @property
    def users_lock(self) -> Path:
        """What every run shares that uses the machine."""
        return self.path.with_name(f".{self.path.name}.users")

    @property
    def on_demand(self) -> Path:
        """A mark: it was started for a job, so the last one that uses it stops it."""
        return self.file("on-demand")

    @property
    def came_up(self) -> Path:
        """A mark: since its last start, somebody was able to log in."""
        return self.file("came-up")

    @property
    def pid(self) -> int | None:
        """The process of its QEMU; it is that only while `is_running`."""
        return _read_pid(self.file(PATHS.pid_file))

    @property
    def accelerator(self) -> Accelerator | None:
        """What runs the guest, as it was started last."""
        try:
            return Accelerator(self.file("accelerator").read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None

    def note_accelerator(self, accelerator: Accelerator) -> None:
        """Remember what runs the guest."""
        self.file("accelerator").write_text(accelerator, encoding="ascii")

    def tail(self, name: str, limit_bytes: int = 64 * 1024) -> str:
        """Return the end of a log, "" if there is none."""
        try:
            with self.file(name).open("rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - limit_bytes))
                return file.read().decode(errors="replace")
        except OSError:
            return ""


def state_home(environment: Mapping[str, str]) -> Path:
    """Return where the folders of all virtual machines of this user are."""
    home = environment.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "orchestrator" / "vms"


def image_home(environment: Mapping[str, str]) -> Path:
    """Return where golden images are kept; what is there can be made again."""
    home = environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "orchestrator" / "images"


def way_in(vm: Vm, folder: VmFolder, connect_timeout: timedelta, *, user: str = "") -> Node:
    """Return the node that the machine is, with the keys that it was made with."""
    return Node(
        name=vm.name,
        host=f"{user or vm.user}@127.0.0.1",
        port=vm.ssh_port,
        target=vm.target,
        host_key=public_line(folder.file(HOST_KEY)),
        identity=str(folder.file(CLIENT_KEY)),
        connect_timeout=connect_timeout,
    )


def _read_pid(path: Path) -> int | None:
    try:
        pid = int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return pid if pid > 1 else None
