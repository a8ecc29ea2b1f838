"""Reservations: counted once and given back, whatever is lost, cancelled or closed."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import time

import pytest

from redis_registry import (
    RegistryClosed,
    RegistryUnavailable,
)
from redis_registry.store.reserving import Fleet
from tests.conftest import Bench, MakeBench, Server
from tests.helpers import instance, instances, until
from tests.promises.reserving import MODEL, TTL_SECS, hold, total


async def test_a_repeated_call_after_a_lost_reply_counts_once(bench: Bench) -> None:
    registry, run = bench.registry, bench.registry._executor.run
    await registry.send_heartbeats(instances(3))
    crowd = await registry.get_all_instances(MODEL)
    operations, fleet = registry._operations, Fleet(MODEL, crowd)
    first = await run(operations.reserve(bench.home, fleet, range(3), "10000-x", 1))
    again = await run(operations.reserve(bench.home, fleet, range(3), "10000-x", 1))
    assert first == again
    assert await total(registry) == 1
    other = await run(operations.reserve(bench.home, fleet, range(3), "10000-x", 2))
    assert other != first
    assert await run(operations.unreserve(bench.home, "10000-x", [1, 2, 3])) == 2
    assert await run(operations.unreserve(bench.home, "10000-x", [1, 2, 3])) == 0
    assert await total(registry) == 0
    bench.store.check()


async def test_cancelling_anywhere_leaves_nothing_counted(bench: Bench) -> None:
    await bench.registry.send_heartbeats(instances(3, metadata={"capacity": 5}))
    async with bench.registry.reserve(MODEL):
        pass

    async def one() -> None:
        async with bench.registry.reserve(MODEL, wait_secs=5):
            await asyncio.sleep(0.003)

    for n in range(60):
        tasks = [asyncio.create_task(one()) for _ in range(10)]
        await asyncio.sleep(n * 0.0001)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def none_left() -> bool:
        return await total(bench.registry) == 0

    await until(none_left, "every reservation is given back")  # half a lease
    bench.store.check()


async def test_an_attempt_without_an_answer_is_given_back_when_redis_answers_again(
    make_bench: MakeBench, server: Server
) -> None:
    bench = await make_bench(operation_timeout_secs=0.3, reservation_ttl_secs=30)
    await bench.registry.send_heartbeats(instances(3))
    async with bench.registry.reserve(MODEL):
        server.process.signal(signal.SIGSTOP)
        try:
            with pytest.raises(RegistryUnavailable):
                async with bench.registry.reserve(MODEL):
                    pass
        finally:
            server.process.signal(signal.SIGCONT)

        other = (await make_bench()).registry  # which has more patience

        async def one_left() -> bool:
            return await total(other) == 1

        await until(one_left, "the unanswered one is given back", within_secs=10)

    async def none_left() -> bool:
        return await total(other) == 0

    await until(none_left, "the other one too", within_secs=10)


async def test_a_release_while_redis_is_away_is_made_up_for(
    make_bench: MakeBench, server: Server
) -> None:
    bench = await make_bench(reservation_ttl_secs=30)
    await bench.registry.send_heartbeats(instances(3))
    start = time.monotonic()
    try:
        async with bench.registry.reserve(MODEL):
            server.process.signal(signal.SIGSTOP)
        assert time.monotonic() - start < 3, "leaving the block does not wait for it"
    finally:
        server.process.signal(signal.SIGCONT)

    async def none_left() -> bool:
        return await total(bench.registry) == 0

    await until(none_left, "it is given back", within_secs=10)


async def test_what_was_counted_after_it_was_given_up_goes_though_others_are_made(
    make_bench: MakeBench,
) -> None:
    bench = await make_bench(reservation_ttl_secs=3 * TTL_SECS)
    registry, operations = bench.registry, bench.registry._operations
    await registry.register_instance(instance())

    async def count_late(number: int) -> None:
        """What an attempt does whose caller was cancelled long ago."""
        async with registry.reserve(MODEL):
            pass
        fleet = Fleet(MODEL, await registry.get_all_instances(MODEL))
        holder = registry._reserver.holder.name
        await registry._executor.run(
            operations.reserve(bench.home, fleet, [0], holder, number)
        )
        assert await total(registry) == 1

    async def gone(*, busy: bool) -> bool:
        if busy:
            async with registry.reserve(MODEL):  # each keeps the lease
                pass
        return await total(registry) == 0

    await count_late(998)
    await until(lambda: gone(busy=True), "it is given back")
    await count_late(999)
    secs = await until(lambda: gone(busy=False), "it is given back")
    assert secs < 2.8 * TTL_SECS, "not by the end of the lease"


async def test_who_waits_on_a_registry_that_is_closed_is_told(
    make_bench: MakeBench,
) -> None:
    registry = (await make_bench()).registry

    async def wait() -> None:
        async with registry.reserve(MODEL, wait_secs=60, candidates=list):
            pass

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    await registry.aclose()
    with pytest.raises(RegistryClosed):
        async with asyncio.timeout(5):
            await waiting


async def test_closing_gives_all_back_at_once(
    make_bench: MakeBench, server: Server
) -> None:
    bench, other = await make_bench(), await make_bench()
    await other.registry.send_heartbeats(instances(3))
    stack = contextlib.AsyncExitStack()
    await hold(stack, bench.registry, 450)
    assert await total(other.registry) == 450
    await bench.registry.aclose()
    assert await total(other.registry) == 0
    await stack.aclose()  # leaving the blocks afterwards changes nothing
    async with bench.registry, bench.registry.reserve(MODEL):
        assert await total(other.registry) == 1, "entered again, it works again"
    assert not [
        thread for thread in threading.enumerate() if "reservations" in thread.name
    ]
