"""The operator's files: YAML that is safe to read, paths that mean what they say, the template."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.core.errors import ConfigError
from orchestrator.core.inventory import Inventory, PathSource
from orchestrator.core.target import TARGETS
from orchestrator.core.template import GATE_PLACEHOLDERS, fill_placeholders
from orchestrator.workspace import (
    TEMPLATE,
    host_triple,
    inventory_folder,
    load_inventory,
    read_installer_template,
    read_yaml,
)

TOP = Path(__file__).parents[1]
NODE = """\
- name: a
  host: root@10.1.1.19
  target: x86_64-unknown-netbsd
  build_command: cargo build
  binary_path: /tmp/x
"""
BOMB = """\
a: &a [x, x, x, x, x, x, x, x, x]
b: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]
c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b]
d: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c]
e: &e [*d, *d, *d, *d, *d, *d, *d, *d, *d]
f: &f [*e, *e, *e, *e, *e, *e, *e, *e, *e]
g: [*f, *f, *f, *f, *f, *f, *f, *f, *f]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "build-nodes.yaml"


def load(file: Path, text: str) -> Inventory:
    file.write_text(text, encoding="utf-8")
    return load_inventory(file)


def refusal(file: Path, text: str | bytes) -> str:
    """Return the message without the folder of the file."""
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        load_inventory(file)
    return caught.value.message.replace(f"{file.parent}/", "")


# Hostile and surprising YAML


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nodes: [\n", "2:1: while parsing a flow node expected the node content"),
        ("- name: 'a\n", "2:1: while scanning a quoted scalar found unexpected end of stream"),
        ("nodes:\n\t- name: a\n", "2:1: while scanning for the next token found character"),
        ("a: 1\n---\nb: 2\n", "2:1: expected a single document in the stream"),
        ("- name: a\n  host: b\n  name: c\n", "3:3: 'name' is a key in line 1 already"),
        ("? [a]\n: 1\n", "1:3: a key must be text"),
        ("a: !!python/object/apply:os.system [id]\n", "1:4: the tag '!!python/object/apply:os"),
        ("a: !!binary aGVsbG8=\n", "1:4: the tag '!!binary' is not understood here"),
        ("a: !ours x\n", "1:4: the tag '!ours' is not understood here"),
        ("a: &a\n  b: *a\n", "2:6: this alias stands inside of what it stands for"),
        ("a: &a {<<: *a}\n", "1:12: this alias stands inside of what it stands for"),
        ("a: *b\n", "1:4: found undefined alias 'b'"),
        ("<<: 3\n", "1:5: while constructing a mapping expected a mapping or list of mappings"),
        ("[" * 51 + "]" * 51, "1:51: more than 50 levels"),
        (BOMB, "5:4: more than 30000 values, every alias written out"),
    ],
)
def test_bad_yaml_is_refused_with_its_line_and_column(file: Path, text: str, message: str) -> None:
    assert refusal(file, text).startswith(f"build-nodes.yaml:{message}")


def test_a_flat_file_of_too_many_values_is_refused_before_it_costs_much(file: Path) -> None:
    # Whoever read it to its end, which takes seconds, would complain of that.
    assert "more than 30000 values" in refusal(file, "- a\n" * 200_000 + "]")


def test_an_inventory_may_have_a_thousand_nodes(file: Path) -> None:
    more = "  port: 2222\n  timeout: 60\n  slots: 2\n  jobs: 4\n  policy: required\n"
    nodes = (NODE.replace("name: a", f"name: n{number}") + more for number in range(1000))
    assert len(load(file, "".join(nodes)).nodes) == 1000


def test_levels_count_with_every_alias_written_out(file: Path) -> None:
    lines = ["a0: &a0 [x]", *(f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 60))]
    assert refusal(file, "\n".join(lines)).endswith("more than 50 levels")


def test_a_file_of_more_than_a_megabyte_is_refused(file: Path) -> None:
    assert "is larger than 1.0 MB" in refusal(file, "#" * 1_000_001)


def test_bytes_that_are_not_utf_8_are_refused_with_their_line(file: Path) -> None:
    assert refusal(file, b"- a\n- \xff\n") == "build-nodes.yaml:2: is not UTF-8 text"


def test_control_characters_are_refused(file: Path) -> None:
    assert "unacceptable character #x0001" in refusal(file, b"- a\x01\n")


