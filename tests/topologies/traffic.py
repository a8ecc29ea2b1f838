"""All that a fleet and its readers do, again and again, while servers go and come."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from redis_registry import Event, Kind, ModelInstance, RedisModelRegistry
from tests.helpers import instance, until

OPTIONS: dict[str, Any] = {
    "heartbeat_timeout_secs": 4.0,
    "operation_timeout_secs": 15.0,
    "socket_timeout_secs": 1.0,
}
PATIENCE_SECS = 20.0
ENDS = frozenset({Kind.UNHEALTHY, Kind.DEREGISTERED, Kind.FORGOTTEN, Kind.REMOVED})


def fleet(models: int, each: int = 5) -> list[ModelInstance]:
    """Instances of several models, which spread over the partitions; all serve one adapter."""
    return [
        instance(port, f"m{model}", serves=["chat"])
        for model in range(models)
        for port in range(1, each + 1)
    ]


@dataclass
class Traffic:
    """Calls under way until it is stopped.

    Attributes:
        done: Calls that succeeded, by kind.
        errors: What callers were told.
        longest: The longest time from one success of a kind to the next, by kind.
        worst_view: The fewest healthy instances that the view ever showed.
    """

    registry: RedisModelRegistry
    items: list[ModelInstance]
    done: Counter[str] = field(default_factory=Counter[str])
    errors: list[str] = field(default_factory=list[str])
    longest: dict[str, float] = field(default_factory=dict[str, float])
    worst_view: int = 1_000_000
    ended: list[Event] = field(default_factory=list[Event])
    _last: dict[str, float] = field(default_factory=dict[str, float])

    async def beat(self) -> None:
        await self.registry.send_heartbeats(self.items)

    async def read(self) -> None:
        found = await self.registry.get_all_instances("chat", healthy_only=True)
        assert len(found) == len(self.items), f"{len(found)} of {len(self.items)}"

    async def reserve(self) -> None:
        async with self.registry.reserve("m0"):
            pass

    async def change(self) -> None:
        extra = instance(99, "extra", weight=1 + self.done["change"] % 7)
        await self.registry.register_instance(extra)

    @contextlib.asynccontextmanager
    async def flowing(self) -> AsyncGenerator[None]:
        """All of it, while the block runs; beginning when all were found once."""
        await self.beat()
        await self.read()
        calls = {"beat": self.beat, "read": self.read}
        calls |= {"reserve": self.reserve, "change": self.change}
        async with (
            self.registry.view() as view,
            self.registry.watch() as watch,
            asyncio.TaskGroup() as group,
        ):
            stop = asyncio.Event()
            for name, call in calls.items():
                group.create_task(self._again(name, call, stop))
            looking = group.create_task(self._look(view, stop))
            watching = group.create_task(self._watch(watch))
            try:
                yield
                await self._seen_alive(view)
            finally:
                stop.set()
                watching.cancel()
                await asyncio.wait([looking, watching])

    async def _again(
        self, name: str, call: Callable[[], Awaitable[None]], stop: asyncio.Event
    ) -> None:
        self._last[name] = time.monotonic()
        while not stop.is_set():
            try:
                await call()
            except Exception as error:  # noqa: BLE001  to be reported whole
                self.errors.append(f"{name}: {error!r}")
            else:
                now = time.monotonic()
                self.longest[name] = max(
                    self.longest.get(name, 0.0), now - self._last[name]
                )
                self._last[name] = now
                self.done[name] += 1
            await asyncio.sleep(0.01)  # a pace

    async def _look(self, view: Any, stop: asyncio.Event) -> None:
        while not stop.is_set():
            healthy = sum(item.healthy for item in view.instances("chat"))
            self.worst_view = min(self.worst_view, healthy)
            await asyncio.sleep(0.005)  # how often it looks

    async def _watch(self, watch: Any) -> None:
        async for event in watch:
            if event.kind in ENDS:
                self.ended.append(event)

    async def _seen_alive(self, view: Any) -> None:
        """The view has come through too: it is fresh, and follows changes."""
        made = instance(1, f"after {self.done.total()}")
        await self.registry.register_instance(made)

        async def seen() -> bool:
            return bool(not view.stale and view.instances(made.model_name))

        await until(seen, "the view follows again", within_secs=PATIENCE_SECS)

    async def goes_on(self, rounds: int = 20) -> None:
        """Wait until every kind of call has succeeded that many times from now on."""
        wanted = {name: self.done[name] + rounds for name in self._last}

        async def went_on() -> bool:
            return all(self.done[name] >= count for name, count in wanted.items())

        await until(went_on, "all calls go on", within_secs=PATIENCE_SECS)

    def assert_nobody_noticed(self, gap_secs: float) -> None:
        """No error, nobody flipped, never missing from the view, no pause longer than that."""
        assert not self.errors, self.errors[:3]
        assert not self.ended, self.ended[:3]
        assert self.worst_view == len(self.items)
        assert max(self.longest.values()) <= gap_secs, self.longest
