"""The inventory: what is read, what is refused and how, and that schema and docs say the same."""

from __future__ import annotations

import json
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.errors import ConfigError
from orchestrator.core.inventory import (
    ANY_VERSION,
    ArchiveSource,
    CrateSource,
    GitHubReleases,
    GitSource,
    Inventory,
    LeakPolicy,
    Lockfile,
    PathSource,
    Policy,
    Publication,
    Signing,
)
from orchestrator.core.inventory_parser import parse_inventory
from orchestrator.core.kinds import INVALID, Field, Place, Record, Text, written
from orchestrator.core.schema import (
    DEFAULTS,
    INVENTORY,
    NODE,
    PROJECT,
    PUBLICATION,
    RECORDS,
    SOURCES,
    inventory_schema,
)
from orchestrator.core.service_settings import (
    NoticeByMail,
    NoticeByWebhook,
    NoticeFormat,
    Occasion,
    Service,
)
from orchestrator.core.target import TARGETS
from orchestrator.workspace import read_yaml

TOP = Path(__file__).parents[2]
CASES = sorted((TOP / "tests/cases/inventory").glob("*.yaml"))
EXAMPLES = [TOP / "build-nodes.yaml", *sorted((TOP / "examples/inventories").glob("*.yaml"))]
NODES = [
    ("macos-aarch64", "local", "aarch64-apple-darwin"),
    ("macos-x86_64", "local", "x86_64-apple-darwin"),
    ("linux-x86_64", "alex@10.1.1.27", "x86_64-unknown-linux-gnu"),
    ("freebsd-aarch64", "freebsd@10.1.1.7", "aarch64-unknown-freebsd"),
    ("freebsd-x86_64", "root@10.1.1.21", "x86_64-unknown-freebsd"),
    ("openbsd-x86_64", "root@10.1.1.20", "x86_64-unknown-openbsd"),
    ("openbsd-aarch64-emulated", "root@10.1.1.23", "aarch64-unknown-openbsd"),
    ("netbsd-x86_64", "root@10.1.1.19", "x86_64-unknown-netbsd"),
    ("netbsd-aarch64", "root@10.1.1.15", "aarch64-unknown-netbsd"),
]
HOST = "x86_64-unknown-linux-gnu"


def parse(data: object, host_triple: str | None = HOST) -> Inventory:
    return parse_inventory(data, place="build-nodes.yaml", host_triple=host_triple)


def problems_of(data: object, host_triple: str | None = HOST) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(data, host_triple)
    return caught.value.message.split("\n")


def node(**keys: object) -> dict[str, object]:
    return {
        "name": "a",
        "host": "root@10.1.1.19",
        "target": "x86_64-unknown-netbsd",
        "build_command": "cargo build",
        "binary_path": "/tmp/x",
    } | keys


def pushed(**keys: object) -> dict[str, object]:
    return {"project": {"source": {"crate": "x"}, "name": "x", **keys}, "nodes": [node()]}


@cache
def validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(inventory_schema())


# What is read


def test_the_articles_yaml_is_nine_nodes_with_its_commands() -> None:
    inventory = parse(read_yaml(TOP / "examples/inventories/article.yaml"))
    assert [(each.name, each.host, str(each.target)) for each in inventory.nodes] == NODES
    assert all(each.enabled for each in inventory.nodes)
    emulated = inventory.nodes[6]
    assert emulated.build_command == (
        "cd /tmp && rm -rf ballistics-engine-{version}\n"
        "curl -L -o v{version}.tar.gz"
        " https://github.com/ajokela/ballistics-engine/archive/v{version}.tar.gz\n"
        "tar xzf v{version}.tar.gz\n"
        "cd ballistics-engine-{version}\n"
        "cargo build --release\n"
    )
    assert emulated.binary_path == "/tmp/ballistics-engine-{version}/target/release/ballistics"
    assert inventory.project.name == "ballistics"
    assert inventory.project.binaries == ("ballistics",)
    assert inventory.project.source is None


def test_a_bare_list_and_the_nodes_key_mean_the_same() -> None:
    assert parse([node()]) == parse({"nodes": [node()]})


def test_what_is_not_said_has_the_defaults_of_the_values() -> None:
    inventory = parse([node()])
    (only,) = inventory.nodes
    assert only.policy is Policy.EXPECTED
    assert only.timeout == timedelta(hours=4)
    assert inventory.publication.store == "dist/store"
    assert inventory.publication.expires == timedelta(days=90)
    assert inventory.project.version_command == "{binary} --version"


