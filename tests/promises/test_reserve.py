"""Reservations: replicas agree on who is picked, capacity holds, and who gets none is told why."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter

import pytest

from redis_registry import (
    ConfigurationError,
    Load,
    ModelInstance,
    NoneAvailable,
    OutlierSettings,
    Readiness,
    RedisModelRegistry,
)
from redis_registry.roles.reserving import POLICIES
from redis_registry.selection import selectable
from tests.conftest import Bench, MakeBench, Server
from tests.helpers import instance, instances, until
from tests.load.programs import Program, programs
from tests.promises.reserving import MODEL, counts, hold, total


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
    inside, most, full = Counter[int](), Counter[int](), asyncio.Event()

    async def one(registry: RedisModelRegistry) -> None:
        try:
            async with registry.reserve(MODEL) as made:
                port = made.instance.port
                inside[port] += 1
                most[port] = max(most[port], inside[port])
                await full.wait()  # the first ones; then they come and go
                await asyncio.sleep(0.02)
                inside[port] -= 1
        except NoneAvailable:
            full.set()

    async with asyncio.TaskGroup() as group:
        for n in range(300):
            group.create_task(one(benches[n % 3].registry))
    assert set(most.values()) == {3}
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
