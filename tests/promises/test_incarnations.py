"""W2: incarnations fence writers, in whatever order their calls arrive; and readiness is theirs to say."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redis_registry import (
    Beat,
    Kind,
    Load,
    ModelInstance,
    Readiness,
    Superseded,
    SyncModelRegistry,
    new_incarnation,
)
from redis_registry.selection import Reason, why_not
from tests.conftest import Bench, Server
from tests.helpers import instance

OLD, NEW = (
    instance(incarnation=life, weight=weight, readiness=Readiness.STARTING)
    for life, weight in (("1-old", 1.0), ("2-new", 2.0))
)
Step = Callable[[SyncModelRegistry, ModelInstance], object]
LIFE: dict[str, Step] = {
    "register": lambda registry, item: registry.register_instance(item),
    "beat": lambda registry, item: registry.send_heartbeats([item], [Load(in_flight=7)]),
    "ready": lambda registry, item: registry.set_readiness(item, Readiness.READY),
    "drain": lambda registry, item: registry.set_readiness(item, Readiness.DRAINING),
    "deregister": lambda registry, item: registry.deregister_instance(item),
}  # fmt: skip
STEPS = list(LIFE)


@st.composite
def interleavings(draw: st.DrawFn) -> tuple[list[tuple[bool, str]], list[str]]:
    """Calls of two lives, each in its own order, with late repetitions; and the newer one's alone."""
    lives: list[list[tuple[bool, str]]] = []
    for newer in (False, True):
        steps = STEPS[: draw(st.integers(1, len(STEPS)))]
        calls = [step for step in steps for _ in range(draw(st.integers(1, 2)))]
        lives.append([(newer, step) for step in calls])
    old, new = lives
    merged: list[tuple[bool, str]] = []
    while old or new:
        source = old if old and (not new or draw(st.booleans())) else new
        merged.append(source.pop(0))
    late = draw(st.lists(st.sampled_from(STEPS), max_size=6))
    merged += [(False, step) for step in late]
    return merged, [step for newer, step in merged if newer]


def _do(registry: SyncModelRegistry, item: ModelInstance, step: str) -> bool:
    try:
        LIFE[step](registry, item)
    except Superseded:
        return False
    return True


def _told(registry: SyncModelRegistry) -> dict[str, object]:
    (found,) = registry.get_all_model_instances()
    return found.model_dump(exclude={"revision", "last_heartbeat", "since"})


