"""What people are told of: what went wrong, and what is well again. Each of it is told once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from orchestrator.core.attachment import AttachmentState
from orchestrator.core.service_settings import Occasion
from orchestrator.core.version import parse_version
from orchestrator.core.wording import human_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

# What was told long ago cannot come up again: versions go up.
_REMEMBERED: Final = 1000
_WAITING: Final = 100
_FORMAT: Final = 1
# Stands for the release as a whole among targets that failed.
_ALL: Final = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One notice: `key` is what it is about, and the same for all who would tell the same.

    `text` has several lines of plain sentences; `link` is where more is to be seen.
    """

    key: str
    occasion: Occasion
    title: str
    text: str
    version: str | None = None
    targets: tuple[str, ...] = ()
    link: str | None = None

    def as_data(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "key": self.key,
            "occasion": str(self.occasion),
            "title": self.title,
            "text": self.text,
            "version": self.version,
            "targets": list(self.targets),
            "link": self.link,
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Message:
        """Return the message that `as_data` told; KeyError, TypeError or ValueError for another."""
        occasion, targets = Occasion(data["occasion"]), tuple(data["targets"])
        return cls(**{**data, "occasion": occasion, "targets": targets})


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What was told already, who is known to be in trouble, and what is still to be sent.

    `failed` has the version that a target failed at, `late` the one that a platform waits for.
    """

    keys: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    late: Mapping[str, str] = field(default_factory=dict)
    waiting: tuple[Message, ...] = ()

    def with_messages(self, messages: Iterable[Message]) -> Told:
        """Return it with what was not told before; that waits to be sent now."""
        new = [each for each in messages if each.key not in self.keys]
        keys = (*self.keys, *(each.key for each in new))[-_REMEMBERED:]
        return replace(self, keys=keys, waiting=(*self.waiting, *new)[-_WAITING:])

    def without(self, key: str) -> Told:
        """Return it without a message that was sent, or given up."""
        return replace(self, waiting=tuple(each for each in self.waiting if each.key != key))

    def as_data(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "format": _FORMAT,
            "keys": list(self.keys),
            "failed": dict(self.failed),
            "late": dict(self.late),
            "waiting": [each.as_data() for each in self.waiting],
        }

    @classmethod
    def from_data(cls, data: Any) -> Told:
        """Return what `as_data` told; what is not in that form is as if nothing had been told."""
        try:
            if data["format"] != _FORMAT:
                return cls()
            return cls(
                keys=tuple(map(str, data["keys"])),
                failed={str(key): str(value) for key, value in data["failed"].items()},
                late={str(key): str(value) for key, value in data["late"].items()},
                waiting=tuple(map(Message.from_data, data["waiting"])),
            )
        except (AttributeError, KeyError, TypeError, ValueError):
            return cls()


class Freshness(Protocol):
    """What one platform gets, as far as it is told of."""

    @property
    def name(self) -> str: ...  # noqa: D102 -- as in core/freshness.py
    @property
    def title(self) -> str: ...  # noqa: D102
    @property
    def target(self) -> str: ...  # noqa: D102
    @property
    def version(self) -> str | None: ...  # noqa: D102
    @property
    def awaited(self) -> str | None: ...  # noqa: D102
    @property
    def since(self) -> datetime | None: ...  # noqa: D102
    @property
    def is_late(self) -> bool: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class Teller:
    """Who words it: `project` is the program's name, `link` the status page, if it is public."""

    project: str
    link: str | None = None

    def of_attempt(self, told: Told, outcome: Mapping[str, Any]) -> Told:
        """Return what is told after an attempt ended; `outcome` is what Board.as_data says.

        An attempt that fails as the one before did is not told again.
        """
        version = outcome["version"]
        failures = list(_failures(outcome))
        is_well = outcome["exit_code"] == 0
        delivered = {*outcome["published"], *((_ALL,) if is_well else ())}
        after, messages = self._recovered_targets(told, delivered, version)
        if failures or not is_well:
            messages.append(self._failed(outcome, failures))
            lost = {row["target"]: version for row in failures if row["target"] not in delivered}
            if not failures:
                lost = {_ALL: version}
            after = replace(after, failed={**after.failed, **lost})
        elif not outcome["pending"]:
            messages.append(self._released(outcome))
        return after.with_messages(messages)

    def of_look(self, told: Told, platforms: Sequence[Freshness], now: datetime) -> Told:
        """Return what is told after a look at what each platform gets."""
        late = {each.name: each for each in platforms if each.is_late and each.awaited}
        new = [each for name, each in late.items() if told.late.get(name) != each.awaited]
        caught_up = [each for each in platforms if each.name in told.late and each.name not in late]
        arrived = {each.target for each in platforms if _has_arrived(each, told.failed)}
        # A target that is late and failed is well again once, not twice.
        arrived -= {each.target for each in caught_up}
        messages = [self._late(each, now) for each in new]
        messages += [self._caught_up(each, told.late[each.name]) for each in caught_up]
        messages += [_recovered(self, target, told.failed[target]) for target in sorted(arrived)]
        gone = arrived | {each.target for each in caught_up}
        after = replace(
            told,
            late={name: each.awaited or "" for name, each in late.items()},
            failed={target: at for target, at in told.failed.items() if target not in gone},
        )
        return after.with_messages(messages)

    def of_alarm(self, told: Told, subject: str, *, title: str, text: str) -> Told:
        """Return it with an alarm, unless there was one about this subject already."""
        return told.with_messages(
            (self.message(f"alarm:{subject}", Occasion.ALARM, title=title, text=text),)
        )

    def of_quiet(self, told: Told, subject: str) -> Told:
        """Return it without that alarm: what it was about is in order, until the next time."""
        key = f"alarm:{subject}"
        return replace(told, keys=tuple(each for each in told.keys if each != key))

    def message(
        self,
        key: str,
        occasion: Occasion,
        *,
        title: str,
        text: str,
        about: tuple[str | None, Iterable[str]] = (None, ()),
    ) -> Message:
        """Return a message; its title begins with the project's name.

        `about` is a version, and targets.
        """
        version, targets = about
        return Message(
            key=key,
            occasion=occasion,
            title=f"{self.project}: {title}",
            text=text,
            version=version,
            targets=tuple(dict.fromkeys(targets)),
            link=self.link,
        )

    def _failed(self, outcome: Mapping[str, Any], failures: Sequence[Mapping[str, Any]]) -> Message:
        version, error = outcome["version"], outcome["error"]
        targets = [row["target"] for row in failures]
        ways = sorted({f"{row['target']}={row['failure_class']}" for row in failures})
        if error or not failures:
            ways.append(f"all={outcome['exit_code']}")
        missing = f"failed for {', '.join(dict.fromkeys(targets))}" if targets else "failed"
        return self.message(
            f"failed:{version}:{','.join(ways)}",
            Occasion.FAILED,
            title=f"{version} {missing}",
            text="\n".join((*_reasons(outcome, failures), *_way_on(outcome, failures))),
            about=(version, targets),
        )

    def _released(self, outcome: Mapping[str, Any]) -> Message:
        version, targets = outcome["version"], outcome["published"]
        lines = ["Every platform has it."]
        if outcome["url"]:
            lines.append(f"Its installer is at {outcome['url']}/install.sh")
        return self.message(
            f"released:{version}",
            Occasion.RELEASED,
            title=f"{version} is released",
            text="\n".join(lines),
            about=(version, targets),
        )

    def _late(self, platform: Freshness, now: datetime) -> Message:
        awaited = platform.awaited or ""
        gets = f"It gets {platform.version}." if platform.version else "It gets nothing."
        waits = f"It has waited for {awaited}"
        if platform.since is not None:
            waits += f" for {human_time(now - platform.since)}"
        return self.message(
            f"late:{platform.name}:{awaited}",
            Occasion.LATE,
            title=f"{platform.title} is late: {awaited} is not there",
            text=f"{waits}. {gets}\nSee why its node did not deliver, or build it by hand: "
            f"orchestrator release --version {awaited}",
            about=(awaited, (platform.target,)),
        )

    def _caught_up(self, platform: Freshness, awaited: str) -> Message:
        gets = platform.version or "nothing newer"
        return self.message(
            f"recovered:{platform.name}:{awaited}",
            Occasion.RECOVERED,
            title=f"{platform.title} is well again",
            text=f"It had waited for {awaited}, and gets {gets} now.",
            about=(awaited, (platform.target,)),
        )

    def _recovered_targets(
        self, told: Told, delivered: Iterable[str], version: str
    ) -> tuple[Told, list[Message]]:
        well = [target for target in delivered if _reaches(version, told.failed.get(target))]
        left = {target: at for target, at in told.failed.items() if target not in well}
        messages = [_recovered(self, target, told.failed[target]) for target in sorted(well)]
        return replace(told, failed=left), messages


def _recovered(teller: Teller, target: str, version: str) -> Message:
    if target == _ALL:
        return teller.message(
            f"recovered::{version}",
            Occasion.RECOVERED,
            title="releases are made again",
            text=f"{version} had failed as a whole; now it has been made, or a newer version was.",
            about=(version, ()),
        )
    return teller.message(
        f"recovered:{target}:{version}",
        Occasion.RECOVERED,
        title=f"{target} is well again",
        text=f"{version} had failed for it; now it has been delivered, or a newer version was.",
        about=(version, (target,)),
    )


def _has_arrived(platform: Freshness, failed: Mapping[str, str]) -> bool:
    return platform.version is not None and _reaches(platform.version, failed.get(platform.target))


def _reaches(version: str, wanted: str | None) -> bool:
    return wanted is not None and parse_version(version) >= parse_version(wanted)


def _failures(outcome: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of targets that nobody delivered; of several for a target, each."""
    delivered = {row["target"] for row in outcome["rows"] if row["result"] == "built"}
    for row in outcome["rows"]:
        if row["result"] == "failed" and row["target"] not in delivered:
            yield row


_FAULTS: Final = {
    "machine": "the machine is at fault",
    "build": "the code is at fault",
    "store": "the store is at fault",
}


def _reasons(outcome: Mapping[str, Any], failures: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for row in failures:
        fault = _FAULTS.get(row["failure_class"], "nobody knows whose fault it is")
        yield f"{row['target']} on {row['node']}: {fault}: {_first_line(row['message'])}"
    if outcome["error"]:
        yield f"The release was stopped: {_first_line(outcome['error'])}"
    for problem in outcome["unreadable"]:
        yield f"What was published does not read back: {_first_line(problem)}"
    github = outcome["github"] or {}
    if github.get("state") == AttachmentState.FAILED:
        yield f"GitHub's release has not all of it: {_first_line(github.get('message') or '')}"


def _way_on(outcome: Mapping[str, Any], failures: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    hints = [outcome["hint"], *(row["hint"] for row in failures)]
    yield from (f"What to do: {_first_line(hint)}" for hint in dict.fromkeys(hints) if hint)
    version = outcome["version"]
    if any(row["failure_class"] == "build" for row in failures):
        yield "The same code will fail again: a new version has to mend it."
    go_on = f"orchestrator release --version {version} --channel {outcome['channel']}"
    yield f"To go on with what is missing: {go_on}"


def _first_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[0][:300] if lines else "no reason was given"
