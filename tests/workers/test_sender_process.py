"""Announcing by a process of its own: a held GIL, kills, restarts."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from datetime import timedelta

import pytest
import redis.asyncio

from redis_registry import (
    ConfigurationError,
    Health,
    InvalidInstance,
    Kind,
    ModelInstance,
    Readiness,
    RedisModelRegistry,
    Superseded,
    errors,
)
from tests.conftest import Server
from tests.helpers import instance, until, wait_for
from tests.workers.conftest import QUICK, children, only

pytestmark = pytest.mark.usefixtures("no_tasks_left")


async def test_a_process_can_speak_for_it_as_well(
    server: Server, worker_side: RedisModelRegistry
) -> None:
    async with worker_side.announce(instance(), sender="process") as announced:
        assert (await only(worker_side)).readiness is Readiness.STARTING
        assert await announced.ready()
        announced.report(in_flight=2, capacity=4)

        async def loaded() -> bool:
            load = (await only(worker_side)).load
            return bool(load and load.in_flight == 2)

        await until(loaded, "the load is told", within_secs=2)
        await asyncio.sleep(2 * QUICK["heartbeat_timeout_secs"])
        assert (await only(worker_side)).state is Health.HEALTHY
        announced.report(in_flight=0)
    assert (await only(worker_side)).state is Health.UNHEALTHY
    assert server.store.kinds(instance()) == [
        *("registered", "ready", "draining", "deregistered")
    ]


HOLD_THE_GIL = """
import ctypes, sys
from redis_registry import ModelInstance, SyncModelRegistry

instance = ModelInstance(model_name="glm@llm", host="10.0.0.1", port=8001)
with (
    SyncModelRegistry.from_url(sys.argv[1], heartbeat_timeout_secs=0.6) as registry,
    registry.announce(instance, sender=sys.argv[2]) as announced,
):
    announced.ready()
    ctypes.PyDLL(None).usleep(3 * 600_000)  # PyDLL keeps the GIL for the time of the call
"""


@pytest.mark.parametrize("sender", ["process", "thread"])
async def test_a_held_gil_does_not_stop_a_sender_of_its_own(
    server: Server, sender: str
) -> None:
    async with RedisModelRegistry.from_url(server.url, **QUICK) as checker:
        await checker.status()
        worker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", HOLD_THE_GIL, server.url, sender)
        )
        async with asyncio.timeout(30):
            assert await worker.wait() == 0
    died = bool(server.store.events(Kind.UNHEALTHY))
    assert died is (sender == "thread"), "the thread shows that the GIL was held"


async def test_when_the_worker_is_killed_its_sender_says_no_more(
    server: Server, worker_side: RedisModelRegistry
) -> None:
    code = HOLD_THE_GIL.replace("3 * 600_000", "30_000_000")
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, server.url, "process")
    )

    async def ready() -> bool:
        return bool(await worker_side.select_one_health_instance("glm@llm"))

    await until(ready, "it is ready", within_secs=20)
    worker.kill()
    await worker.wait()
    beat = (await only(worker_side)).last_heartbeat

    async def dead() -> bool:
        return not await ready()

    await until(dead, "its silence tells", within_secs=2)
    last = (await only(worker_side)).last_heartbeat
    assert beat
    assert last
    assert (last - beat).total_seconds() < 0.1
    assert server.store.kinds(instance()) == ["registered", "ready"]


async def test_a_sender_that_was_killed_is_started_again(
    server: Server, worker_side: RedisModelRegistry
) -> None:
    async with worker_side.announce(instance(), sender="process") as announced:
        await announced.ready()
        announced.report(in_flight=1)
        child = children()[0]
        os.kill(child, signal.SIGKILL)

        def another() -> bool:
            return bool(children()) and children() != [child]

        await asyncio.to_thread(wait_for, another, "another one")
        ended = (await only(worker_side)).last_heartbeat
        assert ended
        while_dead = timedelta(seconds=2 * QUICK["heartbeat_timeout_secs"])

        async def goes_on() -> bool:
            found = await only(worker_side)
            assert found.last_heartbeat
            beats = found.last_heartbeat > ended + while_dead
            told = found.ready and found.load is not None and found.load.in_flight == 1
            return beats and found.state is Health.HEALTHY and told

        await until(goes_on, "the other one beats", within_secs=20)
        announced.report(in_flight=0)
    await asyncio.to_thread(wait_for, lambda: not children(), "it has ended")


async def test_a_sender_process_learns_of_the_newer_life_and_of_refusals(
    server: Server, worker_side: RedisModelRegistry
) -> None:
    told: list[ModelInstance] = []
    async with (
        worker_side.announce(
            instance(), sender="process", on_superseded=told.append
        ) as older,
        worker_side.announce(instance()),
    ):
        await asyncio.to_thread(wait_for, lambda: told, "the older one learns it")
        with pytest.raises(Superseded):
            await older.ready()
    big = instance(metadata={"note": "x" * 70_000})
    with pytest.raises(InvalidInstance, match="limit"):
        async with worker_side.announce(big, sender="process"):
            pass


async def test_a_given_client_can_have_no_sender_process(server: Server) -> None:
    client = redis.asyncio.Redis(port=server.process.port)
    registry = RedisModelRegistry(client, run_checker=False, **QUICK)
    with pytest.raises(ConfigurationError, match="from_url"):
        registry.announce(instance(), sender="process")
    await registry.aclose()
    await client.aclose()


def test_an_error_that_takes_more_than_a_message_still_ends_the_life() -> None:
    from redis_registry.roles.sending.sender_process import _error_named

    assert "4 partitions" in str(_error_named("PartitionMismatch", "4 partitions"))
    assert isinstance(_error_named("Superseded", "a newer one"), errors.Superseded)
