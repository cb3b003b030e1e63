"""`orchestrator nodes`, with a real sshd: by options, and at a terminal."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from orchestrator.cli import main
from orchestrator.workspace import load_inventory
from tests.nodes.sshd import needs_sshd, running
from tests.releases import ROOT
from tests.terminal import CTRL_C, at_terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.nodes.sshd import Sshd

pytestmark = needs_sshd

INVENTORY: Final = """\
# What stands here stays.
project:
  name: tool
  binaries: [tool]
  source: { crate: tool }   # pushed

nodes:
  # The first one.
  - name: linux-x86_64
    host: local
    target: x86_64-unknown-linux-gnu
    enabled: false        # for now
"""


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    path = tmp_path / "build-nodes.yaml"
    path.write_text(INVENTORY)
    return path


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running(tmp_path_factory.mktemp("sshd")) as server:
        yield server


def fingerprint(server: Sshd) -> str:
    said = subprocess.run(
        ["ssh-keygen", "-lf", "-"],
        input=server.host_key,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return said.split()[1]


def adding(server: Sshd, inventory: Path, *more: str) -> list[str]:
    place = ["--host", server.host, "--port", str(server.port), "--identity", str(server.identity)]
    work = ["--workdir", str(inventory.parent / "work")]
    return ["nodes", "add", "--inventory", str(inventory), *place, *work, *more]


def test_a_machine_is_added_by_options_and_builds(
    sshd: Sshd, inventory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = adding(sshd, inventory, "--name", "pi", "--fingerprint", fingerprint(sshd), "--json")
    assert main(words) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["node"]["node"] == "pi"
    assert said["node"]["key"] == "pinned"
    assert said["facts"]["cargo"]
    assert [result["result"] for result in said["trial"]["results"]] == ["built"]
    text = inventory.read_text()
    assert text.startswith(INVENTORY)
    (_, pi) = load_inventory(inventory).nodes
    assert pi.host_key == " ".join(sshd.host_key.split()[:2])
    assert (pi.enabled, pi.identity) == (True, str(sshd.identity))


def test_an_identity_is_a_path_of_the_current_folder(
    sshd: Sshd, inventory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(sshd.identity.parent)
    given = ["--identity", sshd.identity.name, "--fingerprint", fingerprint(sshd), "--no-trial"]
    assert main(adding(sshd, inventory, *given, "--name", "pi")) == 0
    assert load_inventory(inventory).nodes[1].identity == str(sshd.identity)

    own = inventory.parent / "keys/client"
    own.parent.mkdir()
    own.write_bytes(sshd.identity.read_bytes())
    own.chmod(0o600)
    given = ["--identity", str(own), *given[2:]]
    assert main(adding(sshd, inventory, *given, "--name", "pi2")) == 0
    assert "identity: keys/client\n" in inventory.read_text()


def test_a_key_that_nobody_vouches_for_is_not_accepted(
    sshd: Sshd, inventory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(adding(sshd, inventory)) == 3
    said = capsys.readouterr().err
    assert "is not known: it shows SHA256:" in said
    assert f"--fingerprint {fingerprint(sshd)}" in " ".join(said.split())
    assert inventory.read_text() == INVENTORY


def test_another_key_than_the_named_one_is_refused(
    sshd: Sshd, inventory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(adding(sshd, inventory, "--fingerprint", f"SHA256:{'A' * 43}")) == 3
    assert "somebody may be pretending" in " ".join(capsys.readouterr().err.split())
    assert inventory.read_text() == INVENTORY


def test_a_key_in_known_hosts_is_pinned_and_another_one_than_there_is_not(
    sshd: Sshd, inventory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = Path("~/.ssh/known_hosts").expanduser()
    known.parent.mkdir(mode=0o700, exist_ok=True)
    known.write_text(f"[127.0.0.1]:{sshd.port} {sshd.host_key}\n")
    assert main(adding(sshd, inventory, "--name", "pi", "--no-trial")) == 0
    assert "the one in known_hosts" in capsys.readouterr().err
    assert load_inventory(inventory).nodes[1].host_key is not None

    other = inventory.parent / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
    known.write_text(f"[127.0.0.1]:{sshd.port} {Path(f'{other}.pub').read_text()}")
    assert main(adding(sshd, inventory, "--name", "pi2", "--no-trial")) == 3
    assert "HAS CHANGED" in capsys.readouterr().err


def test_who_cannot_be_reached_is_not_added(
    inventory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["nodes", "add", "--inventory", str(inventory), "--host", "u@127.0.0.1", "--port", "1"]
    assert main(words) == 3
    said = capsys.readouterr().err
    assert "cannot connect to 127.0.0.1:1" in said
    assert "is sshd running there" in said
    assert inventory.read_text() == INVENTORY


def test_a_login_that_is_refused_says_how_to_be_let_in(
    sshd: Sshd, inventory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = inventory.parent / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
    words = adding(sshd, inventory, "--identity", str(other), "--fingerprint", fingerprint(sshd))
    assert main(words) == 3
    said = " ".join(capsys.readouterr().err.split())
    assert f"ssh-copy-id -p {sshd.port} -i {other} {sshd.host}" in said


@pytest.fixture
def without_cargo(tmp_path: Path) -> Iterator[Sshd]:
    home = tmp_path / "bare-home"
    (home / ".cargo/bin").mkdir(parents=True)
    # Wherever cargo is on this machine, this one goes first.
    for name in ("cargo", "rustc"):
        (home / ".cargo/bin" / name).write_text("#!/bin/sh\nexit 1\n")
        (home / ".cargo/bin" / name).chmod(0o755)
    with running(tmp_path / "sshd", environment={"HOME": str(home)}) as server:
        yield server


def test_a_machine_without_cargo_is_told_what_to_install_and_not_added(
    without_cargo: Sshd, inventory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = adding(without_cargo, inventory, "--fingerprint", fingerprint(without_cargo))
    assert main(words) == 3
    said = " ".join(capsys.readouterr().err.split())
    assert "no cargo and no rustc that answers" in said
    assert "rustup" in said
    assert inventory.read_text() == INVENTORY

    assert main([*words, "--disabled", "--name", "later"]) == 0
    assert load_inventory(inventory).nodes[1].enabled is False
    assert "orchestrator nodes enable later" in capsys.readouterr().out


def test_a_csh_user_is_no_trouble_and_told_so(
    tmp_path: Path, inventory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    csh = shutil.which("csh")
    assert csh is not None
    # What the login shell of a csh user does with the command: it reads it.
    options = [f'ForceCommand exec {csh} -f -c "$SSH_ORIGINAL_COMMAND"']
    with running(tmp_path / "sshd", environment={"SHELL": csh}, options=options) as server:
        key = ["--fingerprint", fingerprint(server)]
        # What is forced upon every session leaves no SFTP, which the source needs.
        assert main(adding(server, inventory, "--name", "csh", *key, "--disabled")) == 0
        said = capsys.readouterr().err
        assert f"shell   {csh}" in said
        assert "takes no files: it has no SFTP" in said
        assert main(["check", "csh", "--inventory", str(inventory), "--json"]) in {0, 2, 5}
    nodes = json.loads(capsys.readouterr().out)["nodes"]
    (shell,) = (found for found in nodes[0]["findings"] if found["check"] == "shell")
    assert (shell["state"], "/bin/sh runs all of ours" in shell["message"]) == ("ok", True)


def test_a_failed_trial_leaves_the_node_disabled(
    tmp_path: Path, inventory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tools = tmp_path / "home/.cargo/bin"
    tools.mkdir(parents=True)
    # Not through rustup's proxies, which look for their toolchains in the home.
    sysroot = subprocess.run(
        ["rustc", "--print", "sysroot"], check=True, capture_output=True, text=True
    ).stdout.strip()
    (tools / "rustc").symlink_to(f"{sysroot}/bin/rustc")
    (tools / "cargo").write_text(
        '#!/bin/sh\ncase $1 in build) echo "no space for you" >&2; exit 101 ;; esac\n'
        f'exec {sysroot}/bin/cargo "$@"\n'
    )
    (tools / "cargo").chmod(0o755)
    with running(tmp_path / "sshd", environment={"HOME": f"{tmp_path}/home"}) as server:
        words = adding(server, inventory, "--name", "bad", "--fingerprint", fingerprint(server))
        assert main(words) == 4
    said = capsys.readouterr()
    assert "no space for you" in said.err
    assert "disabled, because the trial build failed" in said.out
    assert load_inventory(inventory).nodes[1].enabled is False


def test_at_a_terminal_everything_is_asked_for(sshd: Sshd, inventory: Path) -> None:
    words = ["nodes", "add", *adding(sshd, inventory)[6:]]
    with at_terminal(inventory, *words) as terminal:
        terminal.wait_for("or `local`:")
        terminal.type("nobody at all\n")
        terminal.wait_for("host: must be `local`")
        terminal.type(f"{sshd.host}\n")
        terminal.wait_for("is that the machine's own key? [y/N]")
        terminal.type("y\n")
        terminal.wait_for("Rust target [")
        terminal.type("\n")
        terminal.wait_for("name [")
        terminal.type("pi\n")
        terminal.wait_for("build command, ended by an empty line")
        terminal.type("\n")
        terminal.wait_for("build a small program there now?")
        terminal.type("n\n")
        assert terminal.end() == 0
    assert [node.name for node in load_inventory(inventory).nodes] == ["linux-x86_64", "pi"]
    assert inventory.read_text().startswith(INVENTORY)


def test_at_a_terminal_a_no_to_the_key_changes_nothing(sshd: Sshd, inventory: Path) -> None:
    words = ["nodes", *adding(sshd, inventory)[1:2], *adding(sshd, inventory)[4:]]
    with at_terminal(inventory, *words) as terminal:
        terminal.wait_for("is that the machine's own key? [y/N]")
        terminal.type("what\n")
        terminal.type("\n")
        assert terminal.end() == 3
    assert inventory.read_text() == INVENTORY


def test_nodes_are_listed_enabled_disabled_and_removed(
    inventory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at = ["--inventory", str(inventory)]
    assert main(["nodes", *at, "enable", "linux-x86_64"]) == 0
    assert inventory.read_text() == INVENTORY.replace("enabled: false", "enabled: true")
    assert main(["nodes", "enable", "linux-x86_64", *at]) == 0
    assert "already enabled" in capsys.readouterr().out
    assert main(["nodes", "disable", "linux-x86_64", *at, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["enabled"] is False
    assert inventory.read_text() == INVENTORY
    assert main(["nodes", *at]) == 0
    assert "linux-x86_64" in capsys.readouterr().out
    assert main(["nodes", "list", *at, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["target"] == "x86_64-unknown-linux-gnu"
    assert main(["nodes", "remove", "linux-x86_64", *at]) == 2
    assert "is the only node" in capsys.readouterr().err
    assert main(["nodes", "disable", "nobody", "linux-x86_64", *at]) == 2
    assert inventory.read_text() == INVENTORY


def test_a_removed_node_is_gone_and_nothing_else(
    sshd: Sshd, inventory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = ["--fingerprint", fingerprint(sshd), "--no-trial", "--yes", "--name", "pi"]
    assert main(adding(sshd, inventory, *key)) == 0
    assert main(["nodes", "remove", "pi", "--inventory", str(inventory)]) == 0
    assert inventory.read_text() == INVENTORY
    assert main(adding(sshd, inventory, *key)) == 0
    assert main(["nodes", "remove", "pi", "--inventory", str(inventory), "--json"]) == 0
    assert '"node": "pi"' in capsys.readouterr().out
    assert inventory.read_text() == INVENTORY


def test_several_nodes_are_removed_at_once_or_none_of_them(
    sshd: Sshd, inventory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = ["--fingerprint", fingerprint(sshd), "--no-trial", "--yes"]
    for name in ("pi", "pi2"):
        assert main(adding(sshd, inventory, *key, "--name", name)) == 0
    both = inventory.read_text()
    at = ["--inventory", str(inventory)]
    assert main(["nodes", "remove", "pi", "nobody", *at]) == 2
    assert main(["nodes", "remove", "pi", "pi2", "linux-x86_64", *at]) == 2
    assert inventory.read_text() == both
    assert main(["nodes", "remove", "pi2", "pi", "pi", *at]) == 0
    assert inventory.read_text() == INVENTORY
    assert "removed pi2" in capsys.readouterr().out


def test_where_nobody_is_asked_the_machine_must_be_said(
    inventory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["nodes", "add", "--yes", "--inventory", str(inventory)]) == 2
    said = capsys.readouterr().err
    assert "nothing says which machine it is" in said
    assert "--host local" in " ".join(said.split())
    assert inventory.read_text() == INVENTORY


def test_a_name_that_nobody_knows_is_told_from_a_host_that_is_silent(
    inventory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["nodes", "add", "--inventory", str(inventory), "--host", "u@nowhere.invalid"]
    assert main([*words, "--port", "2222"]) == 3
    said = " ".join(capsys.readouterr().err.split())
    assert "connecting to u@nowhere.invalid on port 2222" in said
    assert "is the name right?" in said
    assert "is sshd running there" not in said


def test_a_server_without_sftp_is_found_out_before_anything_is_written(
    inventory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(tmp_path / "server", has_sftp=False) as server:
        assert main(adding(server, inventory, "--fingerprint", fingerprint(server))) == 3
        said = capsys.readouterr().err
        assert "takes no files: it has no SFTP" in said
        assert "Subsystem sftp" in said
        assert inventory.read_text() == INVENTORY

        written = INVENTORY + (
            f"  - {{name: pi, host: '{server.host}', port: {server.port}, target: "
            f"x86_64-unknown-linux-gnu, identity: '{server.identity}', "
            f"host_key: '{' '.join(server.host_key.split()[:2])}', workdir: {tmp_path}/work}}\n"
        )
        inventory.write_text(written)
        assert main(["check", "pi", "--json", "--inventory", str(inventory)]) == 2
        data = json.loads(capsys.readouterr().out)
        found = {each["check"]: each for each in data["nodes"][0]["findings"]}
        assert found["files"]["state"] == "problem"
        assert found["toolchain"]["state"] == "ok"


def test_a_machine_without_rust_is_told_before_the_questions(
    inventory: Path, tmp_path: Path
) -> None:
    empty = {"HOME": str(tmp_path / "home")}
    (tmp_path / "home").mkdir()
    with running(tmp_path / "server", environment=empty) as server:
        words = adding(server, inventory, "--fingerprint", fingerprint(server))
        with at_terminal(inventory, "nodes", "add", *words[4:]) as terminal:
            terminal.wait_for("Rust target [")
            assert b"it cannot build yet: no cargo and no rustc" in terminal.said
            terminal.interrupt()
    assert inventory.read_text() == INVENTORY


def test_a_new_host_key_is_pinned_only_if_somebody_vouches_for_it(
    sshd: Sshd, inventory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    right = ["--fingerprint", fingerprint(sshd)]
    assert main(adding(sshd, inventory, *right, "--no-trial", "--name", "pi")) == 0
    good = inventory.read_text()
    stale = inventory.parent / "stale"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", stale], check=True)
    line = " ".join(Path(f"{stale}.pub").read_text().split()[:2])
    old = good.replace(" ".join(sshd.host_key.split()[:2]), line)
    inventory.write_text(old)
    at = ["--inventory", str(inventory)]
    assert main(["nodes", "rekey", "pi", *at]) == 3
    assert capsys.readouterr().err.count("HAS CHANGED") == 1
    assert main(["nodes", "rekey", "pi", *at, "--fingerprint", f"SHA256:{'A' * 43}"]) == 3
    assert inventory.read_text() == old
    assert main(["nodes", "rekey", "pi", *at, *right]) == 0
    assert inventory.read_text() == good
    capsys.readouterr()
    assert main(["nodes", "rekey", "pi", *at, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fingerprint"] == fingerprint(sshd)
    assert main(["nodes", "rekey", "linux-x86_64", *at]) == 2
    guest = "  - name: guest\n    vm: debian-amd64\n    target: x86_64-unknown-linux-gnu\n"
    inventory.write_text(f"{good}{guest}")
    assert main(["nodes", "rekey", "guest", *at]) == 2
    assert "made with a key that is known" in capsys.readouterr().err


def test_at_a_terminal_a_changed_key_is_shown_and_asked_about(sshd: Sshd, inventory: Path) -> None:
    right = ["--fingerprint", fingerprint(sshd)]
    assert main(adding(sshd, inventory, *right, "--no-trial", "--name", "pi")) == 0
    good = inventory.read_text()
    inventory.write_text(
        "\n".join(line for line in good.splitlines() if "host_key" not in line) + "\n"
    )
    with at_terminal(inventory, "nodes", "rekey", "pi") as terminal:
        terminal.wait_for("is that its own new key? [y/N]")
        terminal.type("y\n")
        assert terminal.end() == 0
    assert load_inventory(inventory).nodes[1].host_key == " ".join(sshd.host_key.split()[:2])


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--fingerprint", "MD5:00"], "not the fingerprint"),
        (["--target", "x86_64-linux"], "unknown target"),
        ([], "--host is missing"),
        (["--host", "a b"], "host: must be"),
        (["--host", "local", "--port", "0"], "port: must be"),
        (["--host", "local", "--name", "linux-x86_64"], "linux-x86_64"),
        (["--hots", "x"], "did you mean `--host`"),
    ],
)
def test_wrong_words_are_told_before_anything_is_done(
    words: list[str], complaint: str, *, inventory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(["nodes", "add", "--inventory", str(inventory), *words])
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    assert code == 2
    assert complaint in " ".join(capsys.readouterr().err.split())
    assert inventory.read_text() == INVENTORY


def test_this_machine_can_be_a_node_too_and_cross_builds_need_a_gate(
    inventory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at = ["nodes", "add", "--inventory", str(inventory), "--host", "local", "--no-trial"]
    assert main([*at, "--workdir", str(inventory.parent / "w"), "--name", "here"]) == 0
    assert main([*at, "--target", "aarch64-unknown-freebsd", "--name", "cross"]) == 2
    assert "cannot run what it builds for aarch64-unknown-freebsd" in capsys.readouterr().err
    pi = ["--target", "aarch64-unknown-freebsd", "--gate-on", "here", "--name", "cross"]
    assert main([*at, *pi]) == 2


def test_add_node_sh_hands_everything_on(tmp_path: Path) -> None:
    for name in ("add-node.sh", "build-nodes.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "Makefile").write_text("venv:\n")
    command = tmp_path / ".venv/bin/orchestrator"
    command.parent.mkdir(parents=True)
    command.write_text('#!/bin/sh\nprintf "<%s>" "$@"\n')
    command.chmod(0o755)
    said = subprocess.run(
        [tmp_path / "add-node.sh", "--host", "a b"], check=True, capture_output=True, text=True
    ).stdout
    assert said == "<nodes><add><--host><a b>"


WITHOUT_SOURCE: Final = """\
- name: first
  host: local
  target: x86_64-unknown-linux-gnu
  build_command: make {version}
  binary_path: /tmp/{version}/tool