def test_the_rich_example_uses_every_key_of_project_publication_and_nodes() -> None:
    data: Any = read_yaml(TOP / "examples/inventories/rich.yaml")
    used = {key for each in [data["defaults"], *data["nodes"]] for key in each}
    assert {each.key for each in NODE.fields} - used == {"build_command", "binary_path"}
    assert {each.key for each in PROJECT.fields} == set(data["project"])
    assert {each.key for each in PUBLICATION.fields} == set(data["publication"])


def test_the_rich_example_is_read_into_values() -> None:
    inventory = parse(read_yaml(TOP / "examples/inventories/rich.yaml"))
    project, publication = inventory.project, inventory.publication
    assert project.source == GitSource(
        git="https://github.com/ajokela/ballistics-engine", subdirectory="crates/cli"
    )
    assert project.binaries == ("ballistics", "ballistics-server")
    assert len(project.gate) == 2
    assert project.extras[:2] == ("LICENSE", "man/{name}.1")
    assert project.leaks is LeakPolicy.REFUSE
    assert publication.signing == Signing(
        key="~/.config/orchestrator/ballistics.key",
        trusted=(
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFL+TwT11+/fOGunJG0SAJIc4tvcazw5xgG1lB/KTW4c",
        ),
        rotation="~/.config/orchestrator/rotation.pub",
    )
    assert publication.flat
    assert publication.github == GitHubReleases(
        repository="ajokela/ballistics-engine",
        token_file="~/.config/orchestrator/github-token",
    )
    linux, faster, cross, guest = inventory.nodes
    assert (faster.name, faster.policy) == ("linux-x86_64-v3", Policy.BEST_EFFORT)
    assert (linux.policy, linux.port, linux.jobs) == (Policy.REQUIRED, 2222, 16)
    assert linux.connect_timeout == timedelta(seconds=20)
    assert linux.silence_timeout == timedelta(minutes=45)
    assert (linux.log_limit, cross.log_limit) == (200_000_000, 500_000_000)
    assert linux.env == (("CARGO_TERM_COLOR", "never"),)
    assert linux.identity == "~/.ssh/build-orchestrator"
    assert cross.gate_on == ("openbsd-aarch64",)
    assert guest.os_release == "7.8"
    assert not guest.enabled


def test_the_slots_that_one_node_gives_its_group_hold_for_all_of_it() -> None:
    first, second, alone = parse(
        [node(group="rig", slots=2), node(name="b", group="rig"), node(name="c")]
    ).nodes
    assert (first.slots, second.slots, alone.slots) == (2, 2, 1)


def test_default_slots_give_way_to_what_a_group_says() -> None:
    nodes = [node(group="rig"), node(name="b", group="rig", slots=2), node(name="c")]
    inventory = parse({"defaults": {"slots": 3}, "nodes": nodes})
    assert [each.slots for each in inventory.nodes] == [2, 2, 3]


def test_a_node_replaces_a_default_as_a_whole() -> None:
    inventory = parse(
        {
            "defaults": {"env": {"A": "1"}, "host": "root@h", "policy": "required"},
            "nodes": [node(env={"B": "2"}, policy="expected")],
        }
    )
    (only,) = inventory.nodes
    assert only.env == (("B", "2"),)
    assert only.host == "root@10.1.1.19"
    assert only.policy is Policy.EXPECTED


def test_defaults_may_give_what_a_node_must_have() -> None:
    bare = {"name": "a"}
    given_by_defaults = {key: value for key, value in node().items() if key != "name"}
    assert parse({"defaults": given_by_defaults, "nodes": [bare]}) == parse([node()])


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ({"crate": "a-b"}, CrateSource(crate="a-b")),
        (
            {"crate": "x", "lockfile": "repair"},
            CrateSource(crate="x", lockfile=Lockfile.REPAIR),
        ),
        (
            {"git": "ssh://git@example.org:2222/a/b.git", "tag": "rel-{version}"},
            GitSource(git="ssh://git@example.org:2222/a/b.git", tag="rel-{version}"),
        ),
        ({"git": "/srv/git/x.git"}, GitSource(git="/srv/git/x.git")),
        ({"git": "file:///srv/git/x"}, GitSource(git="file:///srv/git/x")),
        ({"path": "../x"}, PathSource(path="../x")),
        (
            {"path": "~/x y", "allow_dirty": True, "subdirectory": "cli"},
            PathSource(path="~/x y", allow_dirty=True, subdirectory="cli"),
        ),
        (
            {"archive": "https://example.org/x.tar.gz", "sha256": "A" * 64},
            ArchiveSource(
                archive="https://example.org/x.tar.gz", sha256=((ANY_VERSION, "a" * 64),)
            ),
        ),
        (
            {
                "archive": "https://example.org/{version}.tar.gz",
                "sha256": {"2.0.0": "b" * 64, "1.0.0-rc.1": "A" * 64},
            },
            ArchiveSource(
                archive="https://example.org/{version}.tar.gz",
                sha256=(("1.0.0-rc.1", "a" * 64), ("2.0.0", "b" * 64)),
            ),
        ),
    ],
)
def test_each_kind_of_source_is_read(source: dict[str, object], value: object) -> None:
    data = pushed(source=source)
    assert parse(data).project.source == value
    assert validator().is_valid(data)