def test_ordinary_anchors_aliases_and_merges_work(file: Path) -> None:
    text = """\
- &first
  name: a
  host: root@10.1.1.19
  target: x86_64-unknown-netbsd
  build_command: &build cargo build
  binary_path: /tmp/x
- name: b
  host: root@10.1.1.20
  target: x86_64-unknown-openbsd
  build_command: *build
  binary_path: /tmp/x
- <<: *first
  name: c
"""
    first, second, third = load(file, text).nodes
    assert first.build_command == second.build_command == third.build_command == "cargo build"
    assert (third.name, third.host) == ("c", "root@10.1.1.19")


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("22:30", "22:30"),
        ("010", "010"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("2026-01-01", "2026-01-01"),
        ("=", "="),
        ("7" * 64, "7" * 64),
        ("1.0.0", "1.0.0"),
        ("1e3", "1e3"),
        ("42", 42),
        ("-1", -1),
        ("7.8", 7.8),
        ("no", False),
        ("On", True),
        ("~", None),
        ("", None),
    ],
)
def test_plain_words_mean_what_a_reader_expects(file: Path, written: str, value: object) -> None:
    file.write_text(f"a: {written}\n")
    assert read_yaml(file) == {"a": value}


def test_a_word_that_yaml_reads_as_a_boolean_is_named(file: Path) -> None:
    message = refusal(file, NODE + "  vm: no\n")
    assert message.endswith("but YAML reads this word as false: put it in quotes")
    assert message.startswith("build-nodes.yaml: nodes[0].vm: ")


def test_windows_line_ends_and_a_byte_order_mark_change_nothing(file: Path) -> None:
    plain = load(file, NODE)
    file.write_bytes(b"\xef\xbb\xbf" + NODE.replace("\n", "\r\n").encode())
    assert load_inventory(file) == plain


def test_an_empty_file_is_refused(file: Path) -> None:
    assert refusal(file, "# nothing\n") == "build-nodes.yaml: is empty: it needs a list of nodes"


def test_a_missing_file_says_how_to_name_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_inventory(tmp_path / "nodes.yaml")
    assert caught.value.message == f"{tmp_path}/nodes.yaml: there is no such inventory"
    assert "--inventory" in (caught.value.hint or "")


def test_a_folder_is_not_an_inventory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_inventory(tmp_path)


