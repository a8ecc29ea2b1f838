"""R5: whoever may not receive work has exactly one reason, said in figures, with what would change it."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from redis_registry import (
    Explanation,
    GuardSettings,
    Identity,
    InvalidInstance,
    Kind,
    Readiness,
    Reason,
    RedisModelRegistry,
    Selector,
    SyncModelRegistry,
    selectable,
)
from redis_registry.core.because import span
from redis_registry.store import explaining
from tests.conftest import SLOW, Bench, MakeBench, Server
from tests.helpers import instance, instances
from tests.registry.explaining import (
    IT,
    damage,
    decide,
    expire,
    fail,
    remove,
    say,
    silence,
    without_figures,
)


async def test_it_agrees_with_what_readers_see(bench: Bench) -> None:
    await bench.registry.send_heartbeats(instances(6))
    await bench.registry.set_readiness(instance(2), Readiness.STARTING)
    bench.store.silence(instance(3))
    await bench.registry.deregister_instance(instance(4))
    found = await bench.registry.explain("glm@llm")
    read = await bench.registry.get_all_instances("glm@llm")
    assert {one.port: one.selectable for one in found.instances} == {
        item.port: selectable(item) for item in read
    }
    assert [one.port for one in found.instances] == [2, 3, 4, 1, 5, 6]
    for one in found.instances:
        assert (await bench.registry.explain(one.identity)).because
    assert found.selectable == 3
    assert found.because == (
        "3 of 6 may receive work, 3 may not: 1 starting, 1 overdue, 1 unhealthy"
    )


async def test_one_of_many_costs_no_read_of_all(make_bench: MakeBench) -> None:
    bench = await make_bench(guard=GuardSettings(enabled=False))
    crowd = instances(6)
    await bench.registry.send_heartbeats(crowd)
    await bench.registry.set_readiness(instance(2), Readiness.STARTING)
    await bench.registry.deregister_instance(instance(4))
    await bench.registry.override(instance(5), weight=0, reason="x")
    await fail(bench)
    run, operations = bench.registry._executor.run, bench.registry._operations
    everybody = await bench.registry.explain("glm@llm")
    for asked in [*crowd, instance(7)]:
        found = await run(operations.explain("glm@llm", asked.identity))
        # Who is held out may be the last, which only the others can tell.
        assert len(found.rows) == (6 if asked.port == 1 else asked.port < 7)
        alone = await bench.registry.explain(asked.identity)
        same = [one for one in everybody.instances if one.identity == asked.identity]
        for one in same:
            assert one.reason == alone.reason
            assert one.in_flight == alone.in_flight
            assert one.overrides == alone.overrides
        assert bool(same) == (alone.reason is not Reason.UNKNOWN)


async def test_the_figures_are_by_rediss_clock(bench: Bench) -> None:
    await bench.registry.send_heartbeats([IT])
    bench.store.age(20, away=False)
    found = await bench.registry.explain(IT)
    assert found.beat_secs_ago == pytest.approx(20, abs=0.5)
    assert found.deadline_in_secs == pytest.approx(40, abs=0.5)
    assert re.fullmatch(
        r"it may receive work: its last heartbeat was 20\.\d s ago, its deadline is in \d+\.\d s",
        found.because,
    )
    bench.store.age(63, away=False)
    found = await bench.registry.explain(IT)
    assert found.deadline_in_secs == pytest.approx(-23, abs=0.5)
    assert found.because.startswith("its deadline passed 23.")


async def test_transitions_are_the_last_ones_newest_first(bench: Bench) -> None:
    await bench.registry.send_heartbeats([IT, instance(2)])
    await bench.registry.set_readiness(instance(2), Readiness.STARTING)
    await bench.registry.set_readiness(IT, Readiness.NOT_READY, "no disk")
    made = await bench.registry.override(IT, weight=0, reason="why", author="ann")
    await bench.registry.override(instance(2), weight=0, reason="another's")
    await bench.registry.clear_override(made.name, author="bob")
    found = await bench.registry.explain(IT)
    assert [one.kind for one in found.transitions] == [
        Kind.OVERRIDE_CLEARED,
        Kind.OVERRIDDEN,
        Kind.NOT_READY,
        Kind.REGISTERED,
    ]
    _, set_, unready, registered = found.transitions
    assert set_.override is not None
    assert set_.override.name == made.name
    assert (unready.readiness, unready.reason) == (Readiness.NOT_READY, "no disk")
    assert registered.address == "10.0.0.1:1"
    assert 0 <= unready.secs_ago <= registered.secs_ago < 5
    assert found.looked_back_to is None


@pytest.mark.one_partition("two models share a stream")
async def test_it_looks_back_so_far_and_says_so(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explaining, "MOST_PAGES", 1)
    await bench.registry.send_heartbeats([IT])
    await bench.registry.send_heartbeats(instances(1000, "other@llm"))
    found = await bench.registry.explain(IT)
    assert found.transitions == ()
    assert found.looked_back_to is not None
    gone = await bench.registry.explain(instance(7))
    assert gone.because == "it is not registered, and was not of late"

    for turn in range(12):
        for readiness in (Readiness.NOT_READY, Readiness.READY):
            await bench.registry.set_readiness(IT, readiness, str(turn))
    found = await bench.registry.explain(IT)
    assert len(found.transitions) == 20
    assert found.looked_back_to is None


async def test_what_was_never_registered_is_answered(bench: Bench) -> None:
    found = await bench.registry.explain(IT)
    assert (found.reason, found.instance) == (Reason.UNKNOWN, None)
    never = "it is not registered, and never was, as far as events are kept"
    assert (found.because, found.remedy) == (never, "registering it")
    model = await bench.registry.explain("glm@llm")
    assert (model.known, model.instances) == (False, ())
    assert model.because == (
        "no instance of it is registered, and never was, as far as events are kept"
    )
    await bench.registry.register_instance(IT)
    await remove(bench)
    model = await bench.registry.explain("glm@llm")
    assert without_figures(model.because) == (
        "no instance of it is registered any more; 10.0.0.1:1 was removed # ago"
    )
    assert [one.kind for one in model.transitions] == [Kind.REMOVED, Kind.REGISTERED]


async def test_one_whose_address_begins_the_same_is_another(bench: Bench) -> None:
    await bench.registry.register_instance(instance(80))
    await bench.registry.register_instance(instance(8001))
    found = await bench.registry.explain(instance(80))
    assert [one.address for one in found.transitions] == ["10.0.0.1:80"]
    assert (await bench.registry.explain(instance(8))).transitions == ()


async def test_the_last_ones_held_out_are_chosen_and_it_says_so(bench: Bench) -> None:
    await bench.registry.send_heartbeats(instances(2))
    await fail(bench)
    await bench.registry.set_readiness(instance(2), Readiness.STARTING)
    found = await bench.registry.explain(IT)
    assert (found.selectable, found.reason) == (False, Reason.FAILURES)
    assert found.last_resort
    assert found.because.endswith(
        "it is chosen all the same, for nobody else of its model can work"
    )
    model = await bench.registry.explain("glm@llm")
    assert (model.selectable, model.last_resort) == (0, True)
    assert model.because.startswith(
        "none of 2 may receive work: 1 failures, 1 starting"
    )
    chosen = await bench.registry.select_one_health_instance("glm@llm")
    assert chosen is not None
    assert chosen.port == IT.port


async def test_penalties_are_told_before_they_count(bench: Bench) -> None:
    await bench.registry.send_heartbeats(instances(3))
    for _ in range(3):
        await bench.registry.report_failure(IT, "refused")
    await expire(bench)
    await bench.registry.send_heartbeat(IT)
    found = (await bench.registry.explain(IT)).penalties
    assert found.failures_in_a_row == 3
    assert (found.calls, found.failed) == pytest.approx((3, 3), abs=0.2)
    assert found.flapping == pytest.approx(1, abs=0.05)
    assert found.ejections_in_a_row == 0


async def test_reservations_and_a_full_one(bench: Bench) -> None:
    full = instance(1, metadata={"capacity": 1})
    await bench.registry.register_instance(full)
    async with bench.registry.reserve("glm@llm"):
        found = await bench.registry.explain(full)
    assert (found.selectable, found.in_flight, found.capacity) == (True, 1, 1)
    assert found.because.endswith("but it is full: 1 of 1 places are reserved")


async def test_the_guard_is_told_with_its_end(make_bench: MakeBench) -> None:
    bench = await make_bench(guard=GuardSettings(max_hold_secs=100))
    await bench.registry.send_heartbeats(instances(50))
    bench.store.silence(*instances(40), by_secs=3)
    await bench.sweep()
    model = await bench.registry.explain("glm@llm")
    assert model.protected == 35
    assert model.reasons == {Reason.UNHEALTHY: 5}
    assert {(one.by, one.scope) for one in model.protections} == {
        ("guard", "*"),
        ("guard", "glm@llm"),
    }
    protected = next(one for one in model.instances if one.selectable)
    found = await bench.registry.explain(protected.identity)
    assert found.selectable
    assert without_figures(found.because).startswith(
        "it may receive work: its deadline passed # ago, but it is not judged by that now "
        "(guard: too many would die at once; held since #, at most # more"
    )
    (end,) = {one.until for one in found.protections}
    assert (end - found.now).total_seconds() == pytest.approx(100, abs=2)


async def test_recovery_is_told_with_its_end(bench: Bench) -> None:
    await bench.registry.send_heartbeats(instances(2))
    bench.store.age(100, away=True)
    found = await bench.registry.explain(IT)
    assert found.selectable
    (protection,) = found.protections
    assert protection.by == "recovery"
    assert (protection.until - found.now).total_seconds() == pytest.approx(60, abs=2)
    assert without_figures(found.because) == (
        "it may receive work: its deadline passed # ago, but it is not judged by that now "
        "(recovery: the registry itself was away (silence), at most # more)"
    )


async def test_an_alias_is_followed_and_told(make_bench: MakeBench) -> None:
    """Of models in several partitions too."""
    bench = await make_bench(partitions=8)
    registry = bench.registry
    for number in range(6):
        model = f"m{number}@llm"
        await registry.register_instance(instance(1, model))
        await registry.set_readiness(instance(1, model), Readiness.STARTING)
        await registry.set_alias(f"a{number}", model, author="bob")
        await registry.override(
            Selector(model=model), weight=0, reason="why", name=f"w{number}"
        )
    for number in range(6):
        found = await registry.explain(f"a{number}")
        assert found.model_name == f"m{number}@llm"
        assert found.alias is not None
        assert (found.alias.alias, found.alias.author) == (f"a{number}", "bob")
        assert found.reasons == {Reason.STARTING: 1}
        one = await registry.explain(Identity(f"a{number}", "10.0.0.1", 1))
        assert one.identity == (f"m{number}@llm", "10.0.0.1", 1)
        assert one.reason is Reason.STARTING
        assert [item.name for item in one.overrides] == [f"w{number}"]
        assert len(one.transitions) == 3


async def test_of_several_overrides_the_one_that_decides_is_named(bench: Bench) -> None:
    await bench.registry.register_instance(IT)
    rack = Selector(model="glm*")
    decided: dict[str, Any] = {"author": "ann", "reason": "rack", "name": "rack"}
    await bench.registry.override(rack, draining=True, weight=0, **decided)
    await bench.registry.override(IT, weight=2, reason="but this", name="one")
    found = await bench.registry.explain(IT)
    assert "(override rack)" in found.because
    assert [item.name for item in found.overrides] == ["rack", "one"]
    await bench.registry.override(IT, draining=False, reason="spare it", name="spare")
    assert (await bench.registry.explain(IT)).selectable
    await bench.registry.set_readiness(IT, Readiness.DRAINING, "restart")
    found = await bench.registry.explain(IT)
    assert found.because.startswith("it has been draining for")


async def test_one_kept_alive_by_an_operator(bench: Bench) -> None:
    await bench.registry.register_instance(IT)
    await silence(bench)
    await decide(healthy=True)(bench)
    found = await bench.registry.explain(IT)
    assert found.selectable
    assert without_figures(found.because) == (
        "it may receive work: ann forced it healthy # ago: power work (override o-1); "
        "its last heartbeat was # ago"
    )


async def test_one_that_is_not_checked(bench: Bench) -> None:
    await bench.registry.register_instance(instance(1, check_healthy=False))
    found = await bench.registry.explain(IT)
    assert found.deadline_in_secs is None
    assert found.because.endswith("silence never makes it unhealthy")


@pytest.mark.damages
async def test_a_damaged_record_is_named(bench: Bench) -> None:
    await bench.registry.register_instance(IT)
    await damage(bench)
    found = await bench.registry.explain(IT)
    assert found.reason is Reason.UNKNOWN
    assert found.because == "its record can't be read, so no read shows it"
    await expire(bench)  # its event can't be read either
    again = await bench.registry.explain(IT)
    assert again.because == found.because
    assert [one.kind for one in again.transitions] == [Kind.REGISTERED]


async def test_many_instances_are_all_counted(bench: Bench) -> None:
    await bench.registry.send_heartbeats(instances(1100))
    found = await bench.registry.explain("glm@llm")
    assert found.selectable == 1100
    assert len(found.instances) == 1000


@pytest.mark.parametrize(
    "what", ["", " ", "x" * 513, 7, Identity("m", "", 1)], ids=repr
)
async def test_what_can_not_be_is_refused(real: RedisModelRegistry, what: Any) -> None:
    with pytest.raises(InvalidInstance):
        await real.explain(what)


async def test_both_faces_say_the_same(server: Server, bench: Bench) -> None:
    await bench.registry.send_heartbeats(instances(2))
    await say(Readiness.STARTING, "loading")(bench)

    def ask() -> tuple[Explanation, Any]:
        with SyncModelRegistry.from_url(server.url, **SLOW) as registry:
            return registry.explain(IT), registry.explain("glm@llm")

    one, model = await asyncio.to_thread(ask)
    assert (one.reason, one.remedy) == (Reason.STARTING, "ready() of its worker")
    assert [item.kind for item in one.transitions] == [Kind.STARTING, Kind.REGISTERED]
    assert model.reasons == {Reason.STARTING: 1}


async def test_it_is_explained_on_fakeredis_too(registry: RedisModelRegistry) -> None:
    await registry.register_instance(IT)
    found = await registry.explain(IT)
    assert found.selectable
    assert [one.kind for one in found.transitions] == [Kind.REGISTERED]


@pytest.mark.parametrize(
    ("secs", "text"),
    [(-1, "0.0 s"), (3.21, "3.2 s"), (119, "119.0 s"), (600, "10 m"), (7200, "2 h")],
)
def test_durations_as_people_say_them(secs: float, text: str) -> None:
    assert span(secs) == text
