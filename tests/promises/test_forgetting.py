"""L6: unhealthy is not gone; forgotten is gone without a trace."""

from __future__ import annotations

from redis_registry import GuardSettings, Kind
from tests.conftest import MakeBench
from tests.helpers import instances, until


async def test_the_unhealthy_stay_listed_until_their_time_comes(
    make_bench: MakeBench,
) -> None:
    bench = await make_bench(forget_after_secs=3600)
    await bench.registry.send_heartbeats(instances(3))
    await bench.registry.deregister_instance(instances(1)[0])
    bench.store.silence(*instances(3)[1:2])
    await bench.sweep()
    bench.store.age(3500, away=False)
    await bench.registry.send_heartbeats(instances(3)[2:])
    await bench.sweep()
    assert await bench.states() == {1: "unhealthy", 2: "unhealthy", 3: "healthy"}

    bench.store.age(101, away=False)
    await bench.registry.send_heartbeats(instances(3)[2:])
    await bench.sweep()

    assert await bench.states() == {3: "healthy"}
    assert len(bench.store.events(Kind.FORGOTTEN)) == 2


async def test_for_ever_means_for_ever(make_bench: MakeBench) -> None:
    bench = await make_bench(forget_after_secs=None)
    await bench.registry.register_instance(instances(1)[0])
    await bench.registry.deregister_instance(instances(1)[0])
    bench.store.age(365 * 86_400, away=False)

    await bench.sweep()

    assert await bench.states() == {1: "unhealthy"}


async def test_nobody_is_forgotten_in_a_recovery(make_bench: MakeBench) -> None:
    bench = await make_bench()
    await bench.registry.register_instance(instances(1)[0])
    await bench.registry.deregister_instance(instances(1)[0])
    bench.store.age(90_000, away=True)

    await bench.sweep()

    assert await bench.states() == {1: "unhealthy"}


async def test_many_are_forgotten_without_waiting_for_ticks(
    make_bench: MakeBench,
) -> None:
    """Else more would come than go: with production's times a tick is over three seconds."""
    bench = await make_bench(guard=GuardSettings(enabled=False))
    await bench.registry.send_heartbeats(instances(1000))
    bench.store.silence(*instances(1000))
    await bench.sweep()
    bench.store.age(90_000, away=False)
    checker = bench.checkers[0]
    checker.start()

    async def gone() -> bool:
        return await bench.registry.get_all_model_instances() == []

    await until(gone, "all are forgotten", within_secs=3)
    await checker.aclose()


async def test_many_lives_leave_keys_and_memory_where_they_were(
    make_bench: MakeBench,
) -> None:
    bench = await make_bench(forget_after_secs=0, events_kept=100)

    async def cycle() -> None:
        for model in ("a@llm", "b@llm"):
            await bench.registry.send_heartbeats(instances(200, model))
        for model in ("a@llm", "b@llm"):
            bench.store.silence(*instances(100, model))
        for item in instances(100, "b@llm"):
            await bench.registry.deregister_instance(item)
        for item in instances(200, remove_from_registry=True):
            item.model_name = "a@llm"
            await bench.registry.deregister_instance(item)
        bench.store.silence(*[i for i in instances(200, "b@llm") if i.port > 100])
        for _ in range(5):
            await bench.sweep()
        assert await bench.registry.get_all_model_instances() == []

    guard = bench.registry.settings.guard
    guard.enabled = False
    await cycle()
    keys = set(bench.server.raw.keys("*"))
    used = bench.server.raw.info("memory")["used_memory_dataset"]
    for _ in range(4):
        await cycle()

    assert set(bench.server.raw.keys("*")) == keys
    assert bench.server.raw.info("memory")["used_memory_dataset"] < used * 1.15
