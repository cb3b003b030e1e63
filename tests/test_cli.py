"""The command line: what is asked, what is answered where, and with which exit code."""

from __future__ import annotations

import getpass
import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from orchestrator import __version__, cli, commands
from orchestrator.cli import COMMANDS, main
from orchestrator.core.errors import ConfigError
from orchestrator.options.vm import ACTIONS
from orchestrator.signing import load_signer
from orchestrator.workspace import host_triple

ROOT = Path(__file__).parent.parent
URL = "https://example.org/tool"
INVENTORY = """\
project: { name: tool }
publication: { url: %(url)s, signing: { key: keys/tool } }
nodes:
  - name: here
    host: local
    target: %(target)s
    workdir: %(folder)s/node
    build_command: |
      echo 'error: no such function'
      exit 7
    binary_path: %(folder)s/tool
"""


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an inventory, where commands run; its only build fails."""
    (tmp_path / "keys").mkdir()
    values = {"url": URL, "target": host_triple(), "folder": tmp_path}
    (tmp_path / "build-nodes.yaml").write_text(INVENTORY % values)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    return tmp_path


def exit_code_of(*words: str) -> int:
    """Return the code of a command, also where argparse ends the program by itself."""
    try:
        return main(words)
    except SystemExit as end:
        return int(end.code or 0)


def test_every_command_has_options_and_a_function() -> None:
    assert list(COMMANDS) == list(commands.COMMANDS)
    assert all(callable(commands.command(name)) for name in COMMANDS)


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_goes_to_standard_output_and_lists_every_command(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([option]) == 0

    shown = capsys.readouterr()
    assert shown.err == ""
    assert all(f"\n  {name} " in shown.out for name in COMMANDS)
    assert max(map(len, shown.out.splitlines())) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_fits_eighty_columns(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code_of(name, "--help") == 0

    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: orchestrator {name}")
    assert max(map(len, shown.splitlines())) <= 80


def test_the_help_and_the_page_of_machines_say_the_same_of_each_action(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert exit_code_of("vm", "--help") == 0
    shown = capsys.readouterr().out
    page = (ROOT / "docs/vms.md").read_text().replace("`", "")
    for name, what in ACTIONS.items():
        assert f"\n  {name:<8} {what}\n" in shown
        assert f"\n| {name} | {what.replace('`', '')} |\n" in page


def test_no_command_shows_the_help_as_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2

    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("usage: orchestrator COMMAND")


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0

    assert capsys.readouterr().out == f"orchestrator {__version__}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["relase"], "error: 'relase' is not a command, did you mean `release`?\n"),
        (["--hlep"], "error: '--hlep' is not an option, did you mean `--help`?\n"),
        (["\x1b[2J"], "error: '\\x1b[2J' is not a command\n"),
        (["release", "--version", "1.0.0", "--dry-rn"], "did you mean `--dry-run`?\n"),
        (["release", "--version", "1.0.0", "--dry"], "did you mean `--dry-run`?\n"),
        (["schema", "--qqqq"], "error: unrecognized: '--qqqq'\n"),
        (["release", "--verson", "1.0.0"], "d: '--verson', did you mean `--version`?\n"),
        (["release", "--versio=1.0.0"], "d: '--versio=1.0.0', did you mean `--version`?\n"),
        (["logs", "--folow"], "error: unrecognized: '--folow', did you mean `--follow`?\n"),
        (
            ["release", "--verson", "1.0.0", "--jsno", "extra"],
            "did you mean `--version`?\nunrecognized: '--jsno', did you mean `--json`?\n",
        ),
        (["schema", "extra", "more"], "error: unrecognized: 'extra'\nunrecognized: 'more'\n"),
        (["release"], "the following arguments are required: --version\n"),
        (["logs", "1.0.0"], "the following arguments are required: NODE\n"),
        (["bench", "--runs", "0"], "argument --runs: '0' is not a whole number from 1 on\n"),
        (["history", "-n", "x"], "-n/--number: 'x' is not a whole number from 1 on\n"),
        (["vm", "make"], "argument ACTION: invalid choice: 'make'"),
        (["serve", "--port", "x"], "argument --port: invalid int value: 'x'\n"),
    ],
)
def test_a_wrong_command_line_is_refused_with_what_was_meant(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code_of(*words) == 2

    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.out == ""


@pytest.mark.usefixtures("desk")
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("release --version 1 --dry-run", ("not a semantic version: '1'", "MAJOR.MINOR.PATCH")),
        (
            "release --version 1.0.0 --inventory no.yaml",
            ("no.yaml: there is no", "--inventory"),
        ),
        ("release --version 1.0.0", ("there is no signing key at", "orchestrator keygen")),
        ("release --version 1.0.0 --dry-run --node her", ("did you mean `here`?", "here")),
        ("logs 1.0.0 her", ("no node is named `her`", "the nodes are: here")),
        ("logs 1.0.0 here", ("here has no job of 1.0.0", "orchestrator release --node here")),
        ("render", ("there is no signing key at", "orchestrator keygen")),
        ("serve --port 70000", ("cannot listen on 127.0.0.1 port 70000", "choose another port")),
        ("status nonsense", ("not a semantic version: 'nonsense'", "MAJOR.MINOR.PATCH")),
    ],
)
def test_a_mistake_is_said_on_standard_error_with_a_hint(
    line: str, said: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == 2

    shown = capsys.readouterr()
    error, _, advice = shown.err.partition("\nhint: ")
    assert error.startswith("error: ")
    assert said[0] in error
    assert said[1] in advice
    assert shown.out == ""
    assert "\x1b" not in shown.err


def test_a_bug_of_ours_is_not_dressed_up_as_anything_else() -> None:
    with pytest.raises(ValueError, match="null"):
        main(["release", "--version", "1.0.0", "--inventory", "a\0b"])


def test_the_schema_is_the_file_that_editors_are_pointed_at(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["schema"]) == 0

    assert capsys.readouterr().out == (ROOT / "build-nodes.schema.json").read_text()


def test_a_reader_that_has_gone_ends_the_program_without_a_word() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        [sys.executable, "-m", "orchestrator", "schema"],
        cwd=ROOT,
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)

    assert (ended.returncode, ended.stderr) == (cli.READER_GONE, b"")


def test_a_dry_run_as_json_is_one_document_and_touches_nothing(
    desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(desk.rglob("*"))

    assert main(["release", "--version", "1.0.0", "--dry-run", "--json"]) == 0

    shown = capsys.readouterr()
    plan = json.loads(shown.out)
    assert [task["node"] for task in plan["tasks"]] == ["here"]
    assert shown.err == ""
    assert sorted(desk.rglob("*")) == before


@pytest.mark.usefixtures("desk")
def test_a_dry_run_names_the_command_and_what_would_be_published(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["release", "--version", "1.0.0", "--dry-run"]) == 0

    shown = capsys.readouterr().out
    assert "exit 7" in shown
    assert f"releases/1.0.0/{host_triple()}/tool-1.0.0-{host_triple()}.tar.gz" in shown


def test_a_failed_build_says_so_in_plain_lines_and_stays_readable_afterwards(
    desk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    node = f"here/{host_triple()}"
    release = ["release", "--version", "1.0.0", "--no-publish"]

    assert main(release) == 4
    shown = capfd.readouterr()
    assert f"{node}: connecting\n" in shown.err
    assert f"{node}: failed (build)" in shown.out
    assert "  | error: no such function\n" in shown.out
    assert f"log: {desk}/dist/1.0.0/here/build.log\n" in shown.out
    assert "\x1b" not in shown.err + shown.out

    assert main([*release, "--quiet"]) == 4
    shown = capfd.readouterr()
    assert shown.err == ""
    assert "failed (build)" in shown.out

    assert main([*release, "--json"]) == 4
    shown = capfd.readouterr()
    assert shown.err == ""
    assert json.loads(shown.out)["results"][0]["class"] == "build"

    assert main(["logs", "1.0.0", "here"]) == 0
    assert capfd.readouterr().out == "error: no such function\n"

    # Who follows a job to its end is told how it ended, as by a release.
    assert main(["logs", "1.0.0", "here", "--follow"]) == 4
    shown = capfd.readouterr()
    assert shown.out == "error: no such function\n"
    assert "status 7" in shown.err

    assert main(["status", "1.0.0", "--json"]) == 0
    status = json.loads(capfd.readouterr().out)
    assert [(job["node"], job["state"]) for job in status["jobs"]] == [("here", "finished")]

    assert main(["status"]) == 0
    shown = capfd.readouterr()
    assert "nothing is published" in shown.out
    assert "the command exited with status 7" in shown.out


def test_keygen_prints_both_public_keys_and_never_replaces_one(
    desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["keygen"]) == 0

    shown = capsys.readouterr().out
    key = (desk / "keys/tool").read_bytes()
    ssh = " ".join((desk / "keys/tool.pub").read_text().split()[:2])
    minisign = (desk / "keys/tool.minisign.pub").read_text().splitlines()[1]
    assert f"ssh:         {ssh}\n" in shown
    assert f"minisign:    {minisign}\n" in shown

    assert main(["keygen"]) == 2
    assert "never overwritten" in capsys.readouterr().err
    assert (desk / "keys/tool").read_bytes() == key


def test_keygen_asks_twice_for_a_passphrase(
    desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = iter(["secret", "other", "secret", "secret"])
    monkeypatch.setattr(getpass, "getpass", lambda _: next(answers))

    assert main(["keygen", "--passphrase"]) == 2
    assert "the two passphrases differ" in capsys.readouterr().err
    assert not (desk / "keys/tool").exists()

    assert main(["keygen", "--passphrase"]) == 0
    shown = capsys.readouterr()
    assert "secret" not in shown.out + shown.err
    with pytest.raises(ConfigError):
        load_signer(desk / "keys/tool", None)
    assert load_signer(desk / "keys/tool", lambda: b"secret").public.ssh in shown.out


@pytest.mark.usefixtures("desk")
def test_ctrl_c_at_a_question_is_not_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(getpass, "getpass", lambda _: signal.raise_signal(signal.SIGINT))

    assert main(["keygen", "--passphrase"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_an_installer_needs_an_address(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inventory = desk / "build-nodes.yaml"
    inventory.write_text(inventory.read_text().replace(f"url: {URL}, ", ""))

    assert main(["render"]) == 2
    assert "an installer needs `publication.url`" in capsys.readouterr().err


def test_render_prints_an_installer_with_the_address_and_both_keys(
    desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["keygen"]) == 0
    capsys.readouterr()

    assert main(["render"]) == 0
    shown = capsys.readouterr().out
    ssh = " ".join((desk / "keys/tool.pub").read_text().split()[:2])
    minisign = (desk / "keys/tool.minisign.pub").read_text().splitlines()[1]
    assert shown.startswith("#!/bin/sh\n")
    assert all(word in shown for word in (URL, ssh, minisign))
    assert subprocess.run(["sh", "-n"], input=shown, text=True, check=False).returncode == 0
    assert "\n    VERSION_WORDS='--version'\n" in shown

    inventory = desk / "build-nodes.yaml"
    other = 'name: tool, version_command: "{binary} about --short"'
    inventory.write_text(inventory.read_text().replace("name: tool", other, 1))
    assert main(["render"]) == 0
    assert "\n    VERSION_WORDS='about --short'\n" in capsys.readouterr().out


def test_serve_waits_for_the_inventory_s_store_and_serves_it_until_it_is_interrupted(
    desk: Path,
) -> None:
    inventory = desk / "build-nodes.yaml"
    inventory.write_text(
        inventory.read_text().replace("publication: {", "publication: { store: store,")
    )
    serving = subprocess.Popen(
        [sys.executable, "-m", "orchestrator", "serve", "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert serving.stdout is not None
    with serving:
        line = serving.stdout.readline()
        (desk / "store").mkdir()
        (desk / "store" / "install.sh").write_text("#!/bin/sh\n")
        with urllib.request.urlopen(f"{line.split()[-1]}/install.sh") as answer:
            assert answer.read() == b"#!/bin/sh\n"
        serving.send_signal(signal.SIGINT)
        assert serving.wait(timeout=20) == 0
    assert line.startswith(f"serving {desk}/store (nothing is there yet) at http://127.0.0.1:")


def test_serve_serves_a_folder_that_was_named_without_an_inventory(tmp_path: Path) -> None:
    (tmp_path / "install.sh").write_text("#!/bin/sh\n")
    command = [sys.executable, "-m", "orchestrator", "serve", "--port", "0", "--store"]
    serving = subprocess.Popen(
        [*command, str(tmp_path)], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert serving.stdout is not None
    with serving:
        line = serving.stdout.readline()
        with urllib.request.urlopen(f"{line.split()[-1]}/install.sh") as answer:
            assert answer.read() == b"#!/bin/sh\n"
        serving.send_signal(signal.SIGINT)
        assert serving.wait(timeout=20) == 0
    assert line.startswith(f"serving {tmp_path} at http://127.0.0.1:")


@pytest.mark.parametrize("name", ["sotre", "build-nodes.yaml"])
def test_serve_refuses_a_named_folder_that_is_not_there(desk: Path, name: str) -> None:
    # Another process: what is not refused would be served for ever.
    ended = subprocess.run(
        [sys.executable, "-m", "orchestrator", "serve", "--port", "0", "--store", name],
        cwd=desk,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"error: there is no folder {name} to serve\nhint: ")
