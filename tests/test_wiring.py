"""The real world of one operator, opened from their inventory."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.errors import ConfigError
from orchestrator.core.plan import ReleaseRequest
from orchestrator.core.record import PastBuild
from orchestrator.core.version import parse_version
from orchestrator.nodes.local import LocalTransport
from orchestrator.signing import generate_key
from orchestrator.wiring import Operator
from tests.agents import running_agent

if TYPE_CHECKING:
    from pathlib import Path

INVENTORY = """\
project: { name: tool, source: { path: . } }
publication: { store: %(store)s, channel: %(channel)s, signing: { key: key%(signing)s } }
nodes:
  - { name: here, host: local, target: x86_64-unknown-netbsd, workdir: %(folder)s/node }
  - { name: there, host: there.invalid, target: x86_64-unknown-netbsd }
"""


def operator_in(
    folder: Path, *, store: str = "store", channel: str = "stable", signing: str = ""
) -> Operator:
    values = {"store": store, "channel": channel, "folder": folder, "signing": signing}
    (folder / "nodes.yaml").write_text(INVENTORY % values)
    return Operator.at(str(folder / "nodes.yaml"))


def test_what_an_operator_has_lies_beside_the_inventory(tmp_path: Path) -> None:
    operator = operator_in(tmp_path)

    assert operator.dist == tmp_path / "dist"
    assert operator.store_folder() == tmp_path / "store"
    assert operator.store().describe() == str(tmp_path / "store")
    assert operator.key_path() == tmp_path / "key"
    assert operator.template().startswith("#!/bin/sh\n")


def test_a_bucket_is_opened_once_and_is_no_folder(tmp_path: Path) -> None:
    operator = operator_in(tmp_path, store="gs://bucket/tool/")

    assert operator.store().describe() == "gs://bucket/tool"
    assert operator.store() is operator.store()
    with pytest.raises(ConfigError, match="gs://bucket/tool/ is no folder on this machine"):
        operator.store_folder()


@pytest.mark.parametrize("url", ["gs://bucket/../x", "gs://bucket/a//b", "gs://bucket/.x"])
def test_a_bucket_s_prefix_must_be_one_that_objects_can_have(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match="no objects can be published below gs://bucket/"):
        operator_in(tmp_path, store=url).store()


@pytest.mark.parametrize(
    ("channels", "version"),
    [
        (("stable", "stable"), "1.0.0"),
        (("stable", "prerelease"), "1.0.0-rc.1"),
        (("nightly", "nightly"), "1.0.0-rc.1"),
        (("stable", "stable"), None),
    ],
)
def test_who_follows_stable_is_never_moved_to_a_prerelease(
    channels: tuple[str, str], version: str | None, tmp_path: Path
) -> None:
    operator = operator_in(tmp_path, channel=channels[0])

    assert operator.channel(parse_version(version) if version else None, ()).name == channels[1]


def test_the_history_of_nodes_decides_who_builds(tmp_path: Path) -> None:
    operator = operator_in(tmp_path)
    build = PastBuild(node="there", took=timedelta(seconds=4))
    operator.remember(build)

    assert operator.record().builds == (build,)
    assert operator.record().now is not None


async def test_the_fastest_node_is_planned_first(tmp_path: Path) -> None:
    operator = operator_in(tmp_path)
    request = ReleaseRequest(version=parse_version("1.0.0"))
    assert (await operator.plan(request, None)).tasks[0].node.name == "here"

    operator.remember(PastBuild(node="there", took=timedelta(seconds=4)))
    assert (await operator.plan(request, None)).tasks[0].node.name == "there"


async def test_a_local_node_is_reached_beside_nodes_behind_ssh(tmp_path: Path) -> None:
    operator = operator_in(tmp_path)

    async with operator.connections() as connect, connect(operator.node("here")) as transport:
        assert isinstance(transport, LocalTransport)


def test_there_are_no_public_keys_before_keygen_and_one_after(tmp_path: Path) -> None:
    operator = operator_in(tmp_path)
    assert operator.public_keys() == ()
    with pytest.raises(ConfigError, match="there is no signing key at"):
        operator.outlet(parse_version("1.0.0"))

    public = generate_key(operator.key_path(), passphrase=None)

    assert [key.ssh for key in operator.public_keys()] == [public.ssh]
    outlet = operator.outlet(parse_version("1.0.0"))
    assert outlet.signer.public == public
    assert abs(outlet.today() - datetime.now(tz=UTC).date()) <= timedelta(days=1)


def test_without_a_key_in_the_inventory_nothing_can_be_published(tmp_path: Path) -> None:
    path = tmp_path / "nodes.yaml"
    text = INVENTORY % {"store": "s", "channel": "stable", "folder": tmp_path, "signing": ""}
    path.write_text(text.replace(", signing: { key: key }", ""))
    operator = Operator.at(str(path))

    assert operator.public_keys() == ()
    with pytest.raises(ConfigError, match="nothing is published unsigned"):
        operator.key_path()


def test_a_passphrase_is_asked_for_only_where_somebody_can_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    operator = operator_in(tmp_path)
    public = generate_key(operator.key_path(), passphrase=b"secret")
    monkeypatch.setattr("getpass.getpass", lambda _: "secret")

    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(ConfigError, match="there is nobody to ask"):
        operator.outlet(parse_version("1.0.0"))
    monkeypatch.setattr("sys.stdin", Terminal())
    assert operator.outlet(parse_version("1.0.0")).signer.public == public


def test_the_signing_key_comes_first_and_the_other_trusted_ones_follow(tmp_path: Path) -> None:
    second, third, rotation = (
        generate_key(tmp_path / name, passphrase=None) for name in ("second", "third", "rotation")
    )
    signing = f", trusted: [second.pub, {third.ssh} of a person], rotation: rotation.pub"
    operator = operator_in(tmp_path, signing=signing)
    assert operator.public_keys() == ()

    own = generate_key(operator.key_path(), passphrase=None)

    assert operator.public_keys() == (own, second, third)
    assert operator.rotation_key() == rotation
    channel = operator.outlet(parse_version("1.0.0")).channel
    assert channel.keys == (own, second, third)
    assert channel.rotation == rotation
    private = {path.name for path in operator._private_files()}
    # The private halves that keygen made beside them above all.
    assert private == {
        f"{name}{end}"
        for name in ("key", "second", "rotation")
        for end in ("", ".pub", ".minisign.pub")
    }


@pytest.mark.parametrize(
    ("signing", "problem"),
    [
        (", trusted: [second.pub, key.pub]", "trusted` names the signing key itself"),
        (", trusted: [second.pub, ./second.pub]", "trusted` names a key twice"),
        (", trusted: [none.pub]", r"none\.pub: there is no public key"),
        (", rotation: none.pub", r"none\.pub: there is no public key"),
        (", rotation: key.pub", "rotation` names a key that signs releases too"),
        (", trusted: [second.pub], rotation: second.pub", "rotation` names a key that signs"),
    ],
)
def test_keys_that_do_not_fit_together_are_refused(
    signing: str, problem: str, tmp_path: Path
) -> None:
    generate_key(tmp_path / "second", passphrase=None)
    operator = operator_in(tmp_path, signing=signing)
    generate_key(operator.key_path(), passphrase=None)

    for opened in (operator.public_keys, lambda: operator.outlet(None)):
        with pytest.raises(ConfigError, match=problem) as caught:
            opened()
        assert caught.value.hint


def test_a_public_key_in_the_inventory_means_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nodes.yaml").write_text(
        INVENTORY.replace("key: key", "key: key.pub")
        % {"store": "s", "channel": "stable", "folder": tmp_path, "signing": ""}
    )
    operator = Operator.at(str(tmp_path / "nodes.yaml"))
    own = generate_key(tmp_path / "key", passphrase=None)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    assert operator.public_keys() == (own,)
    with pytest.raises(ConfigError, match="no ssh-agent runs here"):
        operator.outlet(None)

    with running_agent() as agent:
        monkeypatch.setenv("SSH_AUTH_SOCK", agent.socket)
        with pytest.raises(ConfigError, match="does not hold the signing key"):
            operator.outlet(None)
        agent.add(tmp_path / "key")
        assert operator.outlet(None).signer.public == own
        assert operator.known_key().is_in_agent
