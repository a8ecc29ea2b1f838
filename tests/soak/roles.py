"""What the processes of the soak do, again and again, whatever happens to Redis."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from redis_registry import (
    Kind,
    ModelInstance,
    NoneAvailable,
    RedisModelRegistry,
    RegistryError,
    Selector,
    SyncModelRegistry,
    View,
    Watch,
    new_incarnation,
)
from redis_registry.roles.following.view import ViewReads
from redis_registry.selection import POLICIES
from tests.soak.measuring import Figures
from tests.soak.settings import MOST_PRESENT, OPTIONS, STAYING, STAYS, passing

__all__ = ["ROLES", "Role"]

BATCH = 250
ALSO = "also "


class Role:
    """What one process does.

    Args:
        url: Its Redis.
        chance: Where its chances come from.
    """

    registry: RedisModelRegistry

    def __init__(self, url: str, chance: random.Random) -> None:
        self.url = url
        self.chance = chance
        self.errors: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self._stack = AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self, stack: AsyncExitStack) -> None:
        """Enter what it needs."""
        raise NotImplementedError

    def roots(self) -> Sequence[object]:
        """Where everything that it holds can be reached from."""
        raise NotImplementedError

    def loops(self) -> Sequence[Callable[[], Awaitable[None]]]:
        """What it does again and again."""
        return []

    async def settle(self) -> None:
        """Use each connection once, for a fault may have closed it; learn what has ended."""
        await self.registry.status()

    def figures(self) -> Figures:
        """What it has done so far."""
        failed = {f"{name} told": float(n) for name, n in self.errors.items()}
        return {name: float(n) for name, n in self.done.items()} | failed

    def more(self, count: int) -> None:
        """Do so much more than up to now."""
        raise NotImplementedError

    async def fill(self) -> None:
        """Fill the stream with news that are the same at each look.

        How much memory an event takes depends on how many were written with it, by one call.
        """
        raise NotImplementedError

    def go_on(self) -> None:
        """Begin, or begin again."""
        self._tasks = [asyncio.create_task(self._again(one)) for one in self.loops()]

    async def rest(self) -> None:
        """End what is under way; what is open stays open."""
        for task in self._tasks:
            task.cancel()
        ended = await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        for error in ended:
            if isinstance(error, Exception):
                raise error  # a loop had died

    async def _again(self, step: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await step()
            except RegistryError as error:
                self.errors[type(error).__name__] += 1
                await asyncio.sleep(0.02)

    async def __aenter__(self) -> Self:
        await self.open(await self._stack.__aenter__())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)


class Controller(Role):
    """Sweeps, whenever it has the lease."""

    async def open(self, stack: AsyncExitStack) -> None:
        registry = RedisModelRegistry.from_url(self.url, telemetry=self, **OPTIONS)
        self.registry = await stack.enter_async_context(registry)

    def roots(self) -> Sequence[object]:
        return [self.registry]

    def count(self, name: str, amount: int = 1, **labels: str) -> None:
        if name in {"flips", "forgotten", "sweeps"}:
            self.done[name] += amount

    def observe(self, name: str, secs: float, **labels: str) -> None:
        """It measures nothing."""

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Nor this."""


class Visitor(Controller):
    """Another controller, and a router; sooner or later it is killed with what it has reserved."""

    def loops(self) -> Sequence[Callable[[], Awaitable[None]]]:
        return [self._hold] * 5

    async def _hold(self) -> None:
        try:
            async with self.registry.reserve(STAYS):
                await asyncio.sleep(self.chance.uniform(0, 0.5))
        except NoneAvailable:
            await asyncio.sleep(0.05)


