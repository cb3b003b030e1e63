"""Guards for every test: loopback only, a scratch home, and, in CI, no skips."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import secrets
import signal
import socket
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# The default deadline of 200 ms would make timed tests of these, on a machine that may be busy.
hypothesis.settings.register_profile(
    "untimed", deadline=None, derandomize=bool(os.environ.get("CI"))
)
hypothesis.settings.load_profile("untimed")

# A shell's background job ignores Ctrl-C, and so would every program that a test starts from there.
signal.signal(signal.SIGINT, signal.default_int_handler)

HOME = os.path.expanduser("~")  # noqa: PTH111 -- Path.home() would read the scratch home later on


SCRATCH_BUCKET = os.environ.get("SCRATCH_BUCKET", "")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With SAMPLE=50, leave out half of the thorough tests: which half is up to SEED.

    Those of the core stay, because all of it has to be reached.
    """
    percent = int(os.environ.get("SAMPLE") or 100)
    seed = os.environ.get("SEED", "")
    left_out = [
        item
        for item in items
        if item.get_closest_marker("thorough")
        and "tests/core/" not in item.nodeid
        and hashlib.sha256(f"{seed}{item.nodeid}".encode()).digest()[0] >= percent * 256 // 100
    ]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        gone = set(left_out)
        items[:] = [item for item in items if item not in gone]


@pytest.fixture
def scratch_url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A new folder of the real bucket; what can be removed of it is, at the end."""
    # The scratch home has no credentials.
    monkeypatch.setenv(
        "CLOUDSDK_CONFIG", os.environ.get("CLOUDSDK_CONFIG", f"{HOME}/.config/gcloud")
    )
    from google.cloud.storage import Client  # noqa: PLC0415 -- only this needs it

    url = f"{SCRATCH_BUCKET.rstrip('/')}/{secrets.token_hex(8)}"
    yield url
    bucket, _, prefix = url.removeprefix("gs://").partition("/")
    for blob in Client(project=None).list_blobs(bucket, prefix=f"{prefix}/"):
        blob.delete(if_generation_match=blob.generation)


@pytest.fixture(autouse=True)
def scratch_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own for each test; the toolchain of the real one stays usable."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    for name, folder in (("RUSTUP_HOME", ".rustup"), ("CARGO_HOME", ".cargo")):
        monkeypatch.setenv(name, os.environ.get(name, os.path.join(HOME, folder)))  # noqa: PTH118
    for name in ("CONFIG_HOME", "BIN_HOME", "CACHE_HOME", "STATE_HOME"):
        monkeypatch.delenv(f"XDG_{name}", raising=False)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return home


@pytest.fixture(autouse=True, scope="session")
def loopback_only() -> Iterator[None]:
    """No test reaches another machine, not even by mistake."""
    if SCRATCH_BUCKET:  # make test-bucket, which runs nothing else
        yield
        return
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if self.family in {socket.AF_INET, socket.AF_INET6} and isinstance(address, tuple):
            host = str(address[0])
            if host != "localhost" and not ipaddress.ip_address(host).is_loopback:
                raise AssertionError(f"a test tried to reach {host}")
        connect(self, address)  # type: ignore[arg-type]  # passed on as it came

    socket.socket.connect = guarded  # type: ignore[method-assign,assignment]  # that is the guard
    yield
    socket.socket.connect = connect  # type: ignore[method-assign]  # and its end


def pytest_sessionfinish(session: pytest.Session) -> None:
    """With FORBID_SKIPS, a skipped test is a failure: nobody would see it."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("FORBID_SKIPS") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
