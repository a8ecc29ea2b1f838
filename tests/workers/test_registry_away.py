"""Announcing while the registry is away: it goes on, and all is told later."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from contextlib import AsyncExitStack
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pytest

from redis_registry import (
    Health,
    Readiness,
    RedisModelRegistry,
    RemoteRegistry,
)
from redis_registry.roles.sending.announcing import AWAY_SECS, Announcement
from tests.conftest import Server
from tests.helpers import connect, instance, until, wait_for
from tests.places import Place
from tests.replica import Replica
from tests.workers.conftest import QUICK, only

pytestmark = pytest.mark.usefixtures("no_tasks_left")


@pytest.mark.parametrize("empty", [True, False])
async def test_after_the_registry_was_away_everything_is_back(
    own_server: Place, empty: bool, caplog: pytest.LogCaptureFixture
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
            raw = connect(own_server.url)
            raw.flushall()
            raw.close()

        async def back() -> bool:
            found = await registry.get_all_instances("glm@llm")
            return [(one.ready, one.load is not None, one.state) for one in found] == [
                (True, True, Health.HEALTHY)
            ]

        await until(back, "healthy, ready and loaded again", within_secs=2)
        announced.report(in_flight=0)
    assert "heartbeat failed, trying again" in caplog.text


async def test_it_may_begin_while_redis_is_away(
    own_server: Place, caplog: pytest.LogCaptureFixture
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


async def test_while_the_registry_is_away_news_do_not_hammer_it(
    own_server: Place,
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
        channel: Any = announced._sender._channel
        ask = channel._ask

        def counted(operation: Any) -> Any:
            asked.append(time.monotonic())
            return ask(operation)

        channel._ask = counted
        until_moment = time.monotonic() + 1.0
        while time.monotonic() < until_moment:
            announced.report(in_flight=len(asked))
            await asyncio.sleep(0.002)
        # each beat that is due, and the news with it: 5 intervals of 0.2 s
        assert 1 <= len(asked) <= 14
        own_server.start()


async def test_a_timeout_does_not_put_off_the_next_attempt(
    own_server: Place,
) -> None:
    """From one attempt to the next it is less than an interval, however long one took."""
    interval = 1.0
    async with (
        RedisModelRegistry.from_url(
            own_server.url,
            run_checker=False,
            heartbeat_timeout_secs=3 * interval,
            socket_timeout_secs=0.5,
            operation_timeout_secs=0.5,
        ) as registry,
        registry.announce(instance(), drain_timeout_secs=0) as announced,
    ):
        began: list[float] = []
        channel: Any = announced._sender._channel
        ask = channel._ask

        def noted(operation: Any) -> Any:
            began.append(time.monotonic())
            return ask(operation)

        channel._ask = noted
        own_server.signal(signal.SIGSTOP)
        wait = partial(wait_for, lambda: announced._life.failures >= 4, within_secs=10)
        await asyncio.to_thread(wait, "attempts")
        own_server.signal(signal.SIGCONT)
        gaps = [after - before for before, after in pairwise(began)]
        assert all(0.8 < gap < interval for gap in gaps[-2:]), gaps


@pytest.mark.parametrize("through", ["thread", "process", "controller"])
async def test_what_a_crash_of_redis_has_lost_is_said_again(
    forgetful_server: Place, through: str, replicas: list[Replica], tmp_path: Path
) -> None:
    """Redis had acknowledged it, and comes back as it was before: the record is there, and old."""
    async with RedisModelRegistry.from_url(
        forgetful_server.url, run_checker=False, **QUICK
    ) as reader:
        announcing: Any = reader
        if through == "controller":
            times = ("--heartbeat-timeout-secs", "3")
            replica = Replica(
                "--url", forgetful_server.url, *times, log=tmp_path / "log"
            )
            replicas.append(replica)
            await asyncio.to_thread(replica.up)
            announcing = RemoteRegistry(
                [replica.base], heartbeat_timeout_secs=0.9, attempt_timeout_secs=0.3
            )
        sender = "process" if through == "process" else "thread"
        worker = announcing.announce(instance(serves=["old"]), sender=sender)
        async with announcing, worker as announced:
            forgetful_server.save()
            assert await announced.ready()
            assert await announced.serve(["new"])
            forgetful_server.kill()
            forgetful_server.start()

            async def said() -> bool:
                found = await reader.get_all_instances("new")
                return bool(found) and found[0].ready

            await until(said, "ready, and serving what it said last", within_secs=5)
            before = (await only(reader)).revision
            announced.report(in_flight=1)

            async def loaded() -> bool:
                load = (await only(reader)).load
                return bool(load) and load.in_flight == 1

            await until(loaded, "its heartbeats go on", within_secs=5)
            assert (await only(reader)).revision == before, "said once"
            announced.report(in_flight=0)


async def test_leaving_takes_little_while_the_registry_is_away(
    own_server: Place,
) -> None:
    """Whoever ends a worker does not wait long; its silence says the same as its goodbye."""
    settings: dict[str, Any] = QUICK | {
        "socket_timeout_secs": 0.3,
        "operation_timeout_secs": 4.0,
    }
    async with RedisModelRegistry.from_url(
        own_server.url, run_checker=False, **settings
    ) as registry:
        announced = registry.announce(instance(), drain_timeout_secs=0)
        await announced.__aenter__()
        await announced.ready()
        own_server.signal(signal.SIGSTOP)
        await until(partial(_fails, announced), "a heartbeat has failed")

        begun = time.monotonic()
        await announced.__aexit__(None, None, None)
        took_secs = time.monotonic() - begun
        own_server.signal(signal.SIGCONT)
    assert took_secs < 2.5  # it would be 4 s and more for each of two last words


@pytest.mark.parametrize("sender", ["thread", "process"])
async def test_several_lives_don_t_wait_one_after_the_other(
    own_server: Place, sender: Literal["thread", "process"]
) -> None:
    """Nothing answers, and no attempt has failed yet: the first finds out, and the others know."""
    lives, patience_secs = 4, 1.5
    settings: dict[str, Any] = QUICK | {
        "socket_timeout_secs": patience_secs,
        "operation_timeout_secs": patience_secs,
        "heartbeat_timeout_secs": 60.0,
    }
    async with RedisModelRegistry.from_url(
        own_server.url, run_checker=False, **settings
    ) as registry:
        async with AsyncExitStack() as stack:
            for port in range(1, lives + 1):
                worker = registry.announce(instance(port), sender=sender)
                await stack.enter_async_context(worker)
            own_server.signal(signal.SIGSTOP)
            begun = time.monotonic()
        took_secs = time.monotonic() - begun
        own_server.signal(signal.SIGCONT)
    assert took_secs < patience_secs + lives * 2 * AWAY_SECS + 1


async def _fails(announced: Announcement) -> bool:
    return announced._life.failures > 0
