"""install.sh and its signature, as a reader has them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from orchestrator.core.verification import INSTALLER, Verdict, unknown
from orchestrator.stores.channel import TEXT_LIMIT
from orchestrator.stores.installer import (
    INSTALL_SIGNATURE,
    SIGNATURE_LIMIT,
    copy_name,
    signature_name,
)
from orchestrator.stores.pointers import INSTALL_SCRIPT

if TYPE_CHECKING:
    from orchestrator.core.verification import Check
    from orchestrator.verification.judge import Judge
    from orchestrator.verification.release import Found, Reader

# Between the two writes of whoever publishes.
_PAUSES: Final = (0.1, 1.0)


async def check_installer(read: Reader, judge: Judge) -> list[Check]:
    """Return whether the install.sh of a store is signed; nothing if there is none.

    What is being replaced is looked at again.
    """
    return (await read_installer(read, judge))[2]


async def read_installer(read: Reader, judge: Judge) -> tuple[Found, Found, list[Check]]:
    """Return the install.sh of a store, its signature, and what was found; see above."""
    for pause in _PAUSES:
        found = await _read_installer(read, judge)
        if all(check.verdict is not Verdict.WRONG for check in found[2]):
            return found
        await asyncio.sleep(pause)
    return await _read_installer(read, judge)


async def _read_installer(read: Reader, judge: Judge) -> tuple[Found, Found, list[Check]]:
    script, signature = await asyncio.gather(
        read(INSTALL_SCRIPT, limit_bytes=TEXT_LIMIT),
        read(INSTALL_SIGNATURE, limit_bytes=SIGNATURE_LIMIT),
    )
    checks = [*script.checks, *signature.checks]
    if script.data is not None and not signature.checks:
        checks.append(judge.installer(INSTALL_SCRIPT, script.data, signature.data))
    return script, signature, checks


async def check_copy(read: Reader, judge: Judge, version: str) -> list[Check]:
    """Return whether the install.sh of a version is signed; nothing if there is none."""
    name = copy_name(version)

    async def signature() -> Found:
        return await read(signature_name(name), limit_bytes=SIGNATURE_LIMIT)

    # In this order: it is written after its signature.
    script = await read(name, limit_bytes=TEXT_LIMIT)
    if script.data is not None:
        found = await signature()
        checks = [*script.checks, *found.checks]
        return [*checks, judge.installer_copy(name, script.data, found.data)]
    if not script.checks and (await signature()).data is not None:
        told = f"only its signature is there: `orchestrator release --version {version}` goes on"
        return [unknown(name, INSTALLER, told)]
    return list(script.checks)
