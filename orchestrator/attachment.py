"""The last step of a release, if asked for: its archives as assets of a GitHub release.

They are read from the store, where the index says what they are, and attached to a draft, which is
published last and only when it is whole. Nothing that happens here undoes what is published.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from orchestrator.core.archive import sha256_line
from orchestrator.core.attachment import (
    Attachment,
    AttachmentState,
    asset_name,
    attachable_rows,
    missing_targets,
)
from orchestrator.core.errors import StoreError
from orchestrator.core.signature import Signatures, artifact_namespace
from orchestrator.core.wording import install_command
from orchestrator.github.api import UncertainError
from orchestrator.github.releases import ImmutableError, NewRelease
from orchestrator.stores.channel import keys_ever
from orchestrator.stores.store import ObjectKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from orchestrator.core.index import Index, Row
    from orchestrator.core.inventory import Node
    from orchestrator.core.plan import BuildPlan
    from orchestrator.github.releases import Asset, Release, Releases
    from orchestrator.world import Outlet


async def attach_release(
    plan: BuildPlan, outlet: Outlet | None, index: Index | None
) -> Attachment | None:
    """Attach what is published of the plan's version; None if nothing is, or nobody asked for it.

    What goes wrong is an attachment that failed, not an exception: the release in the store stands.
    """
    keys = plan.inventory.publication.github
    if keys is None or outlet is None or outlet.releases is None or index is None:
        return None
    rows = attachable_rows(index.rows, plan.version)
    if not rows:
        return None
    tag = keys.tag.replace("{version}", str(plan.version))
    try:
        release = await _find_or_draft(plan, outlet, outlet.releases, tag=tag)
        work = _Attaching(releases=outlet.releases, release=release)
        return await _attach(plan.inventory.nodes, outlet, work, rows=rows)
    except StoreError as error:
        return Attachment(state=AttachmentState.FAILED, message=error.message, hint=error.hint)


async def _find_or_draft(
    plan: BuildPlan, outlet: Outlet, releases: Releases, *, tag: str
) -> Release:
    release = await releases.find(tag)
    if release and not release.is_draft:
        return release
    if not await releases.has_tag(tag):
        # Published without one, the release would get a tag of whatever the default branch has.
        raise StoreError(
            f"{releases.api.repository} has no tag {tag} on GitHub",
            hint="push the tag, then run the same command again; or see `publication.github.tag`",
        )
    text = f"Install it with\n\n    {install_command(outlet.url)}\n" if outlet.url else ""
    return release or await releases.create_draft(
        NewRelease(
            tag=tag,
            name=f"{plan.inventory.project.name} {plan.version}",
            text=text,
            is_prerelease=plan.version.is_prerelease,
        )
    )


async def _attach(
    nodes: Iterable[Node], outlet: Outlet, work: _Attaching, *, rows: Sequence[Row]
) -> Attachment:
    url = work.release.page_url
    await work.look()
    try:
        for row in rows:
            build = _Build(outlet, row)
            for file in await build.files():
                await work.ensure(build, file)
    except ImmutableError as error:
        return Attachment(state=AttachmentState.SKIPPED, url=url, message=error.message)
    if not work.release.is_draft:
        return Attachment(state=AttachmentState.PUBLISHED, url=url)
    missing = missing_targets(nodes, rows)
    if missing:
        waits = f"it is a draft until there is a build for {', '.join(missing)}"
        return Attachment(state=AttachmentState.DRAFT, url=url, message=waits)
    return Attachment(state=AttachmentState.PUBLISHED, url=(await work.publish()).page_url)


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    name: str
    kind: ObjectKind
    size_bytes: int
    sha256: str


class _Build:
    """An archive in the store and what lies beside it; nothing is handed out unverified."""

    def __init__(self, outlet: Outlet, row: Row) -> None:
        self._outlet = outlet
        self._row = row
        self._path = row.path or ""
        self._sides: dict[str, bytes] = {}
        self._archive: bytes | None = None

    async def files(self) -> tuple[_File, ...]:
        """Return what is to be attached, the archive first."""
        row, file_name = self._row, self._path.rpartition("/")[2]
        self._sides = {
            "sha256": sha256_line(row.sha256 or "", file_name).encode(),
            "minisig": await self._read(f"{self._path}.minisig", _SIGNATURE_LIMIT),
            "sshsig": await self._read(f"{self._path}.sshsig", _SIGNATURE_LIMIT),
        }
        archive = _File(
            name=asset_name(file_name),
            kind=ObjectKind.ARCHIVE,
            size_bytes=row.size_bytes or 0,
            sha256=row.sha256 or "",
        )
        return (
            archive,
            *(
                _File(
                    name=asset_name(f"{file_name}.{end}"),
                    kind=ObjectKind.TEXT,
                    size_bytes=len(data),
                    sha256=hashlib.sha256(data).hexdigest(),
                )
                for end, data in self._sides.items()
            ),
        )

    async def load(self, file: _File) -> bytes:
        """Return the bytes of one of the files; StoreError unless all of them belong together."""
        if self._archive is None:
            self._archive = await self._verified()
        if file.kind is ObjectKind.ARCHIVE:
            return self._archive
        return self._sides[file.name.rpartition(".")[2]]

    async def _verified(self) -> bytes:
        data = await self._read(self._path, self._row.size_bytes or 0)
        digest = await asyncio.to_thread(lambda: hashlib.sha256(data).hexdigest())
        if digest != self._row.sha256:
            raise StoreError(
                f"{self._path} in {self._outlet.store.describe()} is not what the index says",
                hint="nothing of it was attached: find out who wrote it",
            )
        channel = self._outlet.channel
        # The index names it, so a key that is revoked by now may have signed it.
        keys = await keys_ever(self._outlet.store, channel)
        signatures = Signatures(
            sshsig=_text(self._sides["sshsig"]), minisig=_text(self._sides["minisig"])
        )
        await asyncio.to_thread(
            channel.verify,
            data,
            signatures,
            keys=keys,
            namespace=artifact_namespace(channel.project),
        )
        return data

    async def _read(self, name: str, limit_bytes: int) -> bytes:
        stored = await self._outlet.store.read(name, limit_bytes=limit_bytes)
        if stored is None:
            raise StoreError(
                f"{name} is not in {self._outlet.store.describe()}",
                hint="the index names it: find out who took it away",
            )
        return stored.data


_SIGNATURE_LIMIT: Final = 4096
# A name that is taken, an upload that broke off, one more to see that it is there.
_ATTEMPTS: Final = 5


def _text(data: bytes) -> str:
    return data.decode("ascii", errors="replace")


@dataclass(slots=True, kw_only=True)
class _Attaching:
    """One release with the assets that it is known to have."""

    releases: Releases
    release: Release
    assets: Mapping[str, Asset] = field(default_factory=dict)
    wanted: list[_File] = field(default_factory=list)

    async def look(self) -> None:
        """Find out which assets the release has now."""
        self.assets = await self.releases.list_assets(self.release)

    async def ensure(self, build: _Build, file: _File) -> None:
        """Return once the release has this file, whoever attached it."""
        self.wanted.append(file)
        for attempt in range(_ATTEMPTS):
            if self._has(file):
                return
            try:
                await self._try(build, file)
            except UncertainError:
                if attempt == _ATTEMPTS - 1:
                    raise
                await self.releases.api.pause(float(2**attempt))
                self.release = await self.releases.read(self.release)
                await self.look()
        raise StoreError(
            f"the GitHub release of {self.release.tag} has no whole {file.name} after all",
            hint="does another coordinator attach it now? run the same command again",
        )

    async def publish(self) -> Release:
        """Return the draft, published; StoreError unless it has every file now."""
        await self.look()
        missing = [file.name for file in self.wanted if not self._has(file)]
        if missing:
            raise StoreError(
                f"the GitHub release of {self.release.tag} has lost {', '.join(missing)}",
                hint="it is still a draft; run the same command again",
            )
        # Whoever attaches the same at the same time may have published it by now.
        self.release = await self.releases.read(self.release)
        return await self.releases.publish(self.release) if self.release.is_draft else self.release

    async def _try(self, build: _Build, file: _File) -> None:
        if self.release.is_immutable:
            raise ImmutableError(
                f"it is immutable and has no {file.name}: nothing can be attached to it any more"
            )
        broken = self.assets.get(file.name)
        if broken:
            await self.releases.delete_asset(broken)
        data = await build.load(file)
        made = await self.releases.upload(
            self.release, file.name, data, content_type=file.kind.content_type
        )
        if made:
            self.assets = {**self.assets, made.name: made}
        else:
            await self.look()

    def _has(self, file: _File) -> bool:
        asset = self.assets.get(file.name)
        if asset is None or not asset.is_whole:
            return False
        if (asset.size_bytes, asset.sha256 or file.sha256) != (file.size_bytes, file.sha256):
            raise StoreError(
                f"the GitHub release of {self.release.tag} has other bytes as {file.name}",
                hint="nothing was changed: find out who attached it, and delete it there",
            )
        return True
