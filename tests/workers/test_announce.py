"""Announcing: alive means alive, ready means ready, on real servers."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import time
from typing import Any, Literal

import pytest

from redis_registry import (
    Health,
    InvalidInstance,
    Kind,
    ModelInstance,
    Readiness,
    RedisModelRegistry,
    RegistryClosed,
    Superseded,
    SyncModelRegistry,
)
from redis_registry.embedded import EmbeddedServer
from tests.conftest import Server
from tests.helpers import instance, until, wait_for
from tests.workers.conftest import QUICK, children, only

pytestmark = pytest.mark.usefixtures("no_tasks_left")


async def test_a_life_is_told_from_starting_to_gone(
    server: Server, worker_side: RedisModelRegistry
) -> None:
    async with worker_side.announce(instance()) as announced:
        found = await only(worker_side)
        assert (found.readiness, found.state) == (Readiness.STARTING, Health.HEALTHY)
        assert found.incarnation == announced.instance.incarnation
        assert await worker_side.select_one_health_instance("glm@llm") is None

        assert await announced.ready()
        assert await worker_side.select_one_health_instance("glm@llm")
        assert await announced.not_ready("GPU reset")
        assert (await only(worker_side)).reason == "GPU reset"
        assert await announced.ready()
        announced.report(in_flight=0, capacity=4, kv_cache=0.25)
        await asyncio.sleep(3 * QUICK["heartbeat_timeout_secs"])
        found = await only(worker_side)
        assert (found.state, found.ready) == (Health.HEALTHY, True)
        assert found.load
        assert (found.load.capacity, found.load.numbers) == (4, {"kv_cache": 0.25})

    assert (await only(worker_side)).state is Health.UNHEALTHY
    assert server.store.kinds(instance()) == [
        *("registered", "ready", "not_ready", "ready", "draining", "deregistered")
    ]


def test_a_blocked_event_loop_does_not_kill_and_its_lag_is_told(server: Server) -> None:
    """The commonest lie: a live worker declared dead because its load starved its heartbeat."""
    blocked_secs = 10 * QUICK["heartbeat_timeout_secs"]
    seen: list[ModelInstance] = []
    over = threading.Event()

    def look() -> None:
        with SyncModelRegistry.from_url(server.url, **QUICK) as reader:
            while not over.wait(0.1):
                seen.extend(reader.get_all_instances("glm@llm"))

    async def check() -> None:
        async with RedisModelRegistry.from_url(server.url, **QUICK) as checker:
            while not over.is_set():
                await checker.status()
                await asyncio.sleep(0.05)

    async def work() -> None:
        async with (
            RedisModelRegistry.from_url(
                server.url, run_checker=False, **QUICK
            ) as registry,
            registry.announce(instance()) as announced,
        ):
            await announced.ready()
            time.sleep(blocked_secs)  # noqa: ASYNC251  on purpose
            over.set()

    others = [
        threading.Thread(target=look),
        threading.Thread(target=lambda: asyncio.run(check())),
    ]
    for other in others:
        other.start()
    asyncio.run(work())
    for other in others:
        other.join()

    ready = [item for item in seen if item.ready]
    assert len(ready) > 20
    assert {item.state for item in ready} == {Health.HEALTHY}
    assert server.store.events(Kind.UNHEALTHY) == []
    lags = [item.load.loop_lag_secs or 0 for item in ready if item.load]
    assert max(lags) > 0.8 * blocked_secs, "the lag is reported while it lasts"


async def test_the_newer_life_takes_over_and_the_older_one_learns_it(
    server: Server, worker_side: RedisModelRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[ModelInstance] = []
    async with (
        RedisModelRegistry.from_url(
            server.url, run_checker=False, **QUICK
        ) as other_process,
        worker_side.announce(instance(), on_superseded=told.append) as older,
    ):
        await older.ready()
        async with other_process.announce(instance()) as newer:
            await newer.ready()
            await asyncio.to_thread(wait_for, lambda: told, "the older one learns it")
            assert older.superseded
            with pytest.raises(Superseded):
                await older.ready()
            with pytest.raises(Superseded):
                await older.drain()
            found = await only(worker_side)
            assert found.incarnation == newer.instance.incarnation
    assert told == [older.instance]
    assert "must stop claiming" in caplog.text
    assert "deregistered" in server.store.kinds(instance())[-1:], "the newer's goodbye"


async def test_a_clock_put_back_does_not_make_a_new_life_older(
    server: Server, worker_side: RedisModelRegistry
) -> None:
    future = "f" * 12 + "0" * 10
    await worker_side.register_instance(instance(incarnation=future[:11] + "0" * 11))

    async with worker_side.announce(instance()) as announced:
        assert await announced.ready()
        assert (await only(worker_side)).ready


async def test_a_life_that_misses_its_startup_budget_is_marked(
    server: Server, worker_side: RedisModelRegistry
) -> None:
    async with worker_side.announce(instance(), startup_budget_secs=0.3) as announced:
        started = time.monotonic()

        async def failed() -> bool:
            return (await only(worker_side)).readiness is Readiness.FAILED

        await until(failed, "it is marked", within_secs=2)
        assert time.monotonic() - started > 0.25
        found = await only(worker_side)
        assert (found.state, found.reason) == (Health.HEALTHY, "not ready within 0.3 s")
        assert await announced.ready(), "late, but ready"
        assert (await only(worker_side)).ready
    assert server.store.kinds(instance())[:3] == ["registered", "failed", "ready"]


async def test_work_that_stands_still_is_wedged_until_it_goes_on(
    server: Server, worker_side: RedisModelRegistry
) -> None:
    async with worker_side.announce(instance(), progress_timeout_secs=0.4) as announced:
        await announced.ready()
        await asyncio.sleep(0.6)
        assert (await only(worker_side)).ready, "nothing in flight, nothing wedged"
        announced.report(in_flight=2)

        async def wedged() -> bool:
            return (await only(worker_side)).readiness is Readiness.WEDGED

        await until(wedged, "it is wedged", within_secs=2)
        found = await only(worker_side)
        assert found.state is Health.HEALTHY
        assert found.reason == "2 in flight, no progress for over 0.4 s"
        assert await worker_side.select_one_health_instance("glm@llm") is None
        announced.report(in_flight=1)

        async def ready() -> bool:
            return (await only(worker_side)).ready

        await until(ready, "it goes on", within_secs=1)
        announced.report(in_flight=0)


async def test_draining_waits_for_what_is_in_flight(
    server: Server, worker_side: RedisModelRegistry
) -> None:
    async with worker_side.announce(instance(), drain_timeout_secs=5) as announced:
        await announced.ready()
        announced.report(in_flight=1)
        draining = asyncio.create_task(announced.drain())

        async def unselected() -> bool:
            return await worker_side.select_one_health_instance("glm@llm") is None

        took = await until(unselected, "no new pick", within_secs=1)
        assert took < 0.1
        await asyncio.sleep(0.2)
        assert not draining.done()
        assert (await only(worker_side)).state is Health.HEALTHY
        announced.report(in_flight=0)
        assert await draining is True
        announced.report(in_flight=3)
        assert await announced.drain(timeout_secs=0.05) is False
        announced.report(in_flight=0)


@pytest.mark.parametrize("empty", [True, False])
async def test_after_the_registry_was_away_everything_is_back(
    own_server: EmbeddedServer, empty: bool, caplog: pytest.LogCaptureFixture
) -> None:
    settings: dict[str, Any] = QUICK | {"socket_timeout_secs": 0.3}
    async with (
        RedisModelRegistry.from_url(
            own_server.url, run_checker=False, **settings
        ) as registry,
        registry.announce(instance()) as announced,
    ):
        await announced.ready()
        announced.report(in_flight=5)
        own_server.kill()
        await asyncio.sleep(1.0)
        own_server.start()
        if empty:
            with SyncModelRegistry.from_url(own_server.url) as raw:
                raw._executor._client("call").execute_command("FLUSHALL")

        async def back() -> bool:
            found = await registry.get_all_instances("glm@llm")
            return bool(found) and bool(found[0].load) and found[0].ready

        await until(back, "ready and loaded again", within_secs=2)
        assert (await only(registry)).state is Health.HEALTHY
        announced.report(in_flight=0)
    assert "heartbeat failed, trying again" in caplog.text


async def test_it_may_begin_while_redis_is_away(
    own_server: EmbeddedServer, caplog: pytest.LogCaptureFixture
) -> None:
    own_server.kill()
    async with (
        RedisModelRegistry.from_url(
            own_server.url, run_checker=False, operation_timeout_secs=0.3, **QUICK
        ) as registry,
        registry.announce(instance()) as announced,
    ):
        assert "has not taken it yet" in caplog.text
        assert await announced.ready() is False
        own_server.start()

        async def ready() -> bool:
            found = await registry.get_all_instances("glm@llm")
            return bool(found) and found[0].ready

        await until(ready, "registered, and ready", within_secs=3)


async def test_what_can_not_be_announced_is_refused_at_the_door(
    server: Server, worker_side: RedisModelRegistry
) -> None:
    with pytest.raises(InvalidInstance, match="at most half"):
        worker_side.announce(instance(), interval_secs=0.5)
    with pytest.raises(InvalidInstance, match="expected a redis_registry"):
        worker_side.announce("glm@llm")  # pyright: ignore[reportArgumentType]
    big = instance(metadata={"note": "x" * 70_000})
    with pytest.raises(InvalidInstance, match="limit"):
        async with worker_side.announce(big):
            pass
    assert await worker_side.get_all_model_instances() == []


async def test_many_instances_of_a_process_travel_in_one_call(
    server: Server, worker_side: RedisModelRegistry
) -> None:
    names = [f"model-{number}" for number in range(40)]
    announced = [
        worker_side.announce(instance(1, name), interval_secs=0.2) for name in names
    ]
    async with asyncio.TaskGroup() as group:
        for one in announced:
            group.create_task(one.__aenter__())
    await asyncio.sleep(0.3)
    before = server.raw.info("commandstats")["cmdstat_evalsha"]["calls"]
    await asyncio.sleep(2.0)
    made = server.raw.info("commandstats")["cmdstat_evalsha"]["calls"] - before
    assert 1 <= made <= 12, "40 instances, a beat every 0.18 to 0.2 s"
    found = await worker_side.get_all_model_instances(healthy_only=True)
    assert len(found) == 40
    async with asyncio.TaskGroup() as group:
        for one in announced:
            group.create_task(one.__aexit__(None, None, None))


@pytest.mark.parametrize("sender", ["thread", "process"])
async def test_closing_the_registry_ends_the_sender_without_goodbye(
    server: Server, sender: Literal["thread", "process"]
) -> None:
    registry = RedisModelRegistry.from_url(server.url, run_checker=False, **QUICK)
    announced = registry.announce(instance(), sender=sender)
    await announced.__aenter__()
    await registry.aclose()

    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith("redis-registry")]
    assert not children()
    assert server.store.kinds(instance()) == ["registered"]
    await announced.__aexit__(None, None, None)


def test_the_same_for_threads(server: Server) -> None:
    with SyncModelRegistry.from_url(server.url, **QUICK) as registry:
        with registry.announce(instance()) as announced:
            assert announced.ready()
            assert registry.select_one_health_instance("glm@llm")
            announced.report(in_flight=1)
            threading.Timer(0.2, lambda: announced.report(in_flight=0)).start()
            time.sleep(2 * QUICK["heartbeat_timeout_secs"])
            (found,) = registry.get_all_instances("glm@llm")
            assert found.state is Health.HEALTHY
            assert announced.not_ready("pause")
            announced.progress()
        (found,) = registry.get_all_instances("glm@llm")
        assert found.state is Health.UNHEALTHY
    wait_for(
        lambda: (
            "redis-registry heartbeats" not in [t.name for t in threading.enumerate()]
        ),
        "the thread has ended",
    )


def test_a_worker_takes_one_connection(server: Server) -> None:
    """Thousands of workers share what the server can hold."""
    with (
        SyncModelRegistry.from_url(server.url, **QUICK) as registry,
        registry.announce(instance()) as announced,
    ):
        announced.ready()
        calls = server.raw.info("commandstats")["cmdstat_evalsha"]["calls"]

        def beaten() -> bool:
            made = server.raw.info("commandstats")["cmdstat_evalsha"]["calls"]
            return made >= calls + 2

        wait_for(beaten, "it beats")
        assert len(server.store.connections()) == 1


@pytest.mark.parametrize("reason", [ValueError("boom"), "x" * 600, "\ud800", ""])
async def test_no_reason_stops_the_heartbeats(
    server: Server, worker_side: RedisModelRegistry, reason: str
) -> None:
    async with (
        worker_side.announce(instance(1)) as beside,
        worker_side.announce(instance(2)) as announced,
    ):
        await beside.ready()
        assert await announced.not_ready(reason)
        server.raw.flushall()
        await asyncio.sleep(2 * QUICK["heartbeat_timeout_secs"])
        found = await worker_side.get_all_instances("glm@llm")
        assert {item.port: item.state for item in found} == {1: "healthy", 2: "healthy"}
        told = {item.port: item.reason for item in found}[2]
        assert (told or "") == str(reason)[:500].replace("\ud800", "\\ud800")


@pytest.mark.parametrize("does", ["exits", "sleeps", "fails"])
async def test_what_a_callback_does_holds_up_nobody(
    server: Server, worker_side: RedisModelRegistry, does: str
) -> None:
    called = threading.Event()

    def on_superseded(_: ModelInstance) -> None:
        called.set()
        if does == "exits":
            sys.exit(1)
        if does == "fails":
            raise ValueError(does)
        time.sleep(2)

    async with (
        worker_side.announce(instance(1), on_superseded=on_superseded),
        worker_side.announce(instance(2)) as innocent,
    ):
        await innocent.ready()
        await worker_side.register_instance(instance(1, incarnation="f" * 22))
        await asyncio.to_thread(called.wait, 3)
        await asyncio.sleep(2 * QUICK["heartbeat_timeout_secs"])
        states = await worker_side.get_all_instances("glm@llm")
        assert [item.state for item in states if item.port == 2] == [Health.HEALTHY]


async def test_a_life_that_had_to_wait_does_not_push_the_newer_one_out(
    own_server: EmbeddedServer,
) -> None:
    """Its name is smaller because it is older, not because a clock was put back."""
    settings: dict[str, Any] = QUICK | {
        "operation_timeout_secs": 0.3,
        "run_checker": False,
    }
    own_server.kill()
    async with RedisModelRegistry.from_url(own_server.url, **settings) as one:
        older = one.announce(instance(), drain_timeout_secs=0)
        await older.__aenter__()
        own_server.start()
        newest = instance(incarnation="e" * 22)
        async with RedisModelRegistry.from_url(own_server.url, **settings) as other:
            await other.register_instance(newest)
            await asyncio.to_thread(wait_for, lambda: older.superseded, "it gives way")
            assert (await only(other)).incarnation == newest.incarnation
        await older.__aexit__(None, None, None)


async def test_a_registration_that_was_not_answered_is_taken_back_as_well(
    server: Server,
) -> None:
    async with (
        RedisModelRegistry.from_url(
            server.url,
            run_checker=False,
            operation_timeout_secs=0.5,
            socket_timeout_secs=0.4,
            heartbeat_timeout_secs=30,
        ) as registry,
        registry.announce(instance(2)),
    ):
        server.process.signal(signal.SIGSTOP)
        going_on = threading.Timer(0.2, server.process.signal, [signal.SIGCONT])
        with pytest.raises(ValueError, match="on purpose"):
            await _fail_in_a_block(registry, going_on)
        going_on.join()

        async def gone() -> bool:
            found = await registry.get_all_instances("glm@llm", healthy_only=True)
            return [item.port for item in found] == [2]

        await until(gone, "it is not left behind", within_secs=3)


async def _fail_in_a_block(
    registry: RedisModelRegistry, going_on: threading.Timer
) -> None:
    async with registry.announce(instance(1, readiness=Readiness.READY)):
        going_on.start()
        raise ValueError("on purpose")


async def test_misuse_is_told_at_once(
    server: Server, worker_side: RedisModelRegistry
) -> None:
    announced = worker_side.announce(instance())
    with pytest.raises(RegistryClosed, match="context manager"):
        await announced.ready()
    async with announced:
        with pytest.raises(InvalidInstance, match="in_flight"):
            announced.report(in_flight=-1)
    for misuse in (announced.ready(), announced.__aenter__()):
        with pytest.raises(RegistryClosed, match="new life"):
            await misuse
    await worker_side.aclose()
    with pytest.raises(RegistryClosed):
        worker_side.announce(instance())
    for wrong in (
        {"startup_budget_secs": "30"},
        {"drain_timeout_secs": -1},
        {"progress_timeout_secs": float("nan")},
        {"sender": "pigeon"},
    ):
        with pytest.raises(InvalidInstance, match=next(iter(wrong))):
            SyncModelRegistry.from_url(server.url).announce(instance(), **wrong)  # pyright: ignore[reportArgumentType]


async def test_while_the_registry_is_away_news_do_not_hammer_it(
    own_server: EmbeddedServer,
) -> None:
    """A busy worker reports often; that must not become an attempt each time."""
    async with (
        RedisModelRegistry.from_url(
            own_server.url, run_checker=False, operation_timeout_secs=0.2, **QUICK
        ) as registry,
        registry.announce(instance(), drain_timeout_secs=0) as announced,
    ):
        await announced.ready()
        own_server.kill()
        assert await announced.not_ready("no disk") is False
        asked: list[float] = []
        sender: Any = announced._sender
        ask = sender._channel._ask

        def counted(operation: Any) -> Any:
            asked.append(time.monotonic())
            return ask(operation)

        sender._channel._ask = counted
        until_moment = time.monotonic() + 1.0
        while time.monotonic() < until_moment:
            announced.report(in_flight=len(asked))
            await asyncio.sleep(0.002)
        # each beat that is due, and the news with it: 5 intervals of 0.2 s
        assert 1 <= len(asked) <= 14
        own_server.start()


async def test_a_superseded_block_still_waits_for_its_work(
    server: Server, worker_side: RedisModelRegistry
) -> None:
    async with worker_side.announce(instance()) as announced:
        announced.report(in_flight=1)
        await worker_side.register_instance(instance(incarnation="f" * 22))
        await asyncio.to_thread(
            wait_for, lambda: announced.superseded, "it is superseded"
        )
        finished = threading.Event()

        def finish() -> None:
            finished.set()
            announced.report(in_flight=0)

        threading.Timer(0.3, finish).start()
    assert finished.is_set()
