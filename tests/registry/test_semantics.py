"""DB-GPT's semantics, and what is right where DB-GPT is wrong (reference: its faults F1 to F17)."""

from __future__ import annotations

import asyncio
import copy
from datetime import UTC, datetime
from typing import Any

import pytest

from redis_registry import (
    Beat,
    Health,
    InvalidInstance,
    ModelInstance,
    RedisModelRegistry,
    Superseded,
    SyncModelRegistry,
)
from tests.conftest import Server
from tests.helpers import instance, instances


async def only(registry: RedisModelRegistry, item: ModelInstance) -> ModelInstance:
    (found,) = await registry.get_all_instances(item.model_name)
    return found


async def test_all_given_fields_come_back(registry: RedisModelRegistry) -> None:
    given = instance(
        weight=2.5,
        enabled=False,
        check_healthy=False,
        prompt_template="vicuna\n|:{}%",
        zone="eu-1",
        metadata={"gpu": "A100", "n": [1, 2.5, None, {"é": True}]},
        heartbeat_timeout_secs=7.5,
        incarnation="life-1",
        serves=["glm-lora-1", "glm-lora-2"],
    )
    await registry.register_instance(given)

    found = await only(registry, given)

    answered = {"healthy", "last_heartbeat", "state", "revision", "since"}
    assert found.model_dump(exclude=answered) == given.model_dump(exclude=answered)
    assert found.state is Health.HEALTHY


async def test_fields_may_be_null(registry: RedisModelRegistry) -> None:
    given = instance(weight=None, prompt_template=None, incarnation=None)
    await registry.register_instance(given)

    assert (await only(registry, given)).weight is None


async def test_registering_again_keeps_enabled_and_check_healthy(
    registry: RedisModelRegistry,
) -> None:
    await registry.register_instance(instance(enabled=False, check_healthy=False))

    await registry.register_instance(instance(enabled=True, check_healthy=True))

    found = await only(registry, instance())
    assert (found.enabled, found.check_healthy) == (False, False)


async def test_a_new_incarnation_brings_its_own_fields(
    registry: RedisModelRegistry,
) -> None:
    await registry.register_instance(instance(enabled=False, incarnation="a"))

    await registry.register_instance(instance(enabled=True, incarnation="b"))

    assert (await only(registry, instance())).enabled is True


async def test_the_prompt_template_can_be_cleared(registry: RedisModelRegistry) -> None:
    await registry.register_instance(instance(prompt_template="x"))

    await registry.register_instance(instance(prompt_template=None))

    assert (await only(registry, instance())).prompt_template is None


async def test_a_heartbeat_of_an_unknown_instance_registers_it_whole(
    registry: RedisModelRegistry,
) -> None:
    given = instance(weight=4.0, enabled=False, metadata={"a": 1})

    assert await registry.send_heartbeat(given) is True

    found = await only(registry, given)
    assert (found.weight, found.enabled, found.metadata) == (4.0, False, {"a": 1})
    assert found.healthy is True


async def test_a_heartbeat_of_a_known_instance_changes_nothing_else(
    registry: RedisModelRegistry,
) -> None:
    await registry.register_instance(instance(weight=4.0))

    await registry.send_heartbeat(instance(weight=9.0, prompt_template="x"))

    found = await only(registry, instance())
    assert (found.weight, found.prompt_template) == (4.0, None)


async def test_a_heartbeat_revives_a_deregistered_instance(
    registry: RedisModelRegistry, worker: ModelInstance
) -> None:
    await registry.register_instance(worker)
    await registry.deregister_instance(worker)

    await registry.send_heartbeat(worker)

    assert (await only(registry, worker)).healthy is True


async def test_removing_forgets_at_once_and_unknown_is_no_error(
    registry: RedisModelRegistry, worker: ModelInstance
) -> None:
    await registry.register_instance(worker)
    worker.remove_from_registry = True

    assert await registry.deregister_instance(worker) is True
    assert await registry.get_all_model_instances() == []
    assert await registry.deregister_instance(worker) is True


