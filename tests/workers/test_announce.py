"""Announcing: alive means alive, ready means ready, on real servers."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from typing import Literal

import pytest

from redis_registry import (
    Health,
    InvalidInstance,
    Readiness,
    RedisModelRegistry,
    RegistryClosed,
    SyncModelRegistry,
)
from tests.conftest import Server
from tests.helpers import instance, until, wait_for
from tests.workers.conftest import QUICK, children, only

pytestmark = pytest.mark.usefixtures("no_tasks_left")


async def test_a_life_is_told_from_starting_to_gone(
    server: Server, worker_side: RedisModelRegistry
) -> None:
    async with worker_side.announce(instance()) as announced:
        found = await only(worker_side)
        assert (found.readiness, found.state) == (Readiness.STARTING, Health.HEALTHY)
        assert found.incarnation == announced.instance.incarnation
        assert await worker_side.select_one_health_instance("glm@llm") is None

        assert await announced.ready()
        assert await worker_side.select_one_health_instance("glm@llm")
        assert await announced.not_ready("GPU reset")
        assert (await only(worker_side)).reason == "GPU reset"
        assert await announced.ready()
        announced.report(in_flight=0, capacity=4, kv_cache=0.25)
        await asyncio.sleep(3 * QUICK["heartbeat_timeout_secs"])
        found = await only(worker_side)
        assert (found.state, found.ready) == (Health.HEALTHY, True)
        assert found.load
        assert (found.load.capacity, found.load.numbers) == (4, {"kv_cache": 0.25})

    assert (await only(worker_side)).state is Health.UNHEALTHY
    assert server.store.kinds(instance()) == [
        *("registered", "ready", "not_ready", "ready", "draining", "deregistered")
    ]


async def test_draining_waits_for_what_is_in_flight(
    server: Server, worker_side: RedisModelRegistry
) -> None:
    async with worker_side.announce(instance(), drain_timeout_secs=5) as announced:
        await announced.ready()
        announced.report(in_flight=1)
        draining = asyncio.create_task(announced.drain())

        async def unselected() -> bool:
            return await worker_side.select_one_health_instance("glm@llm") is None

        took = await until(unselected, "no new pick", within_secs=1)
        assert took < 0.1
        await asyncio.sleep(0.2)
        assert not draining.done()
        assert (await only(worker_side)).state is Health.HEALTHY
        announced.report(in_flight=0)
        assert await draining is True
        announced.report(in_flight=3)
        assert await announced.drain(timeout_secs=0.05) is False
        announced.report(in_flight=0)


async def test_what_can_not_be_announced_is_refused_at_the_door(
    server: Server, worker_side: RedisModelRegistry
) -> None:
    with pytest.raises(InvalidInstance, match="at most half"):
        worker_side.announce(instance(), interval_secs=0.5)
    with pytest.raises(InvalidInstance, match="expected a redis_registry"):
        worker_side.announce("glm@llm")  # pyright: ignore[reportArgumentType]
    big = instance(metadata={"note": "x" * 70_000})
    with pytest.raises(InvalidInstance, match="limit"):
        async with worker_side.announce(big):
            pass
    assert await worker_side.get_all_model_instances() == []


async def test_many_instances_of_a_process_travel_in_one_call(
    server: Server, worker_side: RedisModelRegistry
) -> None:
    names = [f"model-{number}" for number in range(40)]
    announced = [
        worker_side.announce(instance(1, name), interval_secs=0.2) for name in names
    ]
    async with asyncio.TaskGroup() as group:
        for one in announced:
            group.create_task(one.__aenter__())
    await asyncio.sleep(0.3)
    before = server.raw.info("commandstats")["cmdstat_evalsha"]["calls"]
    await asyncio.sleep(2.0)
    made = server.raw.info("commandstats")["cmdstat_evalsha"]["calls"] - before
    most = 12 * server.store.partitions
    assert 1 <= made <= most, "40 instances, a beat every 0.18 to 0.2 s"
    found = await worker_side.get_all_model_instances(healthy_only=True)
    assert len(found) == 40
    async with asyncio.TaskGroup() as group:
        for one in announced:
            group.create_task(one.__aexit__(None, None, None))


@pytest.mark.parametrize("sender", ["thread", "process"])
async def test_closing_the_registry_ends_the_sender_without_goodbye(
    server: Server, sender: Literal["thread", "process"]
) -> None:
    registry = RedisModelRegistry.from_url(server.url, run_checker=False, **QUICK)
    announced = registry.announce(instance(), sender=sender)
    await announced.__aenter__()
    await registry.aclose()

    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith("redis-registry")]
    assert not children()
    assert server.store.kinds(instance()) == ["registered"]
    await announced.__aexit__(None, None, None)


def test_the_same_for_threads(server: Server) -> None:
    with SyncModelRegistry.from_url(server.url, **QUICK) as registry:
        with registry.announce(instance()) as announced:
            assert announced.ready()
            assert registry.select_one_health_instance("glm@llm")
            announced.report(in_flight=1)
            threading.Timer(0.2, lambda: announced.report(in_flight=0)).start()
            time.sleep(2 * QUICK["heartbeat_timeout_secs"])
            (found,) = registry.get_all_instances("glm@llm")
            assert found.state is Health.HEALTHY
            assert announced.not_ready("pause")
            announced.progress()
        (found,) = registry.get_all_instances("glm@llm")
        assert found.state is Health.UNHEALTHY
    wait_for(
        lambda: (
            "redis-registry heartbeats" not in [t.name for t in threading.enumerate()]
        ),
        "the thread has ended",
    )


def test_a_worker_takes_one_connection(server: Server) -> None:
    """Thousands of workers share what the server can hold."""
    with (
        SyncModelRegistry.from_url(server.url, **QUICK) as registry,
        registry.announce(instance()) as announced,
    ):
        announced.ready()
        calls = server.raw.info("commandstats")["cmdstat_evalsha"]["calls"]

        def beaten() -> bool:
            made = server.raw.info("commandstats")["cmdstat_evalsha"]["calls"]
            return made >= calls + 2

        wait_for(beaten, "it beats")
        taken = Counter(found["laddr"] for found in server.store.connections())
        assert set(taken.values()) == {1}, "of each server"


@pytest.mark.parametrize("reason", [ValueError("boom"), "x" * 600, "\ud800", ""])
async def test_no_reason_stops_the_heartbeats(
    server: Server, worker_side: RedisModelRegistry, reason: str
) -> None:
    async with (
        worker_side.announce(instance(1)) as beside,
        worker_side.announce(instance(2)) as announced,
    ):
        await beside.ready()
        assert await announced.not_ready(reason)
        server.raw.flushall()
        await asyncio.sleep(2 * QUICK["heartbeat_timeout_secs"])
        found = await worker_side.get_all_instances("glm@llm")
        assert {item.port: item.state for item in found} == {1: "healthy", 2: "healthy"}
        told = {item.port: item.reason for item in found}[2]
        assert (told or "") == str(reason)[:500].replace("\ud800", "\\ud800")


async def test_misuse_is_told_at_once(
    server: Server, worker_side: RedisModelRegistry
) -> None:
    announced = worker_side.announce(instance())
    with pytest.raises(RegistryClosed, match="context manager"):
        await announced.ready()
    async with announced:
        with pytest.raises(InvalidInstance, match="in_flight"):
            announced.report(in_flight=-1)
    for misuse in (announced.ready(), announced.__aenter__()):
        with pytest.raises(RegistryClosed, match="new life"):
            await misuse
    await worker_side.aclose()
    with pytest.raises(RegistryClosed):
        worker_side.announce(instance())
    for wrong in (
        {"startup_budget_secs": "30"},
        {"drain_timeout_secs": -1},
        {"progress_timeout_secs": float("nan")},
        {"sender": "pigeon"},
    ):
        with pytest.raises(InvalidInstance, match=next(iter(wrong))):
            SyncModelRegistry.from_url(server.url).announce(instance(), **wrong)  # pyright: ignore[reportArgumentType]
