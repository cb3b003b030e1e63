"""`orchestrator check`: what is found on nodes and here before an hour is spent."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.core.version import parse_version
from orchestrator.preflight import check_operator
from orchestrator.signing import generate_key
from orchestrator.wiring import Operator
from tests.gcs.server import serving
from tests.releases import PATIENCE_SECONDS, Outcome, contents, host_target

if TYPE_CHECKING:
    from pathlib import Path

    from tests.releases import Desk, NodeEntry, SshNode

Found = dict[str, Any]

# What is found is proved in tests/core; here, that it is looked for where it is.
pytestmark = pytest.mark.thorough


def of_node(outcome: Outcome, name: str) -> dict[str, Found]:
    """Return what was found on a node, by check."""
    [node] = [node for node in outcome.data["nodes"] if node["node"] == name]
    return {finding["check"]: finding for finding in node["findings"]}


def here(outcome: Outcome) -> dict[str, Found]:
    """Return what was found on the coordinator, by check."""
    return {finding["check"]: finding for finding in outcome.data["coordinator"]}


def troubles(outcome: Outcome) -> dict[str, str]:
    """Return the state of each check that is not fine, by node and check."""
    found = {("here", check): each["state"] for check, each in here(outcome).items()}
    for node in outcome.data["nodes"]:
        found |= {(node["node"], each["check"]): each["state"] for each in node["findings"]}
    return {f"{name} {check}": state for (name, check), state in found.items() if state != "ok"}


@pytest.fixture
def dead() -> NodeEntry:
    """How to reach a node that is down."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return {"host": "127.0.0.1", "port": port, "connect_timeout": 5}


def cargo_node(desk: Desk, name: str, **keys: Any) -> NodeEntry:
    """A node that builds with our own command."""
    node = desk.node(name, **keys)
    return {key: node[key] for key in node if key not in {"build_command", "binary_path"}}


def leave_out(desk: Desk, key: str) -> None:
    """Take a key out of the inventory's `publication`."""
    data = json.loads(desk.inventory.read_text())
    del data["publication"][key]
    desk.inventory.write_text(json.dumps(data))


def test_when_all_is_well_it_says_so_and_leaves_nothing(desk: Desk, ssh_node: SshNode) -> None:
    desk.write(desk.node("near"), desk.node("far", **ssh_node.entry))
    before = contents(desk.folder)

    outcome = desk.run("check", "--json")

    assert (outcome.code, outcome.err) == (0, "")
    assert troubles(outcome) == {}
    assert outcome.data["verdict"] == "a release can start"
    assert outcome.data["can_start"] is True
    assert list(here(outcome)) == ["disk", "key", "store", "index", "installer"]
    near, far = of_node(outcome, "near"), of_node(outcome, "far")
    assert list(near) == list(far)
    assert near["connection"]["message"] == "this machine"
    assert "with its host key from the inventory" in far["connection"]["message"]
    assert {"toolchain", "linker", "tools", "disk", "inodes", "memory", "clock"} <= set(far)
    after = contents(desk.folder)
    assert {name for name in after if "-work" not in name} == set(before)


def test_a_person_reads_a_table_then_what_to_do_then_whether_a_release_can_start(
    desk: Desk, dead: NodeEntry
) -> None:
    desk.write(desk.node("up"), desk.node("down", **dead))

    outcome = desk.run("check")

    assert outcome.code == 3
    table, below, verdict = outcome.out.split("\n\n")
    heading, *rows = [line.split() for line in table.splitlines()]
    assert heading == ["node", "target", "check", "state", "message"]
    assert rows[0][:3] == ["coordinator", "disk", "ok"]
    assert ["up", host_target(), "clock", "ok"] in [row[:4] for row in rows]
    assert [row[3] for row in rows if row[0] == "down"] == ["problem"]
    problem, hint = below.splitlines()
    assert problem.startswith(f"problem: down: cannot connect to 127.0.0.1:{dead['port']}: ")
    assert hint == "hint: is sshd running there, and are address and port right?"
    assert verdict == "a release can start, without down\n"


