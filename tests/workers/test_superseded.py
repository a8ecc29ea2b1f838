"""Of two lives at one address the newer one wins, and the older one learns it."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from typing import Any

import pytest

from redis_registry import (
    Health,
    ModelInstance,
    RedisModelRegistry,
    Superseded,
)
from tests.conftest import Server
from tests.helpers import instance, wait_for
from tests.places import Place
from tests.workers.conftest import QUICK, only

pytestmark = pytest.mark.usefixtures("no_tasks_left")


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
    own_server: Place,
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
