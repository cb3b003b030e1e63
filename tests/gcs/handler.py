"""The URLs of Google Cloud Storage: uploads, the JSON API, and what strangers fetch."""

from __future__ import annotations

import json
import re
import secrets
import socket
import struct
import time
from dataclasses import dataclass, field, replace
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.gcs.objects import Conditions, Fields, Held, RefusedError, crc32c, md5
from tests.gcs.server import Session
from tests.gcs.trouble import KilledError, Kind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.gcs.server import Service
    from tests.gcs.trouble import Trouble

_UPLOAD: Final = re.compile(r"/upload/storage/v1/b/([^/]+)/o")
_OBJECT: Final = re.compile(r"(?:/download)?/storage/v1/b/([^/]+)/o/([^/]+)")
_LIST: Final = re.compile(r"/storage/v1/b/([^/]+)/o")
_PERMISSIONS: Final = re.compile(r"/storage/v1/b/([^/]+)/iam/testPermissions")
_BUCKET: Final = re.compile(r"/storage/v1/b/([^/]+)")
_PUBLIC: Final = re.compile(r"/([^/]+)/(.+)")
_RANGE: Final = re.compile(r"bytes=([0-9]*)-([0-9]*)")
_CONTENT_RANGE: Final = re.compile(r"bytes (?:([0-9]+)-([0-9]+)|\*)/([0-9]+|\*)")
_CHUNK_UNIT: Final = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer; a length that is announced to HEAD comes without its body."""

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, data: object, status: int = 200) -> Reply:
        """Return an answer in JSON."""
        headers = (("Content-Type", "application/json; charset=UTF-8"),)
        return cls(status=status, body=json.dumps(data).encode(), headers=headers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was asked for, taken apart."""

    op: str
    bucket: str
    name: str = ""
    method: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    trouble: Trouble | None = field(default=None)

    @property
    def token(self) -> str | None:
        """Who asks."""
        said = self.headers.get("authorization", "")
        return said.removeprefix("Bearer ") if said.startswith("Bearer ") else None


