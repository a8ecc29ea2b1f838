"""Cancelling, sharing and losing connections leaves calls sound (promise S3)."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import threading
import time
from typing import Any

import pytest
from redis.exceptions import ConnectionError as Disconnected

from redis_registry import (
    InvalidInstance,
    ModelInstance,
    RedisModelRegistry,
    RegistryClosed,
    RegistryError,
    RegistryUnavailable,
    SyncModelRegistry,
)
from redis_registry.settings import RegistrySettings
from redis_registry.store.calls import ask
from redis_registry.store.executor import AsyncExecutor
from redis_registry.store.operations import Operations
from redis_registry.telemetry import Telemetry
from tests.conftest import FAST, SLOW, Server
from tests.helpers import Store, instance, instances, until, wait_for


async def test_cancelled_calls_leave_answers_and_connections_sound(
    server: Server, no_tasks_left: None
) -> None:
    async with RedisModelRegistry.from_url(
        server.url, run_checker=False, **SLOW
    ) as registry:
        for port in (1, 2):
            await registry.register_instance(instance(port, f"m{port}"))
        rng = random.Random(7)

        async def ask(model: int) -> None:
            task = asyncio.create_task(registry.get_all_instances(f"m{model}"))
            await asyncio.sleep(rng.choice([0, 0, 0.0002, 0.001]))
            if rng.random() < 0.5:
                task.cancel()
            try:
                found = await task
            except asyncio.CancelledError:
                return
            assert [item.model_name for item in found] == [f"m{model}"]

        for _ in range(100):
            await asyncio.gather(*(ask(rng.choice([1, 2])) for _ in range(10)))
        assert len(await registry.get_all_model_instances()) == 2


class Swallowing:
    """A driver that tells of a lost connection when it is cancelled."""

    async def execute_command(self, *_: object) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise Disconnected("lost just now") from None


async def test_a_cancellation_that_the_driver_has_swallowed_is_heeded() -> None:
    """Else a tail that is to end goes on for ever, and who closes its watch waits as long."""
    client: Any = Swallowing()
    settings = RegistrySettings.of()
    executor = AsyncExecutor(settings, client=client)
    operation = Operations(settings, actor="tester").status()
    task = asyncio.create_task(executor.run(operation))
    await asyncio.sleep(0.01)  # it has asked
    task.cancel()
    await asyncio.wait([task], timeout=2.0)
    assert task.cancelled()


class Deaf:
    """A driver that loses its first cancellation and waits on, as one by Python 3.11's ``wait_for``."""

    async def execute_command(self, *_: object) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        await asyncio.sleep(60)


async def test_a_deadline_holds_though_the_driver_loses_its_cancellation() -> None:
    """Found by a master that stood still: a heartbeat that waited for a Sentinel hung for ever."""
    client: Any = Deaf()
    settings = RegistrySettings.of(operation_timeout_secs=0.1)
    executor = AsyncExecutor(settings, client=client)
    start = time.monotonic()
    with pytest.raises(RegistryUnavailable, match=r"did not answer within 0\.1 s"):
        await executor.run(Operations(settings, actor="tester").status())
    assert time.monotonic() - start < 2
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


async def test_who_cancels_a_call_that_is_late_too_is_heeded() -> None:
    client: Any = Deaf()
    settings = RegistrySettings.of(operation_timeout_secs=0.1)
    executor = AsyncExecutor(settings, client=client)
    task = asyncio.create_task(
        executor.run(Operations(settings, actor="tester").status())
    )
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.wait([task], timeout=2.0)
    assert task.cancelled()


async def test_cancelling_one_heartbeat_leaves_the_others(
    server: Server, no_tasks_left: None
) -> None:
    async with RedisModelRegistry.from_url(
        server.url, run_checker=False, **SLOW
    ) as registry:
        tasks = [
            asyncio.create_task(registry.send_heartbeat(item))
            for item in instances(100)
        ]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results[1::2] == [True] * 50
        assert all(isinstance(r, asyncio.CancelledError) for r in results[::2])


async def test_one_bad_instance_fails_its_own_batch_and_no_later_one(
    server: Server, no_tasks_left: None
) -> None:
    async with RedisModelRegistry.from_url(
        server.url, run_checker=False, **SLOW
    ) as registry:
        bad = instance(1, metadata={"note": "x" * 70_000})
        with pytest.raises(InvalidInstance):
            await registry.send_heartbeat(bad)
        assert await registry.send_heartbeat(instance(2))


async def test_concurrent_heartbeats_travel_together(
    server: Server, no_tasks_left: None
) -> None:
    async with RedisModelRegistry.from_url(
        server.url, run_checker=False, **SLOW
    ) as registry:
        crowd = instances(500)
        await registry.send_heartbeats(crowd)
        server.raw.config_resetstat()

        await asyncio.gather(*(registry.send_heartbeat(item) for item in crowd))

        calls = server.raw.info("commandstats")["cmdstat_evalsha"]["calls"]
        assert calls <= 3


