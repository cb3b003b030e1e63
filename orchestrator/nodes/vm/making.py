"""A BSD's disk, made from its project's image without a person: fetched, installed, finished, kept.

The keys are made first and put into the guest, and are kept beside its disk: whoever starts from
that disk later needs them.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import ConfigError, LinkError, NodeError
from orchestrator.core.vm import DownloadedImage, Guest
from orchestrator.core.vm_argv import firmware_of
from orchestrator.core.vm_facts import Firmware
from orchestrator.core.vm_first_boot import CARGO_VERSION, first_boot_of
from orchestrator.core.vm_netbsd import CREDENTIALS_FILE, netbsd_credentials
from orchestrator.core.vm_provisioning import lines_for, seed_for
from orchestrator.core.vm_seed import READY_LINE, GuestKeys
from orchestrator.core.wording import human_time
from orchestrator.nodes.transport import run
from orchestrator.nodes.vm.diagnosis import last_lines
from orchestrator.nodes.vm.dialogue import open_line
from orchestrator.nodes.vm.download import fetch_image, unpack
from orchestrator.nodes.vm.folder import CLIENT_KEY, HOST_KEY, PATHS, VmFolder
from orchestrator.nodes.vm.layout import (
    GOLDEN,
    debian_seed,
    link,
    make_keys,
    place_firmware,
    renew_disk,
)
from orchestrator.nodes.vm.leftovers import PART_MACHINE, clear_parts, part_prefix
from orchestrator.nodes.vm.lock import locked
from orchestrator.nodes.vm.machine import Machine
from orchestrator.nodes.vm.seed import add_to_boot_partition, guest_keys, write_fat, write_iso
from orchestrator.nodes.vm.tools import free_port, require_tools, run_tool

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.core.inventory import Node
    from orchestrator.core.vm import Vm
    from orchestrator.core.vm_first_boot import FirstBoot

DISK: Final = "golden.qcow2"
_DOWNLOAD: Final = "download"
_MEDIUM: Final = "installer.img"
_RECORD: Final = "image.json"
# Counted up when what a guest is told at its first boot changes.
_RECIPE: Final = 1
_GLANCE_SECONDS: Final = 0.5
# An emulated guest is twenty times slower, and the sets and packages come over the network.
_PROMPT_SECONDS: Final = 30 * 60
_INSTALL_SECONDS: Final = 4 * 3600
_PACKAGES_SECONDS: Final = 4 * 3600
_FIRST_BOOT: Final = timedelta(hours=1)
_CONVERT_SECONDS: Final = 3600


def make_golden(
    vm: Vm,
    image: DownloadedImage,
    *,
    images: Path,
    accelerators: Path,
    say: Callable[[str], None],
) -> Path:
    """Return the folder with the disk of a guest from a download, made now if it is not there.

    It holds DISK and the guest's keys. Raise ConfigError if a person has to do something first,
    NodeError if it cannot be made; nothing half-made is left.
    """
    first_boot = first_boot_of(vm)
    folder = images / _name_of(vm, image)
    if (folder / _RECORD).exists():
        return folder
    require_tools("xorriso", "mcopy")
    images.mkdir(parents=True, exist_ok=True)
    # Two who need the same one make it once.
    with locked(images / f".{folder.name}.lock", say):
        if (folder / _RECORD).exists():
            return folder
        clear_parts(images, folder.name)
        begun = time.monotonic()
        archive = fetch_image(
            image.url, sha256=str(image.sha256), folder=images / "downloads", say=say
        )
        with tempfile.TemporaryDirectory(dir=images, prefix=part_prefix(folder.name)) as scratch:
            making = Making(
                # Not the machine's own port, and not without a network: it fetches its packages.
                vm=replace(vm, image=image, ssh_port=free_port(), offline=False, fresh=True),
                folder=VmFolder(Path(scratch) / PART_MACHINE),
                accelerators=accelerators,
                say=say,
                first_boot=first_boot,
            )
            made = _made(making, archive, failed_log=images / f"{vm.name}-failed.log")
            record = {"url": image.url, "sha256": image.sha256, "recipe": _RECIPE}
            (made / _RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
            shutil.rmtree(folder, ignore_errors=True)
            made.rename(folder)
        archive.unlink(missing_ok=True)
        say(f"made in {human_time(timedelta(seconds=time.monotonic() - begun))}: {folder / DISK}")
    return folder


def require_digest(vm: Vm, image: DownloadedImage, sha256: str | None) -> DownloadedImage:
    """Return the image with the digest that it must have; `sha256` is what a person says.

    Raise ConfigError if nobody says one, or if two say different ones.
    """
    if sha256 and image.sha256 not in {None, sha256}:
        raise ConfigError(
            f"{vm.name} wants an image with another digest than --sha256 says",
            hint=f"correct `image.sha256` in vms/{vm.name}/vm.yaml, or leave --sha256 out",
        )
    digest = image.sha256 or sha256
    if digest is None:
        raise ConfigError(
            f"nobody says which digest the image of {vm.name} must have",
            hint="take its SHA-256 from the list that the project signs, and say it: "
            f"orchestrator vm create {vm.name} --sha256 DIGEST; or as `image.sha256` in its "
            "vm.yaml",
        )
    return replace(image, sha256=digest)


def _name_of(vm: Vm, image: DownloadedImage) -> str:
    said = (_RECIPE, vm.guest, vm.arch, vm.release, vm.user, vm.packages, image.url, image.sha256)
    return f"{vm.name}-{hashlib.sha256(repr(said).encode()).hexdigest()[:16]}"


def _made(making: Making, archive: Path, *, failed_log: Path) -> Path:
    try:
        making.begin(archive)
        asyncio.run(making.go())
        return making.finished()
    except NodeError as error:
        kept = _keep_log(making.folder, failed_log)
        hint = "; ".join(filter(None, (error.hint, kept)))
        raise NodeError(error.message, hint=hint or None) from error


def _keep_log(folder: VmFolder, kept: Path) -> str:
    try:
        shutil.copyfile(folder.file(PATHS.serial_log), kept)
    except OSError:
        return ""
    return f"all that it said: {kept}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """A disk that is being made in a folder of its own, which is that of a machine's state."""

    vm: Vm
    folder: VmFolder
    accelerators: Path
    say: Callable[[str], None]
    first_boot: FirstBoot

    @property
    def _is_installed(self) -> bool:
        return bool(lines_for(self.vm))

    def begin(self, archive: Path) -> None:
        """Lay out what the first start needs: the unpacked image, keys, seed, firmware."""
        self.folder.path.mkdir(mode=0o700)
        image = self.vm.image
        assert isinstance(image, DownloadedImage)  # noqa: S101 -- see make_golden
        self.say(f"unpacking it for {self.vm.name}")
        unpacked = self.folder.file(_MEDIUM if self._is_installed else _DOWNLOAD)
        unpack(archive, image.url, unpacked)
        make_keys(self.vm, self.folder)
        self._write_seed(unpacked)
        if firmware_of(self.vm) is Firmware.UEFI:
            place_firmware(self.folder)
        if self._is_installed:
            size = str(self.vm.disk_bytes)
            words = ("qemu-img", "create", "-q", "-f", "qcow2", PATHS.disk, size)
            run_tool(*words, folder=self.folder.path)
        else:
            self._begin_with(unpacked)

    def _write_seed(self, unpacked: Path) -> None:
        seed_file = self.folder.file(str(PATHS.seed))
        if self.vm.guest is Guest.DEBIAN:
            write_fat(seed_file, label="SEED", files=debian_seed(self.vm, self.folder))
            return
        keys: GuestKeys = guest_keys(self.folder.file(HOST_KEY), self.folder.file(CLIENT_KEY))
        seed = seed_for(self.vm, keys)
        assert seed is not None  # noqa: S101 -- only Debian has none
        write_iso(seed_file, seed)
        if self.first_boot.makes_own_host_key:
            credentials = netbsd_credentials(self.vm, keys)
            add_to_boot_partition(unpacked, CREDENTIALS_FILE, credentials)

    def _begin_with(self, disk: Path) -> None:
        link(self.folder, GOLDEN, disk)
        renew_disk(self.vm, self.folder)
        self.folder.file("created").touch()

    async def go(self) -> None:
        """Install it, if it has to be; boot it, wait until it is finished, and shut it down."""
        machine = _FirstMachine(
            vm=replace(self.vm, boot_timeout=max(self.vm.boot_timeout, _FIRST_BOOT)),
            folder=self.folder,
            accelerators=self.accelerators,
            say=self.say,
            first_boot=self.first_boot,
        )
        try:
            if self._is_installed:
                await self._install(machine)
            await machine.start()
            await machine.finish()
            await machine.shut_down()
        finally:
            await machine.stop()

    async def _install(self, machine: _FirstMachine) -> None:
        lines = lines_for(self.vm)
        # Its disk is empty, and what the installer writes is the point.
        await replace(machine, vm=replace(machine.vm, fresh=False)).spawn(
            replace(PATHS, medium=_MEDIUM)
        )
        self.say(f"installing {self.vm.title}: what it says is in {PATHS.serial_log}")
        async with open_line(self.folder) as line:
            await line.answer(lines, patience_seconds=_PROMPT_SECONDS)
            await line.until_end(prompt=lines[-1].awaits, patience_seconds=_INSTALL_SECONDS)
        await machine.stop()
        installed = self.folder.file("installed.qcow2")
        self.folder.file(PATHS.disk).rename(installed)
        self._begin_with(installed)

    def finished(self) -> Path:
        """Return a folder with the disk as it is now and its keys; the machine must be off."""
        made = self.folder.file("made")
        made.mkdir(mode=0o700)
        words = ("qemu-img", "convert", "-O", "qcow2", PATHS.disk, f"made/{DISK}")
        run_tool(*words, folder=self.folder.path, timeout_seconds=_CONVERT_SECONDS)
        (made / DISK).chmod(0o400)
        for name in (HOST_KEY, CLIENT_KEY):
            for file in (name, f"{name}.pub"):
                self.folder.file(file).rename(made / file)
        return made


