"""Debian's golden images: made of packages, kept by their recipe's digest, never written to."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import ConfigError, NodeError
from orchestrator.core.kinds import Bytes
from orchestrator.core.vm import Accelerator, PackagesImage, VmArch, VmPaths
from orchestrator.core.vm_argv import qemu_argv
from orchestrator.nodes.vm.initramfs import make_initramfs
from orchestrator.nodes.vm.leftovers import clear_parts, part_prefix
from orchestrator.nodes.vm.lock import locked
from orchestrator.nodes.vm.tools import free_port, require_tools, run_tool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from importlib.resources.abc import Traversable

    from orchestrator.core.vm import Vm

DISK: Final = "golden.qcow2"
KERNEL: Final = "kernel"
INITRD: Final = "initrd"
_RECORD: Final = "image.json"
# Counted up when what is made changes otherwise than by a file of `debian`.
_RECIPE: Final = 1
_MAKING_SECONDS: Final = 30 * 60
_FINISHING_MEMORY: Final = Bytes(2 * 2**30)


@dataclass(frozen=True, slots=True, kw_only=True)
class DebianRecipe:
    """What a golden image depends on, beside the packages of the day on which it is made."""

    suite: str
    arch: VmArch
    packages: tuple[str, ...] = ()

    @classmethod
    def of(cls, vm: Vm) -> DebianRecipe:
        """Return the recipe of a definition's image; raise ConfigError if it is not of packages."""
        if not isinstance(vm.image, PackagesImage):
            raise ConfigError(f"{vm.name} is not made of Debian's packages")
        return cls(suite=vm.image.suite, arch=vm.arch, packages=tuple(sorted(vm.packages)))

    @property
    def name(self) -> str:
        """The name of its folder: what it is, and a digest of all that it is made from."""
        digest = hashlib.sha256(f"{_RECIPE} {self.packages}".encode())
        for path, data in _sources():
            digest.update(f"\n{path} {len(data)}\n".encode() + data)
        return f"debian-{self.suite}-{self.arch}-{digest.hexdigest()[:16]}"


def make_image(vm: Vm, images: Path, say: Callable[[str], None]) -> Path:
    """Return the folder of a definition's golden image, made now if it is not there.

    It holds DISK, KERNEL and INITRD. Raise ConfigError if a tool is missing, NodeError if the
    packages cannot be had or the image cannot be finished; nothing half-made is left.
    """
    recipe = DebianRecipe.of(vm)
    folder = images / recipe.name
    if (folder / _RECORD).exists():
        return folder
    images.mkdir(parents=True, exist_ok=True)
    # Two who need the same image make it once.
    with locked(images / f".{recipe.name}.lock", say):
        if not (folder / _RECORD).exists():
            clear_parts(images, recipe.name)
            prefix = part_prefix(recipe.name)
            with tempfile.TemporaryDirectory(dir=images, prefix=prefix) as scratch:
                _make(vm, Path(scratch), say)
                shutil.rmtree(folder, ignore_errors=True)
                (Path(scratch) / "image").rename(folder)
    return folder


