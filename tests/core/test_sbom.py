from __future__ import annotations

import json
from importlib import resources
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import referencing
import referencing.jsonschema

from orchestrator.core.sbom import Materials, UnreadableError, render_sbom

if TYPE_CHECKING:
    from collections.abc import Mapping

TARGET = "x86_64-unknown-linux-gnu"
CRATES_IO = "registry+https://github.com/rust-lang/crates.io-index"


def schema(name: str) -> Any:
    file = resources.files("cyclonedx.schema._res").joinpath(f"{name}.SNAPSHOT.schema.json")
    return json.loads(file.read_text(encoding="utf-8"))


def validate(bill: Mapping[str, Any]) -> None:
    """Hold a bill against the official schema of CycloneDX 1.6."""
    parts = [
        (f"{name}.SNAPSHOT.schema.json", referencing.Resource.from_contents(schema(name)))
        for name in ("spdx", "jsf-0.82")
    ]
    registry: referencing.Registry[Any] = referencing.Registry().with_resources(parts)
    official = schema("bom-1.6")
    base = official["$id"].rpartition("/")[0]
    registry = registry.with_resources((f"{base}/{name}", part) for name, part in parts)
    jsonschema.Draft7Validator(official, registry=registry).validate(bill)


def package(
    name: str, version: str = "1.0.0", *, source: str | None = CRATES_IO, **more: Any
) -> dict[str, Any]:
    return {
        "name": name,
        "version": version,
        "id": f"{name}@{version}",
        "source": source,
        "license": "MIT",
        "targets": [{"kind": ["lib"], "name": name}],
        "manifest_path": f"/home/alice/{name}/Cargo.toml",
        **more,
    }


def main_package(name: str = "tool", version: str = "2.0.0") -> dict[str, Any]:
    targets = [{"kind": ["bin"], "name": name}]
    return package(name, version, source=None, targets=targets)


def dep(id_: str, *kinds: str | None) -> dict[str, Any]:
    return {"pkg": id_, "dep_kinds": [{"kind": kind, "target": None} for kind in kinds]}


def metadata(*packages: dict[str, Any], deps: dict[str, list[Any]] | None = None) -> dict[str, Any]:
    members = [each["id"] for each in packages if each["source"] is None]
    nodes = [{"id": each["id"], "deps": (deps or {}).get(each["id"], [])} for each in packages]
    return {"packages": list(packages), "workspace_members": members, "resolve": {"nodes": nodes}}


def bill_of(said: object, lockfile: bytes | None = None, *names: str) -> dict[str, Any]:
    data = said if isinstance(said, bytes) else json.dumps(said).encode()
    rendered = render_sbom(
        Materials(
            project="tool",
            version="2.0.0",
            target=TARGET,
            binaries=names or ("tool",),
            metadata=data,
            lockfile=lockfile,
        )
    )
    bill: dict[str, Any] = json.loads(rendered)
    validate(bill)
    assert b"/home/alice" not in rendered
    return bill


def refs(bill: dict[str, Any]) -> list[str]:
    return [component["purl"] for component in bill["components"]]


def test_what_is_built_of_and_with_is_listed_and_what_tests_need_is_not() -> None:
    said = metadata(
        main_package(),
        package("used"),
        package("deep"),
        package("builds"),
        package("tests"),
        package("both"),
        package("unreached"),
        deps={
            "tool@2.0.0": [
                dep("used@1.0.0", None),
                dep("builds@1.0.0", "build"),
                dep("tests@1.0.0", "dev"),
                dep("both@1.0.0", "dev", None),
            ],
            "used@1.0.0": [dep("deep@1.0.0", None)],
            "deep@1.0.0": [dep("used@1.0.0", None)],
        },
    )
    bill = bill_of(said)
    assert refs(bill) == [f"pkg:cargo/{name}@1.0.0" for name in ("both", "builds", "deep", "used")]
    component = bill["metadata"]["component"]
    assert (component["type"], component["purl"]) == ("application", "pkg:cargo/tool@2.0.0")
    assert {node["ref"]: node["dependsOn"] for node in bill["dependencies"]} == {
        "pkg:cargo/both@1.0.0": [],
        "pkg:cargo/builds@1.0.0": [],
        "pkg:cargo/deep@1.0.0": ["pkg:cargo/used@1.0.0"],
        "pkg:cargo/tool@2.0.0": [
            "pkg:cargo/both@1.0.0",
            "pkg:cargo/builds@1.0.0",
            "pkg:cargo/used@1.0.0",
        ],
        "pkg:cargo/used@1.0.0": ["pkg:cargo/deep@1.0.0"],
    }


