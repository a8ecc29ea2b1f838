"""Partitions spread over a Cluster: nodes die, slots move, and callers get their answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any, cast

import pytest
import redis
from redis.asyncio import RedisCluster

from redis_registry import (
    Event,
    RedisModelRegistry,
    RegistryClosed,
    RegistryRefused,
    RegistryUnavailable,
    SyncModelRegistry,
    Watch,
)
from redis_registry.settings import RegistrySettings
from redis_registry.store.driver.client import async_client, sync_client
from redis_registry.store.executor import TOGETHER
from redis_registry.testing import Cluster, Node
from redis_registry.wire.keys import partition_of
from tests.helpers import instance, until
from tests.topologies.traffic import ENDS, OPTIONS, Traffic, fleet

PARTITIONS = 6
KEYS = [f"rr:{{default/{number}}}:meta" for number in range(PARTITIONS)]
SPREAD: dict[str, Any] = OPTIONS | {"partitions": PARTITIONS}

FAULTS: dict[str, Callable[[Cluster, str], Node]] = {
    "kill -9": Cluster.kill_primary,
    "SIGSTOP": Cluster.stop_primary,
}


def owners(cluster: Cluster) -> set[int]:
    return {cluster.owner(key).port for key in KEYS}


@pytest.mark.parametrize("fault", FAULTS)
async def test_callers_and_views_come_through_the_death_of_a_primary(
    binary: str, fault: str, no_tasks_left: None
) -> None:
    with Cluster(binary=binary) as cluster:
        assert len(owners(cluster)) == 3
        async with RedisModelRegistry.from_url(cluster.url, **SPREAD) as registry:
            traffic = Traffic(registry, fleet(12, each=2))
            async with traffic.flowing():
                await traffic.goes_on()
                began = time.monotonic()
                dead = await asyncio.to_thread(FAULTS[fault], cluster, KEYS[0])
                await asyncio.to_thread(cluster.await_failover, dead)
                took = time.monotonic() - began
                await traffic.goes_on()
            traffic.assert_nobody_noticed(took + 2)


QUICK: dict[str, Any] = {
    "partitions": PARTITIONS,
    "heartbeat_timeout_secs": 1.5,
    "socket_timeout_secs": 1.0,
    "operation_timeout_secs": 2.0,
    "reservation_ttl_secs": 1.5,
}


async def test_a_node_that_is_away_costs_nobody_elsewhere_a_heartbeat_or_a_reservation(
    binary: str, no_tasks_left: None
) -> None:
    """One process, models at all nodes; one node stands still for three timeouts and leases."""
    # Else the living nodes refuse everything too, as long as one is away.
    options = {"cluster-require-full-coverage": "no"}
    with Cluster(binary=binary, replicas=0, options=options) as cluster:
        async with (
            RedisModelRegistry.from_url(cluster.url, **QUICK) as registry,
            AsyncExitStack() as stack,
        ):
            models = [f"m{number}" for number in range(12)]
            for model in models:
                announced = registry.announce(instance(1, model), drain_timeout_secs=0)
                await (await stack.enter_async_context(announced)).ready()
                await stack.enter_async_context(registry.reserve(model))
            watch = await stack.enter_async_context(registry.watch())
            ended: list[Event] = []
            watching = asyncio.create_task(collect_ends(watch, ended))
            dead = await asyncio.to_thread(cluster.stop_primary, KEYS[0])
            there = {m for m in models if port_of(cluster, m)}
            await asyncio.sleep(3 * QUICK["heartbeat_timeout_secs"])
            assert there
            assert not [e for e in ended if e.subject.split(":")[0] in there]
            assert not [model for model in there if lease_secs(cluster, model) <= 0]
            dead.resume()
            watching.cancel()
            await asyncio.wait([watching])


def port_of(cluster: Cluster, model: str) -> int:
    """The port of the node that has a model; 0: it stands still."""
    key = KEYS[partition_of(model, PARTITIONS)]
    slot = cluster.slot_of(key)
    return next((n.port for n in cluster.primaries() if slot in n.slots()), 0)


def lease_secs(cluster: Cluster, model: str) -> float:
    """How long the first holder's lease still lasts in a model's partition."""
    base = KEYS[partition_of(model, PARTITIONS)].removesuffix("meta")
    node = cluster.owner(base)
    found = cast("list[str]", node.call("ZRANGE", base + "holders", 0, 0, "WITHSCORES"))
    now = cast("list[str]", node.call("TIME"))
    return float(found[1]) / 1e6 - int(now[0])


MANY = 36
"""Partitions: some twelve a node, more than are asked at once."""


async def test_many_partitions_on_a_node_that_is_away_cost_the_others_neither_beats_nor_time(
    binary: str, no_tasks_left: None
) -> None:
    options = {"cluster-require-full-coverage": "no"}
    settings: dict[str, Any] = {"partitions": MANY, "operation_timeout_secs": 3.0}
    settings |= {"socket_timeout_secs": 1.0}
    with (
        Cluster(binary=binary, replicas=0, options=options) as cluster,
        SyncModelRegistry.from_url(cluster.url, **settings) as threads,
    ):
        async with RedisModelRegistry.from_url(
            cluster.url, **settings, run_checker=False
        ) as registry:
            worker = [instance(1, f"m{number}") for number in range(4 * MANY)]
            await registry.send_heartbeats(worker)
            assert len(threads.get_all_model_instances()) == len(worker)
            away = cluster.stop_primary(KEYS[0])
            homes = {partition_of(item.model_name, MANY) for item in worker}
            living = {home for home in homes if deadlines(cluster, away, home)}
            assert len(homes - living) > TOGETHER
            for call in (
                lambda: registry.send_heartbeats(worker),
                lambda: asyncio.to_thread(threads.send_heartbeats, worker),
            ):
                before = {home: deadlines(cluster, away, home) for home in living}
                began = time.monotonic()
                with pytest.raises(RegistryUnavailable):
                    await call()
                assert time.monotonic() < began + 3.0 + 3 * 1.0, "an attempt more"
                after = {home: deadlines(cluster, away, home) for home in living}
                assert [h for h in living if min(after[h]) <= max(before[h])] == []
            away.resume()


def deadlines(cluster: Cluster, away: Node, partition: int) -> list[float]:
    """Those of a partition; none where its node stands still."""
    base = f"rr:{{default/{partition}}}:"
    slot = cluster.slot_of(base)
    for node in cluster.primaries():
        if node is not away and slot in node.slots():
            found = node.call("ZRANGE", base + "deadlines", 0, -1, "WITHSCORES")
            return [float(score) for score in cast("list[str]", found)[1::2]]
    return []


async def collect_ends(watch: Watch, found: list[Event]) -> None:
    async for event in watch:
        if event.kind in ENDS:
            found.append(event)  # noqa: PERF401  it must be there when this is cancelled


def classic(cluster: Cluster, key: str, to: Node) -> None:
    """As `redis-cli --cluster reshard` does it, slowly."""
    cluster.begin_migration(key, to)
    while cluster.move_keys(key, to, 4):
        time.sleep(0.02)  # so that calls come in between
    cluster.end_migration(key, to)


MOVES: dict[str, Callable[[Cluster, str, Node], None]] = {
    "classic": classic,
    "atomic": Cluster.migrate_atomically,
}


@pytest.mark.parametrize("move", MOVES)
async def test_every_call_succeeds_while_slots_move_to_a_new_node(
    binary: str, move: str, no_tasks_left: None
) -> None:
    if move == "atomic" and "valkey" not in binary:
        pytest.skip("only Valkey 9 moves slots at one moment")
    with Cluster(binary=binary, replicas=0) as cluster:
        async with RedisModelRegistry.from_url(cluster.url, **SPREAD) as registry:
            traffic = Traffic(registry, fleet(12, each=2))
            async with traffic.flowing():
                await traffic.goes_on()
                new = await asyncio.to_thread(cluster.add_node)
                for key in KEYS:
                    await asyncio.to_thread(MOVES[move], cluster, key, new)
                    await traffic.goes_on(5)
                assert owners(cluster) == {new.port}
                await traffic.goes_on()
            traffic.assert_nobody_noticed(5.0)


async def test_a_key_on_its_way_is_found_at_its_new_place(
    binary: str, no_tasks_left: None
) -> None:
    """Before the nodes agree that its slot has moved; also by a client that knows no new node."""
    with Cluster(binary=binary, replicas=0) as cluster:
        settings = RegistrySettings.of(url=cluster.url)
        client, threads = async_client(settings), sync_client(settings)
        await client.execute_command("HSET", KEYS[0], "a", "1")
        assert threads.execute_command("HGET", KEYS[0], "a") == b"1"
        new = cluster.add_node()
        cluster.begin_migration(KEYS[0], new)
        cluster.move_keys(KEYS[0], new)
        many = [client.execute_command("HGET", KEYS[0], "a") for _ in range(50)]
        assert await asyncio.gather(*many) == [b"1"] * 50
        assert threads.execute_command("HGET", KEYS[0], "a") == b"1"
        refusal = ["EVAL", "return redis.error_reply('RRFENCED a 3')", 1, KEYS[0]]
        with pytest.raises(redis.ResponseError, match=r"^RRFENCED a 3"):
            await client.execute_command(*refusal)
        with pytest.raises(redis.ResponseError, match=r"^RRFENCED a 3"):
            threads.execute_command(*refusal)
        cluster.end_migration(KEYS[0], new)
        assert await client.execute_command("HGET", KEYS[0], "a") == b"1"
        await client.aclose()
        threads.close()


def ours_at(node: Node) -> int:
    """How many connections of registries a node has."""
    return str(node.call("CLIENT", "LIST")).count("name=redis-registry ")


async def test_a_node_that_holds_no_slots_any_more_keeps_no_connections(
    binary: str, no_tasks_left: None
) -> None:
    with Cluster(binary=binary, replicas=0) as cluster:
        settings = RegistrySettings.of(url=cluster.url)
        clients = [async_client(settings), async_client(settings, waits=True)]
        threads = sync_client(settings)

        async def written() -> None:
            for client in clients:
                await client.execute_command("HSET", KEYS[0], "a", "1")
            threads.execute_command("HSET", KEYS[0], "a", "1")

        old, new = cluster.owner(KEYS[0]), cluster.add_node()
        await written()
        cluster.migrate(KEYS[0], new)
        await written()
        assert ours_at(new) == 3
        cluster.migrate(KEYS[0], old)

        async def left() -> bool:
            await written()
            return ours_at(new) == 0

        await until(left, "the map says so")
        for client in clients:
            await client.aclose()
        threads.close()


@pytest.mark.parametrize("endpoint", ["hostname", "unknown-endpoint"])
async def test_nodes_that_do_not_say_where_they_are_are_found(
    binary: str, endpoint: str, no_tasks_left: None
) -> None:
    """``?`` and nothing stand for the address then, where a key is on its way too."""
    options = {"cluster-preferred-endpoint-type": endpoint}
    with Cluster(binary=binary, primaries=2, replicas=0, options=options) as cluster:
        settings = RegistrySettings.of(url=cluster.url)
        client, threads = async_client(settings), sync_client(settings)
        await client.execute_command("HSET", KEYS[0], "a", "1")
        assert threads.execute_command("HGET", KEYS[0], "a") == b"1"
        (other,) = set(cluster.nodes) - {cluster.owner(KEYS[0])}
        cluster.begin_migration(KEYS[0], other)
        cluster.move_keys(KEYS[0], other)
        assert await client.execute_command("HGET", KEYS[0], "a") == b"1"
        assert threads.execute_command("HGET", KEYS[0], "a") == b"1"
        cluster.end_migration(KEYS[0], other)
        assert await client.execute_command("HGET", KEYS[0], "a") == b"1"
        assert threads.execute_command("HGET", KEYS[0], "a") == b"1"
        await client.aclose()
        threads.close()


async def test_closing_while_the_map_is_read_says_so_and_cancels_nobody(
    binary: str, no_tasks_left: None
) -> None:
    with Cluster(binary=binary, primaries=1, replicas=0) as cluster:
        registry = RedisModelRegistry.from_url(cluster.url, run_checker=False)
        cluster.nodes[0].pause()
        calls = [asyncio.create_task(registry.status()) for _ in range(3)]

        async def reading() -> bool:
            return any("slots" in task.get_name() for task in asyncio.all_tasks())

        await until(reading, "the map is read")
        await registry.aclose()
        cluster.nodes[0].resume()
        for failed in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(failed, RegistryClosed), failed


def test_threads_come_back_in_time_when_all_nodes_are_silent(binary: str) -> None:
    options: dict[str, Any] = SPREAD | {"operation_timeout_secs": 2.0}
    with (
        Cluster(binary=binary, replicas=0) as cluster,
        SyncModelRegistry.from_url(cluster.url, **options) as registry,
    ):
        registry.get_all_instances("m")
        for node in cluster.nodes:
            node.pause()
        began = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            calls = [pool.submit(registry.get_all_instances, "m") for _ in range(8)]
        assert all(isinstance(c.exception(), RegistryUnavailable) for c in calls)
        # An attempt that was begun in time waits for the map, and for its own answer.
        assert time.monotonic() - began < 2.0 + 4 * OPTIONS["socket_timeout_secs"]
        for node in cluster.nodes:
            node.resume()


async def test_a_client_that_was_given_announces_and_reserves_too(
    binary: str, no_tasks_left: None
) -> None:
    """Both have threads, which take connections of their own."""
    with Cluster(binary=binary, primaries=2, replicas=0, password="pw") as cluster:
        first = cluster.nodes[0]
        given = RedisCluster(host=first.host, port=first.port, password="pw")
        spread: dict[str, Any] = {"partitions": 6, "reservation_ttl_secs": 1.0}
        async with (
            RedisModelRegistry(given, **spread) as registry,
            registry.announce(instance()) as announced,
        ):
            assert await announced.ready()
            async with registry.reserve("glm@llm") as reservation:
                await asyncio.sleep(1.5)  # longer than a lease
                assert not reservation.lost
                counted = await registry.in_flight("glm@llm")
                assert counted == {announced.instance.identity: 1}
        await given.aclose()


async def test_a_wrong_password_is_refused_at_once(binary: str) -> None:
    with Cluster(binary=binary, primaries=1, replicas=0, password="pw") as cluster:
        url = cluster.url.replace("pw@", "another@")
        async with RedisModelRegistry.from_url(url, run_checker=False) as registry:
            with pytest.raises(RegistryRefused) as caught:
                await registry.get_all_instances("chat")
        assert "another" not in str(caught.value)
        with SyncModelRegistry.from_url(url) as threads, pytest.raises(RegistryRefused):
            threads.get_all_instances("chat")


def test_who_takes_a_cluster_s_node_for_a_server_is_told(binary: str) -> None:
    with Cluster(binary=binary, primaries=2, replicas=0) as cluster:
        (other,) = set(cluster.nodes) - {cluster.owner(KEYS[0])}
        options: dict[str, Any] = {"operation_timeout_secs": 0.5}
        with (
            SyncModelRegistry.from_url(other.url, **options) as registry,
            pytest.raises(RegistryUnavailable, match=r"use redis\+cluster://"),
        ):
            registry.get_all_instances("chat")


async def test_a_node_that_has_met_nobody_does_not_hide_the_others(
    binary: str, no_tasks_left: None
) -> None:
    """One that was taken out, or has not been taken in, may still be the first in the URL."""
    with (
        Cluster(binary=binary, primaries=1, replicas=0) as cluster,
        Node(binary=binary) as stranger,
    ):
        first = f"redis+cluster://{stranger.host}:{stranger.port}"
        url = cluster.url.replace("redis+cluster://", f"{first},")
        settings = RegistrySettings.of(url=url)
        client, threads = async_client(settings), sync_client(settings)
        assert await client.execute_command("HSET", KEYS[0], "a", "1") == 1
        assert threads.execute_command("HGET", KEYS[0], "a") == b"1"
        alone = RegistrySettings.of(url=first)
        with pytest.raises(redis.ConnectionError, match="name nodes that have met"):
            await async_client(alone).execute_command("HGET", KEYS[0], "a")
        with pytest.raises(redis.ConnectionError, match="name nodes that have met"):
            sync_client(alone).execute_command("HGET", KEYS[0], "a")
        await client.aclose()
        threads.close()


def test_threads_come_through_too(binary: str) -> None:
    with (
        Cluster(binary=binary) as cluster,
        SyncModelRegistry.from_url(cluster.url, **SPREAD) as registry,
        registry.view() as view,
    ):
        items = fleet(12, each=2)
        registry.send_heartbeats(items)
        dead = cluster.kill_primary(KEYS[0])
        registry.send_heartbeats(items)
        assert len(registry.get_all_instances("chat", healthy_only=True)) == len(items)
        assert len(view.instances("chat")) == len(items)
        cluster.await_failover(dead)
        new = cluster.add_node()
        for key in KEYS[:2]:
            cluster.migrate(key, new)
            registry.send_heartbeats(items)
        with registry.reserve("chat") as reservation:
            assert registry.in_flight("chat")[reservation.instance.identity] == 1