def test_the_newest_incarnation_is_what_remains(server: Server) -> None:
    """Whatever two lives say, in whatever order: as if only the newer one had spoken."""
    raw = server.raw

    @given(interleavings())
    @settings(
        max_examples=150,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    def prove(made: tuple[list[tuple[bool, str]], list[str]]) -> None:
        merged, alone = made
        with SyncModelRegistry.from_url(server.url) as registry:
            raw.flushall()
            for step in alone:
                _do(registry, NEW, step)
            expected = _told(registry)
            raw.flushall()
            for newer, step in merged:
                _do(registry, NEW if newer else OLD, step)
            assert _told(registry) == expected
            server.store.check()

    prove()
    raw.flushall()


async def test_what_a_superseded_life_says_changes_nothing_and_is_answered(
    bench: Bench,
) -> None:
    registry = bench.registry
    await registry.register_instance(OLD)
    await registry.register_instance(NEW)
    before = bench.store.record(NEW)

    for call in (
        registry.register_instance(OLD),
        registry.send_heartbeat(OLD),
        registry.set_readiness(OLD, Readiness.READY),
        registry.deregister_instance(OLD),
        registry.deregister_instance(
            OLD.model_copy(update={"remove_from_registry": True})
        ),
    ):
        with pytest.raises(Superseded, match="1-old"):
            await call
    assert await registry.send_heartbeats([OLD], [Load()]) == [Beat.SUPERSEDED]

    assert bench.store.record(NEW) == before


async def test_goodbye_is_final_for_the_life_that_said_it(bench: Bench) -> None:
    """A heartbeat that was under way must not bring a worker back that has gone."""
    registry = bench.registry
    await registry.register_instance(NEW)
    await registry.deregister_instance(NEW)

    assert await registry.send_heartbeats([NEW]) == [Beat.SUPERSEDED]
    with pytest.raises(Superseded):
        await registry.register_instance(NEW)
    with pytest.raises(Superseded):
        await registry.set_readiness(NEW, Readiness.READY)
    assert await registry.deregister_instance(NEW), "once more: the same answer"
    assert await bench.states() == {8001: "unhealthy"}

    again = NEW.model_copy(update={"incarnation": "3-again"})
    await registry.register_instance(again)
    assert await bench.states() == {8001: "healthy"}


async def test_a_life_that_others_deregistered_comes_back_with_its_heartbeat(
    bench: Bench,
) -> None:
    await bench.registry.register_instance(NEW)
    await bench.registry.deregister_instance(instance())  # DB-GPT's door, an operator

    assert await bench.registry.send_heartbeats([NEW]) == [Beat.TAKEN]
    assert await bench.states() == {8001: "healthy"}


async def test_a_newer_life_whose_registration_was_lost_is_not_called_superseded(
    bench: Bench,
) -> None:
    """A failover may lose the newest writes: what is left is the older life's record."""
    await bench.registry.register_instance(OLD)

    assert await bench.registry.set_readiness(NEW, Readiness.READY) is False
    assert await bench.registry.deregister_instance(NEW)
    assert await bench.states() == {8001: "healthy"}, "not its own to end"
    assert await bench.registry.send_heartbeats([NEW]) == [Beat.TAKEN]

    (found,) = await bench.registry.get_all_instances("glm@llm")
    assert (found.incarnation, found.weight) == ("2-new", 2.0)


def test_names_of_lives_grow_with_time() -> None:
    names = [new_incarnation() for _ in range(3)]
    assert len(set(names)) == 3
    assert all(len(name) == 22 for name in names)
    assert names[0][:12] <= names[1][:12] <= names[2][:12]


@pytest.mark.parametrize("readiness", [r for r in Readiness if r != Readiness.READY])
async def test_only_a_ready_one_is_selected(bench: Bench, readiness: Readiness) -> None:
    registry = bench.registry
    await registry.register_instance(NEW)
    await registry.set_readiness(NEW, Readiness.READY)
    assert await registry.select_one_health_instance("glm@llm")

    assert await registry.set_readiness(NEW, readiness, "because: 50 % | {x}")
    assert await registry.select_one_health_instance("glm@llm") is None
    await registry.send_heartbeat(NEW)
    assert await registry.select_one_health_instance("glm@llm") is None, "alive, but no"

    (found,) = await registry.get_all_instances("glm@llm", healthy_only=True)
    assert (found.readiness, found.reason) == (readiness, "because: 50 % | {x}")
    assert why_not(found) == Reason(readiness.value)
    last = bench.store.events()[-1]
    assert last.kind == Kind(readiness.value)
    assert last.instance
    assert (last.instance.readiness, last.instance.reason) == (readiness, found.reason)


async def test_saying_the_same_again_is_no_event(bench: Bench) -> None:
    await bench.registry.register_instance(NEW)
    for _ in range(3):
        assert await bench.registry.set_readiness(NEW, Readiness.READY)
    assert bench.store.kinds(NEW) == ["registered", "ready"]


async def test_the_registry_knows_nobody_who_has_not_registered(bench: Bench) -> None:
    assert await bench.registry.set_readiness(NEW, Readiness.READY) is False


@pytest.mark.parametrize("checked", [True, False])
async def test_a_report_is_shown_and_is_no_event(bench: Bench, checked: bool) -> None:
    item = NEW.model_copy(update={"check_healthy": checked})
    await bench.registry.register_instance(item)
    events = len(bench.store.events())
    load = Load(in_flight=3, capacity=8, loop_lag_secs=0.5, numbers={"kv|use": 0.25})

    for _ in range(2):  # an unchecked one is looked for by its record
        assert await bench.registry.send_heartbeats([item], [load]) == [Beat.TAKEN]

    (found,) = await bench.registry.get_all_instances("glm@llm")
    assert found.load == load
    assert len(bench.store.events()) == events
    newer = item.model_copy(update={"incarnation": "3-newer"})
    await bench.registry.register_instance(newer)
    (found,) = await bench.registry.get_all_instances("glm@llm")
    assert found.load is None, "another life's"


async def test_after_a_flush_readiness_and_load_are_back_in_two_heartbeats(
    bench: Bench,
) -> None:
    ready = NEW.model_copy(update={"readiness": Readiness.READY})
    tired = instance(2, incarnation="1", readiness=Readiness.DRAINING, reason="SIGTERM")
    await bench.registry.send_heartbeats([ready, tired], [Load(), Load()])
    bench.server.raw.flushall()

    for _ in range(2):
        await bench.registry.send_heartbeats(
            [ready, tired], [Load(in_flight=1), Load(in_flight=2)]
        )

    first, second = await bench.registry.get_all_instances("glm@llm")
    assert (first.readiness, first.load) == (Readiness.READY, Load(in_flight=1))
    assert (second.readiness, second.reason) == (Readiness.DRAINING, "SIGTERM")
    assert second.load == Load(in_flight=2)


async def test_what_a_life_said_earlier_and_comes_late_changes_nothing(
    bench: Bench,
) -> None:
    """A draining worker is not selected again because its "ready" was held up on the way."""
    run = bench.registry._executor.run
    operations = bench.registry._operations
    await run(operations.register(NEW, 1))
    await run(operations.ready(NEW, Readiness.DRAINING, "SIGTERM", 3))
    before = bench.store.record(NEW)

    assert await run(operations.ready(NEW, Readiness.READY, "", 2)) == 0
    assert bench.store.record(NEW) == before
    await run(operations.register(NEW, 1))
    (found,) = await bench.registry.get_all_instances("glm@llm")
    assert (found.readiness, found.reason) == (Readiness.DRAINING, "SIGTERM")
    assert bench.store.kinds(NEW) == ["registered", "draining"]
    await bench.registry.set_readiness(NEW, Readiness.NOT_READY, "an operator's word")
    await run(operations.ready(NEW, Readiness.READY, "", 4))
    assert (await bench.registry.get_all_instances("glm@llm"))[0].ready


async def test_what_is_said_again_changes_nothing_that_readers_see(
    bench: Bench,
) -> None:
    """No event, so no other time since when it is ready: views could not know of it."""
    run = bench.registry._executor.run
    operations = bench.registry._operations
    ready = NEW.model_copy(update={"readiness": Readiness.READY})
    await run(
        operations.heartbeats([ready])
    )  # registers it: nothing was said with a number
    (before,) = await bench.registry.get_all_instances("glm@llm")

    await run(operations.register(ready, 1))
    await run(operations.ready(NEW, Readiness.READY, "", 2))

    (after,) = await bench.registry.get_all_instances("glm@llm")
    assert after.since == before.since
    assert after.revision == before.revision


async def test_what_was_said_before_something_that_was_so_already_is_late(
    bench: Bench,
) -> None:
    run = bench.registry._executor.run
    operations = bench.registry._operations
    await run(operations.register(NEW.model_copy(update={"readiness": "ready"}), 1))
    assert await run(operations.ready(NEW, Readiness.READY, "", 3)) == 0

    await run(operations.ready(NEW, Readiness.NOT_READY, "delivered late", 2))

    assert (await bench.registry.get_all_instances("glm@llm"))[0].ready


async def test_another_reason_is_a_change(bench: Bench) -> None:
    await bench.registry.register_instance(NEW.model_copy(update={"reason": "a"}))
    await bench.registry.register_instance(NEW.model_copy(update={"reason": "b"}))
    assert bench.store.kinds(NEW) == ["registered", "updated"]


async def test_which_name_is_greater_does_not_go_by_a_locale(bench: Bench) -> None:
    registry = bench.registry
    await registry.register_instance(instance(incarnation="v-2"))
    await registry.register_instance(instance(incarnation="v1"))  # "1" > "-" in ASCII
    with pytest.raises(Superseded):
        await registry.register_instance(instance(incarnation="v-2"))


@pytest.mark.damages
async def test_one_damaged_key_spoils_no_other_report(bench: Bench) -> None:
    items = [instance(port, incarnation="1") for port in (1, 2)]
    await bench.registry.send_heartbeats(items, [Load(), Load()])
    key = bench.store.key("i:glm@llm:10.0.0.1:1")
    bench.server.raw.delete(key)
    bench.server.raw.set(key, "a string")

    await bench.registry.send_heartbeats(items, [Load(in_flight=4), Load(in_flight=5)])

    assert b'"in_flight":5' in bench.store.record(items[1])[b"load"]
