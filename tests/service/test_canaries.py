"""No secret of the service is in anything that it writes, sends or shows, whatever happens."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import pytest

from tests.github_server import TOKEN as GITHUB_TOKEN
from tests.releases import wait_for
from tests.service.running import SECRET, payload, signed
from tests.service.test_mail import Post, serving_mail
from tests.service.test_notices import receiving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.service.running import Works

pytestmark = pytest.mark.thorough

WEBHOOK: Final = "webhook-canary-0123456789"
ACTION: Final = "action-canary-0123456789"
MAIL: Final = "mail-canary-0123456789"
# Never right, so that what was wrong is looked for as well.
GUESS: Final = "guess-canary-0123456789"


def private(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


def forms(secret: str) -> Iterator[bytes]:
    yield secret.encode()
    yield b64encode(secret.encode()).rstrip(b"=")
    yield quote(secret, safe="").encode()


def test_no_secret_is_left_anywhere(works: Works, tmp_path: Path) -> None:
    post = Post(password=MAIL)
    with (
        receiving(*[500] * 9) as receiver,
        serving_mail(post, auth_require_tls=False) as mail_port,
    ):
        works.settings |= {
            "webhook_secret_file": private(tmp_path, "webhook", WEBHOOK),
            "action_token_file": private(tmp_path, "action", ACTION),
            "notices": [
                {"url_file": private(tmp_path, "url", receiver.url), "about": ["failed"]},
                {
                    "email": "alex@example.org",
                    "sender": "service@example.org",
                    "server": f"127.0.0.1:{mail_port}",
                    "user": "me",
                    "password_file": private(tmp_path, "mail", MAIL),
                    "about": ["failed"],
                },
            ],
        }
        works.environment |= {"ORCHESTRATOR_WEBHOOK_SECRET": "", "ORCHESTRATOR_ACTION_TOKEN": ""}
        # It has no key that it could sign with: that is told.
        works.write(works.desk.node())
        (works.desk.folder / "key").unlink()
        body = payload()
        shown = []
        with works.running() as service:
            assert service.post("/webhook", body, signed(body, WEBHOOK))[0] == 202
            wait_for(lambda: bool(post.taken) and receiver.asked > 0)
            for given, word in ((body, GUESS), (body + b" ", WEBHOOK), (b"\xff" * 99, WEBHOOK)):
                shown.append(service.post("/webhook", given, signed(body, word)))
            for token in (ACTION, GUESS):
                path = "/status/releases/1.0.0/cancel"
                shown.append(service.post(path, b"", {"Authorization": f"Bearer {token}"}))
            pages = ("/", "/status", "/status.json", "/status/releases/1.0.0", "/metrics")
            shown += [service.get(page) for page in pages]
        told = json.loads((works.desk.dist / "service/told.json").read_text())
        assert told["waiting"], "what the receiver did not take is sent by the next start"
    assert shown[0][0] == 401
    assert post.logins == [(b"me", MAIL.encode())]

    written = {
        str(path): path.read_bytes()
        for path in works.desk.folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    assert any(name.endswith("service.log") for name in written)
    everything = b"\n".join(
        (*written.values(), *(answer for _, answer in shown), *post.taken, works.log.encode())
    )
    path_of_url = receiver.url.partition("/hooks/")[2]
    for secret in (WEBHOOK, ACTION, MAIL, GUESS, SECRET, path_of_url, GITHUB_TOKEN):
        for form in forms(secret):
            places = [name for name, data in written.items() if form in data]
            assert form not in everything, (secret, places)
