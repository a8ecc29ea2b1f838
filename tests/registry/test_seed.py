"""The eight behaviours that DB-GPT's own registry tests ask for, written anew for our class."""

from __future__ import annotations

from redis_registry import ModelInstance, RedisModelRegistry
from tests.helpers import instance, until


async def test_a_new_instance_is_registered_and_healthy(
    registry: RedisModelRegistry, worker: ModelInstance
) -> None:
    assert await registry.register_instance(worker) is True

    (found,) = await registry.get_all_instances(worker.model_name)
    assert found.identity == worker.identity
    assert found.healthy is True
    assert found.last_heartbeat is not None
    assert found.last_heartbeat.tzinfo is not None


async def test_registering_again_updates_the_one_record(
    registry: RedisModelRegistry, worker: ModelInstance
) -> None:
    await registry.register_instance(worker)
    worker.weight = 3.0

    assert await registry.register_instance(worker) is True

    (found,) = await registry.get_all_instances(worker.model_name)
    assert (found.weight, found.healthy) == (3.0, True)


async def test_a_deregistered_instance_stays_listed_as_unhealthy(
    registry: RedisModelRegistry, worker: ModelInstance
) -> None:
    await registry.register_instance(worker)

    assert await registry.deregister_instance(worker) is True

    (found,) = await registry.get_all_instances(worker.model_name)
    assert found.healthy is False
    assert await registry.get_all_instances(worker.model_name, healthy_only=True) == []


async def test_reading_one_model_gives_its_instances(
    registry: RedisModelRegistry, worker: ModelInstance
) -> None:
    await registry.register_instance(worker)
    await registry.register_instance(instance(model="other@llm"))

    found = await registry.get_all_instances(worker.model_name, healthy_only=True)

    assert [item.identity for item in found] == [worker.identity]


async def test_reading_all_models_gives_every_instance(
    registry: RedisModelRegistry,
) -> None:
    stored = [instance(1), instance(2), instance(1, model="other@llm")]
    for item in stored:
        await registry.register_instance(item)

    found = await registry.get_all_model_instances()

    assert {item.identity for item in found} == {item.identity for item in stored}


async def test_select_gives_a_healthy_instance_or_none(
    registry: RedisModelRegistry, worker: ModelInstance
) -> None:
    assert await registry.select_one_health_instance(worker.model_name) is None
    await registry.register_instance(worker)

    chosen = await registry.select_one_health_instance(worker.model_name)
    assert chosen is not None
    assert chosen.identity == worker.identity

    await registry.deregister_instance(worker)
    assert await registry.select_one_health_instance(worker.model_name) is None


async def test_each_heartbeat_is_strictly_later(
    registry: RedisModelRegistry, worker: ModelInstance
) -> None:
    await registry.register_instance(worker)
    (before,) = await registry.get_all_instances(worker.model_name)

    for _ in range(20):
        assert await registry.send_heartbeat(worker) is True
        (after,) = await registry.get_all_instances(worker.model_name)
        assert after.last_heartbeat is not None
        assert before.last_heartbeat is not None
        assert after.last_heartbeat > before.last_heartbeat
        before = after


async def test_silence_makes_unhealthy_and_a_heartbeat_revives(
    registry: RedisModelRegistry, worker: ModelInstance
) -> None:
    await registry.register_instance(worker)

    async def dead() -> bool:
        (found,) = await registry.get_all_instances(worker.model_name)
        return not found.healthy

    assert await until(dead, "the silent instance is unhealthy") > 0.8
    await registry.send_heartbeat(worker)
    (found,) = await registry.get_all_instances(worker.model_name)
    assert found.healthy is True