def test_the_official_schema_refuses_what_is_wrong() -> None:
    bill = bill_of(metadata(main_package()))
    bill["metadata"]["component"]["licenses"] = [{"license": {"id": "Not-A-Licence"}}]
    with pytest.raises(jsonschema.ValidationError):
        validate(bill)


def test_the_order_in_which_cargo_speaks_does_not_matter() -> None:
    one, two = package("a"), package("b")
    deps = [dep("a@1.0.0", None), dep("b@1.0.0", None)]
    first = metadata(main_package(), one, two, deps={"tool@2.0.0": deps})
    second = metadata(two, one, main_package(), deps={"tool@2.0.0": deps[::-1]})
    assert json.dumps(bill_of(first)) == json.dumps(bill_of(second))


def test_checksums_come_from_the_lockfile() -> None:
    lockfile = f"""
version = 4
[[package]]
name = "a"
version = "1.0.0"
source = "{CRATES_IO}"
checksum = "{"ab" * 32}"
[[package]]
name = "tool"
version = "2.0.0"
"""
    said = metadata(main_package(), package("a"), deps={"tool@2.0.0": [dep("a@1.0.0", None)]})
    (component,) = bill_of(said, lockfile.encode())["components"]
    assert component["hashes"] == [{"alg": "SHA-256", "content": "ab" * 32}]
    assert "hashes" not in bill_of(said, b"version = 4\n")["components"][0]


@pytest.mark.parametrize(
    ("source", "purl"),
    [
        (CRATES_IO, "pkg:cargo/a@1.0.0"),
        (None, "pkg:cargo/a@1.0.0"),
        (
            "registry+https://me:secret@crates.example.org/index",
            "pkg:cargo/a@1.0.0?repository_url=https%3A%2F%2Fcrates.example.org%2Findex",
        ),
        (
            "git+https://example.org/a.git?rev=12#1234",
            "pkg:cargo/a@1.0.0?vcs_url=git%2Bhttps%3A%2F%2Fexample.org%2Fa.git%401234",
        ),
    ],
)
def test_a_package_url_says_where_it_is_from(source: str | None, purl: str) -> None:
    other = package("a", source=source)
    said = metadata(main_package(), other, deps={"tool@2.0.0": [dep("a@1.0.0", None)]})
    assert refs(bill_of(said)) == [purl]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("MIT", [{"expression": "MIT"}]),
        ("MIT/Apache-2.0", [{"expression": "MIT OR Apache-2.0"}]),
        ("MIT OR  Apache-2.0 WITH LLVM-exception", None),
        ("see <file>", [{"license": {"name": "see <file>"}}]),
    ],
)
def test_licences_are_expressions_of_spdx(said: str, told: object) -> None:
    main = {**main_package(), "license": said}
    licenses = bill_of(metadata(main))["metadata"]["component"]["licenses"]
    assert licenses == (told or [{"expression": "MIT OR Apache-2.0 WITH LLVM-exception"}])


def test_no_licence_is_said_of_a_package_that_has_none() -> None:
    main = {**main_package(), "license": None}
    assert "licenses" not in bill_of(metadata(main))["metadata"]["component"]


def test_binaries_of_several_packages_make_one_project() -> None:
    said = metadata(
        main_package("one"),
        main_package("two"),
        package("a"),
        deps={"one@2.0.0": [dep("a@1.0.0", None)]},
    )
    bill = bill_of(said, None, "one", "two")
    assert bill["metadata"]["component"]["purl"] == "pkg:cargo/tool@2.0.0"
    assert refs(bill) == ["pkg:cargo/a@1.0.0", "pkg:cargo/one@2.0.0", "pkg:cargo/two@2.0.0"]
    depends = {node["ref"]: node["dependsOn"] for node in bill["dependencies"]}
    assert depends["pkg:cargo/tool@2.0.0"] == ["pkg:cargo/one@2.0.0", "pkg:cargo/two@2.0.0"]


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"[" * 100_000,
        metadata(),
        metadata(main_package("other")),
        metadata(main_package("tool", "1.9.9")),
        metadata(package("tool", "2.0.0")),
        {**metadata(main_package()), "resolve": None},
        metadata(main_package(), package("a b")),
        metadata(main_package(), package("a", version="1\n")),
        metadata(main_package(), deps={"tool@2.0.0": [dep("gone@1.0.0", None)]}),
    ],
)
def test_what_is_not_the_metadata_of_this_project_is_refused(said: object) -> None:
    with pytest.raises(UnreadableError):
        bill_of(said)


def test_a_lockfile_that_is_none_is_refused() -> None:
    with pytest.raises(UnreadableError):
        bill_of(metadata(main_package()), b"\xff")