class Worker(Role):
    """Registers instances that never say a word again; a few others it keeps alive."""

    target = 0

    async def open(self, stack: AsyncExitStack) -> None:
        registry = RedisModelRegistry.from_url(self.url, run_checker=False, **OPTIONS)
        self.registry = await stack.enter_async_context(registry)
        for port in range(1, STAYING + 1):
            announced = await stack.enter_async_context(
                self.registry.announce(self._staying(port))
            )
            await announced.ready()
            announced.report(in_flight=port % 3, capacity=8)

    def roots(self) -> Sequence[object]:
        return [self.registry]

    async def settle(self) -> None:
        await super().settle()
        await self.registry.send_heartbeats([self._staying(1)])

        for cache in (
            self.registry._operations._beliefs,
            self.registry._operations._epochs,
        ):
            cache.clear()  # it is, whenever it is full; how full it is would be luck

    async def fill(self) -> None:
        one = ModelInstance(model_name="filling", host="10.3.0.1", port=1)
        for turn in range(OPTIONS["events_kept"] * 11 // 10):
            one.weight = 1.0 + turn % 2
            await self.registry.register_instance(one)
        one.remove_from_registry = True
        await self.registry.deregister_instance(one)

    @staticmethod
    def _staying(port: int) -> ModelInstance:
        # Longer than any pause of this process on a busy machine.
        return ModelInstance(
            model_name=STAYS, host="10.1.0.1", port=port, heartbeat_timeout_secs=15
        )

    def loops(self) -> Sequence[Callable[[], Awaitable[None]]]:
        return [self._churn]

    def more(self, count: int) -> None:
        self.target += count

    def figures(self) -> Figures:
        return super().figures() | {"target": self.target}

    async def _churn(self) -> None:
        first = self.done["registered"]
        some = range(first, min(first + BATCH, self.target))
        if not some or await self._present() > MOST_PRESENT:
            await asyncio.sleep(0.02)
            return
        made = [self._passing(number) for number in some]
        whole = [one for one in made if not one.incarnation]
        async with asyncio.TaskGroup() as group:
            for one in made:
                if one.incarnation:
                    group.create_task(self._register(one))
            group.create_task(self._beat(whole))
        self.done["registered"] += len(some)

    async def _present(self) -> int:
        found = await self.registry.status()
        there = sum(one.living + one.unhealthy for one in found) - STAYING
        self.done["present"] = there
        return there

    def _passing(self, number: int) -> ModelInstance:
        """One that comes and goes; each is somebody else."""
        model, host, port = passing(number)
        return ModelInstance(
            model_name=model,
            host=host,
            port=port,
            incarnation=new_incarnation() if number % 5 < 3 else None,
            heartbeat_timeout_secs=self.chance.uniform(0.3, 1.0),
            serves=[f"{model} adapted"] if number % 10 == 0 else [],
            metadata={"capacity": 4},
        )

    async def _register(self, one: ModelInstance) -> None:
        """Until it is answered: each of them is to be there."""
        await self._surely(lambda: self.registry.register_instance(one))

    async def _beat(self, some: Sequence[ModelInstance]) -> None:
        await self._surely(lambda: self.registry.send_heartbeats(some))

    async def _surely(self, call: Callable[[], Awaitable[object]]) -> None:
        while True:
            try:
                await call()
            except RegistryError as error:
                self.errors[type(error).__name__] += 1
                await asyncio.sleep(0.02)
            else:
                return


class Reader(Role):
    """Views, a watch, choices, reservations, reports, decisions; on both faces."""

    last_event = 0.0

    async def open(self, stack: AsyncExitStack) -> None:
        registry = RedisModelRegistry.from_url(self.url, run_checker=False, **OPTIONS)
        self.registry = await stack.enter_async_context(registry)
        self.view: View = await stack.enter_async_context(self.registry.view())
        self.few: View = await stack.enter_async_context(self.registry.view(STAYS))
        self.watch: Watch = await stack.enter_async_context(self.registry.watch())
        self.sync = stack.enter_context(SyncModelRegistry.from_url(self.url, **OPTIONS))
        self.sync_view = stack.enter_context(self.sync.view())
        self._watching = asyncio.create_task(self._follow())
        stack.callback(self._watching.cancel)
        self._may = threading.Event()
        self._over = threading.Event()
        thread = threading.Thread(target=self._in_thread)
        thread.start()
        stack.callback(thread.join)
        stack.callback(self._may.set)
        stack.callback(self._over.set)

    def roots(self) -> Sequence[object]:
        followed = [self.view, self.few, self.watch, self.sync_view]
        return [self.registry, self.sync, *followed]

    async def settle(self) -> None:
        await super().settle()
        await self.registry.get_all_instances(STAYS)
        await asyncio.to_thread(self.sync.get_all_instances, STAYS)
        self.registry._reserver._fleets.clear()  # as the worker does with its caches
        # Each chooser keeps the candidates of its last choice: let all have those of now.
        for view in (self.view, self.few):
            self._pick(view, STAYS)
        await asyncio.to_thread(self._pick, self.sync_view, STAYS)

    def figures(self) -> Figures:
        if self._watching.done():
            self._watching.result()
        shown = sum(one.healthy is True for one in self.few.instances(STAYS))
        looks = [view.staleness_secs for view in (self.view, self.few, self.sync_view)]
        return super().figures() | {"shown": shown, "staleness": max(looks)}

    def loops(self) -> Sequence[Callable[[], Awaitable[None]]]:
        return [self._choose, self._read, self._reserve, self._report, self._decide]

    def go_on(self) -> None:
        super().go_on()
        self._may.set()

    async def rest(self) -> None:
        self._may.clear()
        await super().rest()
        for alias in await self.registry.aliases():  # of a step that was cancelled
            await self.registry.remove_alias(alias.alias)

    async def _follow(self) -> None:
        async for event in self.watch:
            self.done[str(event.kind)] += 1
            about_those = event.subject.startswith(f"{STAYS}:")
            if about_those and event.kind in {Kind.UNHEALTHY, Kind.FORGOTTEN}:
                self.done["false deaths"] += 1

    def _name(self) -> str:
        passing = [n for n in self.view.names() if not n.startswith(ALSO)]
        return self.chance.choice([STAYS, *passing[-20:]])

    def _pick(self, view: ViewReads, name: str = "") -> ModelInstance | None:
        """Choose with every policy; the last choice."""
        name = name or self._name()
        chosen = None
        for policy in POLICIES:
            chosen = view.select(name, policy, key=f"session {self.chance.random()}")
            if chosen is not None:
                with view.outstanding.using(chosen):
                    self.done["choices"] += 1
        return chosen

    async def _choose(self) -> None:
        self._pick(self.view)
        self._pick(self.few)
        await asyncio.sleep(0.02)

    def _in_thread(self) -> None:
        while not self._over.is_set():
            self._may.wait()
            self._pick(self.sync_view)
            time.sleep(0.02)

    async def _read(self) -> None:
        name = self._name()
        await self.registry.get_all_instances(name)
        await self.registry.select_one_health_instance(name)
        await asyncio.to_thread(self.sync.get_all_instances, name)
        await self.registry.explain(name)
        self.done["reads"] += 1
        await asyncio.sleep(0.05)

    async def _reserve(self) -> None:
        name = self._name()
        try:
            async with self.registry.reserve(name):
                self.done["reservations"] += 1
                await asyncio.sleep(0.01)
        except NoneAvailable:
            await asyncio.sleep(0.05)

    async def _report(self) -> None:
        chosen = self._pick(self.view)
        if chosen is not None and chosen.model_name != STAYS:
            for _ in range(5):
                await self.registry.report_failure(chosen, "soak")
        elif chosen is not None:
            await self.registry.report_success(chosen)
        await asyncio.sleep(0.05)

    async def _decide(self) -> None:
        name = self._name()
        await self.registry.override(
            Selector(model=name), weight=2, reason="soak", expires_secs=1
        )
        alias = f"{ALSO}{name}"
        await self.registry.set_alias(alias, name)
        await self.registry.remove_alias(alias)
        await asyncio.sleep(0.5)


ROLES: dict[str, type[Role]] = {
    "controller": Controller,
    "visitor": Visitor,
    "worker": Worker,
    "reader": Reader,
}
