"""Every change is one event, with revision, cause and actor (promise R1, the writing half)."""

from __future__ import annotations

from redis_registry import Kind, RedisModelRegistry
from tests.conftest import Server
from tests.helpers import instance, until


async def test_the_life_of_an_instance_is_told_change_by_change(
    real: RedisModelRegistry, server: Server
) -> None:
    item = instance()
    await real.register_instance(item)
    await real.register_instance(item)  # nothing new
    await real.send_heartbeat(item)  # no change
    await real.register_instance(instance(weight=2.0))
    await real.deregister_instance(item)
    await real.deregister_instance(item)  # unhealthy already
    await real.send_heartbeat(item)
    await real.register_instance(instance(incarnation="second-life"))
    await real.deregister_instance(instance(remove_from_registry=True))

    assert server.store.kinds(item) == [
        "registered",
        "updated",
        "deregistered",
        "healthy",
        "registered",
        "removed",
    ]


async def test_an_event_carries_what_became_of_the_instance(
    real: RedisModelRegistry, server: Server
) -> None:
    await real.register_instance(instance(weight=2.0, metadata={"a": 1}))

    (event,) = server.store.events(Kind.REGISTERED)

    assert event.instance is not None
    assert event.instance.weight == 2.0
    assert event.instance.metadata == {"a": 1}
    assert event.instance.revision == event.revision
    assert (event.cause, event.actor) == ("register", real.name)
    (found,) = await real.get_all_instances("glm@llm")
    assert found.revision == event.revision


async def test_heartbeats_that_change_nothing_write_no_event(
    real: RedisModelRegistry, server: Server
) -> None:
    await real.register_instance(instance())
    before = len(server.store.events())

    for _ in range(100):
        await real.send_heartbeat(instance())

    assert len(server.store.events()) == before


async def test_a_death_is_one_event_with_its_cause(server: Server) -> None:
    async with RedisModelRegistry.from_url(
        server.url, heartbeat_timeout_secs=0.3, heartbeat_interval_secs=0.1
    ) as registry:
        await registry.register_instance(instance())

        async def told() -> bool:
            return bool(server.store.events(Kind.UNHEALTHY))

        await until(told, "the death is told")
        (event,) = server.store.events(Kind.UNHEALTHY)
        (born,) = server.store.events(Kind.REGISTERED)
        assert event.cause == "expired"
        assert event.instance is not None
        assert event.instance.last_heartbeat == born.at
        assert 0.3 <= (event.at - born.at).total_seconds() < 0.8


async def test_the_stream_is_bounded(server: Server) -> None:
    async with RedisModelRegistry.from_url(
        server.url, run_checker=False, events_kept=100
    ) as registry:
        for weight in range(1000):
            await registry.register_instance(instance(weight=float(weight)))

        assert server.raw.xlen(server.store.key("events")) <= 300
