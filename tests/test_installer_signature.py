"""install.sh.sig, and the copies of install.sh that belong to one version each."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import threading
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.core.index import Status
from orchestrator.core.inventory import Inventory, Project
from orchestrator.core.inventory import Publication as PublicationKeys
from orchestrator.core.signature import render_allowed_signers
from orchestrator.core.version import parse_version
from orchestrator.signing import generate_key, load_signer, verify_sshsig
from orchestrator.site import renew_copy, renew_derived
from orchestrator.stores.channel import Channel
from orchestrator.stores.installer import ScriptSigner, publish_copy, signature_pointer
from orchestrator.stores.store import ObjectKind
from orchestrator.world import Outlet
from tests.fakes import MemoryStore, ToySigner, toy_verify, toy_verify_raw, toy_verify_ssh
from tests.releases import contents
from tests.sample_index import make_index, make_row
from tests.shop import LINUX, NETBSD, Shop
from tests.stores.model import Walk

if TYPE_CHECKING:
    from orchestrator.core.signature import Signatures
    from orchestrator.stores.store import ReleaseStore

ROOT = Path(__file__).parent.parent
TODAY = date(2026, 11, 21)
NAMESPACE = "installer@tool"
COPY = "releases/1.0.0/install.sh"
INVENTORY = Inventory(
    project=Project(name="tool", binaries=("tool",)), publication=PublicationKeys(), nodes=()
)
# The toy keys have no form that enters a script.
CHANNEL = Channel(
    project="tool", name="stable", keys=(), verify=toy_verify, lifetime=timedelta(days=90)
)


@dataclass(frozen=True, slots=True)
class CountingSigner(ToySigner):
    """A key whose holder is asked for each signature."""

    asked: list[bytes] = field(default_factory=list)

    def sign(self, data: bytes, *, namespace: str, comment: str) -> Signatures:
        # Named: a dataclass with slots is another class than the one that super() was compiled in.
        self.asked.append(data)
        return ToySigner.sign(self, data, namespace=namespace, comment=comment)


def by(signer: ToySigner, *others: ToySigner) -> ScriptSigner:
    keys = tuple(each.public for each in (signer, *others))
    return ScriptSigner(project="tool", signer=signer, keys=keys, verify=toy_verify_ssh)


def signed(script: bytes, signer: ToySigner) -> bytes:
    return signer.sign_ssh(script, namespace=NAMESPACE).encode()


def outlet(store: MemoryStore, **more: Any) -> Outlet:
    made = Outlet(
        store=store,
        channel=CHANNEL,
        signer=ToySigner(),
        verify_raw=toy_verify_raw,
        verify_ssh=toy_verify_ssh,
        template="#!/bin/sh\n: '{{ channel }} {{ version }}'\n",
        url="https://example.org",
        today=lambda: TODAY,
    )
    return replace(made, **more)


@pytest.fixture
def shop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shop:
    return Shop(folder=tmp_path, capsys=capsys)


# Beside install.sh


def test_the_command_of_the_documentation_verifies_the_published_script(
    shop: Shop, tmp_path: Path
) -> None:
    shop.publish("1.0.0", LINUX)
    document = (ROOT / "docs/keys.md").read_text().replace("ballistics", "demo")
    key = (tmp_path / "key.pub").read_text().split()[1]
    [line] = re.findall(r"^ *(demo namespaces=.*installer@demo.*)$", document, re.MULTILINE)
    [command] = re.findall(r"^(ssh-keygen .*installer@demo.*) &&", document, re.MULTILINE)
    line = line.replace("AAAA…", key)
    assert line + "\n" == render_allowed_signers("demo", shop.operator.public_keys())
    folder = tmp_path / "downloads"
    folder.mkdir()
    (folder / "allowed_signers").write_text(line + "\n")
    for name in ("install.sh", "install.sh.sig"):
        shutil.copy(shop.store / name, folder)

    def verify() -> int:
        ended = subprocess.run(["/bin/sh", "-c", command], cwd=folder, check=False)
        return ended.returncode

    assert verify() == 0
    with (folder / "install.sh").open("a") as script:
        script.write("\n")
    assert verify() != 0
    # A signature of an index, which the same key has made, is none of a script.
    signer = shop.operator.signer()
    other = signer.sign_ssh((folder / "install.sh").read_bytes(), namespace="index@demo")
    (folder / "install.sh.sig").write_text(other)
    assert verify() != 0


async def test_the_signature_is_made_once_and_again_only_when_it_is_needed() -> None:
    store, signer = MemoryStore(), CountingSigner()
    first = await signature_pointer(store, b"script", by(signer))
    assert (first.name, first.kind) == ("install.sh.sig", ObjectKind.SIGNATURE)
    assert first.data == signed(b"script", ToySigner())
    generation = await store.replace(first.name, first.data, first.kind, expected=None)
    assert await signature_pointer(store, b"script", by(signer)) == first
    assert signer.asked == [b"script"]
    for bad in (b"bad", b"\xff\n", signed(b"other", ToySigner())):
        generation = await store.replace(first.name, bad, first.kind, expected=generation)
        assert await signature_pointer(store, b"script", by(signer)) == first
    assert signer.asked == [b"script"] * 4
    assert (await signature_pointer(store, b"other", by(signer))).data == bad


async def test_a_good_signature_by_another_trusted_key_stays() -> None:
    store, other, signer = MemoryStore(), ToySigner("other"), CountingSigner()
    theirs = signed(b"script", other)
    await store.replace("install.sh.sig", theirs, ObjectKind.SIGNATURE, expected=None)
    assert (await signature_pointer(store, b"script", by(signer, other))).data == theirs
    assert signer.asked == []
    # Who does not trust that key signs.
    found = await signature_pointer(store, b"script", by(signer))
    assert found.data == signed(b"script", ToySigner())


async def test_whoever_asks_a_person_for_a_signature_does_not_hold_up_the_rest() -> None:
    loop, is_asked, may_answer = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    class SlowSigner(ToySigner):
        def sign_ssh(self, data: bytes, *, namespace: str) -> str:
            loop.call_soon_threadsafe(is_asked.set)
            assert may_answer.wait(60)
            return super().sign_ssh(data, namespace=namespace)

    work = asyncio.ensure_future(signature_pointer(MemoryStore(), b"script", by(SlowSigner())))
    await is_asked.wait()
    may_answer.set()
    assert (await work).data


async def test_what_follows_from_an_index_is_signed_with_it() -> None:
    store = MemoryStore()
    await renew_derived(INVENTORY, outlet(store), make_index([make_row("1.0.0", LINUX)]))
    script = store.objects["install.sh"].data
    assert store.objects["install.sh.sig"].data == signed(script, ToySigner())
    assert 'href="./install.sh.sig"' not in store.objects["index.html"].data.decode(), "no key"
    empty = MemoryStore()
    no_address = outlet(empty, url=None)
    await renew_derived(INVENTORY, no_address, make_index([make_row("1.0.0", LINUX)]))
    assert not any("install.sh" in name for name in empty.objects)


def test_the_page_leads_to_the_signature(shop: Shop) -> None:
    shop.publish("1.0.0", LINUX)
    assert 'href="./install.sh.sig"' in (shop.store / "index.html").read_text()


# One version's own


async def test_a_version_gets_a_script_of_its_own_once() -> None:
    store = MemoryStore()
    index = make_index([make_row("1.0.0", LINUX)])
    version = parse_version("1.0.0")
    await renew_copy(INVENTORY, outlet(store), index, version=version)
    script = store.objects[COPY].data
    assert script == b"#!/bin/sh\n: 'stable 1.0.0'\n"
    assert store.objects[f"{COPY}.sig"].data == signed(script, ToySigner())
    assert store.kinds[COPY] is store.kinds[f"{COPY}.sig"] is ObjectKind.TEXT
    before = dict(store.objects)
    # A later program renders other bytes, and its key's holder is not asked for anything.
    signer = CountingSigner()
    later = outlet(store, template="later {{ version }}\n", signer=signer)
    await renew_copy(INVENTORY, later, index, version=version)
    assert store.objects == before
    assert signer.asked == []


@pytest.mark.parametrize("case", ["another channel", "no address", "pending", "not there"])
async def test_a_version_that_nobody_gets_from_here_has_no_script_of_its_own(case: str) -> None:
    store = MemoryStore()
    status = Status.PENDING if case == "pending" else Status.OK
    version = "2.0.0" if case == "not there" else "1.0.0"
    channel = replace(CHANNEL, name="prerelease") if case == "another channel" else CHANNEL
    url = None if case == "no address" else "https://example.org"
    await renew_copy(
        INVENTORY,
        outlet(store, channel=channel, url=url),
        make_index([make_row("1.0.0", LINUX, status)]),
        version=parse_version(version),
    )
    assert store.objects == {}


async def test_nothing_that_somebody_put_there_is_signed() -> None:
    for planted in (COPY, f"{COPY}.sig"):
        store, signer = MemoryStore(), CountingSigner()
        await store.create(planted, b"planted", ObjectKind.TEXT)
        await publish_copy(store, COPY, b"ours", by=by(signer))
        assert {name: held.data for name, held in store.objects.items()} == {planted: b"planted"}
        assert set(signer.asked) <= {b"ours"}
    store, signer = MemoryStore(), CountingSigner()
    await store.replace("install.sh", b"planted", ObjectKind.SCRIPT, expected=None)
    await renew_derived(INVENTORY, outlet(store, signer=signer), make_index([]))
    assert b"planted" not in signer.asked


class PlantingStore(MemoryStore):
    """A store in which a script appears right after its signature was written."""

    async def create(self, name: str, data: bytes, kind: ObjectKind) -> Any:
        if name == COPY:
            await MemoryStore.create(self, name, b"planted", kind)
        return await MemoryStore.create(self, name, data, kind)


async def test_a_script_that_appears_in_between_is_no_error() -> None:
    store = PlantingStore()
    await publish_copy(store, COPY, b"ours", by=by(ToySigner()))
    assert store.objects[COPY].data == b"planted"


SCRIPTS = (b"by one program", b"by another program")
KEYS = (ToySigner("one"), ToySigner("two"))


class PairStore(MemoryStore):
    """A store that looks at the pair after each write."""

    def _write(self, name: str, data: bytes, kind: ObjectKind) -> Any:
        made = MemoryStore._write(self, name, data, kind)
        require_pair(self)
        return made


def require_pair(store: MemoryStore) -> None:
    """Raise unless each script stands beside its own signature."""
    held = store.objects.get(COPY)
    if held is None:
        return
    signature = store.objects[f"{COPY}.sig"].data
    assert signature in {signed(held.data, signer) for signer in KEYS}


@pytest.mark.parametrize(
    ("first", "second"), [(0, 0), (0, 1)], ids=["the same bytes", "other bytes"]
)
@pytest.mark.parametrize("keys", [1, 2])
async def test_no_interleaving_and_no_crash_mixes_a_script_with_anothers_signature(
    first: int, second: int, keys: int
) -> None:
    async def publish(store: ReleaseStore, number: int, script: int) -> None:
        signer = KEYS[number % keys]
        await publish_copy(store, COPY, SCRIPTS[script], by=by(signer, *KEYS))

    async def one(store: ReleaseStore) -> None:
        await publish(store, 0, first)

    async def two(store: ReleaseStore) -> None:
        await publish(store, 1, second)

    walk = Walk(initial={}, publishers=(one, two), wanted={}, make_store=PairStore)
    assert await walk.explore() > 5
    ends = [dict(objects) for objects in walk.rerun]
    whole = [end for end in ends if COPY in end]
    assert whole
    assert any(f"{COPY}.sig" in end and COPY not in end for end in ends), "a crash in between"
    # From each crash, whoever's signature is there finishes.
    for end in ends:
        store = PairStore(dict(end))
        await one(store)
        await two(store)
        assert COPY in store.objects


def test_promoting_a_version_to_the_own_channel_gives_it_a_script(shop: Shop) -> None:
    shop.publish("1.0.0-rc.1", LINUX, channel="prerelease")
    assert not (shop.store / "releases/1.0.0-rc.1/install.sh").exists()
    assert shop.run("promote", "1.0.0-rc.1").code == 0
    assert "VERSION='1.0.0-rc.1'" in (shop.store / "releases/1.0.0-rc.1/install.sh").read_text()
    assert shop.run("fsck", "--deep").out.endswith("all is well\n")


# What fsck and the commands make of them


def found(shop: Shop, *options: str) -> list[tuple[str, str, str]]:
    data = shop.run("fsck", "--json", *options).data
    return [(each["state"], each["object"], each["message"]) for each in data["findings"]]


def with_copy(shop: Shop) -> Path:
    shop.publish("1.0.0", LINUX, NETBSD)
    assert shop.run("promote", "1.0.0", "--from", "stable", "--to", "copy").code == 0
    own, inventory = shop.operator.outlet_of("stable"), shop.operator.inventory
    work = renew_copy(inventory, own, shop.index(), version=parse_version("1.0.0"))
    asyncio.run(work)
    return shop.store / COPY


@pytest.mark.parametrize("how", ["renew", "fsck"])
def test_a_store_of_an_older_release_gets_its_signature(shop: Shop, how: str) -> None:
    shop.publish("1.0.0", LINUX)
    signature = shop.store / "install.sh.sig"
    kept = signature.read_bytes()
    signature.unlink()
    assert [each[:2] for each in found(shop)] == [("warning", "install.sh.sig")]
    assert "`orchestrator renew` writes it" in found(shop)[0][2]
    assert shop.run("fsck").code == 0
    assert shop.run("verify", "1.0.0").code == 0
    assert "orchestrator renew" in shop.run("verify", "1.0.0", "--json").out
    assert shop.run(how, *(["--repair"] if how == "fsck" else [])).code == 0
    assert signature.read_bytes() == kept
    assert found(shop) == []


@pytest.mark.parametrize("planted", ["not a signature\n", "ä", "of another"])
def test_a_signature_that_is_not_of_this_script_is_found_and_made_again(
    shop: Shop, planted: str
) -> None:
    shop.publish("1.0.0", LINUX)
    whole = contents(shop.store)
    if planted == "of another":
        generate_key(shop.folder / "other", passphrase=None)
        thief = load_signer(shop.folder / "other", None)
        planted = thief.sign_ssh(bytes(whole["install.sh"] or b""), namespace="installer@demo")
    (shop.store / "install.sh.sig").write_text(planted)
    assert [each[:2] for each in found(shop)] == [("damage", "install.sh.sig")]
    assert shop.run("fsck").code == 5
    verified = shop.run("verify", "1.0.0")
    assert verified.code == 5
    assert "orchestrator renew" in verified.out
    assert [each[0] for each in found(shop, "--repair")] == ["repaired"]
    assert contents(shop.store) == whole


def test_fsck_says_that_nobody_could_sign(shop: Shop) -> None:
    shop.publish("1.0.0", LINUX)
    (shop.store / "install.sh.sig").write_text("bad\n")
    (shop.folder / "key").unlink()
    [finding] = found(shop, "--repair")
    assert finding[:2] == ("damage", "install.sh.sig")
    assert "nobody could sign it: there is no signing key" in finding[2]


def test_the_signature_of_a_version_s_own_script_is_looked_at(shop: Shop) -> None:
    script = with_copy(shop)
    signature = script.with_name("install.sh.sig")
    kept = signature.read_bytes()
    assert shop.run("fsck", "--deep").out.endswith("all is well\n")
    assert shop.run("verify", "1.0.0", "--json").data["verdict"] == "good"

    signature.unlink()
    assert found(shop) == [("damage", f"{COPY}.sig", "it is missing")]
    assert [each[:2] for each in found(shop, "--deep")] == [("damage", f"{COPY}.sig")]
    refused = shop.run("verify", "1.0.0")
    assert refused.code == 5
    assert f"{COPY}: signature of the installer: it is not there" in refused.out

    signature.write_text("bad\n")
    assert found(shop) == []
    assert [each[:2] for each in found(shop, "--deep")] == [("damage", COPY)]
    assert shop.run("verify", "1.0.0").code == 5

    signature.write_bytes(kept)
    script.unlink()
    assert [each[:2] for each in found(shop)] == [("warning", f"{COPY}.sig")]
    verified = shop.run("verify", "1.0.0", "--json")
    assert verified.code == 0
    assert "`orchestrator release --version 1.0.0` goes on" in verified.out


def test_the_scripts_of_thirty_and_more_versions_are_no_orphans(shop: Shop) -> None:
    for minor in range(2):
        shop.publish(f"1.{minor}.0", LINUX)
    for version in ("1.0.0", "1.1.0"):
        work = renew_copy(
            shop.operator.inventory,
            shop.operator.outlet_of("stable"),
            shop.index(),
            version=parse_version(version),
        )
        asyncio.run(work)
    # As it is when the older one has fallen out of the index: only a copy of that names it.
    newer = [row for row in shop.index().rows if str(row.version) == "1.1.0"]
    assert newer
    assert found(shop) == []
    (shop.store / "releases/0.1.0").mkdir()
    shutil.copy(shop.store / "releases/1.0.0/install.sh", shop.store / "releases/0.1.0")
    shutil.copy(shop.store / "releases/1.0.0/install.sh.sig", shop.store / "releases/0.1.0")
    assert {each[:2] for each in found(shop)} == {
        ("warning", "releases/0.1.0/install.sh"),
        ("warning", "releases/0.1.0/install.sh.sig"),
    }


def test_a_signature_by_a_key_that_was_revoked_since_is_said_and_no_failure(
    tmp_path: Path,
) -> None:
    from orchestrator.verification.judge import Judge  # noqa: PLC0415 -- here only

    generate_key(tmp_path / "key", passphrase=None)
    old = load_signer(tmp_path / "key", None)
    new = generate_key(tmp_path / "new", passphrase=None)
    signature = old.sign_ssh(b"script", namespace="installer@demo").encode()
    judge = Judge(project="demo", keys=(new,), past=(old.public, new))
    assert judge.installer_copy("x", b"script", signature).verdict == "not checked"
    assert judge.installer_copy("x", b"other", signature).verdict == "wrong"
    assert judge.installer("x", b"script", signature).verdict == "wrong", "that one is renewed"


def test_it_is_byte_for_byte_the_signature_of_ssh_keygen(shop: Shop, tmp_path: Path) -> None:
    signer = shop.operator.signer()
    (tmp_path / "data").write_bytes(b"script")
    argv = ["ssh-keygen", "-Y", "sign", "-f", f"{tmp_path}/key", "-n", NAMESPACE]
    subprocess.run([*argv, tmp_path / "data"], check=True, capture_output=True)
    made = signer.sign_ssh(b"script", namespace=NAMESPACE)
    assert made == (tmp_path / "data.sig").read_text()
    verify_sshsig(b"script", made, keys=[signer.public], namespace=NAMESPACE)
