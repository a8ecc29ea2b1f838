"""Failing calls, told by any HTTP client."""

from __future__ import annotations

from typing import Any

import httpx

from redis_registry import SyncModelRegistry
from tests.helpers import instances

WHO = {"model_name": "glm@llm", "host": "10.0.0.1", "port": 1}


async def tell(web: httpx.AsyncClient, **body: Any) -> list[dict[str, Any]]:
    reply = await web.post("/v1/outcomes", json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()["outcomes"]


async def test_reports_of_any_http_client_keep_an_instance_out(
    web: httpx.AsyncClient, sync_registry: SyncModelRegistry
) -> None:
    sync_registry.send_heartbeats(instances(3))
    some = {"instance": WHO, "failures": 4, "reason": "a | b"}
    for _ in range(3):
        answers = await tell(web, outcomes=[some], operation="router-1")
        assert answers == [{"verdict": "counted"}]
    mixed = {"instance": WHO, "failures": 3, "successes": 1, "trailing": 1}
    unknown = {"instance": {**WHO, "port": 9}, "failures": 1}
    answers = await tell(web, outcomes=[mixed, unknown])
    assert [answer["verdict"] for answer in answers] == ["counted", "unknown"]
    (answer,) = await tell(web, outcomes=[some])
    assert answer["verdict"] == "ejected"
    found = sync_registry.get_all_instances("glm@llm")[0]
    assert found.held_out
    assert found.held_out.until.isoformat().replace("+00:00", "Z") == answer["until"]
    assert (await web.post("/v1/probes", json={"instance": WHO})).json() == {
        "granted": False
    }


async def test_bad_reports_are_refused_by_name(web: httpx.AsyncClient) -> None:
    bad: tuple[dict[str, Any], ...] = (
        {},
        {"outcomes": [{"failures": 1}]},
        {"outcomes": [{"instance": WHO, "failures": -1}]},
        {"outcomes": [{"instance": WHO}] * 501},
        {"outcomes": [], "operation": "a|b"},
    )
    for body in bad:
        assert (await web.post("/v1/outcomes", json=body)).status_code == 422
    assert await tell(web, outcomes=[]) == []
