"""DB-GPT's API over HTTP: the bytes its clients send and expect, and what bad input gets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import httpx
import pytest

from redis_registry import Readiness, RedisModelRegistry
from redis_registry.http.app import HTTPError, Request
from redis_registry.http.server import application
from tests.conftest import Bench
from tests.helpers import instance, instances

MODELS, HEARTBEAT = "/api/controller/models", "/api/controller/heartbeat"
BODY = (
    b'{"model_name":"glm@llm","host":"10.0.0.1","port":8001,"weight":1.0,"check_healthy":true,'
    b'"healthy":false,"enabled":true,"prompt_template":null,"last_heartbeat":null,'
    b'"remove_from_registry":false}'
)


async def listed(web: httpx.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    answer = await web.get(MODELS, params=query)
    assert answer.status_code == 200
    return answer.json()


async def test_the_bytes_of_a_worker_register_and_beat(web: httpx.AsyncClient) -> None:
    for path in (MODELS, HEARTBEAT):
        answer = await web.post(path, content=BODY)
        assert (answer.status_code, answer.content) == (200, b"true")
        assert answer.headers["content-type"] == "application/json"

    (found,) = await listed(web)

    beat = found.pop("last_heartbeat")
    assert datetime.fromisoformat(beat).tzinfo is None
    assert abs((datetime.now() - datetime.fromisoformat(beat)).total_seconds()) < 2
    expected = json.loads(BODY) | {"healthy": True}
    del expected["last_heartbeat"]
    assert found == expected
    assert list(found) == [key for key in json.loads(BODY) if key != "last_heartbeat"]


async def test_a_heartbeat_of_an_unknown_worker_registers_it(
    web: httpx.AsyncClient,
) -> None:
    await web.post(HEARTBEAT, content=BODY)
    assert len(await listed(web)) == 1


async def test_deregistering_takes_the_query_of_the_stock_client(
    web: httpx.AsyncClient,
) -> None:
    await web.post(MODELS, content=BODY)
    query = (
        "model_name=glm%40llm&host=10.0.0.1&port=8001&weight=1.0&check_healthy=true&healthy=false"
        "&enabled=true&prompt_template=&last_heartbeat=&remove_from_registry="
    )
    answer = await web.delete(f"{MODELS}?{query}false")
    assert (answer.status_code, answer.content) == (200, b"true")
    assert [item["healthy"] for item in await listed(web)] == [False]
    assert await listed(web, healthy_only="True") == []

    assert (await web.delete(f"{MODELS}?{query}true")).content == b"true"
    assert await listed(web) == []
    assert (await web.delete(f"{MODELS}?{query}true")).content == b"true"


async def test_lists_filter_by_model_and_health(web: httpx.AsyncClient) -> None:
    for model in ("a@llm", "b@llm"):
        await web.post(MODELS, json={"model_name": model, "host": "h", "port": "2"})
    assert [i["model_name"] for i in await listed(web, model_name="a@llm")] == ["a@llm"]
    assert len(await listed(web, model_name="")) == 2
    assert len(await listed(web, healthy_only="1")) == 2
    assert await listed(web, model_name="nobody") == []


async def test_of_the_healthy_it_lists_only_those_that_want_work(
    web: httpx.AsyncClient, bench: Bench
) -> None:
    """DB-GPT's clients choose any of them, and know no readiness."""
    await bench.registry.register_instance(
        instance(1, readiness=Readiness.STARTING, incarnation="1")
    )
    await bench.registry.register_instance(instance(2, enabled=False))

    assert [found["port"] for found in await listed(web)] == [1, 2]
    assert [found["port"] for found in await listed(web, healthy_only=True)] == [2]


async def test_long_lists_are_whole_json(web: httpx.AsyncClient, bench: Bench) -> None:
    await bench.registry.send_heartbeats(instances(1234))
    found = await listed(web)
    assert {item["port"] for item in found} == set(range(1, 1235))


GOOD: dict[str, Any] = {"model_name": "m", "host": "h", "port": 1}
BAD_BODIES: list[tuple[bytes, str]] = [
    (b"", "body"),
    (b"{", "JSON"),
    (b"[1,2]", "object"),
    (b"null", "object"),
    (b"\xff\xfe", "JSON"),
    (b'{"model_name":"m"}', "host"),
    *[
        (json.dumps(GOOD | wrong).encode(), name)
        for wrong, name in [
            ({"model_name": ""}, "model_name"),
            ({"model_name": "x" * 1_000_000}, "model_name"),
            ({"model_name": "a\ud800"}, "JSON"),
            ({"model_name": 5}, "model_name"),
            ({"host": " "}, "host"),
            ({"host": ["h"]}, "host"),
            ({"port": 0}, "port"),
            ({"port": 65536}, "port"),
            ({"port": "x"}, "port"),
            ({"port": 1e400}, "port"),
            ({"weight": -0.5}, "weight"),
            ({"weight": float("nan")}, "weight"),
            ({"weight": float("inf")}, "weight"),
            ({"enabled": "perhaps"}, "enabled"),
            ({"last_heartbeat": "yesterday"}, "last_heartbeat"),
            ({"prompt_template": "x" * 100_000}, "prompt_template"),
        ]
    ],
]


