"""Reservations: replicas agree, capacity holds, and what a dead process held comes back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import Any

import pytest

from redis_registry import (
    ConfigurationError,
    Load,
    ModelInstance,
    NoneAvailable,
    OutlierSettings,
    Readiness,
    RedisModelRegistry,
    RegistryClosed,
    RegistryUnavailable,
    Reservation,
    SyncModelRegistry,
)
from redis_registry.roles import holder as holder_module
from redis_registry.roles.reserving import POLICIES
from redis_registry.selection import selectable
from redis_registry.store.reserving import Fleet
from tests.conftest import SLOW, Bench, MakeBench, Server
from tests.helpers import Store, connect, instance, instances, until, wait_for
from tests.holder import holding
from tests.load.programs import Program, programs
from tests.places import Place

MODEL = "glm@llm"
TTL_SECS = 1.0


async def hold(
    stack: contextlib.AsyncExitStack, registry: RedisModelRegistry, count: int
) -> list[Reservation]:
    """That many reservations, until the stack ends."""
    return [
        await stack.enter_async_context(registry.reserve(MODEL)) for _ in range(count)
    ]


async def total(registry: RedisModelRegistry, model: str = MODEL) -> int:
    return sum((await registry.in_flight(model)).values())


async def counts(registry: RedisModelRegistry) -> dict[int, int]:
    return {who.port: n for who, n in (await registry.in_flight(MODEL)).items()}


# --- who is picked -----------------------------------------------------------------------------


async def test_nobody_is_given_the_dead_of_a_clock_put_back(bench: Bench) -> None:
    await bench.registry.send_heartbeat(instance())
    found = await bench.registry.get_all_instances(instance().model_name)
    bench.store.age(-3600, away=True)
    await bench.count()  # somebody notices
    bench.store.age(61, away=False)

    with pytest.raises(NoneAvailable):
        async with bench.registry.reserve(
            instance().model_name, candidates=lambda: found
        ):
            pass


async def test_two_replicas_agree_on_who_has_the_least_in_flight(
    make_bench: MakeBench,
) -> None:
    first, second = await make_bench(), await make_bench()
    await first.registry.send_heartbeats(instances(5))
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(10):
            await hold(stack, first.registry, 1)
            await hold(stack, second.registry, 1)
        assert await counts(first.registry) == dict.fromkeys(range(1, 6), 4)
    assert await total(second.registry) == 0
    assert first.store.scores("holders") == {}


async def test_of_equals_the_one_picked_least_recently_is_next(bench: Bench) -> None:
    await bench.registry.send_heartbeats(instances(5))
    picked = Counter[int]()
    for _ in range(50):
        async with bench.registry.reserve(MODEL) as made:
            picked[made.instance.port] += 1
    assert picked == dict.fromkeys(range(1, 6), 10)


async def test_weights_share_what_is_in_flight(bench: Bench) -> None:
    await bench.registry.send_heartbeats(
        [instance(1, weight=1), instance(2, weight=3), instance(3, weight=0)]
    )
    async with contextlib.AsyncExitStack() as stack:
        await hold(stack, bench.registry, 40)
        assert await counts(bench.registry) == {1: 10, 2: 30, 3: 0}


async def test_power_of_two_compares_two_and_takes_a_third_before_giving_up(
    bench: Bench,
) -> None:
    crowd = instances(6, metadata={"capacity": 2})
    await bench.registry.send_heartbeats(crowd)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(12):
            await stack.enter_async_context(
                bench.registry.reserve(MODEL, policy="power_of_two")
            )
        assert await counts(bench.registry) == dict.fromkeys(range(1, 7), 2)


async def test_capacity_is_the_last_report_then_the_metadata_and_is_never_exceeded(
    bench: Bench,
) -> None:
    reported = instance(1, metadata={"capacity": 50})
    await bench.registry.register_instance(reported)
    await bench.registry.send_heartbeats([reported], [Load(capacity=1)])
    await bench.registry.register_instance(instance(2, metadata={"capacity": 3}))
    async with contextlib.AsyncExitStack() as stack:
        await hold(stack, bench.registry, 4)
        assert await counts(bench.registry) == {1: 1, 2: 3}
        with pytest.raises(NoneAvailable, match="full, 4 in flight of capacity 4"):
            await hold(stack, bench.registry, 1)
        await bench.registry.register_instance(
            instance(3, metadata={"capacity": "no number"})
        )
        await until(lambda: _can(bench.registry), "the new one is among the candidates")
        held = await hold(stack, bench.registry, 20)
        assert {made.instance.port for made in held} == {3}, "no capacity: no limit"


async def _can(registry: RedisModelRegistry) -> bool:
    try:
        async with registry.reserve(MODEL):
            return True
    except NoneAvailable:
        return False


async def test_many_at_once_never_exceed_a_capacity(make_bench: MakeBench) -> None:
    benches = [await make_bench() for _ in range(3)]
    await benches[0].registry.send_heartbeats(instances(4, metadata={"capacity": 3}))
    inside, most, refused = Counter[int](), Counter[int](), 0

    async def one(registry: RedisModelRegistry) -> None:
        nonlocal refused
        try:
            async with registry.reserve(MODEL) as made:
                port = made.instance.port
                inside[port] += 1
                most[port] = max(most[port], inside[port])
                await asyncio.sleep(0.02)
                inside[port] -= 1
        except NoneAvailable:
            refused += 1

    async with asyncio.TaskGroup() as group:
        for n in range(300):
            group.create_task(one(benches[n % 3].registry))
    assert max(most.values()) == 3
    assert refused
    assert await total(benches[0].registry) == 0


async def test_who_died_since_the_candidates_were_read_is_not_picked(
    bench: Bench,
) -> None:
    await bench.registry.send_heartbeats(instances(4))
    async with bench.registry.reserve(MODEL):
        pass
    bench.store.silence(instance(1))
    await bench.registry.set_readiness(instance(2), Readiness.DRAINING)
    await bench.registry.deregister_instance(instance(3))
    async with contextlib.AsyncExitStack() as stack:
        held = await hold(stack, bench.registry, 20)
        assert {made.instance.port for made in held} == {4}


async def test_an_unchecked_and_a_protected_one_are_picked(bench: Bench) -> None:
    await bench.registry.send_heartbeats([instance(1), instance(2)])
    await bench.registry.register_instance(instance(3, check_healthy=False))
    bench.store.age(61, away=True)  # the registry was away: nobody is judged yet
    async with contextlib.AsyncExitStack() as stack:
        held = await hold(stack, bench.registry, 3)
        assert {made.instance.port for made in held} == {1, 2, 3}


@pytest.mark.parametrize("size", [64, 65, 200])
async def test_large_fleets_are_sampled(bench: Bench, size: int) -> None:
    await bench.registry.send_heartbeats(instances(size - 1, enabled=False))
    await bench.registry.register_instance(instance(size))
    async with bench.registry.reserve(MODEL) as made:
        assert made.instance.port == size, "found though hardly any sample has it"


async def test_candidates_of_the_callers_own(bench: Bench) -> None:
    crowd = instances(3)
    await bench.registry.send_heartbeats(crowd)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(4):
            made = await stack.enter_async_context(
                bench.registry.reserve(MODEL, candidates=lambda: crowd[:2])
            )
            assert made.instance in crowd[:2]
        assert await counts(bench.registry) == {1: 2, 2: 2, 3: 0}


async def test_candidates_from_a_view_follow_every_change(bench: Bench) -> None:
    registry = bench.registry
    await registry.send_heartbeats(instances(2))
    async with registry.view(MODEL) as view:

        def candidates() -> list[ModelInstance]:
            return [item for item in view.instances(MODEL) if selectable(item)]

        async with registry.reserve(MODEL, candidates=candidates) as made:
            await registry.deregister_instance(instance(3 - made.instance.port))
            async with registry.reserve(MODEL, candidates=candidates) as other:
                assert other.instance.port == made.instance.port
            await registry.deregister_instance(made.instance)
            with pytest.raises(NoneAvailable):
                async with registry.reserve(MODEL, candidates=candidates):
                    pass
        with pytest.raises(NoneAvailable, match="no candidates were given"):
            async with registry.reserve(MODEL, candidates=list):
                pass


async def test_who_was_ejected_is_not_picked_until_a_probe_brings_it_back(
    make_bench: MakeBench,
) -> None:
    rules = OutlierSettings(consecutive_failures=1, base_ejection_secs=0.3)
    registry = (await make_bench(outliers=rules)).registry
    await registry.send_heartbeats(instances(4))
    await registry.report_failure(instance(1), "down")

    async def picked() -> ModelInstance:
        async with registry.reserve(MODEL) as made:
            return made.instance

    assert {(await picked()).port for _ in range(8)} == {2, 3, 4}
    probe = instance(2)

    async def probed() -> bool:
        nonlocal probe
        probe = await picked()
        return probe.port == 1

    await until(probed, "it is probed", within_secs=20)
    assert probe.held_out is not None
    await registry.report_success(probe)

    async def back() -> bool:
        found = await picked()
        return found.port == 1 and found.held_out is None

    await until(back, "it is a candidate as any other")


async def test_a_models_last_instances_are_reserved_though_held_out(
    make_bench: MakeBench,
) -> None:
    bench = await make_bench()
    await bench.registry.send_heartbeats(instances(2, enabled=False))
    await bench.registry.register_instance(instance(3))
    soon = bench.store.now_us() + 3_600_000_000
    bench.server.raw.hset(
        bench.store.key("i:glm@llm:10.0.0.1:3"), "out", f"e:{soon}:0:0:"
    )
    async with bench.registry.reserve(MODEL) as made:
        assert made.instance.port == 3
    bench.server.raw.flushall()


async def test_an_unknown_policy_is_refused_by_name(bench: Bench) -> None:
    with pytest.raises(ConfigurationError, match="least_in_flight, power_of_two"):
        bench.registry.reserve(MODEL, policy="best")


@pytest.mark.parametrize("policy", POLICIES)
async def test_processes_pick_evenly_and_give_all_back(
    bench: Bench, server: Server, policy: str
) -> None:
    """The small twin of tests/load/test_reserve.py: so few that one pause of a process shows."""
    await bench.registry.send_heartbeats(instances(10))
    picked = Counter[str]()
    with programs(
        [Program("reserver", server.url, MODEL, 400, 8, 0, 0, policy) for _ in "abc"]
    ) as running:
        for told in await asyncio.gather(
            *(asyncio.to_thread(program.ask, "go") for program in running)
        ):
            picked.update(told["picked"])
    assert sum(picked.values()) == 1200
    if policy == "least_in_flight":  # two at random are even in flight only
        assert max(picked.values()) / min(picked.values()) <= 1.5
    assert await total(bench.registry) == 0


# --- none now ------------------------------------------------------------------------------


async def test_none_says_why_and_what_would_help(bench: Bench) -> None:
    registry = bench.registry
    with pytest.raises(NoneAvailable, match="no instance of that name") as nobody:
        async with registry.reserve(MODEL):
            pass
    assert nobody.value.retry_after_secs is None
    with pytest.raises(NoneAvailable):
        async with registry.reserve(""):
            pass
    await registry.send_heartbeats([*instances(2, enabled=False), instance(3)])
    await registry.set_readiness(instance(3), Readiness.DRAINING)
    with pytest.raises(NoneAvailable, match="2 disabled, 1 draining") as unfit:
        async with registry.reserve(MODEL):
            pass
    assert unfit.value.retry_after_secs is None


async def test_the_wait_that_would_help_is_learned_from_those_before(
    bench: Bench,
) -> None:
    await bench.registry.send_heartbeats(instances(2, metadata={"capacity": 2}))
    for _ in range(8):
        async with bench.registry.reserve(MODEL):
            await asyncio.sleep(0.04)
    async with contextlib.AsyncExitStack() as stack:
        await hold(stack, bench.registry, 4)
        with pytest.raises(NoneAvailable) as caught:
            await hold(stack, bench.registry, 1)
    hint = caught.value.retry_after_secs
    assert hint is not None
    assert 0.01 <= hint <= 0.03, "one of four, each held for about 0.04 s"


@pytest.mark.parametrize("policy", POLICIES)
async def test_waiting_ends_with_a_place_or_with_its_time(
    bench: Bench, policy: str
) -> None:
    await bench.registry.register_instance(instance(metadata={"capacity": 1}))
    async with bench.registry.reserve(MODEL):
        start = time.monotonic()
        with pytest.raises(NoneAvailable):
            async with bench.registry.reserve(MODEL, policy=policy, wait_secs=0.2):
                pass
        assert 0.2 <= time.monotonic() - start < 0.7

    async def wait() -> None:
        async with bench.registry.reserve(MODEL, policy=policy, wait_secs=20):
            await asyncio.sleep(0.002)

    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(wait())
    assert await total(bench.registry) == 0


# --- once, and back again --------------------------------------------------------------------


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

    await until(none_left, "every reservation is given back", within_secs=2)
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

        async def one_left() -> bool:
            return await total(bench.registry) == 1

        await until(one_left, "the unanswered one is given back", within_secs=10)
    assert await total(bench.registry) == 0


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


# --- leases --------------------------------------------------------------------------------------


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


# --- the other faces ---------------------------------------------------------------------------


def test_threads_share_one_holder(
    sync_registry: SyncModelRegistry, server: Server
) -> None:
    sync_registry.send_heartbeats(instances(5))
    picked = Counter[int]()

    def work() -> None:
        for _ in range(25):
            with sync_registry.reserve(MODEL, wait_secs=1) as made:
                picked[made.instance.port] += 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(picked.values()) == 100
    assert set(sync_registry.in_flight(MODEL).values()) == {0}
    with pytest.raises(NoneAvailable), sync_registry.reserve("nobody@llm"):
        pass
    with pytest.raises(NoneAvailable), sync_registry.reserve(" "):
        pass
    with pytest.raises(ConfigurationError):
        sync_registry.reserve(MODEL, policy="")
    assert sync_registry.in_flight("") == {}
    server.store.check()


async def test_it_works_on_every_kind_of_server(
    registry: RedisModelRegistry, worker: ModelInstance
) -> None:
    await registry.register_instance(worker)
    async with registry.reserve(worker.model_name) as made:
        assert made.instance.identity == worker.identity
        assert await registry.in_flight(worker.model_name) == {worker.identity: 1}
    assert await registry.in_flight(worker.model_name) == {worker.identity: 0}
    assert await registry.in_flight("") == {}


async def test_a_failing_round_is_told_and_tried_again(
    make_bench: MakeBench,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = await make_bench(reservation_ttl_secs=TTL_SECS)
    await bench.registry.register_instance(instance())
    renew, failures = holder_module.Holder._renew, 3

    def broken(self: holder_module.Holder, home: int) -> None:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            msg = "broken"
            raise ValueError(msg)
        renew(self, home)

    monkeypatch.setattr(holder_module.Holder, "_renew", broken)
    with caplog.at_level(logging.WARNING):
        async with bench.registry.reserve(MODEL) as made:
            await asyncio.sleep(1.5 * TTL_SECS)
            assert await total(bench.registry) == 1
            assert not made.lost
    assert "will try again" in caplog.text


async def test_an_alias_of_a_model_in_another_partition_is_reserved(
    server: Server, no_tasks_left: None
) -> None:
    async with RedisModelRegistry.from_url(
        server.url, run_checker=False, namespace="far", partitions=8, **SLOW
    ) as registry:
        for number in range(8):
            await registry.register_instance(instance(number + 1, f"model {number}"))
            alias = f"alias {number}"
            await registry.set_alias(alias, f"model {number}", author="me")
            async with registry.reserve(alias) as reservation:
                assert reservation.instance.model_name == f"model {number}"
                held = await registry.in_flight(f"model {number}")
                assert list(held.values()) == [1]
    server.raw.flushall()
