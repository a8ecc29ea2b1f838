"""What operators scrape of views and reservations."""

from __future__ import annotations

import pytest

from redis_registry import NoneAvailable, RedisModelRegistry
from redis_registry.metrics import PrometheusTelemetry, ViewCollector
from tests.conftest import FAST, MakeBench, Server
from tests.helpers import instance, until


@pytest.mark.one_partition("it counts the readings of one")
async def test_views_are_asked_when_they_are_scraped(
    server: Server, no_tasks_left: None
) -> None:
    metrics = PrometheusTelemetry()
    ask = metrics.collector.get_sample_value
    name = "redis_registry_view_"
    async with RedisModelRegistry.from_url(
        server.url, run_checker=False, **FAST
    ) as registry:
        await registry.register_instance(instance(1))
        async with registry.view() as view:
            metrics.collector.register(ViewCollector({"router": view}))
            staleness = ask(f"{name}staleness_seconds", {"view": "router"})
            assert staleness is not None
            assert 0 <= staleness < 3
            begin = {"view": "router", "cause": "begin"}
            assert ask(f"{name}resyncs_total", begin) == 1
            server.raw.flushall()

            async def told() -> bool:
                labels = {"view": "router", "cause": "new epoch"}
                return ask(f"{name}resyncs_total", labels) == 1

            await until(told, "the emptied Redis is a resync")
        assert ask(f"{name}staleness_seconds", {"view": "router"}) is None


async def test_refused_and_lost_reservations_are_counted(
    make_bench: MakeBench,
) -> None:
    metrics = PrometheusTelemetry()
    bench = await make_bench(telemetry=metrics)
    registry = bench.registry
    await registry.register_instance(instance(1, metadata={"capacity": 1}))
    async with registry.reserve("glm@llm"):
        with pytest.raises(NoneAvailable):
            async with registry.reserve("glm@llm", wait_secs=0.05):
                pass
        bench.store.raw.delete(
            *bench.store.raw.keys("*}:h:*"),
            bench.store.key("holders"),
            bench.store.key("flights"),
        )
        registry._reserver.holder._renew(bench.home)
    ask = metrics.collector.get_sample_value
    assert ask("redis_registry_reservations_refused_total") == 1
    assert ask("redis_registry_reservations_lost_total") == 1