@pytest.mark.parametrize(("body", "names"), BAD_BODIES, ids=range(len(BAD_BODIES)))
@pytest.mark.parametrize("path", [MODELS, HEARTBEAT])
async def test_bad_bodies_are_422_that_name_the_field_and_store_nothing(
    web: httpx.AsyncClient, path: str, body: bytes, names: str
) -> None:
    answer = await web.post(path, content=body)

    assert answer.status_code == 422, answer.text
    assert names in json.dumps(answer.json()["detail"])
    assert len(answer.content) < 3000
    assert await listed(web) == []
    assert (await web.post(path, content=BODY)).content == b"true"


@pytest.mark.parametrize(
    ("query", "status", "names"),
    [
        ("", 422, "model_name"),
        ("model_name=m&host=h", 422, "port"),
        ("model_name=m&host=h&port=x", 422, "port"),
        ("model_name=m&host=h&port=1&remove_from_registry=perhaps", 422, "remove"),
        ("model_name=%ff&host=h&port=1", 422, "UTF-8"),
    ],
    ids=lambda v: str(v)[:30],
)
async def test_bad_queries_are_4xx(
    web: httpx.AsyncClient, query: str, status: int, names: str
) -> None:
    answer = await web.delete(f"{MODELS}?{query}")
    assert answer.status_code == status
    assert names in answer.text
    assert (await web.get(f"{MODELS}?healthy_only=perhaps")).status_code == 422


async def test_endless_queries_are_414(web: httpx.AsyncClient) -> None:
    async def nothing() -> dict[str, Any]:
        return {}

    with pytest.raises(HTTPError, match="longer than 65536") as caught:
        Request({"query_string": b"x" * 70_000}, nothing).query()
    assert caught.value.reply.status == 414


async def test_large_bodies_wrong_methods_and_unknown_paths(
    web: httpx.AsyncClient,
) -> None:
    assert (await web.post(MODELS, content=b" " * 10_000_000)).status_code == 413

    async def drops() -> AsyncIterator[bytes]:
        for _ in range(200):
            yield b" " * 10_000

    assert (await web.post(HEARTBEAT, content=drops())).status_code == 413
    wrong = await web.put(MODELS, content=BODY)
    assert (wrong.status_code, wrong.headers["allow"]) == (
        405,
        "DELETE, GET, HEAD, POST",
    )
    assert (await web.get("/nowhere")).status_code == 404
    assert (await web.head("/api/health")).status_code == 200


async def test_superseded_is_409_and_full_memory_507(
    web: httpx.AsyncClient, bench: Bench
) -> None:
    await bench.registry.register_instance(instance(incarnation="2-new"))
    late = json.loads(BODY) | {"incarnation": "1-old"}
    answer = await web.post(HEARTBEAT, json=late)
    assert answer.status_code == 409
    assert "superseded" in answer.text
    bench.server.raw.config_set("maxmemory", "1mb")
    try:
        full = await web.post(MODELS, json=GOOD)
        assert full.status_code == 507
    finally:
        bench.server.raw.config_set("maxmemory", "0")


async def test_a_crash_in_a_handler_is_500_and_no_more(
    web: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("on purpose")

    with monkeypatch.context() as patch:
        patch.setattr(RedisModelRegistry, "register_instance", broken)
        answer = await web.post(MODELS, content=BODY)
        assert answer.status_code == 500
        assert "on purpose" not in answer.text
    assert (await web.post(MODELS, content=BODY)).status_code == 200


async def test_health_status_and_description(web: httpx.AsyncClient) -> None:
    health = await web.get("/api/health")
    assert (health.status_code, health.json()) == (200, {"status": "ok"})
    status = (await web.get("/api/status")).json()
    assert status["namespace"] == "default"
    assert status["partitions"][0]["living"] == 0
    described = (await web.get("/openapi.json")).json()
    assert set(described["paths"][MODELS]) == {"get", "post", "delete"}


async def test_without_redis_health_is_503_with_the_reason(
    no_tasks_left: None,
) -> None:
    async with RedisModelRegistry.from_url(
        "redis://127.0.0.1:1/0", run_checker=False, operation_timeout_secs=0.3
    ) as registry:
        transport = httpx.ASGITransport(application(registry))
        async with httpx.AsyncClient(transport=transport, base_url="http://c") as web:
            health = await web.get("/api/health")
            assert health.status_code == 503
            assert "127.0.0.1:1" in health.json()["reason"]
            beat = await web.post(HEARTBEAT, content=BODY)
            assert beat.status_code == 503
            assert "no answer" in beat.text or "did not answer" in beat.text
