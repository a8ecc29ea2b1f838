"""Reservations: what a dead process held comes back, and a living one keeps its own."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from redis_registry import (
    NoneAvailable,
    RedisModelRegistry,
    Reservation,
    SyncModelRegistry,
)
from redis_registry.store.reserving import Fleet
from tests.conftest import SLOW, Bench, MakeBench, Server
from tests.helpers import Store, connect, instance, instances, until, wait_for
from tests.holder import holding
from tests.places import Place
from tests.promises.reserving import MODEL, TTL_SECS, counts, hold, total


async def test_what_a_killed_process_held_is_back_within_its_lease(
    make_bench: MakeBench, server: Server
) -> None:
    bench = await make_bench(reservation_ttl_secs=TTL_SECS)
    await bench.registry.send_heartbeats(instances(10, metadata={"capacity": 50}))
    with holding(server.url, MODEL, 500, TTL_SECS) as made:
        await asyncio.sleep(1.5 * TTL_SECS)  # a living one keeps its own
        assert await total(bench.registry) == 500
        with pytest.raises(NoneAvailable, match="500 in flight of capacity 500"):
            async with bench.registry.reserve(MODEL):
                pass
        made.process.kill()
        made.process.wait()
        killed = time.monotonic()
        async with bench.registry.reserve(MODEL, wait_secs=2 * TTL_SECS):
            pass

        async def all_back() -> bool:
            return await total(bench.registry) == 0

        await until(all_back, "all 500 are back")
        assert time.monotonic() - killed < TTL_SECS + 0.4
    bench.store.check()


async def test_the_checker_takes_back_what_nobody_asks_for(
    make_bench: MakeBench, server: Server
) -> None:
    bench = await make_bench(reservation_ttl_secs=TTL_SECS)
    await bench.registry.send_heartbeats(instances(2))
    with holding(server.url, MODEL, 450, TTL_SECS) as made:
        made.process.kill()
        made.process.wait()
    bench.store.age(TTL_SECS, away=False)
    await bench.sweep()
    assert {entry.split(":")[0] for entry in bench.store.hash("flights").values()} == {
        "0"
    }
    bench.store.check()


async def test_a_blocked_event_loop_loses_nothing(make_bench: MakeBench) -> None:
    bench = await make_bench(reservation_ttl_secs=TTL_SECS)
    await bench.registry.register_instance(instance())
    async with bench.registry.reserve(MODEL) as made:
        time.sleep(1.5 * TTL_SECS)  # noqa: ASYNC251  that is the point
        assert await total(bench.registry) == 1
        assert not made.lost


@pytest.mark.damages
async def test_what_a_dead_holder_left_unreadable_spoils_nothing(bench: Bench) -> None:
    await bench.registry.register_instance(instance())
    raw, key = bench.server.raw, bench.store.key
    raw.hset(key("h:nobody"), mapping={"1": "junk", "x": f"{MODEL}:10.0.0.1:8001|9"})
    raw.zadd(key("holders"), {"nobody": 5, "1000-nothing": 4})
    raw.hset(key("flights"), f"{MODEL}:10.0.0.1:8001", "1:1:0")
    async with bench.registry.reserve(MODEL):
        await bench.registry.in_flight(MODEL)
        assert await total(bench.registry) == 1
    bench.store.check()


async def test_a_process_that_was_paused_is_told_and_counted_again(
    make_bench: MakeBench, server: Server
) -> None:
    bench = await make_bench(reservation_ttl_secs=TTL_SECS)
    await bench.registry.send_heartbeats(instances(3))
    with holding(server.url, MODEL, 30, TTL_SECS) as made:
        made.process.send_signal(signal.SIGSTOP)

        async def is_(count: int) -> bool:
            return await total(bench.registry) == count

        await until(lambda: is_(0), "its lease has ended", within_secs=5)
        assert server.raw.hlen(bench.store.key("h:nobody")) == 0
        made.process.send_signal(signal.SIGCONT)
        await until(lambda: is_(30), "they are counted again", within_secs=5)
        wait_for(lambda: made.lost() == 30, "it knows that they were lost")
        made.end()
        await until(lambda: is_(0), "it has given them back, once")
    bench.store.check()


async def test_after_a_flush_the_counts_are_rebuilt(
    make_bench: MakeBench, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    bench = await make_bench(reservation_ttl_secs=TTL_SECS)
    registry = bench.registry
    crowd = instances(3)
    await registry.send_heartbeats(crowd)
    async with contextlib.AsyncExitStack() as stack:
        held = await hold(stack, registry, 9)
        server.raw.flushall()
        with pytest.raises(NoneAvailable, match="3 no longer able to work"):
            async with registry.reserve(MODEL, candidates=lambda: crowd):
                pass
        await registry.send_heartbeats(crowd)

        async def rebuilt() -> bool:
            return await counts(registry) == {1: 3, 2: 3, 3: 3}

        await until(rebuilt, "the renewal tells what is held")
        wait_for(lambda: all(made.lost for made in held), "they are told")
        assert "reservations were not kept" in caplog.text
    assert await total(registry) == 0


async def test_after_an_early_flush_a_busy_holder_counts_again_what_it_holds(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = await make_bench(reservation_ttl_secs=TTL_SECS)
    registry, operations = bench.registry, bench.registry._operations
    renew = operations.renew

    def meanwhile(*args: Any) -> Any:
        found = yield from renew(*args)
        registry._reserver.holder._ended += 1  # others are given back all the time
        return found

    monkeypatch.setattr(operations, "renew", meanwhile)
    await registry.send_heartbeats(instances(4))
    async with contextlib.AsyncExitStack() as stack:
        held = await hold(stack, registry, 2)
        bench.server.raw.flushall()  # before the first renewal
        await registry.send_heartbeats(instances(4))
        await stack.enter_async_context(registry.reserve(MODEL))  # makes a lease
        await until(lambda: _are_lost(held), "they are counted again")
        assert await total(registry) == 3
    assert await total(registry) == 0


async def _are_lost(held: list[Reservation]) -> bool:
    return all(made.lost for made in held)


async def test_after_a_crash_that_lost_nothing_nothing_is_lost(
    own_server: Place, no_tasks_left: None
) -> None:
    """And what the server did lose, a release, is found by the renewal."""
    ttl_secs = 3 * TTL_SECS  # longer than a restart takes on a busy machine
    async with RedisModelRegistry.from_url(
        own_server.url, run_checker=False, **SLOW, reservation_ttl_secs=ttl_secs
    ) as registry:
        await registry.send_heartbeats(instances(3))
        async with contextlib.AsyncExitStack() as stack:
            held = await hold(stack, registry, 5)
            own_server.kill()
            raw = restarted(own_server)
            store = Store(raw)
            await asyncio.sleep(1.2 * ttl_secs)
            assert await total(registry) == 5
            assert not any(made.lost for made in held)
            # as if one more had been reserved, given back, and only the latter lost
            holder = registry._reserver.holder.name
            raw.hset(store.key(f"h:{holder}"), "4711", f"{MODEL}:10.0.0.1:1|1")
            entry = store.hash("flights")[f"{MODEL}:10.0.0.1:1"]
            count, _, rest = entry.partition(":")
            raw.hset(
                store.key("flights"), f"{MODEL}:10.0.0.1:1", f"{int(count) + 1}:{rest}"
            )
            assert await total(registry) == 6

            async def found() -> bool:
                return await total(registry) == 5

            await until(found, "the stray is given back")
        assert await total(registry) == 0
        store.check()
        raw.close()


def restarted(server: Place) -> Any:
    server.start()
    return connect(server.url)


async def test_a_lease_set_by_a_clock_that_was_put_back_ends_all_the_same(
    make_bench: MakeBench,
) -> None:
    bench = await make_bench()
    await bench.registry.send_heartbeats(instances(2))
    run, operations = bench.registry._executor.run, bench.registry._operations
    fleet = Fleet(MODEL, instances(2))
    await run(operations.reserve(bench.home, fleet, range(2), "10000-dead", 1))
    bench.store.age(-3600, away=False)
    await bench.registry.in_flight(MODEL)
    ends = bench.store.scores("holders")["10000-dead"]
    assert ends <= bench.store.now_us() + 10_000_000


async def test_a_removed_instance_takes_its_count_along_at_the_latest_with_the_last_one(
    bench: Bench,
) -> None:
    registry = bench.registry
    await registry.register_instance(instance())
    async with registry.reserve(MODEL):
        pass
    await registry.deregister_instance(instance(remove_from_registry=True))
    assert bench.store.hash("flights") == {}
    await registry.register_instance(instance())
    async with registry.reserve(MODEL):
        await registry.deregister_instance(instance(remove_from_registry=True))
        assert len(bench.store.hash("flights")) == 1
        await registry.register_instance(instance())
        assert await total(registry) == 1, "still in flight, whoever lives there"
        await registry.deregister_instance(instance(remove_from_registry=True))
    assert bench.store.hash("flights") == {}
    bench.store.check()


@pytest.mark.one_partition("some say how many, some adopt that")
async def test_one_holder_holds_in_many_partitions(server: Server) -> None:
    options: dict[str, Any] = {**SLOW, "run_checker": False, "namespace": "many"}
    models = [f"{letter}@llm" for letter in "abcdefgh"]
    async with RedisModelRegistry.from_url(
        server.url, partitions=4, **options
    ) as other:
        for model in models:
            await other.register_instance(instance(model=model))
        registry = RedisModelRegistry.from_url(
            server.url, **options, reservation_ttl_secs=0.3
        )
        stack = contextlib.AsyncExitStack()
        for model in models:
            await stack.enter_async_context(registry.reserve(model))
        await asyncio.sleep(0.8)
        assert [await total(other, model) for model in models] == [1] * 8
        await registry.aclose()
        assert [await total(other, model) for model in models] == [0] * 8
        await stack.aclose()
    server.raw.flushall()


FORKS = """
import os, sys
from redis_registry import SyncModelRegistry

with SyncModelRegistry.from_url(sys.argv[1]) as registry:
    held = registry.reserve("glm@llm")
    parents = held.__enter__()
    if not (leaver := os.fork()):
        held.__exit__(None, None, None)  # and has reserved nothing of its own
        os._exit(0)
    assert os.waitpid(leaver, 0)[1] == 0
    assert sum(registry.in_flight("glm@llm").values()) == 1
    child = os.fork()
    with registry.reserve("glm@llm") as made:
        same = made.id.split(":")[0] == parents.id.split(":")[0]
        assert same == bool(child), "a child is a holder of its own"
    if not child:
        held.__exit__(None, None, None)  # the parent's: changes nothing
        registry.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert sum(registry.in_flight("glm@llm").values()) == 1
    held.__exit__(None, None, None)
"""


def test_a_forked_child_holds_nothing_of_its_parent(
    sync_registry: SyncModelRegistry, server: Server
) -> None:
    sync_registry.register_instance(instance(heartbeat_timeout_secs=60))
    done = subprocess.run(
        [sys.executable, "-c", FORKS, server.url],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sum(sync_registry.in_flight(MODEL).values()) == 0