"""


@pytest.mark.parametrize(
    ("typed", "command", "path"),
    [("\n", "make {version}", "/tmp/{version}/tool"), ("gmake\n\n/x/tool\n", "gmake\n", "/x/tool")],
)
def test_without_a_source_the_neighbours_command_is_proposed(
    inventory: Path, typed: str, command: str, *, path: str
) -> None:
    inventory.write_text(WITHOUT_SOURCE)
    with at_terminal(inventory, "nodes", "add", "--host", "local", "--no-trial") as terminal:
        terminal.wait_for("Rust target [")
        terminal.type("\n")
        terminal.wait_for("name [")
        terminal.type("second\n")
        terminal.wait_for("ended by an empty line [as first does]")
        terminal.type(typed)
        assert terminal.end() == 0
    second = load_inventory(inventory).nodes[1]
    assert (second.build_command, second.binary_path) == (command, path)


def test_a_cross_build_names_its_gate(inventory: Path) -> None:
    pi = "  - name: pi\n    host: a.example\n    target: aarch64-unknown-freebsd\n"
    inventory.write_text(INVENTORY + pi)
    words = ["--host", "local", "--target", "aarch64-unknown-freebsd", "--no-trial"]
    with at_terminal(inventory, "nodes", "add", *words) as terminal:
        terminal.wait_for("which node does (pi) [pi]")
        terminal.type("\n")
        terminal.wait_for("name [freebsd-aarch64]")
        terminal.type("\n")
        terminal.wait_for("ended by an empty line")
        terminal.type("\n")
        assert terminal.end() == 0
    assert load_inventory(inventory).nodes[2].gate_on == ("pi",)


def test_a_machine_that_cannot_build_yet_is_written_disabled_if_a_person_wants_it(
    without_cargo: Sshd, inventory: Path
) -> None:
    key = ["--fingerprint", fingerprint(without_cargo), "--name", "later"]
    words = ["nodes", "add", *adding(without_cargo, inventory)[4:], *key]
    for answer, code in (("n\n", 3), ("y\n", 0)):
        with at_terminal(inventory, *words) as terminal:
            terminal.wait_for("Rust target [")
            terminal.type("\n")
            terminal.wait_for("ended by an empty line")
            terminal.type("\n")
            terminal.wait_for("all the same, disabled? [Y/n]")
            terminal.type(answer)
            assert terminal.end() == code
    assert load_inventory(inventory).nodes[1].enabled is False


def test_an_end_of_the_answers_changes_nothing(inventory: Path) -> None:
    with at_terminal(inventory, "nodes", "add") as terminal:
        terminal.wait_for("or `local`:")
        terminal.type("\x04")
        assert terminal.end() == 2
        assert b"nothing was written" in terminal.said
    assert inventory.read_text() == INVENTORY


def test_an_end_of_the_answers_at_the_last_question_changes_nothing_either(
    sshd: Sshd, inventory: Path
) -> None:
    key = ["--fingerprint", fingerprint(sshd), "--name", "pi"]
    with at_terminal(inventory, "nodes", "add", *adding(sshd, inventory)[4:], *key) as terminal:
        terminal.wait_for("Rust target [")
        terminal.type("\n")
        terminal.wait_for("ended by an empty line")
        terminal.type("\n")
        terminal.wait_for("build a small program there now?")
        terminal.type("\x04")
        assert terminal.end() == 2
        assert b"nothing was written" in terminal.said
    assert inventory.read_text() == INVENTORY


@pytest.mark.parametrize("is_killed", [False, True])
def test_an_interrupted_trial_leaves_the_node_disabled(
    sshd: Sshd, inventory: Path, *, is_killed: bool
) -> None:
    key = ["--fingerprint", fingerprint(sshd), "--name", "pi"]
    with at_terminal(inventory, "nodes", "add", *adding(sshd, inventory)[4:], *key) as terminal:
        terminal.wait_for("Rust target [")
        terminal.type("\n")
        terminal.wait_for("ended by an empty line")
        terminal.type("\n")
        terminal.wait_for("build a small program there now?")
        terminal.type("\n")
        terminal.wait_for("releasing trajectory")
        if is_killed:
            terminal.process.kill()
            assert terminal.end() == -signal.SIGKILL
        else:
            terminal.type(CTRL_C)
            assert terminal.end() == 130
            assert b"orchestrator nodes enable pi" in terminal.said
    assert load_inventory(inventory).nodes[1].enabled is False


def test_options_that_are_wrong_are_told_before_the_first_question(inventory: Path) -> None:
    with at_terminal(inventory, "nodes", "add", "--port", "99999") as terminal:
        terminal.type("\x04")
        assert terminal.end() == 2
        assert b"must be a whole number from 1 to 65535" in terminal.said
        assert b"or `local`:" not in terminal.said


def test_a_gate_that_is_none_is_asked_for_again(inventory: Path) -> None:
    pi = "  - name: pi\n    host: a.example\n    target: aarch64-unknown-freebsd\n"
    inventory.write_text(INVENTORY + pi)
    words = ["--host", "local", "--target", "aarch64-unknown-freebsd", "--no-trial", "--name", "x"]
    with at_terminal(inventory, "nodes", "add", *words) as terminal:
        terminal.wait_for("which node does (pi) [pi]")
        terminal.type("qi\n")
        terminal.wait_for("no node is named `qi`")
        terminal.type("\n")
        terminal.wait_for("ended by an empty line")
        terminal.type("\n")
        assert terminal.end() == 0
    assert load_inventory(inventory).nodes[2].gate_on == ("pi",)


def test_a_gate_can_be_named_before_the_target_is(inventory: Path) -> None:
    pi = "  - name: pi\n    host: a.example\n    target: aarch64-unknown-freebsd\n"
    inventory.write_text(INVENTORY + pi)
    words = ["--no-trial", "--gate-on", "pi", "--host", "local"]
    with at_terminal(inventory, "nodes", "add", *words) as terminal:
        terminal.wait_for("Rust target [")
        terminal.type("aarch64-unknown-freebsd\n")
        terminal.wait_for("name [")
        terminal.type("\x04")
        assert terminal.end() == 2


def test_a_mistake_in_one_of_several_names_changes_nothing(
    inventory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = INVENTORY.replace("    enabled: false        # for now\n", "    variants: x86-64-v3\n")
    inventory.write_text(text)
    words = ["linux-x86_64", "linux-x86_64-v3", "--inventory", str(inventory)]
    assert main(["nodes", "disable", *words]) == 2
    assert "no node of the file is named `linux-x86_64-v3`" in capsys.readouterr().err
    assert inventory.read_text() == text


def test_a_reinstalled_machine_may_have_another_kind_of_key(
    inventory: Path, sshd: Sshd, capsys: pytest.CaptureFixture[str]
) -> None:
    other = inventory.parent / "other"
    other.mkdir(mode=0o700)
    command = ["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-C", "", "-f", f"{other}/host_key"]
    subprocess.run(command, check=True)
    with running(other) as server:
        line = " ".join(sshd.host_key.split()[:2])
        inventory.write_text(
            f"{INVENTORY}  - name: pi\n    host: {server.host}\n    port: {server.port}\n"
            f"    host_key: {line}\n    target: x86_64-unknown-linux-gnu\n"
        )
        words = ["nodes", "rekey", "pi", "--inventory", str(inventory)]
        assert main(words) == 3
        said = " ".join(capsys.readouterr().err.split())
        assert "HAS CHANGED" in said
        assert "/etc/ssh/ssh_host_ecdsa_key.pub" in said
        assert "ssh_host_ed25519_key" not in said
        assert main([*words, "--fingerprint", fingerprint(server)]) == 0
        assert load_inventory(inventory).nodes[1].host_key == " ".join(server.host_key.split()[:2])