def test_it_is_built_before_any_loop_and_used_from_two(server: Server) -> None:
    """As DB-GPT does: the object first, the loop later, and sync reads from other threads."""
    registry = RedisModelRegistry.from_url(server.url, **FAST)

    async def use(port: int) -> None:
        await registry.register_instance(instance(port))
        found: list[ModelInstance] = []
        thread = threading.Thread(
            target=lambda: found.extend(registry.sync_get_all_instances("glm@llm"))
        )
        thread.start()
        await asyncio.to_thread(thread.join)
        assert port in {item.port for item in found}
        await registry.aclose()
        registry._executor.reopen()
        registry._sync_executor.reopen()

    asyncio.run(use(1))
    asyncio.run(use(2))


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # that is how Python tells of it
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_loops_that_ended_without_closing_leave_nothing_and_hang_nobody(
    server: Server,
) -> None:
    """A program that forgets to close still ends, and a long-lived registry doesn't grow."""
    registry = RedisModelRegistry.from_url(server.url, **FAST)
    for port in range(1, 21):
        asyncio.run(registry.register_instance(instance(port)))
    assert len(registry._executor._lanes) == 1

    async def end() -> None:
        await registry.aclose()

    asyncio.run(end())
    gc.collect()


async def test_after_closing_calls_say_so_and_entering_reopens(
    server: Server, no_tasks_left: None
) -> None:
    registry = RedisModelRegistry.from_url(server.url, **FAST)
    async with registry:
        await registry.register_instance(instance())
    with pytest.raises(RegistryClosed, match="closed"):
        await registry.get_all_model_instances()
    wait_for(lambda: not Store(server.raw).connections(), "connections are closed")
    async with registry:
        assert len(await registry.get_all_model_instances()) == 1


def test_threads_share_a_sync_registry(server: Server) -> None:
    with SyncModelRegistry.from_url(server.url, **SLOW) as registry:
        errors: list[RegistryError] = []

        def work(start: int) -> None:
            try:
                for port in range(start, start + 20):
                    registry.send_heartbeat(instance(port))
            except RegistryError as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(n * 100 + 1,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert len(registry.get_all_instances("glm@llm")) == 160


class Listener:
    """Hears everything."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def count(self, name: str, amount: int = 1, **labels: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + amount

    def observe(self, name: str, secs: float, **labels: str) -> None:
        self.counts[f"{name}_secs"] = self.counts.get(f"{name}_secs", 0) + 1

    def gauge(self, name: str, value: float, **labels: str) -> None:
        self.counts[name] = round(value)


async def test_an_observer_hears_of_sweeps_and_flips(
    server: Server, no_tasks_left: None
) -> None:
    heard = Listener()
    listener: Telemetry = heard
    async with RedisModelRegistry.from_url(
        server.url, telemetry=listener, heartbeat_timeout_secs=0.3
    ) as registry:
        await registry.register_instance(instance())

        async def flipped() -> bool:
            return bool(heard.counts.get("flips"))

        await until(flipped, "it hears of the flip")
    assert heard.counts["flips"] == 1
    assert heard.counts["sweeps"] >= 1
    assert heard.counts["sweep_secs"] >= 1


def test_prometheus_is_one_such_observer() -> None:
    from prometheus_client import generate_latest

    from redis_registry.metrics import PrometheusTelemetry

    metrics = PrometheusTelemetry()
    for _ in range(2):
        metrics.count("flips", 2)
        metrics.count("retries", operation="read", fault="unknown")
        metrics.observe("sweep", 0.002)
        metrics.gauge("living", 7)
    text = generate_latest(metrics.collector).decode()
    assert "redis_registry_flips_total 4.0" in text
    assert 'redis_registry_retries_total{fault="unknown",operation="read"} 2.0' in text
    assert "redis_registry_sweep_seconds_count 2.0" in text
    assert "redis_registry_living 7.0" in text


async def test_a_plain_command_of_an_operation_is_repeated_as_a_call_is(
    real: RedisModelRegistry, sync_registry: SyncModelRegistry, server: Server
) -> None:
    await real.register_instance(instance())
    sync_registry.status()
    newest = real._operations.newest(server.store.home, None)
    for _ in range(3):
        server.raw.client_kill_filter(_type="normal", skipme=True)
        entries = await real._executor.run(ask(newest))
        assert b"|registered|" in entries[0].head
        server.raw.client_kill_filter(_type="normal", skipme=True)
        assert sync_registry._executor.run(ask(newest)) == entries
