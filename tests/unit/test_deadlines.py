"""Every call ends at its deadline, and every end is clean, whatever the settings (promises S1 and S3)."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from redis_registry import (
    RedisModelRegistry,
    RegistryClosed,
    RegistryError,
    SyncModelRegistry,
)
from redis_registry.settings import RegistrySettings
from redis_registry.store.driver.client import async_client
from redis_registry.store.driver.pipeline import PipelinedClient
from redis_registry.testing import Proxy
from tests.helpers import instance, instances, until
from tests.places import Place

pytestmark = pytest.mark.standalone("one server is paused, or slow")

SHORT: dict[str, Any] = {"operation_timeout_secs": 0.3}


@contextlib.contextmanager
def paused(server: Place) -> Any:
    server.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.signal(signal.SIGCONT)


def ends_within(secs: float, call: Callable[[], object]) -> None:
    start = time.monotonic()
    with pytest.raises(RegistryError):
        call()
    assert time.monotonic() - start < secs


# --- one call for several partitions ------------------------------------------------------------


async def test_a_failed_call_of_several_partitions_leaves_no_cancellation_behind(
    own_server: Place, no_tasks_left: None
) -> None:
    """The caller's own timeout around it would end it as if it had been cancelled, quietly."""
    async with RedisModelRegistry.from_url(
        own_server.url, run_checker=False, partitions=6, **SHORT
    ) as registry:
        await registry.status()
        with paused(own_server):
            with pytest.raises(RegistryError):
                await registry.status()
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0


async def test_who_is_cancelled_as_a_call_of_several_partitions_fails_is_heeded(
    own_server: Place, no_tasks_left: None
) -> None:
    async with RedisModelRegistry.from_url(
        own_server.url, run_checker=False, partitions=6, **SHORT
    ) as registry:
        await registry.status()

        async def ask() -> None:
            while True:
                with contextlib.suppress(RegistryError):
                    await registry.status()

        with paused(own_server):
            for late in range(10):
                task = asyncio.create_task(ask())
                await asyncio.sleep(0.3 + 0.0003 * (late - 3))
                task.cancel()
                await asyncio.wait([task], timeout=0.1)
                assert task.cancelled()


# --- history and news -----------------------------------------------------------------------------


@pytest.mark.parametrize("most", [16, 1])
async def test_history_is_read_beside_the_wait_for_news(
    own_server: Place, no_tasks_left: None, most: int
) -> None:
    """Once behind the wait, which takes longer than an answer may: it was given up, and both again."""
    async with RedisModelRegistry.from_url(
        own_server.url, run_checker=False, socket_timeout_secs=0.5, max_connections=most
    ) as registry:
        await registry.register_instance(instance())
        async with registry.watch() as watch:
            position = (await anext(watch)).position
        await registry.send_heartbeats(instances(5))
        async with registry.view(), asyncio.timeout(3):
            await asyncio.sleep(0.3)  # the tail waits
            async with registry.watch(after=position) as watch:
                told = [await anext(watch) for _ in range(5)]
    assert [event.revision for event in told] == sorted(e.revision for e in told)


# --- the sync face --------------------------------------------------------------------------------


def test_threads_keep_to_the_deadline_beside_a_server_that_stands_still(
    own_server: Place,
) -> None:
    """Also with patience for a single answer that is longer, and on connections yet to be made."""
    options: dict[str, Any] = SHORT | {"socket_timeout_secs": 2.0}
    with (
        SyncModelRegistry.from_url(own_server.url, **options) as warm,
        SyncModelRegistry.from_url(own_server.url, **options) as cold,
    ):
        warm.register_instance(instance())
        with paused(own_server):
            ends_within(1.0, warm.get_all_model_instances)
            ends_within(1.0, warm.get_all_model_instances)
            ends_within(1.0, cold.get_all_model_instances)
        assert len(warm.get_all_model_instances()) == 1


