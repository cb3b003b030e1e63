"""What becomes of a delivery: pure decisions about headers and bytes."""

from __future__ import annotations

import json
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.errors import ConfigError
from orchestrator.core.webhook import Decision, Expected, decide, is_signed, version_of_tag
from tests.service.running import SECRET, payload, signed

if TYPE_CHECKING:
    from collections.abc import Mapping

EXAMPLES: Final = json.loads(
    (Path(__file__).parents[1] / "cases/github/webhooks-examples.json").read_text()
)
OCTOCAT: Final = Expected(repository="codertocat/hello-world", tag="{version}")
OURS: Final = Expected(repository="owner/tool", tag="v{version}")


def deliver(
    body: bytes,
    expected: Expected = OURS,
    *,
    event: str = "release",
    headers: Mapping[str, str] | None = None,
) -> Decision:
    sent = {name.lower(): value for name, value in signed(body, event=event).items()}
    sent |= headers or {}
    return decide(sent, body, secret=SECRET.encode(), expected=expected)


@pytest.mark.parametrize("example", EXAMPLES["release"])
def test_of_githubs_own_examples_what_is_published_is_released(example: Any) -> None:
    decision = deliver(json.dumps(example).encode(), OCTOCAT)
    if example["action"] == "published":
        assert decision.status is HTTPStatus.ACCEPTED
        assert decision.wanted is not None
        assert str(decision.wanted.version) == "0.0.1"
        assert decision.wanted.page == (
            "https://github.com/Codertocat/Hello-World/releases/tag/0.0.1"
        )
    else:
        assert decision == Decision(
            status=HTTPStatus.NO_CONTENT, reason="only the action `published` is acted upon"
        )


@pytest.mark.parametrize("example", EXAMPLES["ping"])
def test_githubs_own_pings_are_answered_unless_they_are_about_another_repository(
    example: Any,
) -> None:
    body = json.dumps(example).encode()
    expected = Expected(repository="Octocoders/Hello-World", tag="{version}")
    assert deliver(body, expected, event="ping").status is HTTPStatus.OK
    is_of_an_organisation = "repository" not in example
    other = deliver(body, OURS, event="ping").status
    assert other is (HTTPStatus.OK if is_of_an_organisation else HTTPStatus.FORBIDDEN)


def test_the_signature_is_the_one_of_githubs_documentation() -> None:
    digest = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    body, secret = b"Hello, World!", b"It's a Secret to Everybody"
    assert is_signed(f"sha256={digest}", body, secret)
    assert not is_signed(f"sha256={digest}", body + b" ", secret)
    assert not is_signed(f"sha256={digest[:-1]}6", body, secret)
    assert not is_signed(digest, body, secret)


@pytest.mark.parametrize(
    "header",
    ["", "sha256=", "sha1=abc", "sha256=\xe9", "sha256=\udcff", "sha256=" + "0" * 64, "\u2028"],
)
def test_a_signature_that_is_not_one_is_refused_without_a_traceback(header: str) -> None:
    decision = deliver(payload(), headers={"x-hub-signature-256": header})
    assert decision.status is HTTPStatus.UNAUTHORIZED
    assert decision.is_refusal


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": ""}, 415),
        ({"content-type": "Application/JSON; charset=utf-8"}, 202),
        ({"x-github-event": "push"}, 204),
        ({"x-github-event": ""}, 204),
    ],
)
def test_headers_decide_too(headers: dict[str, str], status: int) -> None:
    assert deliver(payload(), headers=headers).status == status


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b'{"action": NaN}', 400),
        (b"[" * 100_000, 400),
        (b"\xff\xfe", 400),
        (b'{"action": "published"}', 400),
        (b'{"action": 1, "release": {}}', 400),
        (payload(repository="owner/other"), 403),
        (payload().replace(b'"repository"', b'"elsewhere"'), 403),
        (payload(action="released"), 204),
        (payload(draft=True), 204),
        (payload(draft=None), 204),
        (payload("other-1.0.0"), 204),
        (payload("vnext"), 204),
        (payload(""), 422),
        (payload("v1.0"), 422),
        (payload("v1.0.0 "), 422),
        (payload("v1.0.0\n"), 422),
        (payload("v01.0.0"), 422),
        (payload("v1.0.0" + "0" * 100), 422),
        (payload("-rf"), 422),
        (payload("v1.0;rm${IFS}-rf${IFS}x"), 422),
        (payload("--upload-pack=touch${IFS}x;git-upload-pack"), 422),
        (payload("v1.0.0-$(id)"), 422),
        (payload("v1.0.0\u202e"), 422),
        (payload("../v1.0.0"), 422),
        (payload("v1.0.0.lock"), 422),
        (payload(tag_name=1), 422),
    ],
)
def test_bodies_that_are_no_release_of_ours_are_told_why(body: bytes, status: int) -> None:
    decision = deliver(body)
    assert decision.status == status
    assert decision.wanted is None
    assert decision.reason