@pytest.mark.parametrize(
    ("written_as", "seconds"),
    [("90s", 90), ("45m", 2700), ("4h", 14400), ("2d", 172800), (30, 30)],
)
def test_durations_have_units_or_are_seconds(written_as: object, seconds: int) -> None:
    (only,) = parse([node(timeout=written_as)]).nodes
    assert only.timeout == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("written_as", "size_bytes"),
    [("70B", 70), ("800kB", 800_000), ("500MB", 500_000_000), ("2GB", 2 * 10**9), (4096, 4096)],
)
def test_sizes_have_units_or_are_bytes(written_as: object, size_bytes: int) -> None:
    (only,) = parse([node(log_limit=written_as)]).nodes
    assert only.log_limit == size_bytes
    assert validator().is_valid([node(log_limit=written_as)])


@pytest.mark.parametrize(
    "host",
    ["local", "rig", "alex@rig.localnet", "root@10.1.1.20", "root@fd00::1", "::1", "a_b@my_alias"],
)
def test_hosts_are_names_or_addresses_with_or_without_a_user(host: str) -> None:
    data = [node(host=host)]
    assert parse(data).nodes[0].host == host
    assert validator().is_valid(data)


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://ballistics.zip/", "https://ballistics.zip"),
        ("https://example.org:8443/a/b", "https://example.org:8443/a/b"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://localhost/x/", "http://localhost/x"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_urls_are_https_or_loopback_and_lose_a_last_slash(url: str, kept: str) -> None:
    data = {"publication": {"url": url}, "nodes": [node()]}
    assert parse(data).publication.url == kept
    assert validator().is_valid(data)


@pytest.mark.parametrize(
    "store", ["dist/store", "/srv/x y", "~/store", "gs://ballistics-releases", "gs://b-1.x/a/b"]
)
def test_stores_are_folders_or_buckets(store: str) -> None:
    data = {"publication": {"store": store}, "nodes": [node()]}
    assert parse(data).publication.store == store
    assert validator().is_valid(data)


def test_one_gate_command_is_a_list_of_one() -> None:
    assert parse(pushed(gate="{binary} x")).project.gate == ("{binary} x",)
    assert parse(pushed(gate=["{binary} x", "y"])).project.gate == ("{binary} x", "y")


def test_braces_that_are_no_placeholder_survive() -> None:
    command = "cd ${HOME} && awk '{print $1}' {x} {binary}"
    assert parse([node(build_command=command)]).nodes[0].build_command == command


@pytest.mark.parametrize(
    ("project", "name", "binaries"),
    [
        ({}, "x", ("x",)),
        ({"name": "p"}, "p", ("p",)),
        ({"binaries": ["b", "c"]}, "b", ("b", "c")),
        ({"name": "p", "binaries": ["b"]}, "p", ("b",)),
    ],
)
def test_the_project_takes_its_name_from_the_next_best(
    project: dict[str, object], name: str, binaries: tuple[str, ...]
) -> None:
    found = parse({"project": project, "nodes": [node(binary_path="/tmp/x.exe")]}).project
    assert (found.name, found.binaries) == (name, binaries)


def test_a_source_needs_neither_command_nor_path() -> None:
    data = pushed()
    data["nodes"] = [{"name": "a", "host": "local", "target": "x86_64-unknown-netbsd"}]
    (only,) = parse(data).nodes
    assert only.is_local
    assert only.build_command is None
    assert only.binary_path is None


def test_the_projects_command_serves_nodes_without_one() -> None:
    bare = node()
    del bare["build_command"]
    inventory = parse({"project": {"build_command": "make"}, "nodes": [bare]})
    assert inventory.project.build_command == "make"


def test_a_musl_binary_may_be_gated_where_the_c_library_is_another() -> None:
    data = [
        node(target="x86_64-unknown-linux-musl", gate_on="b"),
        node(name="b", target="x86_64-unknown-linux-gnu"),
    ]
    assert parse(data).nodes[0].gate_on == ("b",)


# The target `host`


def test_the_target_host_is_this_machines_own() -> None:
    (only,) = parse([node(host="local", target="host")]).nodes
    assert only.target is TARGETS[HOST]


def test_the_target_host_must_be_known_if_the_node_is_enabled() -> None:
    (problem,) = problems_of([node(host="local", target="host")], None)
    assert problem.startswith("build-nodes.yaml: nodes[0].target: `host` is unknown, because")


def test_a_disabled_node_with_an_unknown_target_is_left_out() -> None:
    data = [node(host="local", target="host", enabled=False), node(name="b")]
    assert [each.name for each in parse(data, None).nodes] == ["b"]


def test_a_node_that_is_left_out_gates_nothing() -> None:
    data = [node(name="b", host="local", target="host", enabled=False), node(gate_on="b")]
    (problem,) = problems_of(data, None)
    assert problem.endswith("[1].gate_on: `b` is for another OS or CPU, and cannot run this binary")


def test_a_machine_of_an_unknown_target_says_so() -> None:
    (problem,) = problems_of([node(host="local", target="host")], "x86_64-unknown-linux-gnux32")
    assert problem.endswith(
        "nodes[0].target: this machine's own target `x86_64-unknown-linux-gnux32` is not a known"
        " one, did you mean `x86_64-unknown-linux-gnu`?"
    )


# What is refused


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_a_bad_inventory_is_refused_with_its_problems(path: Path) -> None:
    case: Any = read_yaml(path)
    expected = [f"build-nodes.yaml: {problem}" for problem in case["problems"]]
    assert problems_of(case["inventory"]) == expected
    assert validator().is_valid(case["inventory"]) is not case["seen_by_schema"]


def test_every_problem_is_reported_at_once() -> None:
    data = {
        "project": {"nam": "x", "gate": "{jobs}"},
        "publication": {"url": "ftp://x"},
        "nodes": [node(host="-x", port=0), node(name="b", target="vax"), node(name="b")],
    }
    places = [problem.split(": ")[1] for problem in problems_of(data)]
    assert places == [
        "project.nam",
        "project.gate",
        "publication.url",
        "nodes[0].host",
        "nodes[0].port",
        "nodes[1].target",
        "nodes[2].name",
    ]


def test_an_unreadable_project_says_nothing_about_a_missing_source() -> None:
    bare = {"name": "a", "host": "local", "target": "x86_64-unknown-netbsd"}
    assert problems_of({"project": 3, "nodes": [bare]}) == [
        "build-nodes.yaml: project: must be a mapping of keys, not `3`"
    ]


def test_wrong_values_are_not_reported_twice() -> None:
    data = {
        "project": {"source": {"archive": 3, "sha256": "x"}, "binaries": [3]},
        "nodes": [node(name=3, host=3, target=3, gate_on=["b", 3], group="g", slots="x")],
    }
    places = [problem.split(": ")[1] for problem in problems_of(data)]
    assert len(places) == len(set(places)) == 9


def test_a_number_that_python_will_not_write_out_is_refused_too() -> None:
    (problem,) = problems_of([node(port=10**5000)])
    assert problem.endswith("not a very large number")


def test_a_value_that_no_yaml_gives_is_refused_too() -> None:
    (problem,) = problems_of([node(port=timedelta(1))])
    assert problem.endswith("not a timedelta")


def test_many_wrong_nodes_are_refused_quickly() -> None:
    assert len(problems_of([node(port=0, name=f"n{index}") for index in range(2000)])) == 2000


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)


