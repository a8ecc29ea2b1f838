"""A master that Sentinel replaces: callers wait, and nobody who lives is flipped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from redis.exceptions import ReadOnlyError

from redis_registry import (
    AccessDenied,
    Kind,
    RedisModelRegistry,
    RegistryError,
    RegistryUnavailable,
    SyncModelRegistry,
)
from redis_registry.settings import RegistrySettings
from redis_registry.store.driver.client import async_client
from redis_registry.testing import Replica, SentinelSet, Standalone, await_that
from tests.helpers import Store, connect, instance
from tests.topologies.traffic import OPTIONS, Traffic, fleet


def _ordered(sentinels: SentinelSet) -> Standalone:
    old = sentinels.master()
    sentinels.failover()
    return old


FAULTS: dict[str, Callable[[SentinelSet], Standalone]] = {
    "kill -9": SentinelSet.kill_master,
    "SIGSTOP": SentinelSet.stop_master,
    "by order": _ordered,
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_callers_and_views_come_through_a_failover(
    binary: str, fault: str, no_tasks_left: None
) -> None:
    with SentinelSet(binary=binary, password="p w") as sentinels:
        async with RedisModelRegistry.from_url(sentinels.url, **OPTIONS) as registry:
            traffic = Traffic(registry, fleet(4))
            async with traffic.flowing():
                await traffic.goes_on()
                began = time.monotonic()
                old = await asyncio.to_thread(FAULTS[fault], sentinels)
                await asyncio.to_thread(sentinels.await_new_master, old)
                took = time.monotonic() - began
                await traffic.goes_on()
                if fault == "SIGSTOP":
                    old.resume()
                    await traffic.goes_on()
            traffic.assert_nobody_noticed(took + 2)


def test_threads_come_through_too(binary: str) -> None:
    with (
        SentinelSet(binary=binary) as sentinels,
        SyncModelRegistry.from_url(sentinels.url, **OPTIONS) as registry,
        registry.view() as view,
    ):
        items = fleet(2)
        registry.send_heartbeats(items)
        old = sentinels.kill_master()
        registry.send_heartbeats(items)
        found = registry.get_all_model_instances(healthy_only=True)
        assert len(found) == len(items)
        assert len(view.instances("chat")) == len(items)
        assert sentinels.await_new_master(old) is not old


async def test_a_master_that_was_demoted_is_left(
    binary: str, no_tasks_left: None
) -> None:
    """Sentinel ends its connections; who demotes by hand doesn't."""
    with Standalone(binary=binary) as old, Standalone(binary=binary) as new:
        client = async_client(RegistrySettings.of(url=old.url))
        before = await client.execute_command("CLIENT", "ID")
        old.call("REPLICAOF", "127.0.0.1", new.port)
        with pytest.raises(ReadOnlyError):
            await client.execute_command("HSET", "key", "a", "1")
        assert await client.execute_command("CLIENT", "ID") != before
        await client.aclose()


async def test_dead_sentinels_are_passed_over(binary: str, no_tasks_left: None) -> None:
    with SentinelSet(binary=binary) as sentinels:
        dead, paused, _ = sentinels.sentinels
        dead.stop()
        paused.pause()
        options: dict[str, Any] = OPTIONS | {"socket_timeout_secs": 4.0}
        async with RedisModelRegistry.from_url(sentinels.url, **options) as registry:
            await registry.send_heartbeats(fleet(1))
        with SyncModelRegistry.from_url(sentinels.url, **options) as registry:
            assert len(registry.get_all_instances("m0")) == 5
        paused.resume()


SECRET = "p3rfectly-s3cret"


async def refused(url: str, face: str, within_secs: float) -> RegistryError | None:
    """What a first call is answered with."""
    try:
        if face == "async":
            async with RedisModelRegistry.from_url(
                url, run_checker=False, operation_timeout_secs=within_secs
            ) as registry:
                await registry.status()
        else:
            with SyncModelRegistry.from_url(
                url, operation_timeout_secs=within_secs
            ) as other:
                await asyncio.to_thread(other.status)
    except RegistryError as error:
        return error
    return None


@pytest.mark.parametrize("face", ["async", "sync"])
async def test_sentinels_that_want_other_credentials_are_told_from_the_master_at_once(
    binary: str, face: str, no_tasks_left: None
) -> None:
    with SentinelSet(binary=binary, password="p w") as sentinels:
        for sentinel in sentinels.sentinels:
            sentinel.call("ACL", "SETUSER", "default", "resetpass", f">{SECRET}")
        wrong = f"{sentinels.url}?sentinel_password=wr0ng"
        for url in (sentinels.url, wrong):
            began = time.monotonic()
            error = await refused(url, face, within_secs=15)
            assert time.monotonic() - began < 5, "it was not asked again"
            assert isinstance(error, AccessDenied)
            assert "the Sentinels themselves deny access" in str(error)
            assert "?sentinel_username=…&sentinel_password=…" in str(error)
            assert "wr0ng" not in str(error)
            assert len(str(error)) < 400
        right = f"{sentinels.url}?sentinel_password={SECRET}"
        assert await refused(right, face, within_secs=15) is None
        open_one = sentinels.sentinels[-1]
        open_one.login = "default", SECRET
        open_one.call("ACL", "SETUSER", "default", "nopass")
        told = await refused(sentinels.url, face, within_secs=15)
        assert told is None, "one lets us in"


@pytest.mark.parametrize("face", ["async", "sync"])
async def test_a_master_that_no_sentinel_knows_is_named_with_them(
    binary: str, face: str, no_tasks_left: None
) -> None:
    with SentinelSet(binary=binary) as sentinels:
        url = sentinels.url.replace(sentinels.name, "typo")
        error = await refused(url, face, within_secs=0.5)
        assert type(error) is RegistryUnavailable
        places = ",".join(f"{s.host}:{s.port}" for s in sentinels.sentinels)
        for part in (places, "they know no master 'typo', but 'mymaster'"):
            assert part in str(error)
        assert len(str(error)) < 200


async def test_one_that_is_promoted_again_with_less_begins_a_new_epoch(
    binary: str, no_tasks_left: None
) -> None:
    """It is the same process; nobody called the one that replaced it for a moment."""
    with (
        Standalone(binary=binary) as first,
        Replica(first, binary=binary) as second,
    ):
        async with RedisModelRegistry.from_url(
            first.url, run_checker=False
        ) as registry:
            await registry.register_instance(instance(1))
            await_that(second.in_step, "the second follows the first")
            second.call("REPLICAOF", "NO", "ONE")
            await registry.register_instance(instance(2))
            first.call("REPLICAOF", "127.0.0.1", second.port)
            await_that(first.in_step, "the first has what the second has")
            first.call("REPLICAOF", "NO", "ONE")

            await registry.register_instance(instance(3))
            store = Store(connect(first.url))
            found = store.events(Kind.OPENED, Kind.RECOVERY, Kind.REGISTERED)
            assert [event.kind for event in found] == [
                Kind.OPENED, Kind.REGISTERED, Kind.RECOVERY, Kind.REGISTERED
            ]  # fmt: skip
            (old, _, new, last) = (event.epoch for event in found)
            assert old != new == last
            store.raw.close()
