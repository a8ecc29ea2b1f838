"""Changes by the thousand while the watcher's connection dies, and Redis with it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from redis_registry import (
    ModelInstance,
    Readiness,
    RedisModelRegistry,
    RegistryError,
    View,
    Watch,
)
from redis_registry.testing import Proxy, Replica, Standalone
from tests.following.validator import Untrue, Validator, essence
from tests.helpers import Store, connect, instance, until

__all__ = ["Chaos"]

MODELS = [f"model {n}|:%" for n in range(5)]
INSTANCES = 20
SETTLE_SECS = 30.0


@dataclass
class Chaos:
    """One run.

    Attributes:
        changes: How many changes to make; an operation that writes no event is none.
        cuts: How often to end the watcher's connections.
        blows: What else happens, evenly spread: ``restart``, ``failover``, ``trim``.
        seed: Of all chances.
        operations: How many were answered so far.
        changed: How many of them raised the revision, as the writer saw it.
        cut: How often connections were ended so far.
    """

    changes: int
    cuts: int
    blows: tuple[str, ...]
    seed: int = 1
    binary: str | None = None
    validator: Validator = field(default_factory=Validator)
    operations: int = 0
    changed: int = 0
    cut: int = 0
    place: tuple[str, int] = ("", 0)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        options = {"appendonly": "yes", "appendfsync": "always"}
        primary = Standalone(binary=self.binary, options=options)
        self.replica = Replica(primary, binary=self.binary, options=options)
        self.servers: list[Standalone] = [primary, self.replica]

    async def run(self, sabotage: Callable[[RedisModelRegistry], None]) -> None:
        """Make the changes, then compare.

        Args:
            sabotage: Done to the watching registry before it begins.

        Raises:
            Untrue: The watch or the view was not true.
        """
        with self.servers[0], self.servers[1]:
            port = self.servers[0].port
            with Proxy(port) as calm, Proxy(port) as rough:
                self.calm, self.rough = calm, rough
                await self._watch(sabotage)

    async def _watch(self, sabotage: Callable[[RedisModelRegistry], None]) -> None:
        options: dict[str, Any] = {"run_checker": False, "heartbeat_timeout_secs": 3}
        async with (
            RedisModelRegistry.from_url(self.calm.url, **options) as writer,
            RedisModelRegistry.from_url(self.rough.url, **options) as reader,
        ):
            sabotage(reader)
            async with reader.view() as view, reader.watch(buffer=500) as watch:
                tasks = [
                    asyncio.create_task(self._judge(watch)),
                    asyncio.create_task(self._cut()),
                ]
                try:
                    await self._change(writer, tasks[0])
                    await self._compare(writer, view, tasks[0])
                finally:
                    for task in tasks:
                        task.cancel()
                    done = await asyncio.gather(*tasks, return_exceptions=True)
                    for error in done:
                        if isinstance(error, Untrue):
                            raise error

    async def _judge(self, watch: Watch) -> None:
        async for event in watch:
            self.validator.take(event)

    async def _cut(self) -> None:
        """Keep up with the changes: so many of them, so many cuts."""
        while self.cut < self.cuts:
            if self.cut * self.changes <= self.changed * self.cuts:
                before = self.rough.cuts
                self.rough.cut()
                await asyncio.sleep(0.001)
                self.cut += self.rough.cuts > before
            await asyncio.sleep(self.chance.uniform(0, 0.01))

    async def _change(
        self, writer: RedisModelRegistry, judge: asyncio.Task[None]
    ) -> None:
        every = self.changes // (len(self.blows) + 1)
        blows = list(self.blows)
        while not judge.done() and (
            self.changed < self.changes or self.cut < self.cuts or blows
        ):
            if self.changed * self.cuts > (self.cut + 1) * self.changes:
                await asyncio.sleep(0.001)  # wait for the cuts
                continue
            try:
                await self._one(writer)
            except RegistryError:
                await asyncio.sleep(0.01)
                continue
            if blows and self.changed >= every * (len(self.blows) - len(blows) + 1):
                await self._blow(blows.pop(0), writer)
                await self._told(writer, judge)

    async def _one(self, writer: RedisModelRegistry) -> None:
        """An operation by chance, and whether it was a change."""
        await self._operate(writer)
        (status,) = await writer.status()
        before, self.place = self.place, (status.epoch, status.revision)
        self.operations += 1
        self.changed += before[0] == status.epoch and before[1] < status.revision

    async def _operate(self, writer: RedisModelRegistry) -> None:
        item = instance(
            self.chance.randrange(1, INSTANCES),
            self.chance.choice(MODELS),
            weight=self.chance.randrange(5),
            check_healthy=False,  # nobody beats here
        )
        match self.chance.randrange(6):
            case 0:
                await writer.deregister_instance(item)
            case 1:
                gone = item.model_copy(update={"remove_from_registry": True})
                await writer.deregister_instance(gone)
            case 2 | 3:
                readiness = self.chance.choice(list(Readiness))
                await writer.set_readiness(item, readiness, f"{self.operations}|")
            case _:
                await writer.register_instance(item)

    async def _blow(self, kind: str, writer: RedisModelRegistry) -> None:
        primary = self.servers[0]
        if kind == "restart":
            primary.kill()
            primary.start()
        elif kind == "failover":
            self.replica.promote()
            self.servers.reverse()
            for proxy in (self.calm, self.rough):
                proxy.target = self.servers[0].port
                proxy.cut()
        else:  # trimmed past the watcher while it can't be reached
            self.rough.refusing = True
            self.rough.cut()
            for _ in range(50):
                await self._one(writer)
            raw = connect(primary.url)
            raw.xtrim(Store(raw).key("events"), maxlen=1, approximate=False)
            raw.close()
            self.rough.refusing = False

    async def _told(
        self, writer: RedisModelRegistry, judge: asyncio.Task[None]
    ) -> None:
        """Let each blow be told of as such, before the next one."""

        async def told() -> bool:
            (status,) = await writer.status()
            here = (status.epoch, status.revision)
            return judge.done() or self.validator.place == here

        await until(told, "the watch has got over it", within_secs=SETTLE_SECS)

    async def _compare(
        self, writer: RedisModelRegistry, view: View, judge: asyncio.Task[None]
    ) -> None:
        """Everything must agree once it is quiet."""

        async def agree() -> bool:
            if judge.done():
                return True
            truth = await writer.get_all_model_instances()
            (status,) = await writer.status()
            held = {item.identity: essence(item) for item in truth}
            seen: dict[object, dict[str, object]] = {
                item.identity: essence(item) for item in view.instances()
            }
            told = self.validator.place == (status.epoch, status.revision)
            return told and seen == held

        await until(agree, "view and watch agree with Redis", within_secs=SETTLE_SECS)
        truth: list[ModelInstance] = await writer.get_all_model_instances()
        self.validator.compare(truth)
