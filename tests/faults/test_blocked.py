"""An event loop that is blocked for two timeouts: its checker is replaced, fenced, and says how late it was."""

from __future__ import annotations

import asyncio
import threading
import time

from redis_registry import Kind, RedisModelRegistry
from redis_registry.store.operations import Term
from redis_registry.store.replies import Sweep
from tests.conftest import FAST, Server
from tests.helpers import instance, until

BLOCKED_SECS = 2 * FAST["heartbeat_timeout_secs"]


class Lags:
    """Hears how late the loop was."""

    def __init__(self) -> None:
        self.worst = 0.0

    def count(self, name: str, amount: int = 1, **labels: str) -> None:
        pass

    def gauge(self, name: str, value: float, **labels: str) -> None:
        pass

    def observe(self, name: str, secs: float, **labels: str) -> None:
        if name == "loop_lag":
            self.worst = max(self.worst, secs)


class Blocked:
    """A controller on a loop of its own, blocked just before it flips, and once more in between."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.lags = Lags()
        self.looked, self.over = threading.Event(), threading.Event()
        self.error = ""
        self.flips = 0
        self.thread = threading.Thread(target=lambda: asyncio.run(self.run()))

    async def run(self) -> None:
        async with RedisModelRegistry.from_url(
            self.url, telemetry=self.lags, **FAST
        ) as registry:
            checker = registry._checker
            assert checker is not None
            flip = checker._flip

            async def late(term: Term, sweep: Sweep) -> None:
                if not self.looked.is_set():
                    self.looked.set()
                    time.sleep(BLOCKED_SECS)  # noqa: ASYNC251  on purpose
                await flip(term, sweep)

            checker._flip = late
            while not self.over.is_set():
                await asyncio.sleep(0.02)
                if "LeaseLost" in (checker.status.last_error or ""):
                    self.error = checker.status.last_error or ""
            time.sleep(0.3)  # noqa: ASYNC251  while it waits for its turn
            await asyncio.sleep(0.5)
            self.flips = checker.status.flips


async def test_a_checker_whose_loop_is_blocked_is_replaced_and_fenced(
    server: Server, no_tasks_left: None
) -> None:
    blocked = Blocked(server.url)
    blocked.thread.start()

    async def is_leading() -> bool:
        return server.store.hash("lease").get("until", "0") != "0"

    await until(is_leading, "it leads")
    async with RedisModelRegistry.from_url(server.url, **FAST) as registry:
        await registry.register_instance(instance(1))
        while not blocked.looked.is_set():
            await registry.send_heartbeat(instance(2))
            await asyncio.sleep(0.05)

        async def flipped() -> bool:
            await registry.send_heartbeat(instance(2))
            return bool(server.store.events(Kind.UNHEALTHY))

        secs = await until(flipped, "the other one flips it")
        assert secs < BLOCKED_SECS, "while the first is blocked"

        async def fenced() -> bool:
            await registry.send_heartbeat(instance(2))
            return bool(blocked.error)

        await until(fenced, "the first learns it")
        found = await registry.get_all_instances("glm@llm")
        assert {item.port: item.healthy for item in found} == {1: False, 2: True}
    blocked.over.set()
    await asyncio.to_thread(blocked.thread.join)
    assert [e.subject for e in server.store.events(Kind.UNHEALTHY)] == [
        "glm@llm:10.0.0.1:1"
    ], "one event"
    assert blocked.flips == 0
    assert blocked.lags.worst > 0.2, "its lag is told"
