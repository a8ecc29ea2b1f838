"""A hundred thousand die in one moment: each is flipped once, and nobody else waits for it."""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest

from redis_registry import (
    GuardSettings,
    Kind,
    ModelInstance,
    RedisModelRegistry,
    SyncModelRegistry,
)
from redis_registry.testing import Standalone
from tests.conftest import _binary
from tests.helpers import MODEL, Store, connect, instances, until
from tests.load.conftest import Tell
from tests.load.programs import part

COUNT = part(100_000)
PAGE, PORTS = 1000, 50_000
STEADY, STEADY_INTERVAL_SECS = "steady@llm", 1.0
LONGEST_MS = 10.0
OPTIONS: dict[str, Any] = {
    "events_kept": 10_000_000,
    "guard": GuardSettings(enabled=False),
    "heartbeat_interval_secs": 0.2,
    "operation_timeout_secs": 60.0,
}


def crowd() -> list[ModelInstance]:
    """All that will die; a host has not as many ports."""
    return [
        ModelInstance(model_name=MODEL, host=f"10.0.{n // PORTS}.1", port=1 + n % PORTS)
        for n in range(COUNT)
    ]


@contextmanager
def beating(url: str, took: list[float]) -> Generator[None]:
    """A few instances of another model beat on; how long each heartbeat took is noted."""
    over = threading.Event()
    items = instances(20, STEADY)

    def run() -> None:
        with SyncModelRegistry.from_url(url) as registry:
            while not over.wait(0.001):
                for item in items:
                    began = time.monotonic()
                    registry.send_heartbeat(item)
                    took.append(time.monotonic() - began)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def expire(store: Store, members: list[str]) -> None:
    """Put all deadlines into the past in one moment, and empty the log of what was slow."""
    past = store.now_us() - 1_000_000
    with store.raw.pipeline(transaction=True) as pipe:
        for first in range(0, len(members), PAGE):
            page = dict.fromkeys(members[first : first + PAGE], past)
            pipe.zadd(store.key("deadlines"), page, xx=True)
        pipe.slowlog_reset()
        pipe.execute()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["valkey", "redis7"])
async def test_a_hundred_thousand_flips_keep_nobody_waiting(
    kind: str, tell: Tell, no_tasks_left: None
) -> None:
    options = {"slowlog-log-slower-than": "2000", "slowlog-max-len": "10000"}
    with Standalone(binary=_binary(kind), options=options) as server:
        raw = connect(server.url)
        store = Store(raw)
        async with RedisModelRegistry.from_url(
            server.url, run_checker=True, **OPTIONS
        ) as registry:
            await registry.send_heartbeats(crowd())
            members = list(store.scores("deadlines"))
            assert len(members) == COUNT
            took: list[float] = []
            with beating(server.url, took):
                await until(lambda: _are(took, 100), "they beat", within_secs=30)
                await asyncio.to_thread(expire, store, members)
                before, began = len(took), time.monotonic()
                await until(lambda: _flipped(store), "all are flipped", within_secs=120)
                flipping_secs = time.monotonic() - began
                during = took[before:]
        slow = sorted(
            (entry["duration"] / 1000, entry["command"][:200])
            for entry in raw.slowlog_get(10_000)
        )
        told = Counter(event.subject for event in store.events(Kind.UNHEALTHY))
        raw.close()
    slowest_ms, slowest = slow[-1] if slow else (0.0, b"")
    p99 = statistics.quantiles(during, n=100)[98]
    tell(
        f"  {kind}: {COUNT:,} flips in {flipping_secs:.1f} s, {told.total():,} events; the slowest "
        f"command took {slowest_ms:.1f} ms, {len(slow)} took 2 ms or more; "
        f"{len(during)} heartbeats of others meanwhile, p99 {1000 * p99:.1f} ms"
    )
    assert len(told) == told.total() == COUNT, "one event each"
    assert not [subject for subject in told if subject.startswith("steady")]
    assert slowest_ms < LONGEST_MS, f"{slowest!r}, of {slow[-5:]}"
    assert p99 < STEADY_INTERVAL_SECS


async def _flipped(store: Store) -> bool:
    return store.raw.zcard(store.key("down")) == COUNT


async def _are(found: list[float], count: int) -> bool:
    return len(found) >= count
