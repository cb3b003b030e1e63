"""Why a virtual machine did not come up, and what to do about it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from orchestrator.core.vm import Accelerator
from orchestrator.core.vm_symptoms import SYMPTOMS, Voice

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import timedelta

    from orchestrator.core.vm import Vm
    from orchestrator.core.vm_symptoms import Symptom


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known of a virtual machine that cannot be logged into.

    `monitor` is the status that QEMU's monitor tells, None if it does not answer. `qemu_log` is
    what QEMU said before it ended, None while it runs. `has_sent` says whether the guest has sent
    a packet, None if that is not known. `ssh` is what the last try to log in ended with.
    """

    serial: str
    monitor: str | None
    accelerator: Accelerator
    elapsed: timedelta
    qemu_log: str | None = None
    has_sent: bool | None = None
    ssh: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BootDiagnosis:
    """What is wrong, the line that says so if there is one, and what to do.

    `is_cpu` says that one more start with the cautious CPU may help; `is_passing` that one more
    start may, as it is.
    """

    name: str
    message: str
    hint: str
    said: str = ""
    is_cpu: bool = False
    is_passing: bool = False

    def __str__(self) -> str:
        return f"{self.message}: {self.said}" if self.said else self.message


def diagnose_boot(vm: Vm, evidence: Evidence) -> BootDiagnosis:
    """Return the likeliest reason; there is always one, if only that it is slow."""
    if evidence.qemu_log is not None:
        return _of_qemu(vm, evidence, evidence.qemu_log)
    if evidence.monitor in _STATES:
        return _STATES[evidence.monitor]
    lines = _lines(evidence.serial)
    if not lines:
        return _of_silence(evidence)
    return (
        _of_symptoms(vm, evidence, lines)
        or _of_login(evidence, lines)
        or _of_network(evidence, lines)
        or _of_time(evidence, lines)
    )


# What stands further up, the guest has survived.
_LINES: Final = 40
_SHOWN: Final = 200
_ESCAPES: Final = re.compile(r"\x1b(?:\[[0-9;?=]*[A-Za-z]|[()][A-Za-z0-9]|[A-Za-z=>])")
_LOGIN: Final = re.compile(r"(?:^|\s)login:\s*$")
_DISCOVERS: Final = re.compile(
    r"DHCPDISCOVER|dhcpcd.*soliciting|no lease|no DHCP|DHCP.*timed out", re.IGNORECASE
)
_LEASE: Final = re.compile(
    r"bound to|DHCPACK|leased \d|lease accepted|adding route|inet 10\.0\.2\.", re.IGNORECASE
)

_STATES: Final = {
    "io-error": BootDiagnosis(
        name="io error",
        message="QEMU has stopped it, because this host cannot write its disk",
        hint="the host's disk is full or broken: make room, then start it again",
    ),
    "internal-error": BootDiagnosis(
        name="internal error",
        message="QEMU has stopped it: the accelerator cannot go on",
        hint="let it be translated: accelerators: [tcg]",
        is_cpu=True,
    ),
    "guest-panicked": BootDiagnosis(
        name="panic",
        message="its kernel panicked",
        hint="its serial log says where",
        is_cpu=True,
    ),
    "prelaunch": BootDiagnosis(
        name="paused",
        message="QEMU waits for somebody to let it run",
        hint="stop it, and start it again",
        is_passing=True,
    ),
    "paused": BootDiagnosis(
        name="paused",
        message="somebody has paused it",
        hint="stop it, and start it again",
        is_passing=True,
    ),
    "shutdown": BootDiagnosis(
        name="ended",
        message="the guest has switched itself off",
        hint="its serial log says why",
    ),
}


def _lines(text: str) -> list[str]:
    plain = _ESCAPES.sub("", text).replace("\r", "\n")
    shown = (
        "".join(each if each.isprintable() else " " for each in line) for line in plain.split("\n")
    )
    return [line.strip() for line in shown if line.strip()][-_LINES:]


def _of_qemu(vm: Vm, evidence: Evidence, log: str) -> BootDiagnosis:
    lines = _lines(log)
    found = _find(vm, evidence, ((Voice.QEMU, lines),))
    # A guest that panics may end QEMU, too.
    found = found or _of_symptoms(vm, evidence, _lines(evidence.serial))
    if found:
        return found
    return BootDiagnosis(
        name="qemu ended",
        message="its QEMU has ended",
        hint="its messages and the serial log say why",
        said=_cut(lines[-1]) if lines else "",
        is_cpu=evidence.accelerator is not Accelerator.TCG,
    )


