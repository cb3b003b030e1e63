"""`serve` at the command line: what it says before it starts, and when it cannot."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.github_server import REPOSITORY
from tests.releases import ROOT, wait_for

if TYPE_CHECKING:
    from tests.service.running import Works


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


def serve(works: Works, *words: str, without: str = "") -> Said:
    inventory = str(works.desk.inventory)
    environment = {key: value for key, value in works.environ.items() if key != without}
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", "serve", "--inventory", inventory, *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return Said(done.returncode, done.stdout, done.stderr)


def test_a_service_that_lacks_nothing_can_start(works: Works) -> None:
    works.environment["ORCHESTRATOR_ACTION_TOKEN"] = "0123456789abcdef"
    works.environment["NTFY_URL"] = "https://ntfy.example.org/secret-topic"
    works.settings["notices"] = [{"url_env": "NTFY_URL", "format": "ntfy"}]
    works.github.add_release("v1.0.0")
    works.write(works.desk.node())
    said = serve(works, "--check")
    assert said.code == 0, said
    assert said.out.endswith("the service can start\n")
    assert f"deliveries of {REPOSITORY} are taken" in said.out
    assert "with the token, on the page" in said.out
    assert f"{REPOSITORY} has 1 releases, read with its token" in said.out
    assert str(works.desk.dist / "service/queue.sqlite") in said.out
    assert "secret-topic" not in said.out + said.err
    assert not (works.desk.dist / "service/queue.sqlite").exists()


def test_what_is_missing_is_told_with_what_to_do(works: Works) -> None:
    works.settings["listen"] = "0.0.0.0:8000"
    works.settings["statuses"] = True
    works.environment["GITHUB_TOKEN"] = ""
    works.write(works.desk.node())
    said = serve(works, "--check", without="ORCHESTRATOR_WEBHOOK_SECRET")
    assert said.code == 2
    assert said.out.endswith("the service cannot start\n")
    assert "there is no webhook secret, so nobody could be believed" in said.out
    assert "openssl rand -hex 32" in said.out
    assert "`service.statuses` needs a GitHub token" in said.out
    assert "0.0.0.0:8000 is reached from other machines, without TLS" in said.out
    assert "nobody is told of what goes wrong" in said.out
    assert "none on the page" in said.out


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"webhook_secret_file": "nowhere"}, "there is no webhook secret"),
        ({"database": "postgresql://nobody@127.0.0.1:1/x"}, "cannot be reached"),
    ],
)
def test_a_secret_or_a_database_that_is_not_there_is_named(
    works: Works, change: dict[str, str], complaint: str
) -> None:
    works.settings |= change
    works.write(works.desk.node())
    said = serve(works, "--check")
    assert said.code == 2
    assert complaint in said.out
    started = serve(works)
    assert started.code == 2
    assert complaint in started.err
    assert "Traceback" not in started.err


def test_without_a_repository_only_the_store_would_be_served(works: Works) -> None:
    works.desk.write(works.desk.node())
    said = serve(works, "--check")
    assert said.code == 2
    assert "the inventory has no `service.repository`" in said.err


def test_without_a_secret_nothing_is_started(works: Works) -> None:
    works.write(works.desk.node())
    said = serve(works, without="ORCHESTRATOR_WEBHOOK_SECRET")
    assert said.code == 2
    assert "there is no webhook secret" in said.err


def test_a_port_that_is_taken_is_named_and_nothing_is_left(works: Works) -> None:
    works.write(works.desk.node())
    works.take_port()
    with works.running():
        said = serve(works, "--port", str(works.port))
    assert said.code == 2
    assert f"cannot listen on 127.0.0.1 port {works.port}" in said.err
    assert list((works.desk.dist / "service/queue.sqlite.coordinators").iterdir()) == []


def test_the_log_is_json_without_any_secret(works: Works) -> None:
    works.write(works.desk.node())
    with works.running() as service:
        service.post("/webhook", b"{}", {"X-Hub-Signature-256": "sha256=" + "0" * 64})
        assert service.deliver() == 202
        works.wait_until_published()
        wait_for(lambda: works.orders()["1.0.0#1"][0] == "SUCCESS")
    lines = [json.loads(line) for line in works.log.splitlines()]
    events = [line["event"] for line in lines]
    assert any(event.startswith("webhook refused: 415") for event in events)
    assert "webhook accepted: 202 1.0.0 is queued" in events
    assert "the release of 1.0.0 is done" in events
    assert events[-1] == "stopping: what runs on the nodes goes on there"
    for secret in (works.environ["ORCHESTRATOR_WEBHOOK_SECRET"], works.environ["GITHUB_TOKEN"]):
        assert secret not in works.log


def test_a_queue_whose_file_was_deleted_takes_nothing_and_says_so(works: Works) -> None:
    works.write(works.desk.node())
    with works.running() as service:
        (works.desk.dist / "service/queue.sqlite").unlink()
        assert service.deliver() == 503
        assert service.get("/healthz")[0] == 503
    assert "its file was deleted" in works.log


def test_a_key_with_a_passphrase_is_none_for_a_service(works: Works) -> None:
    works.write(works.desk.node())
    key = works.desk.folder / "key"
    lock = ["ssh-keygen", "-q", "-p", "-a", "1", "-N", "secret", "-f", str(key)]
    subprocess.run(lock, check=True, stdout=subprocess.DEVNULL)
    said = serve(works, "--check")
    assert said.code == 2
    assert "the signing key has a passphrase, and nobody is there to be asked for it" in said.out
