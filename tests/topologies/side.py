"""One side of a network that is split: it registers, works and follows as long as it can.

``python -m tests.topologies.side URL NAME FIRST_PORT``

It says ``ready`` when its worker is, and its watch has begun. From then on it registers another
instance of the model NAME every few milliseconds. It answers each line of its input with a report:
what was acknowledged, what was refused, and what it was told by its watch and its view. After
``late`` it has a second worker; after ``stop`` it registers no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from typing import Any

from redis_registry import RedisModelRegistry, RegistryError, View, Watch
from tests.helpers import instance
from tests.load.programs import say

WORKERS = "workers"
TIMEOUT_SECS = 4.0
CALL_SECS = 1.0
PACE_SECS = 0.01


class Side:
    """What one side did and saw.

    Args:
        registry: Its registry.
        view: Its view.
        name: The model that it registers.
        first: The port of its first instance.
    """

    def __init__(
        self, registry: RedisModelRegistry, view: View, name: str, first: int
    ) -> None:
        self.registry, self.view = registry, view
        self.name, self.port = name, first
        self.acked: list[tuple[int, float]] = []
        self.refused: list[tuple[float, float, str, str]] = []
        self.events: list[tuple[int, str, int, str, str]] = []
        self.over = asyncio.Event()

    async def write(self) -> None:
        """Register one after the other; none is tried twice."""
        while not self.over.is_set():
            self.port, began = self.port + 1, time.monotonic()
            try:
                await self.registry.register_instance(instance(self.port, self.name))
            except RegistryError as error:
                told = (time.monotonic(), type(error).__name__, str(error))
                self.refused.append((began, *told))
            else:
                self.acked.append((self.port, time.monotonic()))
            await asyncio.sleep(PACE_SECS)  # a pace

    async def follow(self, watch: Watch) -> None:
        """Note all that the watch tells."""
        async for event in watch:
            told = (event.revision, str(event.kind), event.subject)
            self.events.append((event.partition, event.epoch, *told))

    def report(self) -> dict[str, Any]:
        """All of it up to now."""
        return {
            "acked": self.acked,
            "refused": self.refused,
            "events": self.events,
            "resyncs": self.view.resyncs,
            "working": [i.port for i in self.view.instances(WORKERS) if i.healthy],
            "stale": self.view.stale,
        }

    async def obey(self, stack: contextlib.AsyncExitStack, late: int) -> None:
        """Answer every line of the input; it ends when that does."""
        while line := await asyncio.to_thread(sys.stdin.readline):
            if line == "stop\n":
                self.over.set()
            if line == "late\n":
                announced = self.registry.announce(instance(late, WORKERS))
                await (await stack.enter_async_context(announced)).ready()
            say(self.report())


async def main(url: str, name: str, first: int) -> None:
    async with (
        RedisModelRegistry.from_url(
            url,
            run_checker=True,
            heartbeat_timeout_secs=TIMEOUT_SECS,
            operation_timeout_secs=CALL_SECS,
            socket_timeout_secs=CALL_SECS / 2,
        ) as registry,
        registry.view() as view,
        registry.watch() as watch,
        registry.announce(instance(first, WORKERS)) as worker,
        contextlib.AsyncExitStack() as stack,
        asyncio.TaskGroup() as group,
    ):
        await worker.ready()
        side = Side(registry, view, name, first)
        tasks = [group.create_task(side.write()), group.create_task(side.follow(watch))]
        say("ready")
        await side.obey(stack, first + 1)
        for task in tasks:
            task.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
