"""L8: who comes and goes is held out for a while, and never the last one, nor half a fleet."""

from __future__ import annotations

import pytest

from redis_registry import (
    Health,
    HeldOut,
    Kind,
    ModelInstance,
    OutlierSettings,
    RedisModelRegistry,
    Verdict,
)
from redis_registry.selection import Reason, why_not
from tests.conftest import Bench, MakeBench
from tests.helpers import instance, instances, until

MINUTE = 60


@pytest.fixture
async def fleet(bench: Bench) -> list[ModelInstance]:
    """Five workers that beat."""
    items = instances(5)
    await bench.registry.send_heartbeats(items)
    return items


async def flap(bench: Bench, *items: ModelInstance, times: int = 1) -> None:
    """Die unnoticed, be flipped, and come back."""
    for _ in range(times):
        bench.store.silence(*items)
        await bench.sweep()
        await bench.registry.send_heartbeats(items)


async def held(registry: RedisModelRegistry, item: ModelInstance) -> HeldOut | None:
    found = await registry.get_all_instances(item.model_name)
    return next(i.held_out for i in found if i.port == item.port)


async def out(registry: RedisModelRegistry, model: str = "glm@llm") -> set[int]:
    return {i.port for i in await registry.get_all_instances(model) if i.held_out}


def wait_out(bench: Bench, item: ModelInstance, secs: float) -> None:
    """Let the penalty of an instance be older."""
    key = bench.store.key(f"i:{item.model_name}:{item.host}:{item.port}")
    penalty, at = bench.server.raw.hget(key, "flaps").decode().split(":")
    bench.server.raw.hset(key, "flaps", f"{penalty}:{int(at) - round(secs * 1e6)}")


async def test_the_third_return_in_a_row_is_held_out(
    bench: Bench, fleet: list[ModelInstance]
) -> None:
    flapper = fleet[0]
    await flap(bench, flapper, times=2)
    assert await held(bench.registry, flapper) is None
    await flap(bench, flapper)
    found = await held(bench.registry, flapper)
    assert found
    assert found.cause == "flapping"
    event = bench.store.events(Kind.HEALTHY)[-1]
    assert event.instance
    assert event.instance.held_out == found
    assert why_not(event.instance) is Reason.FLAPPING
    # ln(3 / 0.75) / ln(2): two half-lives of 5 minutes
    assert (found.until - event.at).total_seconds() == pytest.approx(600, abs=2)
    picked = [
        await bench.registry.select_one_health_instance("glm@llm") for _ in range(60)
    ]
    assert {item.port for item in picked if item} == {2, 3, 4, 5}
    assert (await bench.registry.get_all_instances("glm@llm"))[0].healthy


async def test_it_ends_by_itself(make_bench: MakeBench) -> None:
    rules = OutlierSettings(flap_half_life_secs=0.3)
    bench = await make_bench(outliers=rules)
    items = instances(3)
    await bench.registry.send_heartbeats(items)
    await flap(bench, items[0], times=4)
    assert await out(bench.registry) == {1}
    revision = bench.store.hash("meta")["rev"]

    async def back() -> bool:
        return not await out(bench.registry)

    assert await until(back, "it is let in again") > 0.2
    assert bench.store.hash("meta")["rev"] == revision
    await bench.registry.register_instance(items[0])
    assert bench.store.scores("out") == {}  # the next write cleans up


async def test_a_penalty_decays(bench: Bench, fleet: list[ModelInstance]) -> None:
    for _ in range(6):
        await flap(bench, fleet[0])
        wait_out(bench, fleet[0], 5 * MINUTE)
    assert await out(bench.registry) == set()
    await flap(bench, fleet[0], times=2)
    assert await out(bench.registry) == {1}


async def test_nobody_is_held_out_for_longer_than_four_half_lives(
    bench: Bench, fleet: list[ModelInstance]
) -> None:
    await flap(bench, fleet[0], times=30)
    found = await held(bench.registry, fleet[0])
    at = bench.store.events(Kind.HEALTHY)[-1].at
    assert found
    assert (found.until - at).total_seconds() == pytest.approx(20 * MINUTE, abs=2)


async def test_never_the_last_one(bench: Bench) -> None:
    items = instances(2)
    await bench.registry.send_heartbeats(items)
    await bench.registry.deregister_instance(items[1])
    await flap(bench, items[0], times=5)
    assert await out(bench.registry) == set()
    await bench.registry.send_heartbeat(items[1])
    await flap(bench, items[0])
    assert await out(bench.registry) == {1}
    await flap(bench, items[1], times=5)
    assert await out(bench.registry) == {1}