def test_nodes_that_do_not_answer_are_waited_for_together(desk: Desk) -> None:
    # Each breaks off when all of them are waited for: one after the other, each would time out.
    together = threading.Barrier(3)

    def serve(server: socket.socket) -> None:
        link, _ = server.accept()
        with link:
            together.wait(PATIENCE_SECONDS)

    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    threads = [threading.Thread(target=serve, args=[server]) for server in servers]
    for thread in threads:
        thread.start()
    silent = [
        desk.node(
            f"silent-{number}",
            host="127.0.0.1",
            port=server.getsockname()[1],
            connect_timeout=PATIENCE_SECONDS,
        )
        for number, server in enumerate(servers)
    ]
    desk.write(desk.node("up"), *silent)

    outcome = desk.run("check", "--json")

    for thread, server in zip(threads, servers, strict=True):
        thread.join()
        server.close()
    assert troubles(outcome) == {f"silent-{number} connection": "problem" for number in range(3)}
    for number in range(3):
        message = of_node(outcome, f"silent-{number}")["connection"]["message"]
        assert "broke off the SSH handshake" in message


@pytest.mark.thorough
def test_a_node_that_never_answers_costs_its_own_connect_timeout(desk: Desk) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        entry = {"host": "127.0.0.1", "port": server.getsockname()[1], "connect_timeout": 1}
        desk.write(desk.node("up"), desk.node("silent", **entry))
        outcome = desk.run("check", "--json")

    assert outcome.code == 3
    assert "within 1 s" in of_node(outcome, "silent")["connection"]["message"]
    assert troubles(outcome) == {"silent connection": "problem"}


def test_another_host_key_is_a_problem_with_the_line_to_replace_it(
    desk: Desk, ssh_node: SshNode, tmp_path: Path
) -> None:
    public = generate_key(tmp_path / "other", passphrase=None)
    entry = ssh_node.entry | {"host_key": public.ssh}
    desk.write(desk.node("up"), desk.node("strange", **entry))

    outcome = desk.run("check", "--json")
    assert outcome.code == 3
    found = of_node(outcome, "strange")["connection"]
    assert "HAS CHANGED" in found["message"]
    assert f"host_key: {' '.join(str(ssh_node.entry['host_key']).split()[:2])}" in found["hint"]

    # The line is one to copy.
    shown = desk.run("check").out
    assert f"\n    host_key: {' '.join(str(ssh_node.entry['host_key']).split()[:2])}\n" in shown


def test_without_cargo_our_own_command_cannot_build_and_another_perhaps(
    desk: Desk, ssh_node: SshNode, tmp_path: Path
) -> None:
    tools = tmp_path / "ssh-node/home/.cargo/bin"
    tools.mkdir(parents=True)
    for name in ("cargo", "rustc"):
        (tools / name).write_text("#!/bin/sh\nexit 1\n")
        (tools / name).chmod(0o755)

    desk.write(desk.node("far", **ssh_node.entry))
    outcome = desk.run("check", "--json")
    assert outcome.code == 0
    assert troubles(outcome) == {"far toolchain": "warning"}
    assert outcome.data["verdict"] == "a release can start"

    desk.project = {"source": {"crate": "tool"}}
    desk.write(cargo_node(desk, "far", **ssh_node.entry))
    outcome = desk.run("check", "--json")
    assert outcome.code == 3
    assert troubles(outcome) == {"far toolchain": "problem"}
    assert of_node(outcome, "far")["toolchain"]["message"] == ("no cargo and no rustc that answers")
    assert outcome.data["verdict"] == "a release cannot start: no node can build"


def test_a_workdir_that_cannot_be_used_is_a_problem_of_the_node(desk: Desk) -> None:
    (desk.folder / "file").touch()
    desk.write(desk.node("here", workdir=f"{desk.folder}/file/work"))

    outcome = desk.run("check", "--json")

    assert outcome.code == 3
    assert "cannot make the workdir" in of_node(outcome, "here")["probe"]["message"]


def test_named_nodes_are_looked_at_also_when_disabled_and_no_others(
    desk: Desk, dead: NodeEntry
) -> None:
    desk.write(desk.node("on", **dead), desk.node("off", enabled=False))

    outcome = desk.run("check", "off", "--json")
    assert outcome.code == 0
    assert [node["node"] for node in outcome.data["nodes"]] == ["off"]

    outcome = desk.run("check", "of")
    assert outcome.code == 2
    assert "no node is named `of`" in outcome.err