async def test_padded_names_are_one_instance(registry: RedisModelRegistry) -> None:
    padded = ModelInstance(model_name="  m \n", host=" h ", port=1)
    await registry.register_instance(padded)
    await registry.register_instance(padded)
    await registry.send_heartbeat(padded)

    (found,) = await registry.get_all_instances(" m ")

    assert (found.model_name, found.host) == ("m", "h")
    await registry.deregister_instance(padded)
    assert (await registry.get_all_instances("m"))[0].healthy is False


async def test_reading_unknown_names_leaves_nothing_behind(
    real: RedisModelRegistry, server: Server
) -> None:
    store = server.store
    await real.get_all_instances("warm up")
    before = set(store.raw.keys("*"))

    for name in ("nobody", "*", "", " ", "x" * 100_000, "\ud800"):
        assert await real.get_all_instances(name) == []
        assert await real.select_one_health_instance(name) is None

    assert set(store.raw.keys("*")) == before


@pytest.mark.parametrize("metadata", [{}, {"a": 1}, {"deep": {"b": 1}}, {"list": [1]}])
async def test_results_are_copies(
    registry: RedisModelRegistry, metadata: dict[str, Any]
) -> None:
    given = copy.deepcopy(metadata)
    await registry.register_instance(instance(1, metadata=given))
    await registry.register_instance(instance(2, metadata=given))
    found = await registry.get_all_instances("glm@llm")
    found[0].weight = 99.0
    found[0].metadata["c"] = 1
    found[0].metadata.get("deep", {})["d"] = 2
    found[0].metadata.get("list", []).append(2)

    for again in [found[1], *await registry.get_all_instances("glm@llm")]:
        assert (again.weight, again.metadata) == (1.0, metadata)


async def test_concurrent_first_registrations_make_one_record(
    registry: RedisModelRegistry,
) -> None:
    await asyncio.gather(*(registry.register_instance(instance()) for _ in range(50)))

    assert len(await registry.get_all_instances("glm@llm")) == 1


async def test_an_unchecked_instance_beats_and_is_never_in_the_deadlines(
    real: RedisModelRegistry,
) -> None:
    item = instance(check_healthy=False)
    await real.register_instance(item)
    first = await only(real, item)

    await real.send_heartbeat(item)

    second = await only(real, item)
    assert first.last_heartbeat is not None
    assert second.last_heartbeat is not None
    assert second.last_heartbeat > first.last_heartbeat
    await real.deregister_instance(item)
    assert (await only(real, item)).healthy is False
    await real.send_heartbeat(item)
    assert (await only(real, item)).healthy is True


async def test_select_skips_disabled_instances_and_draws_all_others(
    registry: RedisModelRegistry,
) -> None:
    for item in [*instances(3), instance(9, enabled=False)]:
        await registry.register_instance(item)

    drawn = {
        chosen.port
        for _ in range(100)
        if (chosen := await registry.select_one_health_instance("glm@llm"))
    }

    assert drawn == {1, 2, 3}


async def test_select_gives_nothing_to_who_has_no_weight(
    registry: RedisModelRegistry,
) -> None:
    for item in [*instances(3, weight=0), instance(9, weight=0.1)]:
        await registry.register_instance(item)

    for _ in range(30):
        chosen = await registry.select_one_health_instance("glm@llm")
        assert chosen is not None
        assert chosen.port == 9

    await registry.register_instance(instance(9, weight=0))
    assert await registry.select_one_health_instance("glm@llm") is None


async def test_select_finds_the_one_enabled_among_many_disabled(
    registry: RedisModelRegistry,
) -> None:
    for item in [*instances(100, enabled=False), instance(500)]:
        await registry.register_instance(item)

    for _ in range(5):
        chosen = await registry.select_one_health_instance("glm@llm")
        assert chosen is not None
        assert chosen.port == 500


async def test_reads_page_through_large_models_in_order_of_registration(
    real: RedisModelRegistry,
) -> None:
    many = [*instances(2500), *instances(700, "b@llm"), *instances(1, "c@llm")]
    assert set(await real.send_heartbeats(many)) == {Beat.TAKEN}

    one = await real.get_all_instances("glm@llm")
    everything = await real.get_all_model_instances()

    revisions = [item.revision or 0 for item in one]
    assert revisions == sorted(revisions)
    assert {item.port for item in one} == set(range(1, 2501))
    assert len(everything) == len(many)
    assert {i.identity for i in everything} == {i.identity for i in many}