class Handler(BaseHTTPRequestHandler):
    """One connection, kept open for many requests."""

    protocol_version = "HTTP/1.1"
    # Headers and body in one packet: the other side's delayed acknowledgement costs 40 ms.
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 -- their names there

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- its name there
        """Be quiet: there is a log."""

    @property
    def _service(self) -> Service:
        service: Service = self.server.service  # type: ignore[attr-defined]  # see _Server
        return service

    def _answer(self) -> None:
        request = self._request()
        trouble = self._service.troubles.of(request.op, request.name)
        if trouble and trouble.kind in {Kind.RESET, Kind.SILENT}:
            self._service.note(request.op, request.name, 0)
            if trouble.kind is Kind.SILENT:
                self._service.stopping.wait()
            self._reset()
            return
        try:
            if self._service.on_request:
                self._service.on_request()
            reply = self._reply(replace(request, trouble=trouble), trouble)
            if self._service.on_reply:
                self._service.on_reply()
        except KilledError:
            self._service.note(request.op, request.name, 0)
            self._reset()
            return
        self._service.note(request.op, request.name, reply.status)
        if trouble and trouble.kind is Kind.LOSE:
            self._reset()
            return
        self._send(reply, trouble)

    def _reply(self, request: Request, trouble: Trouble | None) -> Reply:
        try:
            if trouble and trouble.kind is Kind.REFUSE:
                raise RefusedError(trouble.status, "on purpose")  # noqa: TRY301 -- as any other
            reply: Reply = getattr(self, f"_{request.op}")(request)
        except RefusedError as refused:
            if request.op == "public":
                return _xml_error(refused)
            error = {"code": refused.status, "message": refused.message}
            return Reply.of({"error": error}, status=refused.status)
        if trouble and trouble.kind is Kind.ALTER:
            return Reply.of(trouble.alter(json.loads(reply.body)))
        return reply

    def _request(self) -> Request:
        url = urlsplit(self.path)
        headers = {key.lower(): value for key, value in self.headers.items()}
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        body = self.rfile.read(int(headers.get("content-length", "0")))
        op, bucket, name = _operation(self.command, url.path, query=query, headers=headers)
        if op in {"upload", "begin"}:
            name = query.get("name") or _multipart(headers, body)[0].get("name", "")
        elif op in {"chunk", "status"} and query.get("upload_id") in self._service.sessions:
            name = self._service.sessions[query["upload_id"]].name
        return Request(
            op=op,
            bucket=bucket,
            name=name,
            method=self.command,
            query=query,
            headers=headers,
            body=body,
        )

    # Uploads

    def _upload(self, request: Request) -> Reply:
        resource, content_type, data = _multipart(request.headers, request.body)
        bucket = self._service.bucket(request.bucket)
        self._service.require_write(bucket, request.name, request.token)
        fields, conditions = Fields.of(resource, content_type), Conditions.of(request.query)
        held = self._service.write(
            bucket,
            request.name,
            conditions,
            change=lambda: bucket.insert(request.name, data, fields, conditions),
        )
        return Reply.of(held.resource(bucket.name))

    def _begin(self, request: Request) -> Reply:
        bucket = self._service.bucket(request.bucket)
        self._service.require_write(bucket, request.name, request.token)
        conditions = Conditions.of(request.query)
        conditions.check(bucket.live.get(request.name))
        resource = json.loads(request.body or b"{}")
        id_ = secrets.token_hex(8)
        self._service.sessions[id_] = Session(
            bucket=bucket,
            name=request.name,
            fields=Fields.of(resource, request.headers.get("x-upload-content-type")),
            conditions=conditions,
            token=request.token or "",
        )
        where = f"{self._service.url}/upload/storage/v1/b/{bucket.name}/o"
        location = f"{where}?uploadType=resumable&upload_id={id_}"
        return Reply(headers=(("Location", location),))

    def _chunk(self, request: Request) -> Reply:
        session = self._session(request)
        if session.held:
            return Reply.of(session.held.resource(session.bucket.name))
        start, total = _place(request.headers.get("content-range"), len(request.body))
        if start > len(session.data):
            raise RefusedError(503, f"bytes from {len(session.data)} on are missing")
        new = request.body[len(session.data) - start :]
        if request.trouble and request.trouble.kind is Kind.FORGET:
            new = new[: request.trouble.bytes]
        elif total is None and len(request.body) % _CHUNK_UNIT:
            raise RefusedError(400, "a chunk must be a multiple of 256 KiB")
        session.data += new
        if len(session.data) != total:
            return _incomplete(session)
        return self._finalise(session, request)

    def _finalise(self, session: Session, request: Request) -> Reply:
        data = bytes(session.data)
        for said in request.headers.get("x-goog-hash", "").split(","):
            if said.startswith("crc32c=") and said != f"crc32c={crc32c(data)}":
                raise RefusedError(400, "Provided CRC32C doesn't match calculated")
        bucket, name, fields = session.bucket, session.name, session.fields
        self._service.require_write(bucket, name, session.token or None)
        session.held = self._service.write(
            bucket,
            name,
            session.conditions,
            change=lambda: bucket.insert(name, data, fields, session.conditions),
        )
        return Reply.of(session.held.resource(bucket.name))

    def _status(self, request: Request) -> Reply:
        session = self._session(request)
        if session.held:
            return Reply.of(session.held.resource(session.bucket.name))
        return _incomplete(session)

    def _session(self, request: Request) -> Session:
        session = self._service.sessions.get(request.query.get("upload_id", ""))
        if session is None:
            raise RefusedError(404, "no such upload")
        return session

    # The JSON API

    def _look(self, request: Request) -> Reply:
        held = self._readable(request)
        return Reply.of(held.resource(request.bucket))

    def _media(self, request: Request) -> Reply:
        return _content(self._readable(request), request.headers)

    def _readable(self, request: Request) -> Held:
        bucket = self._service.bucket(request.bucket)
        self._service.require("storage.objects.get", request.token, request.name)
        generation = request.query.get("generation")
        held = bucket.find(request.name, int(generation) if generation else None)
        Conditions.of(request.query).check(held, unchanged=304)
        return held

    def _list(self, request: Request) -> Reply:
        bucket = self._service.bucket(request.bucket)
        self._service.require("storage.objects.list", request.token)
        items, prefixes, following = bucket.page(request.query)
        return Reply.of(
            {
                "kind": "storage#objects",
                "items": [held.resource(bucket.name) for held in items],
                "prefixes": prefixes,
                **({"nextPageToken": following} if following else {}),
            }
        )

    def _patch(self, request: Request) -> Reply:
        bucket = self._service.bucket(request.bucket)
        self._service.require("storage.objects.update", request.token, request.name)
        changes, conditions = json.loads(request.body), Conditions.of(request.query)
        held = self._service.write(
            bucket,
            request.name,
            conditions,
            change=lambda: bucket.patch(request.name, changes, conditions),
        )
        return Reply.of(held.resource(bucket.name))

    def _delete(self, request: Request) -> Reply:
        bucket = self._service.bucket(request.bucket)
        self._service.require("storage.objects.delete", request.token, request.name)
        bucket.delete(request.name, Conditions.of(request.query))
        return Reply(status=204)

    def _bucket(self, request: Request) -> Reply:
        self._service.require("storage.buckets.get", request.token)
        bucket = self._service.bucket(request.bucket)
        versioning = {"enabled": bucket.is_versioned}
        return Reply.of({"kind": "storage#bucket", "name": bucket.name, "versioning": versioning})

    def _permissions(self, request: Request) -> Reply:
        bucket = self._service.bucket(request.bucket)
        query = parse_qsl(urlsplit(self.path).query)
        asked = [value for key, value in query if key == "permissions"]
        allowed = []
        for permission in asked:
            try:
                self._service.require(permission, request.token, bucket.name)
            except RefusedError:
                continue
            allowed.append(permission)
        return Reply.of({"kind": "storage#testIamPermissionsResponse", "permissions": allowed})

    # What strangers fetch

    def _public(self, request: Request) -> Reply:
        bucket = self._service.bucket(request.bucket)
        held = self._service.public(bucket, request.name)
        reply = _content(held, request.headers)
        headers = (*reply.headers, *_public_headers(held))
        if request.headers.get("if-none-match") in {held.etag, "*"}:
            return Reply(status=304, headers=headers)
        return replace(reply, headers=headers)

    def _unknown(self, request: Request) -> Reply:
        raise RefusedError(501, f"{request.method} {self.path} is not spoken here")

    # The wire

    def _send(self, reply: Reply, trouble: Trouble | None) -> None:
        self.send_response(reply.status)
        for key, value in reply.headers:
            self.send_header(key, value)
        if reply.status != 304:
            self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        body = b"" if self.command == "HEAD" else reply.body
        if trouble and trouble.kind in {Kind.TRUNCATE, Kind.STALL}:
            self.wfile.write(body[: trouble.bytes])
            self.wfile.flush()
            if trouble.kind is Kind.STALL:
                self._service.stopping.wait()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        if trouble and trouble.kind is Kind.DRIP:
            self._drip(body, trouble.bytes)
            return
        self.wfile.write(body)
        self.wfile.flush()

    def _drip(self, body: bytes, size: int) -> None:
        for start in range(0, len(body), size):
            self.wfile.write(body[start : start + size])
            self.wfile.flush()
            time.sleep(0.01)

    def _reset(self) -> None:
        self.close_connection = True
        # No lingering: the other side is told with a reset, not with a polite end.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