def of_record(record: Record) -> st.SearchStrategy[dict[str, object]]:
    """Mappings with real keys, whose values are right, right for another key, or anything."""
    examples = st.sampled_from([each.example for each in record.fields])
    return st.fixed_dictionaries(
        {},
        optional={each.key: st.just(each.example) | examples | anything for each in record.fields},
    )


likely = st.fixed_dictionaries(
    {"nodes": st.lists(of_record(NODE), max_size=3) | anything},
    optional={
        "project": of_record(PROJECT)
        | st.builds(dict, source=st.one_of(*(of_record(each) for each in SOURCES)))
        | anything,
        "publication": of_record(PUBLICATION) | anything,
        "defaults": of_record(DEFAULTS) | anything,
    },
)


@settings(deadline=None, max_examples=60)
@given(data=anything | likely, host_triple=st.none() | st.sampled_from([HOST, "vax"]))
def test_no_data_raises_anything_but_a_config_error(data: object, host_triple: str | None) -> None:
    try:
        parse(data, host_triple)
    except ConfigError as error:
        lines = error.message.split("\n")
    else:
        lines = []
        assert validator().is_valid(data)
    assert all(line.isprintable() and line.startswith("build-nodes.yaml: ") for line in lines)


# The schema and the documentation


def test_the_committed_schema_is_the_generated_one() -> None:
    committed = (TOP / "build-nodes.schema.json").read_text()
    generated = json.dumps(inventory_schema(), indent=2) + "\n"
    assert committed == generated, "run: orchestrator schema > build-nodes.schema.json"


