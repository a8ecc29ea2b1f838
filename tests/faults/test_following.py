"""Streams that are damaged, connections that are half open, consumers that are slow: views and watches get there."""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from collections.abc import Callable
from itertools import count
from statistics import median
from typing import Any

import pytest

from redis_registry import Kind, RedisModelRegistry
from redis_registry.roles.following.tail import CHECK_SECS, Lost
from redis_registry.testing import Proxy
from tests.conftest import SLOW, Bench, Server
from tests.helpers import Store, instance, instances, until


def deleted(store: Store) -> None:
    store.raw.delete(store.key("events"))


def made_anew(store: Store) -> None:
    """With lower ids: who reads on after a higher one is never told."""
    deleted(store)
    store.raw.xadd(store.key("events"), {"someone": "else's"}, id="1-1")


@pytest.mark.damages
@pytest.mark.parametrize("damage", [deleted, made_anew])
async def test_a_stream_that_is_deleted_or_made_anew_delays_nobody(
    bench: Bench, damage: Callable[[Store], None]
) -> None:
    """What happens after it is seen by view and watch within two looks."""
    registry = bench.registry
    await registry.send_heartbeats(instances(3))
    async with registry.view() as view, registry.watch() as watch:
        assert (await anext(watch)).kind is Kind.RESYNC
        assert len(view.instances()) == 3
        for port in (4, 5):
            damage(bench.store)
            await registry.deregister_instance(instance(3, remove_from_registry=True))
            await registry.register_instance(instance(port))
            told = asyncio.create_task(hears_of(watch, port))

            async def shown(port: int = port) -> bool:
                return {item.port for item in view.instances()} == {1, 2, port}

            await until(shown, "the view has it", within_secs=2 * CHECK_SECS)
            await asyncio.wait_for(told, 2 * CHECK_SECS)
            await registry.deregister_instance(
                instance(port, remove_from_registry=True)
            )


async def hears_of(watch: Any, port: int) -> None:
    """Wait until an event, or a resync, tells of it."""
    async for event in watch:
        found = [event.instance] if event.instance else event.snapshot or ()
        if any(item.port == port for item in found):
            return


async def test_news_that_a_half_open_connection_swallows_are_only_late(
    server: Server, no_tasks_left: None
) -> None:
    """What was told to nobody is found when the wait has an end."""
    with Proxy(server.process.port) as proxy:
        async with (
            RedisModelRegistry.from_url(
                proxy.url, run_checker=False, socket_timeout_secs=1, **SLOW
            ) as reader,
            RedisModelRegistry.from_url(
                server.url, run_checker=False, **SLOW
            ) as writer,
            reader.view() as view,
        ):
            for port in range(1, 4):
                proxy.swallowing = True
                await writer.register_instance(instance(port))
                await asyncio.sleep(0.1)  # the news has come, and was swallowed
                proxy.swallowing = False

                async def shown(port: int = port) -> bool:
                    return port in {item.port for item in view.instances()}

                await until(shown, "it is seen", within_secs=2 * CHECK_SECS + 1)


RATE, SECS, BUFFER, CROWD = 500, 4.0, 100, 50
A_REPLY = 20_000
"""Bytes that may be on their way at a moment; the events of one second are more than 100,000."""


async def test_a_slow_consumer_costs_neither_us_nor_redis_memory(
    server: Server, no_tasks_left: None
) -> None:
    """500 events a second, and one who takes one a second: bounded, and told by a resync."""
    async with RedisModelRegistry.from_url(
        server.url, run_checker=False, events_kept=1000, **SLOW
    ) as registry:
        await registry.send_heartbeats(instances(CROWD))
        async with registry.watch(buffer=BUFFER) as watch:
            seen = [await anext(watch)]
            await churn(registry, 200)  # what is allocated once is there
            tracemalloc.start()
            before, longest = tracemalloc.get_traced_memory()[0], 0
            consumer = asyncio.create_task(slowly(watch, seen))
            try:
                start, piles = time.monotonic(), list[int]()
                while time.monotonic() < start + SECS:
                    await churn(registry, RATE // 10)
                    longest = max(longest, len(watch._queue))
                    clients = server.raw.client_list()
                    ours = [c for c in clients if c["name"] == "redis-registry"]
                    piles.append(max(int(client["omem"]) for client in ours))
                grown = tracemalloc.get_traced_memory()[0] - before
            finally:
                tracemalloc.stop()
                consumer.cancel()
                await asyncio.wait([consumer])
    # What is on its way at one look may be a large reply, when all of us stood still for a while.
    assert median(piles) < A_REPLY, f"{piles} bytes pile up in Redis's output buffers"
    assert longest <= BUFFER
    assert grown < 1_500_000, f"{grown} bytes more"
    resyncs = [event for event in seen if event.cause == Lost.SLOW]
    assert len(resyncs) >= 2
    assert len(seen) < 10


_weights = count(1)


async def churn(registry: RedisModelRegistry, changes: int) -> None:
    """So many changes, in a tenth of a second at the least."""
    start = time.monotonic()
    for _ in range(changes):
        weight = next(_weights)
        await registry.register_instance(instance(weight % CROWD + 1, weight=weight))
    await asyncio.sleep(max(0.0, start + 0.1 - time.monotonic()))


async def slowly(watch: Any, seen: list[Any]) -> None:
    async for event in watch:
        seen.append(event)
        await asyncio.sleep(1)
