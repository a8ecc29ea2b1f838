"""Evidence against a worker's word: its loop's lag, its startup budget, its progress."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from redis_registry import (
    Health,
    Kind,
    ModelInstance,
    Readiness,
    RedisModelRegistry,
    SyncModelRegistry,
)
from tests.conftest import Server
from tests.helpers import instance, until
from tests.workers.conftest import QUICK, only

pytestmark = pytest.mark.usefixtures("no_tasks_left")


def test_a_blocked_event_loop_does_not_kill_and_its_lag_is_told(server: Server) -> None:
    """The commonest lie: a live worker declared dead because its load starved its heartbeat."""
    blocked_secs = 10 * QUICK["heartbeat_timeout_secs"]
    seen: list[ModelInstance] = []
    over = threading.Event()

    def look() -> None:
        with SyncModelRegistry.from_url(server.url, **QUICK) as reader:
            while not over.wait(0.1):
                seen.extend(reader.get_all_instances("glm@llm"))

    async def check() -> None:
        async with RedisModelRegistry.from_url(server.url, **QUICK) as checker:
            while not over.is_set():
                await checker.status()
                await asyncio.sleep(0.05)

    async def work() -> None:
        async with (
            RedisModelRegistry.from_url(
                server.url, run_checker=False, **QUICK
            ) as registry,
            registry.announce(instance()) as announced,
        ):
            await announced.ready()
            time.sleep(blocked_secs)  # noqa: ASYNC251  on purpose
            over.set()

    others = [
        threading.Thread(target=look),
        threading.Thread(target=lambda: asyncio.run(check())),
    ]
    for other in others:
        other.start()
    asyncio.run(work())
    for other in others:
        other.join()

    ready = [item for item in seen if item.ready]
    assert len(ready) > 20
    assert {item.state for item in ready} == {Health.HEALTHY}
    assert server.store.events(Kind.UNHEALTHY) == []
    lags = [item.load.loop_lag_secs or 0 for item in ready if item.load]
    assert max(lags) > 0.8 * blocked_secs, "the lag is reported while it lasts"


async def test_a_life_that_misses_its_startup_budget_is_marked(
    server: Server, worker_side: RedisModelRegistry
) -> None:
    started = time.monotonic()
    async with worker_side.announce(instance(), startup_budget_secs=0.3) as announced:

        async def failed() -> bool:
            return (await only(worker_side)).readiness is Readiness.FAILED

        await until(failed, "it is marked", within_secs=2)
        assert time.monotonic() - started > 0.25
        found = await only(worker_side)
        assert (found.state, found.reason) == (Health.HEALTHY, "not ready within 0.3 s")
        assert await announced.ready(), "late, but ready"
        assert (await only(worker_side)).ready
    assert server.store.kinds(instance())[:3] == ["registered", "failed", "ready"]


async def test_work_that_stands_still_is_wedged_until_it_goes_on(
    server: Server, worker_side: RedisModelRegistry
) -> None:
    async with worker_side.announce(instance(), progress_timeout_secs=0.4) as announced:
        await announced.ready()
        await asyncio.sleep(0.6)
        assert (await only(worker_side)).ready, "nothing in flight, nothing wedged"
        announced.report(in_flight=2)

        async def wedged() -> bool:
            return (await only(worker_side)).readiness is Readiness.WEDGED

        await until(wedged, "it is wedged", within_secs=2)
        found = await only(worker_side)
        assert found.state is Health.HEALTHY
        assert found.reason == "2 in flight, no progress for over 0.4 s"
        assert await worker_side.select_one_health_instance("glm@llm") is None
        announced.report(in_flight=1)

        async def ready() -> bool:
            return (await only(worker_side)).ready

        await until(ready, "it goes on", within_secs=1)
        announced.report(in_flight=0)
