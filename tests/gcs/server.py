"""An HTTP server on loopback that speaks Google Cloud Storage: its JSON API and its public URLs.

`python -m tests.gcs.server BUCKET...` serves until it is interrupted.
"""

from __future__ import annotations

import re
import secrets
import socket
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from typing import TYPE_CHECKING, Final

from google.auth.credentials import AnonymousCredentials
from google.cloud.storage import Client
from google.oauth2.credentials import Credentials

from tests.gcs.objects import Bucket, Held, RefusedError
from tests.gcs.trouble import Kind, Trouble, Troubles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.gcs.objects import Conditions, Fields
    from tests.gcs.trouble import Allowed

_LIFETIME: Final = re.compile(r"max-age=([0-9]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """One request, when it was answered; 0 is the status of no answer."""

    op: str
    name: str
    status: int
    moment: float


@dataclass(slots=True, kw_only=True)
class Session:
    """A resumable upload."""

    bucket: Bucket
    name: str
    fields: Fields
    conditions: Conditions
    token: str
    data: bytearray = field(default_factory=bytearray)
    held: Held | None = None


@dataclass(slots=True)
class Service:
    """The state behind the URLs, and the knobs."""

    url: str = ""
    buckets: dict[str, Bucket] = field(default_factory=dict)
    sessions: dict[str, Session] = field(default_factory=dict)
    log: list[Logged] = field(default_factory=list)
    troubles: Troubles = field(default_factory=Troubles)
    # With accounts, a request needs the bearer token of one of them, and what it allows.
    accounts: dict[str, Allowed] = field(default_factory=dict)
    # The service takes about one write a second for each name.
    seconds_between_writes: float = 0
    clock: Callable[[], float] = time.monotonic
    # Public reads come from a cache that keeps what it has for as long as the object allows.
    is_cached: bool = False
    # Public reads give the generation before, as a cache far away may.
    is_stale: bool = False
    # What is called before and after each change, with the name and how many there were.
    before_write: Callable[[str, int], None] | None = None
    after_write: Callable[[str, int], None] | None = None
    # What is called before and after any request is handled.
    on_request: Callable[[], None] | None = None
    on_reply: Callable[[], None] | None = None
    writes: int = 0
    stopping: threading.Event = field(default_factory=threading.Event)
    _written: dict[tuple[str, str], float] = field(default_factory=dict)
    _cache: dict[tuple[str, str], tuple[Held, float]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add_bucket(self, name: str = "") -> Bucket:
        """Return a new bucket."""
        name = name or f"bucket-{secrets.token_hex(4)}"
        return self.buckets.setdefault(name, Bucket(name=name))

    def bucket(self, name: str) -> Bucket:
        """Return the bucket, or refuse as the service does."""
        if name not in self.buckets:
            raise RefusedError(404, "The specified bucket does not exist.")
        return self.buckets[name]

    def plan(self, kind: Kind, **how: object) -> Trouble:
        """Let something go wrong from now on; what, is said in `Trouble`."""
        trouble = Trouble(kind=kind, **how)  # type: ignore[arg-type]  # passed on as it came
        self.troubles.planned.append(trouble)
        return trouble

    def ops(self, op: str = ".*", name: str = ".*") -> list[Logged]:
        """Return the requests so far of one kind, about the names that match."""
        return [
            each
            for each in list(self.log)
            if re.fullmatch(op, each.op) and re.fullmatch(name, each.name)
        ]

    def note(self, op: str, name: str, status: int) -> None:
        self.log.append(Logged(op=op, name=name, status=status, moment=time.monotonic()))

    def require(self, permission: str, token: str | None, name: str = "") -> None:
        """Refuse who is nobody, and who may not do this."""
        if not self.accounts:
            return
        if token is None:
            raise RefusedError(401, "Anonymous caller does not have access")
        if token not in self.accounts:
            raise RefusedError(401, "Invalid Credentials")
        if not self.accounts[token](permission, name):
            raise RefusedError(
                403,
                f"publisher@example.org does not have {permission} access to the Google Cloud "
                f"Storage object. Permission '{permission}' denied on resource (or it may not "
                "exist).",
            )

    def require_write(self, bucket: Bucket, name: str, token: str | None) -> None:
        """Refuse who may not write this name: to replace is to delete, too."""
        self.require("storage.objects.create", token, name)
        if name in bucket.live:
            self.require("storage.objects.delete", token, name)

    def write(
        self, bucket: Bucket, name: str, conditions: Conditions, *, change: Callable[[], Held]
    ) -> Held:
        """Make one change to what is published, between the two hooks.

        What cannot be done anyway is none.
        """
        conditions.check(bucket.live.get(name))
        with self._lock:
            self.writes += 1
            number = self.writes
        if self.before_write:
            self.before_write(name, number)
        self._take_time(bucket, name)
        held = change()
        if self.after_write:
            self.after_write(name, number)
        return held

    def public(self, bucket: Bucket, name: str) -> Held:
        """Return what a stranger gets under the public URL."""
        if not bucket.is_public:
            raise RefusedError(403, "Anonymous caller does not have storage.objects.get access")
        if self.is_stale:
            previous = bucket.previous(name)
            if previous:
                return previous
        if not self.is_cached:
            return bucket.find(name)
        kept = self._cache.get((bucket.name, name))
        if kept and self.clock() < kept[1]:
            return kept[0]
        held = bucket.find(name)
        said = held.fields.cache_control or "public, max-age=3600"
        lifetime = _LIFETIME.search(said)
        if lifetime and "no-cache" not in said:
            self._cache[bucket.name, name] = (held, self.clock() + int(lifetime[1]))
        return held

    def _take_time(self, bucket: Bucket, name: str) -> None:
        with self._lock:
            last, now = self._written.get((bucket.name, name)), self.clock()
            if last is not None and now - last < self.seconds_between_writes:
                raise RefusedError(429, "The object exceeded the rate limit for object mutation")
            self._written[bucket.name, name] = now


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Fourteen publishers at once, sixteen connections each.
    request_queue_size = 256

    def __init__(self, service: Service, port: int) -> None:
        from tests.gcs.handler import Handler  # noqa: PLC0415 -- it needs this module's names

        super().__init__(("127.0.0.1", port), Handler)
        self.service = service
        self.connections: set[socket.socket] = set()

    def get_request(self) -> tuple[socket.socket, object]:
        connection, address = super().get_request()
        self.connections.add(connection)
        return connection, address

    def shutdown_request(self, request: object) -> None:
        assert isinstance(request, socket.socket)
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        # Clients are killed here on purpose, in the middle of what they say.
        error = sys.exception()
        if not isinstance(error, OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # as it came


@contextmanager
def serving(*buckets: str, port: int = 0) -> Iterator[Service]:
    """Yield a service that listens on loopback."""
    service = Service()
    for name in buckets:
        service.add_bucket(name)
    server = _Server(service, port)
    service.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield service
    finally:
        service.stopping.set()
        server.shutdown()
        thread.join()
        for connection in list(server.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        server.server_close()


def client_of(service: Service, token: str | None = None) -> Client:
    """Return Google's own client for the service, with an account or without any."""
    account = (
        Credentials(token=token)  # type: ignore[no-untyped-call]  # it has no types
        if token
        else AnonymousCredentials()  # type: ignore[no-untyped-call]  # it has no types
    )
    options = {"api_endpoint": service.url}
    return Client(project="none", credentials=account, client_options=options)


def main() -> None:
    """Serve until interrupted."""
    with serving(*sys.argv[1:] or ["bucket"]) as service:
        print(f"STORAGE_EMULATOR_HOST={service.url}", flush=True)  # noqa: T201 -- a program
        with suppress(KeyboardInterrupt):
            service.stopping.wait()


if __name__ == "__main__":
    main()
