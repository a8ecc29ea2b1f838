"""Reservations: threads, every kind of server, failing rounds and aliases."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter

import pytest

from redis_registry import (
    ConfigurationError,
    ModelInstance,
    NoneAvailable,
    RedisModelRegistry,
    SyncModelRegistry,
)
from redis_registry.roles import holder as holder_module
from tests.conftest import SLOW, MakeBench, Server
from tests.helpers import instance, instances
from tests.promises.reserving import MODEL, TTL_SECS, total


def test_threads_share_one_holder(
    sync_registry: SyncModelRegistry, server: Server
) -> None:
    sync_registry.send_heartbeats(instances(5))
    picked = Counter[int]()

    def work() -> None:
        for _ in range(25):
            with sync_registry.reserve(MODEL, wait_secs=1) as made:
                picked[made.instance.port] += 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(picked.values()) == 100
    assert set(sync_registry.in_flight(MODEL).values()) == {0}
    with pytest.raises(NoneAvailable), sync_registry.reserve("nobody@llm"):
        pass
    with pytest.raises(NoneAvailable), sync_registry.reserve(" "):
        pass
    with pytest.raises(ConfigurationError):
        sync_registry.reserve(MODEL, policy="")
    assert sync_registry.in_flight("") == {}
    server.store.check()


async def test_it_works_on_every_kind_of_server(
    registry: RedisModelRegistry, worker: ModelInstance
) -> None:
    await registry.register_instance(worker)
    async with registry.reserve(worker.model_name) as made:
        assert made.instance.identity == worker.identity
        assert await registry.in_flight(worker.model_name) == {worker.identity: 1}
    assert await registry.in_flight(worker.model_name) == {worker.identity: 0}
    assert await registry.in_flight("") == {}


async def test_a_failing_round_is_told_and_tried_again(
    make_bench: MakeBench,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = await make_bench(reservation_ttl_secs=TTL_SECS)
    await bench.registry.register_instance(instance())
    renew, failures = holder_module.Holder._renew, 3

    def broken(self: holder_module.Holder, home: int) -> None:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            msg = "broken"
            raise ValueError(msg)
        renew(self, home)

    monkeypatch.setattr(holder_module.Holder, "_renew", broken)
    with caplog.at_level(logging.WARNING):
        async with bench.registry.reserve(MODEL) as made:
            await asyncio.sleep(1.5 * TTL_SECS)
            assert await total(bench.registry) == 1
            assert not made.lost
    assert "will try again" in caplog.text


async def test_an_alias_of_a_model_in_another_partition_is_reserved(
    server: Server, no_tasks_left: None
) -> None:
    async with RedisModelRegistry.from_url(
        server.url, run_checker=False, namespace="far", partitions=8, **SLOW
    ) as registry:
        for number in range(8):
            await registry.register_instance(instance(number + 1, f"model {number}"))
            alias = f"alias {number}"
            await registry.set_alias(alias, f"model {number}", author="me")
            async with registry.reserve(alias) as reservation:
                assert reservation.instance.model_name == f"model {number}"
                held = await registry.in_flight(f"model {number}")
                assert list(held.values()) == [1]
    server.raw.flushall()
