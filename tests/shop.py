"""An operator with a store that has releases in it, without anything having been built."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from orchestrator.cli import main
from orchestrator.core.index import Index, parse_index, split_signed
from orchestrator.core.target import parse_target
from orchestrator.core.version import parse_version
from orchestrator.signing import generate_key
from orchestrator.site import renew_derived
from orchestrator.stores.channel import publish_index
from orchestrator.stores.publish import pending_rows, publish_artifact
from orchestrator.wiring import Operator
from tests.fakes import make_artifact

if TYPE_CHECKING:
    from datetime import timedelta
    from pathlib import Path

    import pytest

LINUX: Final = "x86_64-unknown-linux-gnu"
NETBSD: Final = "x86_64-unknown-netbsd"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)


@dataclass(slots=True, kw_only=True)
class Shop:
    """A folder with an inventory, a key and a store."""

    folder: Path
    # Without it, what commands print is shown.
    capsys: pytest.CaptureFixture[str] | None = None
    publication: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.write()
        if not (self.folder / "key").exists():
            generate_key(self.folder / "key", passphrase=None)

    def write(self) -> None:
        data = {
            "project": {"name": "demo", "binaries": ["demo"]},
            "publication": {
                "store": str(self.store),
                "url": "https://example.org/demo",
                "signing": {"key": str(self.folder / "key")},
                **self.publication,
            },
            "nodes": [
                {
                    "name": "a",
                    "host": "local",
                    "target": LINUX,
                    "build_command": "true",
                    "binary_path": "/bin/demo",
                }
            ],
        }
        (self.folder / "nodes.yaml").write_text(json.dumps(data))

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def operator(self) -> Operator:
        return Operator.at(str(self.folder / "nodes.yaml"))

    def publish(
        self,
        version: str,
        *targets: str,
        channel: str = "stable",
        pending: tuple[str, ...] = (),
        ago: timedelta | None = None,
    ) -> None:
        """Publish a version as a release does; `ago` is how old its index is."""
        outlet = self.operator.outlet_of(channel)
        today = datetime.now(UTC).date() - ago if ago else outlet.today()

        async def publish() -> None:
            rows = [
                await publish_artifact(
                    outlet.store,
                    make_artifact(self.folder / "staging", target, version),
                    channel=outlet.channel,
                    signer=outlet.signer,
                    flat=False,
                )
                for target in targets
            ]
            rows += pending_rows(parse_version(version), map(parse_target, pending))
            index = await publish_index(
                outlet.store, outlet.channel, rows, signer=outlet.signer, today=today
            )
            await renew_derived(self.operator.inventory, outlet, index)

        asyncio.run(publish())

    def index(self, channel: str = "stable") -> Index:
        return parse_index(split_signed((self.store / f"{channel}.idx").read_text())[0])

    def rows(self, channel: str = "stable") -> list[str]:
        return [f"{row.version} {row.target} {row.status}" for row in self.index(channel).rows]

    def run(self, command: str, *arguments: str) -> Answer:
        argv = [command, "--inventory", str(self.folder / "nodes.yaml"), *arguments]
        if self.capsys is None:
            return Answer(code=main(argv), out="", err="")
        self.capsys.readouterr()
        code = main(argv)
        said = self.capsys.readouterr()
        return Answer(code=code, out=said.out, err=said.err)
