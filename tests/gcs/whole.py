"""Whether what is published is whole: read back and verified, object by object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from orchestrator import signing
from orchestrator.core.index import Status
from orchestrator.core.signature import Signatures, artifact_namespace, installer_namespace
from orchestrator.stores.channel import read_index

if TYPE_CHECKING:
    from orchestrator.core.index import Index
    from orchestrator.stores.channel import Channel
    from orchestrator.stores.store import ReleaseStore

_LIMIT: Final = 64 * 1024 * 1024


async def whole_index(store: ReleaseStore, channel: Channel) -> Index | None:
    """Return the index, if it is signed and everything that it names is there and is signed.

    So is the script of each version that has one, at every moment.
    """
    index = await read_index(store, channel)
    for row in index.rows if index else ():
        if row.status is Status.PENDING:
            continue
        assert row.path
        data = await _bytes(store, row.path)
        found = await store.stat(row.path)
        assert found
        assert (found.size_bytes, found.sha256) == (row.size_bytes, row.sha256)
        checksum = (await _bytes(store, f"{row.path}.sha256")).decode()
        assert checksum == f"{row.sha256}  {row.path.rpartition('/')[2]}\n"
        signatures = Signatures(
            sshsig=(await _bytes(store, f"{row.path}.sshsig")).decode(),
            minisig=(await _bytes(store, f"{row.path}.minisig")).decode(),
        )
        namespace = artifact_namespace(channel.project)
        signing.verify(data, signatures, keys=channel.keys, namespace=namespace)
    for name in await store.list("releases/"):
        if name.endswith("/install.sh"):
            await assert_signed(store, name, channel)
    return index


async def assert_signed(store: ReleaseStore, script: str, channel: Channel) -> None:
    """Fail unless an install.sh is there, and signed."""
    data, sshsig = await _bytes(store, script), await _bytes(store, f"{script}.sig")
    namespace = installer_namespace(channel.project)
    signing.verify_sshsig(data, sshsig.decode(), keys=channel.keys, namespace=namespace)


async def assert_complete(store: ReleaseStore, channel: Channel) -> Index:
    """Return the index; fail unless the last release is finished and nothing is left over."""
    index = await whole_index(store, channel)
    assert index
    explained = {row.path.rpartition("/")[0] for row in index.rows if row.path}
    explained |= {f"releases/{row.version}" for row in index.rows}
    orphans = [
        name for name in await store.list("releases/") if name.rpartition("/")[0] not in explained
    ]
    assert orphans == []
    kept = await store.list(f"index/{channel.name}/")
    assert {channel.history_name(serial) for serial in range(1, index.serial + 1)} == {*kept}
    newest = await _bytes(store, channel.history_name(index.serial))
    assert newest == await _bytes(store, channel.index_name)
    return index


async def _bytes(store: ReleaseStore, name: str) -> bytes:
    found = await store.read(name, limit_bytes=_LIMIT)
    assert found, name
    return found.data