def test_a_best_effort_node_that_is_down_is_named_and_changes_nothing(
    desk: Desk, dead: NodeEntry
) -> None:
    desk.write(desk.node("up"), desk.node("down", policy="best-effort", **dead))

    outcome = desk.run("check", "--json")
    assert outcome.code == 0
    assert outcome.data["verdict"] == "a release can start, without down"
    assert desk.run("check", "down").code == 3


def test_a_gate_that_is_down_leaves_its_builder_without_one(desk: Desk, dead: NodeEntry) -> None:
    desk.write(desk.node("builder", gate_on="gate"), desk.node("gate", enabled=False, **dead))

    outcome = desk.run("check", "--json")

    assert outcome.code == 3
    assert troubles(outcome) == {"gate connection": "problem"}
    assert outcome.data["verdict"] == "a release cannot start: no node can build"


def test_without_an_enabled_node_there_is_nothing_to_start(desk: Desk) -> None:
    desk.write(desk.node("off", enabled=False))

    outcome = desk.run("check", "--json")

    assert outcome.code == 2
    assert here(outcome)["nodes"]["message"] == "no node is enabled"


def test_a_missing_key_is_a_problem_here(desk: Desk) -> None:
    desk.write(desk.node())
    (desk.folder / "key").unlink()

    outcome = desk.run("check", "--json")

    assert outcome.code == 2
    assert troubles(outcome) == {"here key": "problem"}
    assert "orchestrator keygen" in here(outcome)["key"]["hint"]
    assert outcome.data["verdict"] == "a release cannot start: see what is wrong on this machine"


def test_an_inventory_without_a_key_publishes_nothing(desk: Desk) -> None:
    desk.write(desk.node())
    leave_out(desk, "signing")

    outcome = desk.run("check", "--json")

    assert outcome.code == 2
    assert "nothing is published unsigned" in here(outcome)["key"]["message"]


@pytest.mark.parametrize("content", [b"", b"-----BEGIN OPENSSH PRIVATE KEY-----\n"])
def test_a_key_that_cannot_sign_is_a_problem_here(desk: Desk, content: bytes) -> None:
    desk.write(desk.node())
    (desk.folder / "key").write_bytes(content)

    outcome = desk.run("check", "--json")

    assert outcome.code == 2
    assert "not a private key" in here(outcome)["key"]["message"]


@pytest.mark.thorough
def test_a_public_half_of_another_key_is_a_problem_and_none_a_warning(
    desk: Desk, tmp_path: Path
) -> None:
    desk.write(desk.node())
    generate_key(tmp_path / "other", passphrase=None)
    (desk.folder / "key.pub").write_bytes((tmp_path / "other.pub").read_bytes())
    outcome = desk.run("check", "--json")
    assert outcome.code == 2
    assert "is not the public half" in here(outcome)["key"]["message"]

    # What the hint says mends it.
    command = here(outcome)["key"]["hint"].removeprefix("make it anew: ")
    subprocess.run(["sh", "-c", command], check=True)
    assert troubles(desk.run("check", "--json")) == {}

    (desk.folder / "key.pub").unlink()
    outcome = desk.run("check", "--json")
    assert (outcome.code, troubles(outcome)) == (0, {"here key": "warning"})

    (desk.folder / "key.pub").mkdir()
    outcome = desk.run("check", "--json")
    assert outcome.code == 2
    assert "key.pub: cannot be read" in here(outcome)["key"]["message"]