def _of_silence(evidence: Evidence) -> BootDiagnosis:
    if evidence.monitor is None:
        return BootDiagnosis(
            name="never started",
            message="it never started: its serial line is silent, and so is QEMU's monitor",
            hint=_OTHER_ACCELERATOR[evidence.accelerator is Accelerator.TCG],
            is_passing=True,
        )
    return BootDiagnosis(
        name="silent",
        message="QEMU runs, and the guest has not said a word on its serial line",
        hint=_OTHER_ACCELERATOR[evidence.accelerator is Accelerator.TCG],
        is_cpu=True,
    )


_OTHER_ACCELERATOR: Final = {
    True: "its firmware, or its console, is not on the serial line: look at it with a screen",
    False: "the accelerator can be opened and hangs all the same: accelerators: [tcg]",
}


def _of_symptoms(vm: Vm, evidence: Evidence, lines: Sequence[str]) -> BootDiagnosis | None:
    return _find(vm, evidence, ((Voice.LAST, lines[-1:]), (Voice.SERIAL, lines)))


def _find(
    vm: Vm, evidence: Evidence, voices: Iterable[tuple[Voice, Sequence[str]]]
) -> BootDiagnosis | None:
    heard = dict(voices)
    for symptom in SYMPTOMS:
        if not _is_for(symptom, vm, evidence):
            continue
        for line in heard.get(symptom.voice, ()):
            if symptom.pattern.search(line):
                return BootDiagnosis(
                    name=symptom.name,
                    message=symptom.message,
                    hint=symptom.hint,
                    said=_cut(line),
                    is_cpu=symptom.is_cpu,
                    is_passing=symptom.is_passing,
                )
    return None


def _is_for(symptom: Symptom, vm: Vm, evidence: Evidence) -> bool:
    return (
        symptom.guest in {None, vm.guest}
        and symptom.arch in {None, vm.arch}
        and symptom.accelerator in {None, evidence.accelerator}
    )


def _of_login(evidence: Evidence, lines: Sequence[str]) -> BootDiagnosis | None:
    """Why it cannot be logged into although it is up."""
    ssh = evidence.ssh.lower()
    if "host key" in ssh:
        return BootDiagnosis(
            name="host key",
            message="it has another host key than the one that was made for it",
            hint="its first boot did not read its seed: make it anew",
            said=_cut(evidence.ssh),
        )
    if "permission denied" in ssh or "auth" in ssh:
        return BootDiagnosis(
            name="key refused",
            message="its SSH server refuses the key that was made for it",
            hint="its first boot did not read its seed, or has no such user: make it anew",
            said=_cut(evidence.ssh),
        )
    if not _LOGIN.search(lines[-1]):
        return None
    if evidence.has_sent is False:
        return BootDiagnosis(
            name="no network",
            message="it is up, and has not sent a single packet",
            hint="it has no driver for its network device, or does not configure it: log in on its "
            "console with `vm console`",
        )
    return BootDiagnosis(
        name="no ssh",
        message="it is up, and its SSH server does not answer",
        hint="log in on its console with `vm console`: does sshd run, and does it have an address?",
        said=_cut(evidence.ssh),
    )


def _of_network(evidence: Evidence, lines: Sequence[str]) -> BootDiagnosis | None:
    asked = [line for line in lines if _DISCOVERS.search(line)]
    if not asked or any(_LEASE.search(line) for line in lines):
        return None
    return BootDiagnosis(
        name="no dhcp",
        message="it asks for an address and gets none",
        hint="QEMU's own network answers at once: its network device loses packets, so start it "
        "again, or give it the static address 10.0.2.15/24 with the router 10.0.2.2",
        said=_cut(asked[-1]),
        is_passing=evidence.has_sent is not False,
    )


def _of_time(evidence: Evidence, lines: Sequence[str]) -> BootDiagnosis:
    is_translated = evidence.accelerator is Accelerator.TCG
    slow = "; it is translated, which takes twenty times as long" if is_translated else ""
    return BootDiagnosis(
        name="slow",
        message=f"it has not come up in {evidence.elapsed.total_seconds():.0f} s{slow}",
        hint="raise `boot_timeout` if its serial log still grows, else look at its last line",
        said=_cut(lines[-1]),
    )


def _cut(line: str) -> str:
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."