def _make(vm: Vm, scratch: Path, say: Callable[[str], None]) -> None:
    recipe = DebianRecipe.of(vm)
    require_tools("mmdebstrap", "mke2fs", "qemu-img", vm.arch.qemu)
    is_foreign = recipe.arch.machine != os.uname().machine
    say(f"making Debian {recipe.suite} for {recipe.arch} from packages: a minute or two")
    _lay_out(scratch, is_foreign=is_foreign)
    _make_root(recipe, scratch, mirror=_mirror(vm), is_foreign=is_foreign)
    out, image = scratch / "out", scratch / "image"
    image.mkdir()
    (out / "vmlinuz").rename(image / KERNEL)
    initrd = make_initramfs(
        busybox=(out / "busybox").read_bytes(),
        modules=(out / "modules.tar").read_bytes(),
        init=(_folder() / "init").read_bytes(),
    )
    (image / INITRD).write_bytes(initrd)
    run_tool(
        *("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "out/root.img", f"image/{DISK}"),
        folder=scratch,
        timeout_seconds=_MAKING_SECONDS,
    )
    if is_foreign:
        say(f"finishing it inside of an emulated {recipe.arch} machine: ten minutes or more")
        _finish(vm, image)
    record = {
        "suite": recipe.suite,
        "arch": recipe.arch,
        "packages": recipe.packages,
        "sha256": {name: _sha256(image / name) for name in (DISK, KERNEL, INITRD)},
    }
    for name in (DISK, KERNEL, INITRD):
        (image / name).chmod(0o444)
    (image / _RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _lay_out(scratch: Path, *, is_foreign: bool) -> None:
    """Write what is laid over the root, with the modes that it has there."""
    (scratch / "out").mkdir()
    for path, data in _sources():
        if path.startswith("root/"):
            laid = scratch / "files" / path.removeprefix("root/")
            laid.parent.mkdir(parents=True, exist_ok=True)
            laid.write_bytes(data)
    if is_foreign:
        (scratch / "files/etc/orchestrator/unfinished").touch()
    for each in (scratch, *scratch.rglob("*")):
        each.chmod(0o755 if each.is_dir() else 0o644)


def _make_root(recipe: DebianRecipe, scratch: Path, *, mirror: str, is_foreign: bool) -> None:
    script = [
        *("/bin/sh", "-s", "root" if os.geteuid() == 0 else "unshare"),
        *("extract" if is_foreign else "essential", recipe.suite, recipe.arch, mirror),
        "".join(f",{package}" for package in recipe.packages),
    ]
    # Whoever is root shares his mounts with the machine: those that are made on the way are not.
    alone = ["unshare", "--mount", "--propagation=private"] if os.geteuid() == 0 else []
    hook = (_folder() / "make_image.sh").read_text(encoding="utf-8")
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/bin:/bin"
    run_tool(
        *alone,
        *script,
        folder=scratch,
        stdin=(_folder() / "make_root.sh").read_bytes(),
        environment={**os.environ, "HOOK": hook, "PATH": path},
        timeout_seconds=_MAKING_SECONDS,
    )


def _finish(vm: Vm, image: Path) -> None:
    """Run the machine until it has installed what was only unpacked, and has switched itself off.

    Not with qemu-user, which would need a change of this machine's kernel settings (binfmt_misc).
    """
    serial = image / "serial.log"
    # Not with the machine's own port: it may be running, with an older image.
    machine = replace(vm, ssh_port=free_port(), memory_bytes=_FINISHING_MEMORY, offline=True)
    paths = VmPaths(disk=DISK, kernel=KERNEL, initrd=INITRD, serial_log=serial.name)
    run_tool(
        *qemu_argv(machine, paths, Accelerator.TCG),
        folder=image,
        timeout_seconds=_MAKING_SECONDS * 2,
    )
    said = serial.read_text(encoding="utf-8", errors="replace")
    if "FINISHED" not in said.splitlines()[-20:]:
        lines = "\n  ".join(said.splitlines()[-10:])
        raise NodeError(f"the image of {vm.name} could not be finished:\n  {lines}")
    for path in image.iterdir():
        if path.name not in {DISK, KERNEL, INITRD}:
            path.unlink()


def _mirror(vm: Vm) -> str:
    """Return where the packages are: what the definition says, or apt of a Debian host."""
    if isinstance(vm.image, PackagesImage) and vm.image.mirror:
        return vm.image.mirror
    form = "$(LABEL) $(REPO_URI)"
    words = ["apt-get", "indextargets", "--format", form, "Created-By: Packages"]
    told = ""
    with suppress(FileNotFoundError):
        told = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    mirrors = [line.split()[1] for line in told.splitlines() if line.startswith("Debian ")]
    if not mirrors:
        raise ConfigError(
            f"{vm.name} is made from Debian's packages, and this host's come from elsewhere",
            hint=f"say where they are: `image: mirror:` in vms/{vm.name}/vm.yaml",
        )
    return mirrors[0]


def _folder() -> Traversable:
    return resources.files("orchestrator.nodes.vm") / "debian"


def _sources() -> Iterator[tuple[str, bytes]]:
    """Yield the files that the image is made from, in order of their paths."""
    yield from sorted(_walk(_folder(), ""))


def _walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _walk(entry, f"{prefix}{entry.name}/")
        else:
            yield f"{prefix}{entry.name}", entry.read_bytes()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
