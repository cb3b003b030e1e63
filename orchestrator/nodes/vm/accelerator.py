"""Which accelerator this machine really has for a guest: tried once by running it, remembered.

That /dev/kvm can be opened says little: below another hypervisor it may hang as soon as it is used.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orchestrator.core.vm import Accelerator
from orchestrator.core.vm_probe import PROBE_KERNELS, PROBE_SECONDS, probe_argv

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.core.vm import Vm

_KVM: Final = Path("/dev/kvm")


def choose_accelerator(vm: Vm, memory: Path, say: Callable[[str], None]) -> Accelerator:
    """Return the first accelerator of the definition that runs its guest here.

    `memory` is the file in which this machine's verdicts are kept. Where none is right, QEMU itself
    has to say why: the last one of the definition is returned.
    """
    for accelerator in vm.accelerators:
        # Emulation needs nothing of the machine.
        if accelerator is Accelerator.TCG or _works(vm, accelerator, memory=memory, say=say):
            return accelerator
    return vm.accelerators[-1]


def _works(vm: Vm, accelerator: Accelerator, *, memory: Path, say: Callable[[str], None]) -> bool:
    host = os.uname()
    # A CPU runs its own instructions only, and a host has the accelerator of its own kernel.
    if vm.arch.machine != {"arm64": "aarch64"}.get(host.machine, host.machine):
        return False
    if (accelerator is Accelerator.KVM) != (host.sysname == "Linux"):
        return False
    if accelerator is Accelerator.KVM and not os.access(_KVM, os.R_OK | os.W_OK):
        return False
    verdicts = _read(memory)
    # Another kernel may do better, and so may another CPU.
    key = " ".join((host.nodename, host.release, *probe_argv(vm, accelerator)))
    if key not in verdicts:
        say(f"trying whether {accelerator} works here: {PROBE_SECONDS} s at most")
        verdicts[key] = _runs(vm, accelerator)
        memory.parent.mkdir(parents=True, exist_ok=True)
        memory.write_text(json.dumps(verdicts, indent=2) + "\n", encoding="utf-8")
    return verdicts[key]


def _runs(vm: Vm, accelerator: Accelerator) -> bool:
    with tempfile.TemporaryDirectory(prefix="orchestrator-") as folder:
        program = PROBE_KERNELS.get(vm.arch)
        kernel = Path(folder) / "kernel"
        if program:
            kernel.write_bytes(program)
        words = probe_argv(vm, accelerator, kernel=str(kernel) if program else None)
        try:
            ended = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                timeout=PROBE_SECONDS,
            )
        except (subprocess.TimeoutExpired, FileNotFoundError):
            return False
        return ended.returncode == 0


def _read(memory: Path) -> dict[str, bool]:
    try:
        said = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    is_right = isinstance(said, dict) and all(isinstance(each, bool) for each in said.values())
    return dict(said) if is_right else {}