def _operation(
    method: str, path: str, *, query: Mapping[str, str], headers: Mapping[str, str]
) -> tuple[str, str, str]:
    """Return what is asked for, the bucket, and the object's name."""
    if match := _UPLOAD.fullmatch(path):
        return _upload_operation(method, query, headers), unquote(match[1]), ""
    if match := _PERMISSIONS.fullmatch(path):
        return "permissions", unquote(match[1]), ""
    if match := _OBJECT.fullmatch(path):
        is_media = query.get("alt") == "media"
        ops = {"GET": "media" if is_media else "look", "PATCH": "patch", "DELETE": "delete"}
        return ops.get(method, "unknown"), unquote(match[1]), unquote(match[2])
    for pattern, op in ((_LIST, "list"), (_BUCKET, "bucket")):
        if match := pattern.fullmatch(path):
            return op if method == "GET" else "unknown", unquote(match[1]), ""
    if (match := _PUBLIC.fullmatch(path)) and method in {"GET", "HEAD"}:
        return "public", unquote(match[1]), unquote(match[2])
    return "unknown", "", ""


def _upload_operation(method: str, query: Mapping[str, str], headers: Mapping[str, str]) -> str:
    if method == "PUT":
        return "status" if headers.get("content-range", "").startswith("bytes */") else "chunk"
    kinds = {"multipart": "upload", "resumable": "begin"}
    return kinds.get(query.get("uploadType", ""), "unknown") if method == "POST" else "unknown"


