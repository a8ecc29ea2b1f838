"""Watches: every change once and in order, resumed or resynced, never a silent gap (R1, R2)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from redis_registry import (
    ConfigurationError,
    Event,
    Kind,
    ModelInstance,
    Readiness,
    RedisModelRegistry,
    RegistryClosed,
    Watch,
)
from redis_registry.roles.following.tail import Lost
from tests.conftest import FAST, Server
from tests.helpers import instance, instances, until

PATIENCE_SECS = 5.0
MODEL = "glm@llm"

pytestmark = pytest.mark.one_partition(
    "it follows one stream; tests that say partitions follow several"
)


async def until_view(condition: Callable[[], bool], what: str) -> float:
    """Poll a view until ``condition`` holds; how long that took, in seconds."""

    async def holds() -> bool:
        return condition()

    return await until(holds, what, within_secs=PATIENCE_SECS)


async def next_of(watch: Watch, kind: Kind) -> Event:
    """The next event of a kind; others are passed over."""
    async with asyncio.timeout(PATIENCE_SECS):
        while (event := await anext(watch)).kind is not kind:
            pass
    return event


async def take(watch: Watch, count: int) -> Sequence[Event]:
    async with asyncio.timeout(PATIENCE_SECS):
        return [await anext(watch) for _ in range(count)]


async def test_it_begins_with_all_there_is(registry: RedisModelRegistry) -> None:
    for item in instances(3):
        await registry.register_instance(item)

    async with registry.watch() as watch:
        begin = await next_of(watch, Kind.RESYNC)

    assert begin.cause == Lost.BEGIN
    assert begin.snapshot is not None
    assert [item.port for item in begin.snapshot] == [1, 2, 3]
    assert begin.position == watch.position


async def test_a_snapshot_is_what_the_events_before_it_make(
    real: RedisModelRegistry, server: Server, worker: ModelInstance
) -> None:
    """Who is overdue and not flipped yet is healthy in it: the flip is an event still to come."""
    await real.register_instance(worker)
    server.store.silence(worker)

    async with real.view() as view, real.watch() as watch:
        await until_view(
            lambda: not any(item.healthy for item in view.instances()), "it is overdue"
        )
        begin = await next_of(watch, Kind.RESYNC)

    assert begin.snapshot is not None
    (told,) = begin.snapshot
    assert told.healthy


async def test_every_change_is_one_event_with_before_and_after(
    real: RedisModelRegistry, worker: ModelInstance
) -> None:
    async with real.watch() as watch:
        begin = await next_of(watch, Kind.RESYNC)
        await real.register_instance(worker)
        await real.set_readiness(worker, Readiness.DRAINING, "going home")
        await real.send_heartbeat(worker)
        await real.deregister_instance(worker)
        await real.deregister_instance(
            worker.model_copy(update={"remove_from_registry": True})
        )
        told = await take(watch, 4)

    assert [event.kind for event in told] == [
        Kind.REGISTERED,
        Kind.DRAINING,
        Kind.DEREGISTERED,
        Kind.REMOVED,
    ]
    numbers = [begin.revision, *(event.revision for event in told)]
    assert numbers == list(range(numbers[0], numbers[0] + 5))
    assert {event.actor for event in told} == {real.name}
    registered, draining, deregistered, removed = told
    assert registered.before is None
    assert draining.before is not None
    assert draining.instance is not None
    assert (draining.before.ready, draining.instance.ready) == (True, False)
    assert draining.instance.reason == "going home"
    assert deregistered.instance is not None
    assert deregistered.instance.healthy is False
    assert removed.instance is None
    assert removed.before is not None
    assert removed.before.identity == worker.identity


async def test_heartbeats_are_no_events(real: RedisModelRegistry) -> None:
    crowd = instances(100)
    await real.send_heartbeats(crowd)
    async with real.watch() as watch:
        begin = await next_of(watch, Kind.RESYNC)
        for _ in range(20):
            await real.send_heartbeats(crowd)
        await real.deregister_instance(crowd[0])
        (event,) = await take(watch, 1)

    assert event.revision == begin.revision + 1


async def test_a_model_s_watch_hears_of_that_model_only(
    real: RedisModelRegistry,
) -> None:
    odd = "a:b|{c} %"
    async with real.watch(odd) as watch:
        await next_of(watch, Kind.RESYNC)
        await real.register_instance(instance(1, "other"))
        await real.register_instance(instance(2, odd))
        (event,) = await take(watch, 1)

    assert event.instance is not None
    assert event.instance.model_name == odd


async def test_it_resumes_after_the_position_of_an_earlier_one(
    real: RedisModelRegistry, worker: ModelInstance
) -> None:
    await real.register_instance(worker)
    async with real.watch() as watch:
        await next_of(watch, Kind.RESYNC)
        position = watch.position
    await real.deregister_instance(worker)
    await real.register_instance(worker)

    async with real.watch(after=position) as watch:
        missed = await take(watch, 2)
        await real.register_instance(instance(9))
        (fresh,) = await take(watch, 1)

    assert [event.kind for event in missed] == [Kind.DEREGISTERED, Kind.HEALTHY]
    assert missed[1].before == missed[0].instance
    assert fresh.kind is Kind.REGISTERED
    assert fresh.revision == missed[1].revision + 1


async def test_a_position_that_was_trimmed_gets_a_named_resync(
    real: RedisModelRegistry, server: Server, worker: ModelInstance
) -> None:
    await real.register_instance(worker)
    async with real.watch() as watch:
        position = (await next_of(watch, Kind.RESYNC)).position
    await real.deregister_instance(worker)
    await real.register_instance(worker)
    server.raw.xtrim(server.store.key("events"), maxlen=1, approximate=False)

    async with real.watch(after=position) as watch:
        (event,) = await take(watch, 1)

    assert (event.kind, event.cause) == (Kind.RESYNC, Lost.TRIMMED)
    assert event.snapshot is not None
    assert len(event.snapshot) == 1


async def test_a_position_of_another_epoch_gets_a_resync(
    real: RedisModelRegistry, server: Server, worker: ModelInstance
) -> None:
    await real.register_instance(worker)
    async with real.watch() as watch:
        position = (await next_of(watch, Kind.RESYNC)).position
    server.raw.flushall()
    await real.register_instance(worker)

    async with real.watch(after=position) as watch:
        (event,) = await take(watch, 1)

    assert (event.kind, event.cause) == (Kind.RESYNC, Lost.EPOCH)


async def test_what_was_missed_is_not_taken_from_another_epoch(
    real: RedisModelRegistry,
    server: Server,
    worker: ModelInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Meanwhile a server took over that had lost the last writes: it uses their revisions anew."""
    await real.register_instance(worker)
    async with real.watch() as watch:
        position = (await next_of(watch, Kind.RESYNC)).position
    await real.deregister_instance(worker)
    await real.register_instance(worker)
    read_page = Watch._read_page

    async def read_late(watch: Watch, home: int, after: int) -> None:
        monkeypatch.undo()
        server.raw.delete(server.store.key("events"))
        server.raw.hset(server.store.key("meta"), mapping={"rev": after, "run": "its"})
        await real.register_instance(instance(7))
        await real.register_instance(instance(8))
        await read_page(watch, home, after)

    monkeypatch.setattr(Watch, "_read_page", read_late)
    async with real.watch(after=position) as watch:
        (event,) = await take(watch, 1)

    assert (event.kind, event.cause) == (Kind.RESYNC, Lost.EPOCH)


