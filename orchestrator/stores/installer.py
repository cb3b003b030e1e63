"""install.sh and its signature: those that follow from the index, and those of one version.

Nothing is signed that was not rendered here: whoever can write to the store could have put
something else there.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import StoreError
from orchestrator.core.signature import installer_namespace
from orchestrator.stores.pointers import INSTALL_SCRIPT, Pointer
from orchestrator.stores.store import ObjectKind, TakenError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.core.signature import PublicKey, Signer, SshVerifier
    from orchestrator.stores.store import ReleaseStore

INSTALL_SIGNATURE: Final = f"{INSTALL_SCRIPT}.sig"
SIGNATURE_LIMIT: Final = 16 * 1024


def copy_name(version: str) -> str:
    """Return the name of the script that installs this version unless told otherwise."""
    return f"releases/{version}/{INSTALL_SCRIPT}"


def is_copy(name: str) -> bool:
    """Return whether it is the name of some version's own script."""
    return name == copy_name(name.split("/")[1]) if name.startswith("releases/") else False


def signature_name(script: str) -> str:
    """Return the name of the signature of a script of that name."""
    return f"{script}.sig"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptSigner:
    """Who signs the scripts of a project, and whose signatures of them are as good."""

    project: str
    signer: Signer
    keys: Sequence[PublicKey]
    verify: SshVerifier

    async def sign(self, script: bytes) -> bytes:
        """Return a new signature."""
        return await sign_script(script, self.signer, self.project)

    def is_good(self, script: bytes, signature: bytes) -> bool:
        """Return whether one of the keys has signed the script."""
        namespace = installer_namespace(self.project)
        try:
            # What is not ASCII is no signature: a replaced byte makes it none of the right form.
            text = signature.decode("ascii", "replace")
            self.verify(script, text, keys=self.keys, namespace=namespace)
        except StoreError:
            return False
        return True


async def sign_script(script: bytes, signer: Signer, project: str) -> bytes:
    """Return a signature of a script; whoever holds the key may ask a person for it."""
    namespace = installer_namespace(project)
    signature = await asyncio.to_thread(signer.sign_ssh, script, namespace=namespace)
    return signature.encode()


async def signature_pointer(store: ReleaseStore, script: bytes, by: ScriptSigner) -> Pointer:
    """Return install.sh.sig for this install.sh: the one that is there, if it is good."""
    stored = await store.read(INSTALL_SIGNATURE, limit_bytes=SIGNATURE_LIMIT)
    if stored and by.is_good(script, stored.data):
        signature = stored.data
    else:
        signature = await by.sign(script)
    return Pointer(INSTALL_SIGNATURE, signature, ObjectKind.SIGNATURE)


async def publish_copy(store: ReleaseStore, name: str, script: bytes, *, by: ScriptSigner) -> None:
    """Write a version's own script and its signature, for good, unless somebody else has.

    The signature is first, so that a script never stands there without its own. Other bytes of
    another coordinator are as good, and stay; a signature that is not of these bytes is a sign that
    they are being written, or that their writer died.
    """
    if await store.stat(name):
        return
    signature = await by.sign(script)
    try:
        await store.create(signature_name(name), signature, ObjectKind.TEXT)
    except TakenError:
        stored = await store.read(signature_name(name), limit_bytes=SIGNATURE_LIMIT)
        if stored is None or not by.is_good(script, stored.data):
            return
    try:
        await store.create(name, script, ObjectKind.TEXT)
    except TakenError:
        # Planted in this moment: who wrote the signature alone writes the script.
        return
