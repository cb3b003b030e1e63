"""Which accelerator this machine really has for a guest: tried once by running it, remembered.

That /dev/kvm can be opened says little: below another hypervisor it may hang as soon as it is used.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from orchestrator.core.vm import Accelerator
from orchestrator.core.vm_probe import PROBE_KERNELS, PROBE_SECONDS, probe_argv

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.core.vm import Vm

_KVM: Final = Path("/dev/kvm")
_FAILED_FOR_SECONDS: Final = 24 * 3600


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
    now = time.time()
    verdict = verdicts.get(key)
    if verdict is None or not verdict.holds_at(now):
        say(f"trying whether {accelerator} works here: {PROBE_SECONDS} s at most")
        verdict = verdicts[key] = _Verdict(_runs(vm, accelerator), now)
        memory.parent.mkdir(parents=True, exist_ok=True)
        memory.write_text(json.dumps(verdicts, indent=2) + "\n", encoding="utf-8")
    return verdict.works


class _Verdict(NamedTuple):
    """Whether an accelerator worked, and when that was seen, in seconds since 1970."""

    works: bool
    at: float

    def holds_at(self, now: float) -> bool:
        """Whether it is believed: a host that was merely busy is not written off for good."""
        return self.works or 0 <= now - self.at < _FAILED_FOR_SECONDS


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


def _read(memory: Path) -> dict[str, _Verdict]:
    """Return what is remembered; what is damaged, or of an older version, is not."""
    try:
        said = json.loads(memory.read_text(encoding="utf-8"))
        return {key: _Verdict(bool(works), float(at)) for key, (works, at) in said.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