async def test_a_flush_under_a_running_watch_is_a_resync(
    real: RedisModelRegistry, server: Server
) -> None:
    await real.send_heartbeats(instances(5))
    async with real.watch() as watch:
        before = await next_of(watch, Kind.RESYNC)
        server.raw.flushall()
        await real.register_instance(instance(7))
        event = await next_of(watch, Kind.RESYNC)

    assert event.cause == Lost.EPOCH
    assert event.epoch != before.epoch


async def test_events_that_are_trimmed_before_they_were_read_are_a_resync(
    real: RedisModelRegistry, server: Server, worker: ModelInstance
) -> None:
    """The whole stream goes while the watcher's connection is down."""
    await real.register_instance(worker)
    async with real.watch() as watch:
        await next_of(watch, Kind.RESYNC)
        pipe = server.raw.pipeline()
        pipe.hincrby(server.store.key("meta"), "rev", 1)
        pipe.execute()
        event = await next_of(watch, Kind.RESYNC)

    assert event.cause == Lost.TRIMMED
    server.raw.xadd(
        server.store.key("events"),
        {f"{event.epoch}|lease|test|test|1": "x"},
        id=f"{event.revision}-0",
    )


async def test_a_slow_consumer_is_told_and_gets_a_snapshot(
    real: RedisModelRegistry, worker: ModelInstance
) -> None:
    async with real.watch(buffer=10) as watch, real.view() as view:
        await next_of(watch, Kind.RESYNC)
        for port in range(1, 51):
            await real.register_instance(instance(port))
        await until_view(lambda: len(view.instances("glm@llm")) == 50, "it has all")
        event = (await take(watch, 1))[0]
        await real.register_instance(worker)
        (after,) = await take(watch, 1)

    assert (event.kind, event.cause) == (Kind.RESYNC, Lost.SLOW)
    assert event.snapshot is not None
    assert len(event.snapshot) == 50
    assert after.revision == event.revision + 1


@pytest.mark.damages
async def test_an_event_that_somebody_damaged_is_a_resync(
    real: RedisModelRegistry, server: Server, worker: ModelInstance
) -> None:
    await real.register_instance(worker)
    async with real.watch() as watch:
        begin = await next_of(watch, Kind.RESYNC)
        revision = begin.revision + 1
        server.raw.hset(server.store.key("meta"), "rev", revision)
        server.raw.xadd(
            server.store.key("events"),
            {f"{begin.epoch}|ready|x|x|1": f"{MODEL}:h:1|no|row|at|all|||||||"},
            id=f"{revision}-0",
        )
        (event,) = await take(watch, 1)
        assert (event.kind, event.cause) == (Kind.RESYNC, Lost.UNREADABLE)
        await real.deregister_instance(worker)
        (event,) = await take(watch, 1)
        assert event.kind is Kind.DEREGISTERED