def test_a_passphrase_is_not_asked_for(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    key = desk.folder / "key"
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-a", "1", "-N", "open sesame", "-f", str(key)]
    subprocess.run(words, check=True)
    desk.write(desk.node())

    outcome = desk.run("check", "--json")
    assert (outcome.code, troubles(outcome)) == (0, {"here key": "warning"})
    assert "nobody here to ask" in here(outcome)["key"]["message"]

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    outcome = desk.run("check", "--json")
    assert troubles(outcome) == {}
    assert here(outcome)["key"]["message"].endswith("has a passphrase: will be asked")


def test_a_store_that_cannot_be_written_is_its_owner_s_to_mend(desk: Desk) -> None:
    desk.write(desk.node())
    desk.store.write_text("in the way")

    outcome = desk.run("check", "--json")

    assert outcome.code == 5
    assert troubles(outcome) == {"here store": "problem", "here index": "problem"}
    assert "cannot be written" in here(outcome)["store"]["message"]


@pytest.mark.parametrize("is_there", [True, False])
def test_a_bucket_is_looked_at_and_left_as_it_was(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, *, is_there: bool
) -> None:
    with serving("bucket") as service:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", service.url)
        desk.publication = {"store": "gs://bucket/tool" if is_there else "gs://other"}
        desk.write(desk.node())

        outcome = desk.run("check", "--json")

        assert service.buckets["bucket"].live == {}
    said = here(outcome)
    if is_there:
        assert outcome.code == 0, outcome
        assert said["store"]["message"] == "gs://bucket/tool can be written"
        assert said["index"]["message"] == "stable: nothing is published yet"
    else:
        assert outcome.code == 5
        assert troubles(outcome) == {"here store": "problem", "here index": "problem"}
        assert "there is no bucket gs://other" in said["store"]["message"]


@pytest.mark.thorough
def test_an_index_that_somebody_else_wrote_is_found(desk: Desk) -> None:
    desk.write(desk.node())
    assert desk.release().code == 0
    outcome = desk.run("check", "--json")
    assert here(outcome)["index"]["message"] == "stable: serial 1, signed by a trusted key"

    index = desk.store / "stable.idx"
    index.write_bytes(index.read_bytes().replace(b"#serial 1", b"#serial 2"))
    outcome = desk.run("check", "--json")
    assert outcome.code == 5
    assert troubles(outcome) == {"here index": "problem"}


def test_an_installer_that_cannot_be_rendered_is_found(desk: Desk) -> None:
    desk.write(desk.node())
    (desk.folder / "install.sh.j2").write_text("{{ nonsense }}")
    outcome = desk.run("check", "--json")
    assert outcome.code == 2
    assert "the template cannot be rendered" in here(outcome)["installer"]["message"]
    # It has no hint, and is named below the table all the same.
    assert "\nproblem: coordinator: the template cannot be rendered" in desk.run("check").out

    (desk.folder / "install.sh.j2").unlink()
    leave_out(desk, "url")
    outcome = desk.run("check", "--json")
    assert outcome.code == 0
    assert here(outcome)["installer"]["message"] == "without `publication.url` none is made"


@pytest.mark.parametrize(
    ("source", "tools"),
    [
        ({"crate": "tool"}, ["cargo"]),
        ({"git": "https://example.org/tool.git"}, ["git", "cargo"]),
        ({"path": "."}, ["git", "cargo"]),
    ],
)
def test_the_tools_that_the_source_is_fetched_with_are_looked_for_here(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, source: dict[str, str], *, tools: list[str]
) -> None:
    desk.project = {"source": source}
    desk.write(cargo_node(desk, "near"))
    outcome = desk.run("check", "--json")
    assert [each for each in here(outcome) if each in {"git", "cargo"}] == tools
    assert here(outcome)["cargo"]["message"].startswith("cargo 1.")

    empty = desk.folder / "empty"
    empty.mkdir()
    monkeypatch.setenv("PATH", str(empty))
    outcome = desk.run("check", "--json")
    assert outcome.code == 2
    for tool in tools:
        assert here(outcome)[tool]["message"] == f"`{tool}` is not on PATH"

    (empty / "cargo").write_text("#!/bin/sh\necho 'no default toolchain' >&2\nexit 1\n")
    (empty / "cargo").chmod(0o755)
    found = here(desk.run("check", "--json"))["cargo"]
    assert found["message"] == "`cargo --version` fails: no default toolchain"


async def test_what_a_release_needs_here_depends_on_what_it_does(desk: Desk) -> None:
    desk.write(desk.node())
    operator = Operator.at(str(desk.inventory))

    builds = await check_operator(operator, publishes=False)
    assert [finding.subject for finding in builds] == ["disk"]

    prerelease = await check_operator(operator, parse_version("1.0.0-rc.1"))
    [index] = [finding for finding in prerelease if finding.subject == "index"]
    assert index.message == "prerelease: nothing is published yet"
