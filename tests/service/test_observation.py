"""What others see of a running service: metrics, commit statuses, notices."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.github_server import REPOSITORY
from tests.releases import wait_for
from tests.service.test_notices import receiving

if TYPE_CHECKING:
    from tests.service.running import Service, Works


def metrics_of(service: Service) -> dict[str, float]:
    status, told = service.get("/metrics")
    assert status == 200
    lines = (line.rpartition(" ") for line in told.decode().splitlines() if line[:1] != "#")
    return {name: float(value) for name, _, value in lines}


@pytest.mark.thorough
def test_a_release_is_seen_by_prometheus_github_and_who_is_told(works: Works) -> None:
    commit = works.github.commit_of("v1.0.0")
    with receiving() as receiver:
        works.environment["HOOK"] = receiver.url
        works.settings |= {
            "url": "https://example.org",
            "statuses": True,
            "notices": [{"url_env": "HOOK", "about": ["released", "failed"]}],
        }
        works.write(works.desk.node())
        with works.running() as service:
            before = metrics_of(service)
            assert service.deliver() == 202
            assert service.deliver() == 202
            assert service.post("/webhook", b"{}", {"Content-Type": "application/json"})[0] == 401
            wait_for(lambda: receiver.taken and len(works.github.statuses.get(commit, ())) == 2)
            after = metrics_of(service)
        # What is in the store is looked at every few seconds only: another start looks at once.
        with works.running() as service:
            stored = metrics_of(service)
    (notice,) = [json.loads(body) for _, body in receiver.taken]
    assert notice["title"] == "tool: 1.0.0 is released"
    assert notice["link"] == "https://example.org/status"

    assert before['orchestrator_releases_total{outcome="done"}'] == 0
    assert after['orchestrator_releases_total{outcome="done"}'] == 1
    assert after['orchestrator_webhooks_total{decision="accepted"}'] == 2
    assert after['orchestrator_webhooks_total{decision="refused"}'] == 1
    assert after['orchestrator_build_seconds_count{node="here"}'] == 1
    assert after["orchestrator_queue_depth"] == 0
    assert stored['orchestrator_index_expires_timestamp_seconds{channel="stable"}'] > 1.7e9
    assert [value for name, value in stored.items() if "platform_behind" in name] == [0]

    newest, oldest = works.github.statuses[commit]
    assert (oldest["state"], newest["state"]) == ("pending", "success")
    assert newest["context"].startswith("tool/")
    assert newest["target_url"] == "https://example.org/status"
    assert REPOSITORY in " ".join(works.github.asked("POST"))
