"""The native worker API: what any HTTP client can say, and what bad input gets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import httpx
import pytest

from redis_registry import Readiness, SyncModelRegistry
from tests.helpers import instance

WHO = {"model_name": "glm@llm", "host": "10.0.0.1", "port": 8001}

Json = dict[str, Any]


@pytest.fixture
def reader(sync_registry: SyncModelRegistry) -> SyncModelRegistry:
    return sync_registry


async def say(web: httpx.AsyncClient, path: str, body: Json) -> Json:
    reply = await web.post(f"/v1/workers/{path}", json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


async def test_a_life_said_by_any_http_client(
    web: httpx.AsyncClient, reader: SyncModelRegistry
) -> None:
    given = await say(web, "register", {"instance": {**WHO, "readiness": "starting"}})
    assert given["answer"] == "taken"
    who = {**WHO, "incarnation": given["incarnation"]}
    await say(web, "ready", {"instance": who})
    (found,) = reader.get_all_instances("glm@llm")
    assert (found.readiness, found.incarnation) == ("ready", given["incarnation"])
    beat = {"instance": who, "load": {"in_flight": 4}}
    told = await say(web, "heartbeats", {"beats": [beat]})
    assert told == {"answers": ["taken"], "boot": given["boot"]}
    (found,) = reader.get_all_instances("glm@llm")
    assert found.load
    assert found.load.in_flight == 4
    await say(web, "drain", {"instance": who})
    (found,) = reader.get_all_instances("glm@llm")
    assert found.readiness is Readiness.DRAINING
    await say(web, "deregister", {"instance": who})
    (found,) = reader.get_all_instances("glm@llm")
    assert not found.healthy
    await say(web, "deregister", {"instance": who, "remove": True})
    assert reader.get_all_instances("glm@llm") == []


async def test_an_unknown_one_must_register_and_leaves_no_half_record(
    web: httpx.AsyncClient, reader: SyncModelRegistry
) -> None:
    beat = {"beats": [{"instance": WHO}, {"instance": WHO, "load": {}}]}
    told = await say(web, "heartbeats", beat)
    assert told["answers"] == ["reregister", "reregister"]
    assert (await say(web, "ready", {"instance": WHO}))["answer"] == "reregister"
    assert (await say(web, "drain", {"instance": WHO}))["answer"] == "reregister"
    await say(web, "deregister", {"instance": WHO})
    assert reader.get_all_instances("glm@llm") == []


async def test_an_older_life_is_told(
    web: httpx.AsyncClient, reader: SyncModelRegistry
) -> None:
    """Also where both names were given by controllers."""
    lives = [
        (await say(web, "register", {"instance": WHO}))["incarnation"] for _ in "12"
    ]
    assert lives[0] < lives[1]
    old, new = ({**WHO, "incarnation": life} for life in lives)
    beats = [{"instance": new, "load": {}}, {"instance": old}]
    told = await say(web, "heartbeats", {"beats": beats})
    assert told["answers"] == ["taken", "superseded"]
    for path in ("ready", "drain", "register", "deregister"):
        reply = await web.post(f"/v1/workers/{path}", json={"instance": old})
        assert reply.status_code == 409, path
        assert "superseded" in reply.json()["detail"]
    told = await web.post("/v1/workers/register", json={"instance": old})
    assert told.json()["superseded_by"] == lives[1]
    (found,) = reader.get_all_instances("glm@llm")
    assert (found.healthy, found.incarnation) == (True, lives[1])


async def test_a_name_given_here_is_newer_than_one_of_a_host_whose_clock_is_ahead(
    web: httpx.AsyncClient, reader: SyncModelRegistry
) -> None:
    reader.register_instance(instance(**WHO_AHEAD))
    given = (await say(web, "register", {"instance": WHO}))["incarnation"]
    assert given > WHO_AHEAD["incarnation"]


WHO_AHEAD: Json = {"incarnation": "e" * 22}


@pytest.mark.parametrize(
    ("path", "body", "place"),
    [
        ("register", {}, ["instance"]),
        ("register", {"instance": {"model_name": "m"}}, ["instance", "host"]),
        ("register", {"instance": [], "order": 1}, ["instance"]),
        ("register", {"instance": WHO, "order": -1}, ["order"]),
        ("ready", {"instance": WHO, "readiness": "maybe"}, ["readiness"]),
        ("ready", {"instance": WHO, "reason": "x" * 501}, ["reason"]),
        ("drain", {"instance": 3}, ["instance"]),
        ("heartbeats", {"beats": {}}, ["beats"]),
        ("heartbeats", {"beats": [{"instance": WHO}, {}]}, ["beats", 1, "instance"]),
        ("heartbeats", {"beats": [{"instance": WHO}] * 501}, ["beats"]),
        ("heartbeats", {"beats": [], "patience_secs": 0}, ["patience_secs"]),
        ("deregister", {"instance": WHO, "remove": "perhaps"}, ["remove"]),
    ],
)
async def test_bad_bodies_are_told_and_nothing_is_stored(
    web: httpx.AsyncClient,
    reader: SyncModelRegistry,
    path: str,
    body: Json,
    place: list[object],
) -> None:
    reply = await web.post(f"/v1/workers/{path}", json=body)
    assert reply.status_code == 422
    assert reply.json()["detail"][0]["loc"] == ["body", *place]
    assert reader.get_all_model_instances() == []


async def test_the_api_describes_itself(web: httpx.AsyncClient) -> None:
    described = (await web.get("/openapi.json")).json()
    names = {"register", "heartbeats", "ready", "drain", "deregister"}
    assert {f"/v1/workers/{name}" for name in names} <= set(described["paths"])
    schemas = described["components"]["schemas"]
    assert "incarnation" in schemas["ModelInstance"]["properties"]
    found = set(_refs(described))
    assert found
    for ref in found:
        assert ref.removeprefix("#/components/schemas/") in schemas


def _refs(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in cast("Json", node).items():
            if key == "$ref":
                yield value
            yield from _refs(value)
    elif isinstance(node, list):
        for value in cast("list[object]", node):
            yield from _refs(value)