def test_problems_carry_the_name_that_the_caller_gave(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("[]")
    monkeypatch.chdir(file.parent)
    with pytest.raises(ConfigError, match=r"^build-nodes\.yaml: nodes: is empty$"):
        load_inventory(Path("build-nodes.yaml"))


def test_yaml_is_imported_only_when_a_file_is_read() -> None:
    code = "import sys, orchestrator.workspace; sys.exit('yaml' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=TOP)


# Paths


LINE = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFL+TwT11+/fOGunJG0SAJIc4tvcazw5xgG1lB/KTW4c"


def test_paths_start_at_the_inventorys_folder(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"""\
project: {{source: {{path: ../x}}, name: x}}
publication:
  store: dist/store
  signing: {{key: keys/k, trusted: [b.pub, {LINE}], rotation: off/r.pub}}
  github: {{repository: o/t, token_file: keys/token}}
nodes:
{NODE}  identity: id
"""
    file.write_text(text)
    monkeypatch.chdir("/")
    inventory = load_inventory(file)
    folder = file.parent
    assert inventory.publication.store == f"{folder}/dist/store"
    assert inventory.publication.signing is not None
    assert inventory.publication.signing.key == f"{folder}/keys/k"
    assert inventory.publication.github is not None
    assert inventory.publication.github.token_file == f"{folder}/keys/token"
    assert inventory.publication.signing.trusted == (f"{folder}/b.pub", LINE)
    assert inventory.publication.signing.rotation == f"{folder}/off/r.pub"
    assert inventory.project.source == PathSource(path=f"{folder.parent}/x")
    assert inventory.nodes[0].identity == f"{folder}/id"


def test_absolute_paths_buckets_and_the_home_stay(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    head = "publication: {store: STORE, signing: {key: ~/k}}\nnodes:\n"
    inventory = load(file, head.replace("STORE", "/srv/s") + NODE)
    assert inventory.publication.store == "/srv/s"
    assert inventory.publication.signing is not None
    assert inventory.publication.signing.key == "/home/me/k"
    assert load(file, head.replace("STORE", "gs://bucket/x") + NODE).publication.store == (
        "gs://bucket/x"
    )
    assert load(file, head.replace("STORE", "'~'") + NODE).publication.store == "/home/me"
    assert load(file, head.replace("STORE", "~x") + NODE).publication.store == f"{file.parent}/~x"


def test_the_folder_of_a_relative_inventory_is_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert inventory_folder(Path("a/build-nodes.yaml")) == tmp_path / "a"


# The target of this machine


@pytest.fixture
def fake_rustc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a rustc on PATH that the test writes."""
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    path = tmp_path / "bin/rustc"
    path.parent.mkdir()
    path.write_text("#!/bin/sh\necho 'rustc 1.90.0'; echo 'host: aarch64-unknown-netbsd'\n")
    path.chmod(stat.S_IRWXU)
    return path


def test_the_target_host_is_what_rustc_says(file: Path, fake_rustc: Path) -> None:
    assert fake_rustc.exists()
    assert host_triple() == "aarch64-unknown-netbsd"
    text = NODE.replace("root@10.1.1.19", "local").replace("x86_64-unknown-netbsd", "host")
    assert load(file, text).nodes[0].target is TARGETS["aarch64-unknown-netbsd"]


def test_rustc_is_not_asked_when_no_node_wants_to_know(file: Path, fake_rustc: Path) -> None:
    fake_rustc.write_text(f"#!/bin/sh\ntouch {file.parent}/asked\n")
    load(file, NODE)
    assert not (file.parent / "asked").exists()


@pytest.mark.parametrize(
    "script", ["echo 'host: x86_64-unknown-netbsd'; exit 1", "echo nothing", "echo 'host: $(id)'"]
)
def test_a_rustc_without_an_answer_is_no_rustc(fake_rustc: Path, script: str) -> None:
    fake_rustc.write_text(f"#!/bin/sh\n{script}\n")
    assert host_triple() is None


def test_without_rustc_there_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert host_triple() is None


# The installer's template


def test_a_template_beside_the_inventory_wins(tmp_path: Path) -> None:
    (tmp_path / TEMPLATE).write_text("echo ours\n")
    assert read_installer_template(tmp_path) == "echo ours\n"


def test_the_shipped_template_is_the_fall_back(tmp_path: Path) -> None:
    assert read_installer_template(tmp_path) == (TOP / TEMPLATE).read_text(encoding="utf-8")


def test_a_template_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / TEMPLATE).write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=f"{TEMPLATE}: cannot be read"):
        read_installer_template(tmp_path)


def test_no_template_anywhere_says_where_to_put_one(tmp_path: Path) -> None:
    package = tmp_path / "site/orchestrator"
    package.parent.mkdir()
    package.symlink_to(TOP / "orchestrator")
    code = (
        "from pathlib import Path; from orchestrator.core.errors import ConfigError\n"
        "from orchestrator.workspace import read_installer_template\n"
        "try: read_installer_template(Path('/nowhere'))\n"
        "except ConfigError as error: print(error.message, error.hint)"
    )
    ran = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env=os.environ | {"PYTHONPATH": str(package.parent)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"there is no {TEMPLATE} in /nowhere, and none beside the program" in ran.stdout


# The shipped inventory


def test_the_shipped_inventory_builds_here_and_knows_the_articles_nodes(fake_rustc: Path) -> None:
    assert fake_rustc.exists()
    shipped = load_inventory(TOP / "build-nodes.yaml")
    article = load_inventory(TOP / "examples/inventories/article.yaml")
    local, *others = shipped.nodes
    assert (local.name, local.host, local.enabled) == ("local", "local", True)
    assert not any(node.enabled for node in others)
    assert [(node.name, node.host, node.target, node.build_command) for node in others] == [
        (node.name, node.host, node.target, node.build_command) for node in article.nodes
    ]
    assert [node.binary_path for node in others] == [node.binary_path for node in article.nodes]
    assert shipped.project.extras == ("LICENSE", "LICENSE-APACHE", "README.md")


def test_editors_find_the_schema_in_the_first_line() -> None:
    first = (TOP / "build-nodes.yaml").read_text().split("\n")[0]
    assert first == "# yaml-language-server: $schema=./build-nodes.schema.json"


def table(
    *, rows: int = 40, velocity: float = 2700, step: float = -20, tick: float = 0.02, loss: int = 30
) -> str:
    head = "time_s,x_yd,y_yd,z_yd,velocity_fps,energy_ft-lb"
    lines = (
        f"{tick * row:.4f},0,0,{14 * row},{velocity + step * row:.2f},{2700 - loss * row:.2f}"
        for row in range(rows)
    )
    return "\n".join([head, *lines])


@pytest.mark.parametrize(
    ("printed", "status"),
    [
        (table(), 0),
        (table(rows=5), 1),
        (table(step=20), 1),
        (table(step=0), 1),
        (table(tick=0), 1),
        (table(loss=0), 1),
        (table(velocity=2000, step=-30), 1),
        (table().replace("2360.00", "nan"), 1),
        (table().replace("velocity", "speed"), 1),
        ("error: no such command", 1),
        ("", 1),
    ],
    ids=[
        "good",
        "short",
        "faster",
        "constant",
        "no time",
        "no loss",
        "slow",
        "nan",
        "other columns",
        "error",
        "nothing",
    ],
)
def test_the_shipped_gate_wants_a_coherent_trajectory(
    tmp_path: Path, printed: str, status: int
) -> None:
    (tmp_path / "table").write_text(printed + "\n")
    binary = tmp_path / "ballistics"
    binary.write_text(f'#!/bin/sh\n[ "$1" = trajectory ] && cat {tmp_path}/table\n')
    binary.chmod(stat.S_IRWXU)
    (gate,) = load_inventory(TOP / "build-nodes.yaml").project.gate
    command = fill_placeholders(gate, {"binary": str(binary)}, GATE_PLACEHOLDERS)
    ran = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False)
    assert ran.returncode == status, ran
    assert bool(ran.stdout) is bool(status)
