"""L2 and L3: no false death, and real death is seen, by reads at once."""

from __future__ import annotations

import asyncio
import time

import pytest

from redis_registry import Kind, RedisModelRegistry
from redis_registry.store.operations import Term
from tests.conftest import FAST, Bench, Server
from tests.helpers import instance, instances, until


async def test_a_read_judges_the_deadline_itself(bench: Bench) -> None:
    """L3: between two sweeps, and with no checker at all, nobody is sent to the dead."""
    await bench.registry.send_heartbeats(instances(3))
    bench.store.silence(instance(2))

    assert await bench.states() == {1: "healthy", 2: "overdue", 3: "healthy"}
    healthy = await bench.registry.get_all_instances("glm@llm", healthy_only=True)
    assert [item.port for item in healthy] == [1, 3]
    for _ in range(50):
        chosen = await bench.registry.select_one_health_instance("glm@llm")
        assert chosen is not None
        assert chosen.port != 2
    assert bench.store.events(Kind.UNHEALTHY) == []


async def test_a_sweep_flips_exactly_the_overdue(bench: Bench) -> None:
    await bench.registry.send_heartbeats(instances(5))
    bench.store.silence(instance(2), instance(4))

    checker = await bench.sweep()

    assert checker.status.flips == 2
    assert await bench.count() == {"healthy": 3, "unhealthy": 2}
    assert len(bench.store.events(Kind.UNHEALTHY)) == 2
    await bench.sweep()
    assert len(bench.store.events(Kind.UNHEALTHY)) == 2


async def test_a_heartbeat_between_look_and_flip_wins(bench: Bench) -> None:
    """L2: the flip re-checks the deadline in the script that flips."""
    operations, executor = bench.registry._operations, bench.registry._executor
    await bench.registry.register_instance(instance())
    bench.store.silence(instance())
    checker = bench.checker()
    (seen,) = await checker._ask(bench.home, 0)
    assert len(seen.members) == 1

    await bench.registry.send_heartbeat(instance())
    await bench.sweep()
    term = checker._terms[bench.home]
    letters = await executor.run(operations.flip(term, seen.members, {}))

    assert letters == "l"
    assert await bench.states() == {8001: "healthy"}
    assert bench.store.events(Kind.UNHEALTHY) == []


async def test_each_flip_goes_by_its_own_deadline(bench: Bench) -> None:
    """L2: also when others rank lower than those of the call, and still wait for theirs."""
    operations, executor = bench.registry._operations, bench.registry._executor
    await bench.registry.send_heartbeats(instances(4))
    bench.store.silence(*instances(4))
    checker = bench.checker()
    (seen,) = await checker._ask(bench.home, 0)
    await bench.registry.send_heartbeat(instance(4))
    term = Term(bench.home, checker.holder, seen.token, seen.epoch)

    letters = await executor.run(operations.flip(term, seen.members[2:], {}))

    assert letters == "fl"
    assert await bench.states() == {
        1: "overdue",
        2: "overdue",
        3: "unhealthy",
        4: "healthy",
    }
    letters = await executor.run(operations.flip(term, seen.members[:2], {}))
    assert letters == "ff", "the lowest"
    assert set(bench.store.scores("deadlines")) == {bench.store.member(instance(4))}


async def test_heartbeats_racing_with_sweeps_never_lose(bench: Bench) -> None:
    """An acknowledged heartbeat leaves a healthy instance, whatever the sweep does meanwhile."""
    crowd = instances(50)
    await bench.registry.send_heartbeats(crowd)
    await bench.sweep()
    for _ in range(40):
        bench.store.silence(*crowd)
        await asyncio.gather(
            bench.sweep(), *(bench.registry.send_heartbeat(item) for item in crowd)
        )
        assert await bench.count() == {"healthy": 50}
        bench.store.check()


async def test_register_racing_with_deregister_leaves_one_whole_record(
    bench: Bench,
) -> None:
    for turn in range(100):
        item = instance(remove_from_registry=turn % 2 == 0)
        await asyncio.gather(
            bench.registry.register_instance(item),
            bench.registry.deregister_instance(item),
            bench.registry.send_heartbeat(item),
        )
        bench.store.check()


async def test_unchecked_instances_are_never_flipped(bench: Bench) -> None:
    await bench.registry.register_instance(instance(check_healthy=False))
    bench.store.age(1000, away=False)

    await bench.sweep()

    assert await bench.states() == {8001: "healthy"}


async def test_an_instance_may_bring_its_own_timeout(bench: Bench) -> None:
    await bench.registry.register_instance(instance(1, heartbeat_timeout_secs=5))
    await bench.registry.register_instance(instance(2))
    await bench.sweep()
    bench.store.age(10, away=False)

    await bench.sweep()

    assert await bench.states() == {1: "unhealthy", 2: "healthy"}


async def test_an_idle_sweep_looks_at_nothing(bench: Bench) -> None:
    """Only healthy, checked instances are among the deadlines, so the dead cost nothing."""
    await bench.registry.send_heartbeats(instances(20))
    bench.store.silence(*instances(20))
    await bench.sweep()

    assert bench.store.scores("deadlines") == {}
    (sweep,) = await bench.checkers[0]._ask(bench.home, 0)
    assert (sweep.members, sweep.overdue, sweep.living) == ([], 0, 0)


@pytest.mark.parametrize("turn", range(3))
async def test_a_silent_instance_is_flipped_on_time_by_the_clock(
    server: Server, no_tasks_left: None, turn: int
) -> None:
    """The whole of it in real time: the checker wakes at the deadline, not at a poll."""
    async with RedisModelRegistry.from_url(server.url, **FAST) as registry:
        await registry.register_instance(instance())
        await asyncio.sleep(0.13 * turn)
        await registry.send_heartbeat(instance())
        start = time.monotonic()

        async def told() -> bool:
            return bool(server.store.events(Kind.UNHEALTHY))

        await until(told, "the flip")
        assert 0.95 < time.monotonic() - start < 1.5


async def test_a_beating_instance_outlives_many_timeouts(
    server: Server, no_tasks_left: None
) -> None:
    async with RedisModelRegistry.from_url(
        server.url, heartbeat_timeout_secs=0.5, heartbeat_interval_secs=0.1
    ) as registry:
        for _ in range(30):
            await registry.send_heartbeat(instance())
            await asyncio.sleep(0.1)
            (found,) = await registry.get_all_instances("glm@llm")
            assert found.healthy
        assert server.store.events(Kind.UNHEALTHY) == []