async def test_bulk_heartbeats_answer_for_each(real: RedisModelRegistry) -> None:
    await real.register_instance(instance(1, incarnation="2-new"))

    answers = await real.send_heartbeats(
        [
            instance(1, incarnation="1-old"),
            instance(1, incarnation="2-new"),
            instance(2),
        ]
    )

    assert answers == [Beat.SUPERSEDED, Beat.TAKEN, Beat.TAKEN]
    assert await real.send_heartbeats([]) == []


async def test_an_older_incarnation_changes_nothing(real: RedisModelRegistry) -> None:
    old, new = instance(incarnation="1-old"), instance(incarnation="2-new")
    await real.register_instance(old)
    await real.register_instance(new)
    before = await only(real, new)

    with pytest.raises(Superseded, match=r"glm@llm at 10\.0\.0\.1:8001"):
        await real.send_heartbeat(old)
    with pytest.raises(Superseded):
        await real.deregister_instance(old)

    assert await only(real, new) == before


async def test_a_door_without_incarnations_acts_on_whatever_is_there(
    real: RedisModelRegistry,
) -> None:
    await real.register_instance(instance(incarnation="native"))
    before = await only(real, instance())

    for _ in range(3):
        await real.send_heartbeat(instance())

    after = await only(real, instance())
    assert after.incarnation == "native"
    assert before.last_heartbeat is not None
    assert after.last_heartbeat is not None
    assert after.last_heartbeat > before.last_heartbeat


async def test_controllers_of_different_timeouts_keep_the_recorded_one(
    server: Server, real: RedisModelRegistry
) -> None:
    await real.register_instance(instance())

    async with RedisModelRegistry.from_url(
        server.url, run_checker=False, heartbeat_timeout_secs=50
    ) as other:
        for _ in range(3):
            assert await other.send_heartbeat(instance()) is True

    found = await only(real, instance())
    assert found.heartbeat_timeout_secs == 1.0
    assert found.last_heartbeat is not None
    assert abs((found.last_heartbeat - datetime.now(UTC)).total_seconds()) < 1


async def test_not_an_instance_is_refused_by_name(registry: RedisModelRegistry) -> None:
    wrong: list[object] = [None, "glm", {"model_name": "m"}, 3]
    for thing in wrong:
        for call in (
            registry.register_instance,
            registry.deregister_instance,
            registry.send_heartbeat,
        ):
            with pytest.raises(InvalidInstance, match="expected a redis_registry"):
                await call(thing)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InvalidInstance, match="model_name"):
        await registry.get_all_instances(None)  # pyright: ignore[reportArgumentType]


async def test_sync_reads_work_inside_a_running_loop_and_in_threads(
    registry: RedisModelRegistry, worker: ModelInstance
) -> None:
    await registry.register_instance(worker)

    inside = registry.sync_get_all_instances(worker.model_name, healthy_only=True)
    outside = await asyncio.to_thread(
        registry.sync_get_all_instances, worker.model_name
    )

    assert inside == outside
    assert inside[0].identity == worker.identity
    assert registry.sync_get_all_instances("\ud800") == []


def test_the_sync_face_does_all_of_it(sync_registry: SyncModelRegistry) -> None:
    first, second = instances(2)
    assert sync_registry.register_instance(first)
    assert sync_registry.send_heartbeat(second)
    assert sync_registry.send_heartbeats([first, second]) == [Beat.TAKEN] * 2
    assert len(sync_registry.get_all_instances("glm@llm", healthy_only=True)) == 2
    chosen = sync_registry.select_one_health_instance("glm@llm")
    assert chosen is not None
    assert sync_registry.deregister_instance(first)
    (left,) = sync_registry.get_all_model_instances(healthy_only=True)
    assert left.identity == second.identity
    assert sum(part.unhealthy for part in sync_registry.status()) == 1
    assert sync_registry.get_all_instances(" ") == []
    assert sync_registry.select_one_health_instance(" ") is None
    sync_registry.register_instance(instance(3, incarnation="b"))
    with pytest.raises(Superseded):
        sync_registry.send_heartbeat(instance(3, incarnation="a"))