def _multipart(headers: Mapping[str, str], body: bytes) -> tuple[dict[str, Any], str, bytes]:
    """Return what is said of an object, its type, and its bytes."""
    boundary = re.search(r'boundary="?([^";]+)', headers.get("content-type", ""))
    if boundary is None:
        resource: dict[str, Any] = json.loads(body or b"{}")
        return resource, "", b""
    mark = f"--{boundary[1]}".encode()
    _, description, content, _ = body.split(mark, 3)
    head, _, data = content.partition(b"\r\n\r\n")
    said = re.search(rb"(?i)content-type: *([^\r\n]+)", head)
    resource = json.loads(description.partition(b"\r\n\r\n")[2])
    return resource, said[1].decode() if said else "", data.removesuffix(b"\r\n")


def _place(said: str | None, length: int) -> tuple[int, int | None]:
    """Return where a chunk starts, and the size of the object if that is known."""
    match = _CONTENT_RANGE.fullmatch(said) if said else None
    if match is None:
        return 0, length
    return int(match[1] or 0), None if match[3] == "*" else int(match[3])


def _incomplete(session: Session) -> Reply:
    end = len(session.data) - 1
    return Reply(status=308, headers=(("Range", f"bytes=0-{end}"),) if session.data else ())


def _content(held: Held, headers: Mapping[str, str]) -> Reply:
    described = (
        ("Content-Type", held.fields.content_type),
        ("X-Goog-Generation", str(held.generation)),
        ("X-Goog-Metageneration", str(held.metageneration)),
        ("X-Goog-Hash", f"crc32c={crc32c(held.data)},md5={md5(held.data)}"),
        ("X-Goog-Stored-Content-Length", str(len(held.data))),
        ("ETag", held.etag),
    )
    match = _RANGE.fullmatch(headers.get("range", ""))
    if match is None:
        return Reply(body=held.data, headers=described)
    size = len(held.data)
    first = int(match[1]) if match[1] else max(0, size - int(match[2] or 0))
    last = min(size - 1, int(match[2])) if match[1] and match[2] else size - 1
    if first > last:
        raise RefusedError(416, "The requested range cannot be satisfied.")
    where = (("Content-Range", f"bytes {first}-{last}/{size}"),)
    return Reply(status=206, body=held.data[first : last + 1], headers=described + where)


def _public_headers(held: Held) -> tuple[tuple[str, str], ...]:
    return (
        ("Cache-Control", held.fields.cache_control or "public, max-age=3600"),
        ("Last-Modified", format_datetime(held.updated, usegmt=True)),
        ("Accept-Ranges", "bytes"),
        *((f"X-Goog-Meta-{key}", value) for key, value in held.fields.metadata.items()),
    )


def _xml_error(refused: RefusedError) -> Reply:
    body = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{refused.status}</Code></Error>"
    headers = (("Content-Type", "application/xml; charset=UTF-8"),)
    return Reply(status=refused.status, body=body.encode(), headers=headers)