async def test_a_cancelled_wait_misses_nothing(
    real: RedisModelRegistry, worker: ModelInstance
) -> None:
    """Cancelled at every moment from the first call on, and read on after that."""
    await real.register_instance(worker)
    async with real.watch() as watch:
        seen: list[Event] = []
        for turns in range(60):
            waiting = asyncio.create_task(anext(watch))
            for _ in range(turns % 12):
                await asyncio.sleep(0)
            if not waiting.cancel():
                seen.append(waiting.result())
            await asyncio.wait([waiting])
            if not waiting.cancelled() and waiting.result() not in seen:
                seen.append(waiting.result())
            await real.set_readiness(worker, Readiness.NOT_READY, f"turn {turns}")
        last = seen[-1].revision if seen else 0
        (status,) = await real.status()
        while last < status.revision:
            async with asyncio.timeout(PATIENCE_SECS):
                seen.append(await anext(watch))
            last = seen[-1].revision

    assert seen[0].kind is Kind.RESYNC
    numbers = [event.revision for event in seen]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


async def test_a_position_goes_round_through_watches_of_several_partitions(
    server: Server,
) -> None:
    """Also when a resumed watch has heard of one partition only."""
    options: dict[str, Any] = {**FAST, "namespace": "round", "partitions": 4}
    async with RedisModelRegistry.from_url(
        server.url, run_checker=False, **options
    ) as registry:
        async with registry.watch() as watch:
            assert watch.position is None
            await take(watch, 3)
            assert watch.position is None
            await take(watch, 1)
            position = watch.position
        for number in range(6):
            await registry.register_instance(instance(1, f"model {number}"))
            async with registry.watch(after=position) as watch:
                (event,) = await take(watch, 1)
                assert event.instance is not None
                assert event.instance.model_name == f"model {number}"
                position = watch.position
    server.raw.flushall()


async def test_closing_the_registry_ends_its_watches(server: Server) -> None:
    registry = RedisModelRegistry.from_url(server.url, run_checker=False, **FAST)
    watch = registry.watch()
    await next_of(watch, Kind.RESYNC)
    waiting = asyncio.create_task(anext(watch))
    await asyncio.sleep(0)
    await registry.aclose()

    with pytest.raises(RegistryClosed, match="ended"):
        await waiting


async def test_many_watches_share_one_connection(
    real: RedisModelRegistry, server: Server
) -> None:
    await real.status()
    before = len(server.store.connections())
    watches = [real.watch() for _ in range(20)] + [
        real.watch(f"m{n}") for n in range(5)
    ]
    for watch in watches:
        await next_of(watch, Kind.RESYNC)

    more = len(server.store.connections()) - before
    assert 1 <= more <= (2 if "+cluster" in server.url else 1), "one tells the slots"
    for watch in watches:
        await watch.aclose()


@pytest.mark.parametrize("after", ["", "7", "x:y", "a:1,b"])
async def test_what_is_no_position_is_refused(
    real: RedisModelRegistry, after: str
) -> None:
    with pytest.raises(ConfigurationError, match="no position"):
        real.watch(after=after)


async def test_a_position_of_other_partitions_is_refused(
    real: RedisModelRegistry,
) -> None:
    async with real.watch(after="a:1,b:2") as watch:
        with pytest.raises(ConfigurationError, match="2 partitions, and there are 1"):
            await anext(watch)


async def test_a_watch_of_several_partitions_resumes_each(server: Server) -> None:
    options: dict[str, Any] = {**FAST, "namespace": "many", "partitions": 4}
    async with RedisModelRegistry.from_url(
        server.url, run_checker=False, **options
    ) as registry:
        names = [f"model-{n}" for n in range(8)]
        async with registry.watch() as watch:
            await take(watch, 4)
            position = watch.position
        for name in names:
            await registry.register_instance(instance(1, name))
        async with registry.watch(after=position) as watch:
            told = await take(watch, 8)
    assert sorted(e.instance.model_name for e in told if e.instance) == names
    server.raw.flushall()


async def test_a_view_opened_at_any_moment_follows_all_partitions(
    server: Server,
) -> None:
    options: dict[str, Any] = {**FAST, "namespace": "many", "partitions": 16}
    async with (
        RedisModelRegistry.from_url(
            server.url, run_checker=False, **options
        ) as registry,
        registry.view(wait_secs=0),
    ):
        tail = registry._hub()._tail
        while not tail.places:  # noqa: ASYNC110  until the first one has answered
            await asyncio.sleep(0)
        async with registry.view("other") as late, registry.view(["a", "b"]):
            assert await tail.positioned() == 16
            assert late.position
    server.raw.flushall()