def test_the_schema_is_valid_itself() -> None:
    jsonschema.Draft202012Validator.check_schema(inventory_schema())


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_shipped_inventory_is_good_for_parser_and_schema(path: Path) -> None:
    data = read_yaml(path)
    parse(data)
    validator().validate(data)


@pytest.mark.parametrize(
    ("record", "known"),
    [(record, known) for record in (*RECORDS, DEFAULTS) for known in record.fields],
    ids=lambda value: value.key if isinstance(value, Field) else value.title,
)
def test_every_key_has_an_example_and_a_default_that_it_accepts(
    record: Record, known: Field
) -> None:
    place = Place(file="f")
    assert known.kind.read(known.example, place) is not INVALID
    default = record.default_of(known)
    if default not in (None, [], ""):
        assert known.kind.read(default, place) is not INVALID
    assert not place.problems
    jsonschema.Draft202012Validator(known.kind.schema()).validate(known.example)


def default_in_words(record: Record, known: Field) -> str:
    if known.required:
        return "required, here or in `defaults`" if known.inherited else "required"
    value = record.default_of(known)
    if value in (None, [], ""):
        return ""
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.title)
def test_the_documentation_has_every_key_and_no_other(record: Record) -> None:
    page = (TOP / "docs/inventory.md").read_text()
    section = page.split(f"### {record.title}\n")[1].split("\n###")[0]
    rows = [
        f"| `{known.key}` | {known.kind.words} | {default_in_words(record, known)}"
        f" | {known.summary} |"
        for known in record.fields
    ]
    assert record.summary in section
    assert [line for line in section.split("\n") if line.startswith("| `")] == rows


def test_values_are_written_as_the_file_has_them() -> None:
    assert written(timedelta(hours=36)) == "36h"
    assert written(timedelta(seconds=90)) == "90s"
    assert written((Policy.REQUIRED,)) == ["required"]
    assert written(None) is None


def test_patterns_stay_in_what_python_and_ecmascript_share() -> None:
    text = json.dumps(inventory_schema())
    assert not any(construct in text for construct in ("(?P", "(?i", "\\\\Z", "\\\\A", "(?<"))


def test_the_file_is_a_record_like_any_other() -> None:
    assert INVENTORY.words == "a mapping, see `the file`"
    assert Text(words="x", pattern="x").matches("x")


@pytest.mark.parametrize(
    ("store", "url", "verify", "is_read_back"),
    [
        ("gs://bucket", "https://example.org", None, True),
        ("gs://bucket", None, None, False),
        ("dist/store", "https://example.org", None, False),
        ("dist/store", "https://example.org", True, True),
        ("gs://bucket", "https://example.org", False, False),
    ],
)
def test_a_release_is_read_back_where_it_is_public_at_once(
    *, store: str, url: str | None, verify: bool | None, is_read_back: bool
) -> None:
    publication = Publication(store=store, url=url, verify=verify)
    assert publication.is_read_back is is_read_back


def test_the_service_of_the_rich_example_is_read_into_values() -> None:
    service = parse(read_yaml(TOP / "examples/inventories/rich.yaml")).service
    assert service.repository == "ajokela/ballistics-engine"
    assert service.late_after == timedelta(hours=24)
    slack, ntfy, mail = service.notices
    assert slack == NoticeByWebhook(
        url_file="~/.config/orchestrator/slack-url",
        format=NoticeFormat.SLACK,
        about=(Occasion.FAILED, Occasion.LATE, Occasion.RECOVERED),
    )
    assert ntfy == NoticeByWebhook(url_env="NTFY_URL", format=NoticeFormat.NTFY)
    assert isinstance(mail, NoticeByMail)
    assert mail.server == "mail.example.org:587"
    assert parse([node()]).service == Service()
