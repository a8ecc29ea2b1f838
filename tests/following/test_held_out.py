"""Views and those held out: they leave at once, and come back by Redis's clock and a probe."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from redis_registry import OutlierSettings, RedisModelRegistry, View
from tests.conftest import SLOW, Server
from tests.following.test_watch import until_view
from tests.helpers import instance, instances

MODEL = "glm@llm"
OUTLIERS = OutlierSettings(
    base_ejection_secs=0.4, max_ejection_secs=0.4, probe_secs=5.0
)
OPTIONS: dict[str, Any] = {"run_checker": False, "outliers": OUTLIERS, **SLOW}


def picks(view: View, count: int = 200) -> Counter[int]:
    chosen = [view.select(MODEL) for _ in range(count)]
    return Counter(item.port for item in chosen if item)


async def eject(registry: RedisModelRegistry, port: int) -> None:
    for _ in range(5):
        await registry.report_failure(instance(port), "refused")


async def test_another_view_avoids_it_within_200_ms_and_tries_it_once_when_it_is_time(
    server: Server, no_tasks_left: None
) -> None:
    async with (
        RedisModelRegistry.from_url(server.url, **OPTIONS) as one,
        RedisModelRegistry.from_url(server.url, **OPTIONS) as other,
        one.view() as mine,
        other.view() as theirs,
    ):
        await one.send_heartbeats(instances(4))
        await until_view(lambda: len(theirs.instances(MODEL)) == 4, "all are seen")
        await eject(one, 2)
        took = await until_view(lambda: not picks(theirs)[2], "it is avoided")
        assert took < 0.2

        tried: list[tuple[RedisModelRegistry, Any]] = []

        async def tried_by_one() -> bool:
            for registry, view in ((one, mine), (other, theirs)):
                chosen = view.select(MODEL)
                if chosen is not None and chosen.port == 2:
                    tried.append((registry, chosen))
            await asyncio.sleep(0)
            return bool(tried)

        async with asyncio.timeout(5):
            while not await tried_by_one():
                pass
        assert not any(picks(view)[2] for view in (mine, theirs))
        ((registry, probe),) = tried
        assert probe.held_out is not None
        assert probe.held_out.half_open
        await registry.report_success(probe)
        for view in (mine, theirs):
            await until_view(lambda v=view: picks(v)[2] > 0, "it is back")
            assert all(item.held_out is None for item in view.instances(MODEL))


async def test_a_last_one_is_served_by_views_even_while_it_is_held_out(
    server: Server, no_tasks_left: None
) -> None:
    async with (
        RedisModelRegistry.from_url(server.url, **OPTIONS) as registry,
        registry.view() as view,
    ):
        await registry.send_heartbeats(instances(2))
        await eject(registry, 1)
        await until_view(lambda: set(picks(view)) == {2}, "it is avoided")
        await registry.deregister_instance(instance(2))
        await until_view(lambda: set(picks(view)) == {1}, "better than nobody")


async def test_a_fresh_view_judges_by_the_clock_too(
    server: Server, no_tasks_left: None
) -> None:
    async with RedisModelRegistry.from_url(server.url, **OPTIONS) as registry:
        await registry.send_heartbeats(instances(3))
        await eject(registry, 1)
        async with registry.view() as view:
            held = view.instances(MODEL)[0].held_out
            assert held is not None
            assert not held.half_open
            await until_view(
                lambda: bool((h := view.instances(MODEL)[0].held_out) and h.half_open),
                "its time is over",
            )