async def test_a_goodbye_is_no_flap(bench: Bench, fleet: list[ModelInstance]) -> None:
    for turn in range(6):
        life = instance(1, incarnation=f"{turn}-life")
        await bench.registry.register_instance(life)
        await bench.registry.deregister_instance(life)
        await bench.registry.deregister_instance(fleet[1])
        await bench.registry.register_instance(fleet[1])
    await bench.registry.register_instance(instance(1, incarnation="9-life"))
    assert await out(bench.registry) == set()


async def test_a_crash_loop_is(bench: Bench, fleet: list[ModelInstance]) -> None:
    """New lives of one address, each without a goodbye of the one before, flipped or not."""
    life = fleet[0]
    for turn in range(4):
        life = instance(1, incarnation=f"{turn}-life")
        await bench.registry.register_instance(life)
        if turn % 2:
            bench.store.silence(life)
            await bench.sweep()
    assert await out(bench.registry) == {1}
    event = bench.store.events(Kind.REGISTERED)[-1]
    assert event.instance
    assert event.instance.held_out
    await bench.registry.register_instance(instance(1, incarnation="8-life"))
    assert await out(bench.registry) == {1}
    # what its calls did was of the life before
    assert b"calls" not in bench.store.record(life)


async def test_a_registration_repeated_is_no_flap(
    bench: Bench, fleet: list[ModelInstance]
) -> None:
    life = instance(1, incarnation="1-life")
    for _ in range(9):
        await bench.registry.register_instance(fleet[1])
        await bench.registry.register_instance(life)
    assert await out(bench.registry) == set()


async def test_registering_again_after_death_is_one(
    bench: Bench, fleet: list[ModelInstance]
) -> None:
    for _ in range(3):
        bench.store.silence(fleet[0])
        await bench.sweep()
        await bench.registry.register_instance(fleet[0])
    assert await out(bench.registry) == {1}


async def test_a_whole_fleet_that_goes_and_comes_loses_a_share_at_most(
    make_bench: MakeBench,
) -> None:
    bench = await make_bench(guard={"enabled": False})
    items = instances(40)
    await bench.registry.send_heartbeats(items)
    for _ in range(6):
        await flap(bench, *items)
    assert 0 < len(await out(bench.registry)) <= 12


async def test_a_mass_expiry_that_the_guard_has_seen_is_no_flap(
    make_bench: MakeBench,
) -> None:
    bench = await make_bench()
    items = instances(40)
    await bench.registry.send_heartbeats(items)
    for _ in range(4):
        bench.store.silence(*items)
        for _ in range(3):
            await bench.sweep()
            assert (await bench.count())[Health.PROTECTED] > 30
        await bench.registry.send_heartbeats(items)
        # As if its window had passed.
        bench.server.raw.delete(bench.store.key("guard"), bench.store.key("tally"))
    assert len(bench.store.events(Kind.UNHEALTHY)) > 10
    assert await out(bench.registry) == set()
    assert not [i for i in items if b"flaps" in bench.store.record(i)]


async def test_a_return_while_the_registry_recovers_is_no_flap(
    bench: Bench, fleet: list[ModelInstance]
) -> None:
    for _ in range(5):
        bench.store.silence(fleet[0])
        await bench.sweep()
        bench.store.age(30, away=True)
        await bench.registry.status()  # notices the silence
        await bench.registry.send_heartbeats(fleet)
        bench.store.age(200, away=False)
        await bench.registry.send_heartbeats(fleet)
    assert bench.store.events(Kind.RECOVERY)
    assert len(bench.store.events(Kind.UNHEALTHY)) >= 5
    assert await out(bench.registry) == set()


async def test_who_flaps_and_fails_is_out_for_the_longer_time(
    bench: Bench, fleet: list[ModelInstance]
) -> None:
    await flap(bench, fleet[0], times=3)
    flapping = await held(bench.registry, fleet[0])
    answers = [await bench.registry.report_failure(fleet[0]) for _ in range(5)]
    assert answers[-1].verdict is Verdict.EJECTED
    found = await held(bench.registry, fleet[0])
    assert flapping
    assert found
    assert found == HeldOut(cause="failures", until=flapping.until)
    await flap(bench, fleet[0])
    longer = await held(bench.registry, fleet[0])
    assert longer
    assert longer.cause == "failures"
    assert longer.until > found.until


async def test_switched_off_it_counts_nothing(make_bench: MakeBench) -> None:
    bench = await make_bench(outliers=OutlierSettings(flap_damping=False))
    items = instances(3)
    await bench.registry.send_heartbeats(items)
    await flap(bench, items[0], times=5)
    assert await out(bench.registry) == set()
    assert b"flaps" not in bench.store.record(items[0])
