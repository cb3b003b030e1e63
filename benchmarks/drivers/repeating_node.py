"""A node that runs nothing, and answers every request as a real one did."""

from __future__ import annotations

import base64
import json
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_OK = b"ok\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a request is answered, and after how many seconds that and its end come."""

    answer: bytes
    answers_after: float = 0
    ends_after: float = 0


def read_recording(file: Path) -> Mapping[str, bytes]:
    """Return the answers in a recording, by the kind of request; of states, by the state too."""
    answers = {}
    for entry in json.loads(file.read_text()):
        answer = base64.b64decode(entry["answer"])
        kind = _kind(entry["words"])
        if kind == "state":
            kind += answer.partition(b"\n")[0].decode().partition("=")[2]
        answers[kind] = answer
    return answers


def _kind(words: Sequence[str]) -> str:
    """Return what tells requests apart: the verb of job.sh, else how many words, of what kind."""
    if re.fullmatch("[a-z]+", words[0]):
        return words[0]
    return " ".join(re.sub("[0-9a-f]{16,}", "ID", word) for word in words)


class RepeatingNode:
    """One node; its jobs take so many seconds each, one after the other."""

    def __init__(self, recording: Mapping[str, bytes], seconds: float) -> None:
        self._recording = recording
        self._seconds = seconds
        self._is_busy_until = 0.0
        self._jobs: dict[str, tuple[float, float]] = {}

    def reply(self, words: Sequence[str]) -> Reply:
        """Return what to answer now."""
        if not self._recording:
            return Reply(answer=_OK)
        kind, now = _kind(words), time.time()
        if kind == "-":
            at = f"now={int(now)}".encode()
            return Reply(answer=re.sub(rb"now=\d+", at, self._recording[kind]))
        if kind in {"start", "state", "queue", "follow"}:
            return self._reply_of_job(kind, words[2], now)
        return Reply(answer=self._recording[kind])

    def _reply_of_job(self, kind: str, job: str, now: float) -> Reply:
        if kind == "start":
            begins = max(now, self._is_busy_until)
            self._is_busy_until = begins + self._seconds
            self._jobs[job] = (begins, self._is_busy_until)
        begins, ends = self._jobs[job]
        until_begun, until_ended = max(begins - now, 0), max(ends - now, 0)
        match kind:
            case "start":
                return Reply(answer=self._recording[kind], ends_after=until_ended)
            case "queue":
                return Reply(answer=b"", ends_after=until_begun)
            case "follow":
                return Reply(
                    answer=self._recording[kind], answers_after=until_begun, ends_after=until_ended
                )
            case _ if until_begun:
                return Reply(answer=self._recording["statequeued"])
            case _ if until_ended:
                return Reply(answer=self._recording["staterunning"])
            case _:
                return Reply(answer=self._recording["statefinished"])