@dataclass(frozen=True, slots=True, kw_only=True)
class _FirstMachine(Machine):
    """A machine at its first boot: its first host key may be its own, and it is not finished."""

    first_boot: FirstBoot

    async def known_way(self) -> Node:
        """Return the way in, whose host key the guest's own serial line vouches for if need be."""
        if not self.first_boot.makes_own_host_key:
            return self.way_in()
        from orchestrator.nodes.ssh_dial import show_host_key  # noqa: PLC0415 -- see wiring

        way = self.way_in(user="root")
        shown = await show_host_key(replace(way, host_key=None))
        if shown.line == way.host_key:
            return way
        # The line is between QEMU and this process: nobody else can write to it.
        if shown.fingerprint not in self.folder.tail(PATHS.serial_log, _LOG_BYTES):
            raise LinkError(f"its serial line has not named the host key {shown.fingerprint}")
        return replace(way, host_key=shown.line)

    async def finish(self) -> None:
        """Return when it has its packages and the key that was made for it, and cargo runs."""
        if self.first_boot.says_ready:
            await self._until_ready()
        if self.first_boot.script is not None:
            self.say(f"{self.vm.name}: installing its packages, and the keys that it was made with")
            await self._do(await self.known_way(), self.first_boot.script)
            await self._re_keyed()
        said = await self._do(self.way_in(), CARGO_VERSION)
        self.say(f"{self.vm.name}: {said.strip()}")

    async def _re_keyed(self) -> None:
        """Return when its server shows the key that was made for it; raise NodeError without it."""
        from orchestrator.nodes.ssh_dial import show_host_key  # noqa: PLC0415 -- see wiring

        way = self.way_in()
        deadline = time.monotonic() + _RE_KEYED_SECONDS
        while True:
            shown = None
            # The server may be on its way up again.
            with suppress(LinkError):
                shown = await show_host_key(replace(way, host_key=None))
            if shown is not None and shown.line == way.host_key:
                return
            if time.monotonic() > deadline:
                raise NodeError(f"{self.vm.name} has not taken the host key that was made for it")
            await asyncio.sleep(_GLANCE_SECONDS)

    async def _until_ready(self) -> None:
        self.say(f"{self.vm.name} is up, and installs its packages")
        deadline = time.monotonic() + _PACKAGES_SECONDS
        while READY_LINE not in (said := self.folder.tail(PATHS.serial_log, _LOG_BYTES)):
            if not self.folder.is_running:
                raise NodeError(
                    f"{self.vm.name} has ended before it was finished{last_lines(said)}"
                )
            if time.monotonic() > deadline:
                raise NodeError(
                    f"{self.vm.name} did not finish within {_PACKAGES_SECONDS} s{last_lines(said)}"
                )
            await asyncio.sleep(_GLANCE_SECONDS)

    async def _do(self, way: Node, script: str) -> str:
        from orchestrator.nodes.ssh import SshConnections  # noqa: PLC0415 -- see wiring

        timeout = timedelta(seconds=_PACKAGES_SECONDS)
        async with SshConnections() as ssh, ssh.connect(way) as transport:
            ended = await run(transport, script, timeout=timeout)
        said = ended.stdout.decode(errors="replace")
        if ended.exit_status != 0:
            complained = said + ended.stderr.decode(errors="replace")
            raise NodeError(f"{self.vm.name} could not be finished{last_lines(complained)}")
        return said


_LOG_BYTES: Final = 4 << 20
_RE_KEYED_SECONDS: Final = 120