def test_threads_wait_no_longer_than_that_for_a_free_connection(
    own_server: Place,
) -> None:
    options: dict[str, Any] = {"socket_timeout_secs": 2.0, "max_connections": 1}
    with SyncModelRegistry.from_url(own_server.url, **options, **SHORT) as registry:
        registry.register_instance(instance())
        with paused(own_server):
            calls = [
                threading.Thread(
                    target=ends_within, args=(1.0, registry.get_all_model_instances)
                )
                for _ in range(4)
            ]
            start = time.monotonic()
            for one in calls:
                one.start()
            for one in calls:
                one.join()
            assert time.monotonic() - start < 1.5


def test_threads_have_one_deadline_for_all_partitions(own_server: Place) -> None:
    with (
        Proxy(own_server.port) as proxy,
        SyncModelRegistry.from_url(
            proxy.url, operation_timeout_secs=0.5, partitions=16
        ) as registry,
    ):
        registry.register_instance(instance())
        proxy.delay_secs = 0.1
        ends_within(1.2, registry.status)


def test_a_closed_sync_registry_says_so_until_it_is_entered_again(
    own_server: Place,
) -> None:
    registry = SyncModelRegistry.from_url(own_server.url)
    with registry:
        registry.register_instance(instance())
    with pytest.raises(RegistryClosed, match="enter it again"):
        registry.get_all_model_instances()
    with registry:
        assert len(registry.get_all_model_instances()) == 1


# --- the end ----------------------------------------------------------------------------------------


async def test_all_reservations_are_given_up_in_the_time_of_one(
    own_server: Place, no_tasks_left: None
) -> None:
    registry = RedisModelRegistry.from_url(
        own_server.url, run_checker=False, partitions=6, socket_timeout_secs=1.0
    )
    async with registry:
        models = [f"m{number}" for number in range(24)]
        await registry.send_heartbeats([instance(1, model) for model in models])
        reserved = [registry.reserve(model) for model in models]
        for one in reserved:
            await one.__aenter__()
        with paused(own_server):
            start = time.monotonic()
            await registry.aclose()
            took = time.monotonic() - start
    assert took < 3.0


async def test_a_heartbeat_under_way_is_told_that_the_registry_was_closed(
    own_server: Place, no_tasks_left: None
) -> None:
    """It was not its caller who was cancelled."""
    registry = RedisModelRegistry.from_url(own_server.url, run_checker=False)
    async with registry:
        await registry.register_instance(instance())
        with paused(own_server):
            beats = [
                asyncio.create_task(registry.send_heartbeat(item))
                for item in instances(3)
            ]
            await asyncio.sleep(0.05)
            beats.append(asyncio.create_task(registry.send_heartbeat(instance(9))))
            await asyncio.sleep(0)
            await registry.aclose()
            ends = await asyncio.gather(*beats, return_exceptions=True)
    assert [type(end) for end in ends] == [RegistryClosed] * 4


async def test_a_watch_on_another_loop_ends_with_the_registry(
    own_server: Place, no_tasks_left: None
) -> None:
    registry = RedisModelRegistry.from_url(own_server.url, run_checker=False)
    begun, ends = threading.Event(), list[Exception]()

    async def closed() -> bool:
        return asyncio.get_running_loop() not in registry._executor.loops

    async def follow() -> None:
        async with registry.watch() as watch:
            await anext(watch)
            begun.set()
            try:
                await anext(watch)
            except (RegistryClosed, StopAsyncIteration) as error:
                ends.append(error)
        await until(closed, "its connections are closed too")

    async with registry:
        await registry.register_instance(instance())
        thread = threading.Thread(target=lambda: asyncio.run(follow()))
        thread.start()
        assert await asyncio.to_thread(begun.wait, 5)
    await asyncio.to_thread(thread.join, 5)
    assert not thread.is_alive()
    assert len(ends) == 1


def test_a_connection_is_given_up_with_the_patience_of_a_call() -> None:
    """Not later: calls with a shorter deadline would fail on it one after the other."""
    client = async_client(
        RegistrySettings.of(operation_timeout_secs=0.4, socket_timeout_secs=10)
    )
    assert isinstance(client, PipelinedClient)
    assert client._patience == 0.2
