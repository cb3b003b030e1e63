"""The bill of materials of a release: what `cargo metadata` says, as CycloneDX 1.6.

The same dependencies give the same bytes: no time, no serial number, no path of any machine.
"""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from orchestrator.core.wording import redacted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

SBOM_NAME: Final = "sbom.cdx.json"
SBOM_TYPE: Final = "application/vnd.cyclonedx+json"
_CRATES_IO: Final = "registry+https://github.com/rust-lang/crates.io-index"
_EXPRESSION: Final = re.compile(r"[A-Za-z0-9.+:() -]{1,500}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")


class UnreadableError(Exception):
    """What the node said is not the metadata of this project; says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Materials:
    """What a bill is made of: cargo's words, and for whom."""

    project: str
    version: str
    target: str
    binaries: tuple[str, ...]
    metadata: bytes
    lockfile: bytes | None = None


def render_sbom(materials: Materials) -> bytes:
    """Return the bill; UnreadableError if the metadata is not that of this project.

    It lists what the binaries are built of and with: the packages that normal and build
    dependencies reach. What only tests need is left out.
    """
    try:
        return _render(materials)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise UnreadableError(f"cargo's metadata is not understood: {error!r}"[:300]) from None


def _render(materials: Materials) -> bytes:
    metadata = json.loads(materials.metadata)
    packages = {package["id"]: _Package.of(package) for package in metadata["packages"]}
    edges = _edges(metadata["resolve"]["nodes"])
    roots = _roots(materials, metadata)
    reached = sorted(_reach(roots, edges), key=lambda id_: packages[id_].purl)
    checksums = _checksums(materials.lockfile)
    if len(roots) == 1:
        main, head = packages[roots[0]], roots[0]
    else:
        main, head = _Package(name=materials.project, version=materials.version), None
    component = {**main.as_component(checksums), "type": "application"}
    graph = [
        {
            "ref": packages[id_].purl,
            "dependsOn": sorted({packages[other].purl for other in edges.get(id_, ())}),
        }
        for id_ in reached
    ]
    if head is None:
        graph.append({"ref": main.purl, "dependsOn": sorted(packages[id_].purl for id_ in roots)})
    bill = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": component,
            "properties": [{"name": "orchestrator:target", "value": materials.target}],
        },
        "components": [packages[id_].as_component(checksums) for id_ in reached if id_ != head],
        "dependencies": sorted(graph, key=lambda node: str(node["ref"])),
    }
    return (json.dumps(bill, indent=1, ensure_ascii=True) + "\n").encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Package:
    name: str
    version: str
    source: str | None = None
    license: str | None = None

    @classmethod
    def of(cls, package: Mapping[str, Any]) -> _Package:
        name, version = package["name"], package["version"]
        if not _WORD.fullmatch(name) or not _WORD.fullmatch(version):
            raise ValueError(f"a package called {name!r} {version!r}")
        return cls(name=name, version=version, source=package["source"], license=package["license"])

    @property
    def purl(self) -> str:
        """The package URL; the crates of crates.io need no qualifier."""
        plain = f"pkg:cargo/{self.name}@{_quoted(self.version)}"
        if self.source is None or self.source == _CRATES_IO:
            return plain
        kind, _, place = redacted(self.source).partition("+")
        if kind != "git":
            return f"{plain}?repository_url={_quoted(place)}"
        url, _, commit = place.partition("#")
        origin = f"git+{url.partition('?')[0]}@{commit}"
        return f"{plain}?vcs_url={_quoted(origin)}"

    def as_component(self, checksums: Mapping[tuple[str, str, str], str]) -> dict[str, object]:
        component: dict[str, object] = {
            "type": "library",
            "bom-ref": self.purl,
            "name": self.name,
            "version": self.version,
        }
        checksum = checksums.get((self.name, self.version, self.source or ""))
        if checksum:
            component["hashes"] = [{"alg": "SHA-256", "content": checksum}]
        if self.license:
            component["licenses"] = [_licence(self.license)]
        component["purl"] = self.purl
        return component


def _quoted(text: str) -> str:
    """Return the text percent-encoded, as a part of a package URL."""
    return re.sub(
        r"[^A-Za-z0-9._~-]",
        lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()),
        text,
    )


def _licence(text: str) -> dict[str, object]:
    # The form that cargo took before it knew SPDX.
    expression = text.replace("/", " OR ")
    if _EXPRESSION.fullmatch(expression):
        return {"expression": " ".join(expression.split())}
    return {"license": {"name": text[:200]}}


def _edges(nodes: Iterable[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Return what each package is built of or with; development alone does not count."""
    return {
        node["id"]: tuple(
            dep["pkg"]
            for dep in node["deps"]
            if any(kind["kind"] in {None, "build"} for kind in dep["dep_kinds"])
        )
        for node in nodes
    }


def _roots(materials: Materials, metadata: Mapping[str, Any]) -> list[str]:
    """Return the packages of the workspace that make the binaries, in the order of those."""
    members = set(metadata["workspace_members"])
    makers = {
        target["name"]: package["id"]
        for package in metadata["packages"]
        if package["id"] in members and package["version"] == materials.version
        for target in package["targets"]
        if "bin" in target["kind"]
    }
    missing = [name for name in materials.binaries if name not in makers]
    if missing:
        raise UnreadableError(
            f"no package of version {materials.version} there makes {', '.join(missing)}"
        )
    return list(dict.fromkeys(makers[name] for name in materials.binaries))


def _reach(roots: Sequence[str], edges: Mapping[str, tuple[str, ...]]) -> set[str]:
    reached: set[str] = set()
    waiting = list(roots)
    while waiting:
        id_ = waiting.pop()
        if id_ not in reached:
            reached.add(id_)
            waiting.extend(edges.get(id_, ()))
    return reached


def _checksums(lockfile: bytes | None) -> dict[tuple[str, str, str], str]:
    if lockfile is None:
        return {}
    lock = tomllib.loads(lockfile.decode())
    return {
        (package["name"], package["version"], package["source"]): package["checksum"]
        for package in lock.get("package", ())
        if _SHA256.fullmatch(package.get("checksum", ""))
    }
