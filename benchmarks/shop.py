"""An operator's folder with a store that has many releases in it, none of which was built."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orchestrator.core.result import Artifact
from orchestrator.core.target import TARGETS
from orchestrator.site import renew_derived
from orchestrator.stores.channel import publish_index
from orchestrator.stores.publish import publish_artifact
from orchestrator.wiring import Operator

if TYPE_CHECKING:
    from orchestrator.core.index import Row

ORCHESTRATOR: Final = Path(sys.executable).parent / "orchestrator"
# Of the fourteen targets that a build for everybody would have, those that need no OS release.
SEVEN: Final = tuple(triple for triple in TARGETS if "linux" in triple or "darwin" in triple)[:7]
_ARCHIVE_BYTES: Final = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """The folder; its inventory has seven local nodes."""

    folder: Path

    @property
    def store(self) -> Path:
        """The folder of the store."""
        return self.folder / "store"

    def command(self, *words: str) -> list[str]:
        """Return the words of a command of ours with this inventory."""
        return [str(ORCHESTRATOR), *words, "--inventory", str(self.folder / "nodes.yaml")]


def open_shop(folder: Path, *, versions: int) -> Shop:
    """Make the folder and publish so many versions for seven targets, in one index."""
    inventory = {
        "project": {"name": "tool", "binaries": ["tool"]},
        "publication": {
            "store": str(folder / "store"),
            "url": "https://example.org/tool",
            "signing": {"key": str(folder / "key")},
        },
        "nodes": [
            {
                "name": triple,
                "host": "local",
                "target": triple,
                "workdir": str(folder / "work" / triple),
                "build_command": "true",
                "binary_path": "/bin/tool",
            }
            for triple in SEVEN
        ],
    }
    shop = Shop(folder=folder)
    (folder / "nodes.yaml").write_text(json.dumps(inventory))
    subprocess.run(shop.command("keygen"), check=True, capture_output=True)
    asyncio.run(_publish(shop, versions))
    return shop


async def _publish(shop: Shop, versions: int) -> None:
    operator = Operator.at(str(shop.folder / "nodes.yaml"))
    outlet = operator.outlet_of("stable")
    rows: list[Row] = []
    for number in range(1, versions + 1):
        for triple in SEVEN:
            artifact = _artifact(shop.folder, triple, f"1.{number}.0")
            row = await publish_artifact(
                outlet.store, artifact, channel=outlet.channel, signer=outlet.signer, flat=False
            )
            rows.append(row)
    index = await publish_index(
        outlet.store, outlet.channel, rows, signer=outlet.signer, today=outlet.today()
    )
    await renew_derived(operator.inventory, outlet, index)


def _artifact(folder: Path, triple: str, version: str) -> Artifact:
    data = f"{version} {triple}".encode().ljust(_ARCHIVE_BYTES, b"x")
    path = folder / "staged.tar.gz"
    path.write_bytes(data)
    return Artifact(
        version=version,
        target=TARGETS[triple],
        os_release=None,
        path=path,
        size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        floors=(),
        binaries=(),
    )
