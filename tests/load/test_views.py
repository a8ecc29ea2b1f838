"""Acceptance of the reader side: prints its figures; ``make test-load`` runs it."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from redis_registry import (
    Kind,
    ModelInstance,
    RedisModelRegistry,
    Snapshot,
    View,
)
from redis_registry.embedded import EmbeddedServer
from tests.conftest import _binary
from tests.following.chaos import Chaos
from tests.following.test_watch import next_of, until_view
from tests.helpers import instance, instances
from tests.load.conftest import Tell
from tests.load.programs import Program, part, programs
from tests.load.viewer import MODEL

pytestmark = pytest.mark.timeout(900)


def p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


@pytest.mark.parametrize("kind", ["valkey", "redis7"])
async def test_10000_changes_and_1000_cuts(kind: str, tell: Tell) -> None:
    chaos = Chaos(
        part(10_000),
        part(1000),
        ("restart", "failover", "trim", "restart", "trim", "failover", "restart"),
        binary=_binary(kind),
        seed=7,
    )
    await chaos.run(lambda _registry: None)
    tell(
        f"{kind}: {chaos.changed} changes by {chaos.operations} operations, {chaos.cut} cuts, resyncs {dict(chaos.validator.causes)}, "
        f"{sum(chaos.validator.counts.values())} events, all true"
    )
    assert chaos.changed >= part(10_000)
    assert chaos.cut >= part(1000)


@pytest.mark.parametrize("kind", ["valkey", "redis7"])
async def test_10000_heartbeats_a_second_are_no_event(kind: str, tell: Tell) -> None:
    secs = part(10)
    with EmbeddedServer(binary=_binary(kind)) as server:
        async with (
            RedisModelRegistry.from_url(server.url, run_checker=False) as registry,
            registry.watch() as watch,
        ):
            crowd = instances(1000)
            await registry.send_heartbeats(crowd)
            begin = await next_of(watch, Kind.RESYNC)
            waiting = asyncio.create_task(anext(watch))
            sent, start = 0, time.monotonic()
            while (now := time.monotonic()) < start + secs:
                if sent < (now - start) * 10_000:
                    await registry.send_heartbeats(crowd)
                    sent += len(crowd)
                else:
                    await asyncio.sleep(0.005)
            assert not waiting.done()
            await registry.deregister_instance(crowd[0])
            event = await waiting
    rate = sent / secs
    tell(f"{kind}: {rate:.0f} heartbeats/s for {secs} s, 0 events")
    assert rate >= 9_900
    assert event.revision == begin.revision + 1


@pytest.mark.parametrize("views", [50, 200])
async def test_how_long_a_change_takes_to_all_views(views: int, tell: Tell) -> None:
    processes, changes = 5, part(300, 30)
    with EmbeddedServer() as server:
        made = [
            Program("viewer", server.url, views // processes) for _ in range(processes)
        ]
        async with RedisModelRegistry.from_url(
            server.url, run_checker=False
        ) as registry:
            await registry.register_instance(_stamped())
            with programs(made):
                for program in made:
                    program.ask("ages")
                for _ in range(changes):
                    await registry.register_instance(_stamped())
                    await asyncio.sleep(0.05)
                ages = [age for program in made for age in program.ask("ages")]
    median, high = statistics.median(ages), p99(ages)
    tell(
        f"{views} views, each with a connection of its own, in {processes} processes: median {median * 1e3:.2f} ms, "
        f"p99 {high * 1e3:.2f} ms, longest {max(ages) * 1e3:.1f} ms of {len(ages)}"
    )
    if views == 50:
        assert len(ages) == changes * views
        assert high <= 0.020


def _stamped() -> ModelInstance:
    return instance(1, MODEL, metadata={"at": time.monotonic()})


@pytest.mark.parametrize("models", [100, 1])
async def test_a_view_of_100000_instances(models: int, tell: Tell) -> None:
    count = part(100_000)
    with EmbeddedServer() as server:
        async with RedisModelRegistry.from_url(
            server.url, run_checker=False, heartbeat_timeout_secs=600
        ) as registry:
            crowd = [
                ModelInstance(
                    model_name=f"model-{n % models}",
                    host=f"10.0.{n // 60_000}.1",
                    port=n % 60_000 + 1,
                )
                for n in range(count)
            ]
            for first in range(0, count, 5000):
                await registry.send_heartbeats(crowd[first : first + 5000])
            start = time.monotonic()
            async with registry.view(wait_secs=60) as view:
                ready = time.monotonic() - start
                shown = len(view.instances())
                whole = time.monotonic() - start
                mirror, took, rebuilt = view._live.mirror, list[float](), list[float]()
                apply = mirror.apply

                def timed(entry: object) -> object:
                    began = time.perf_counter()
                    done = apply(entry)  # type: ignore[arg-type]
                    took.append(time.perf_counter() - began)
                    return done

                mirror.apply = timed  # type: ignore[method-assign,assignment]
                for item in crowd[:100]:
                    before = view.snapshot(item.model_name)
                    await registry.deregister_instance(item)
                    await until_view(_moved_on(view, before), "it is seen")
                    mirror.models[item.model_name].version += 1
                    began = time.perf_counter()
                    view.snapshot(item.model_name)
                    rebuilt.append(time.perf_counter() - began)
    tell(
        f"{shown} instances of {models} models: ready after {ready:.2f} s, all decoded after {whole:.2f} s; "
        f"one change applied in {statistics.median(took) * 1e6:.0f} µs median, {max(took) * 1e6:.0f} µs longest; "
        f"its model's snapshot anew in {statistics.median(rebuilt) * 1e3:.2f} ms median"
    )
    assert shown == count
    assert whole <= 5
    assert max(took) <= 0.001


def _moved_on(view: View, before: Snapshot) -> Callable[[], bool]:
    return lambda: view.snapshot(before.model_name) is not before


async def test_redis_is_killed_for_a_minute(tmp_path: Path, tell: Tell) -> None:
    secs = part(60, 5)
    path = tmp_path / "snapshot"
    with EmbeddedServer(options={"appendonly": "yes"}) as server:
        async with RedisModelRegistry.from_url(
            server.url, run_checker=False, heartbeat_timeout_secs=10
        ) as registry:
            await registry.send_heartbeats(instances(20))
            dead = instances(20)[:5]
            for item in dead:
                await registry.deregister_instance(item)
            async with registry.view(snapshot_path=path) as view:
                server.kill()
                picked: Counter[int] = Counter()
                oldest, start = 0.0, time.monotonic()
                while time.monotonic() < start + secs:
                    for _ in range(100):
                        chosen = view.select("glm@llm")
                        picked[chosen.port if chosen else 0] += 1
                    oldest = max(oldest, view.staleness_secs)
                    await asyncio.sleep(0.01)
                assert view.stale
                server.start()
                await until_view(lambda: not view.stale, "it is back")
        tell(
            f"Redis away for {secs} s: {picked.total()} picks, {picked[0]} without an instance, "
            f"{sum(picked[item.port] for item in dead)} of a dead one; staleness up to {oldest:.1f} s"
        )
        assert picked[0] == 0
        assert not any(picked[item.port] for item in dead)
        assert secs - 2 < oldest < secs + 3