@pytest.mark.parametrize(
    ("tag", "flag", "is_prerelease"),
    [
        ("v1.0.0", False, False),
        ("v1.0.0", True, True),
        ("v1.0.0", None, True),
        ("v1.0.0-rc.1", False, True),
    ],
)
def test_a_prerelease_is_one_by_its_number_or_by_its_flag(
    tag: str, flag: object, is_prerelease: object
) -> None:
    wanted = deliver(payload(tag, prerelease=flag)).wanted
    assert wanted is not None
    assert wanted.is_prerelease is is_prerelease


@pytest.mark.parametrize(
    "page", [None, 1, "javascript:alert(1)", "http://github.com/x", "https://"]
)
def test_a_page_that_is_none_is_left_out(page: object) -> None:
    wanted = deliver(payload(html_url=page)).wanted
    assert wanted is not None
    assert wanted.page is None


def test_a_repository_is_known_by_its_number_if_that_is_given() -> None:
    renamed = payload(repository="owner/renamed")
    by_number = Expected(repository="owner/tool", tag="v{version}", repository_id=1296269)
    assert deliver(renamed, by_number).status is HTTPStatus.ACCEPTED
    taken = Expected(repository="owner/tool", tag="v{version}", repository_id=7)
    assert deliver(payload(), taken).status is HTTPStatus.FORBIDDEN


def test_a_tag_names_a_version_by_its_pattern() -> None:
    assert str(version_of_tag("v1.2.3", "v{version}")) == "1.2.3"
    assert str(version_of_tag("tool/1.2.3-rc.1", "tool/{version}")) == "1.2.3-rc.1"
    assert version_of_tag("1.2.3", "v{version}") is None
    assert version_of_tag("vx", "v{version}") is None
    with pytest.raises(ConfigError):
        version_of_tag("v1", "v{version}")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(
    body=st.binary(max_size=200) | _JSON.map(lambda data: json.dumps(data).encode()),
    event=st.sampled_from(["release", "ping", "push", ""]) | st.text(max_size=10),
    kind=st.sampled_from(["application/json", "text/plain", ""]) | st.text(max_size=10),
)
def test_whatever_is_signed_there_is_an_answer_and_nothing_to_release(
    body: bytes, event: str, kind: str
) -> None:
    decision = deliver(body, event=event, headers={"content-type": kind})
    assert decision.wanted is None
    assert decision.status in {200, 204, 400, 403, 415, 422}


@given(
    changes=st.dictionaries(
        st.sampled_from(["tag_name", "draft", "prerelease", "html_url"]), _JSON, max_size=4
    ),
    action=_JSON,
)
def test_whatever_stands_in_a_release_only_a_version_is_released(
    changes: dict[str, Any], action: Any
) -> None:
    data = json.loads(payload())
    data["release"] |= changes
    for each in (action, "published"):
        data["action"] = each
        wanted = deliver(json.dumps(data).encode()).wanted
        if wanted is not None:
            assert wanted.tag == f"v{wanted.version}"
            assert each == "published"


@given(header=st.text(max_size=80), flipped=st.integers(0, 255))
def test_nothing_but_the_right_signature_is_believed(header: str, flipped: int) -> None:
    assert (
        deliver(payload(), headers={"x-hub-signature-256": header}).status
        is HTTPStatus.UNAUTHORIZED
    )
    body = payload()
    wrong = bytearray(body)
    wrong[flipped % len(wrong)] ^= 1
    headers = {name.lower(): value for name, value in signed(body).items()}
    decision = decide(headers, bytes(wrong), secret=SECRET.encode(), expected=OURS)
    assert decision.status is HTTPStatus.UNAUTHORIZED
