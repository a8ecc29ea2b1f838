"""A member of a fleet, of the release that its path leads to; it knows only what all releases know.

``python -P tests/upgrade/member.py HOME URL NAME FIRST COUNT``: a controller and router, with COUNT
announced instances from port FIRST on. HOME is where its package must be from. Says ``ready``;
answers each line of its input: ``view``, ``watch``, ``work`` (begin to call all the time),
``worked``, ``call METHOD JSON`` (of the registry), ``leave``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, cast

import redis_registry
from redis_registry import (
    ModelInstance,
    Readiness,
    RedisModelRegistry,
    RegistryError,
)

TIMEOUT_SECS = 3.0
MODEL = "rolling"
KNOWN = {
    "model_name",
    "host",
    "port",
    "weight",
    "check_healthy",
    "healthy",
    "enabled",
    "prompt_template",
    "incarnation",
    "readiness",
    "reason",
    "zone",
    "serves",
    "metadata",
    "overrides",
}
"""Fields that every release has, and that nobody's heartbeat moves."""


def say(what: object) -> None:
    print(json.dumps(what), flush=True)  # noqa: T201  for the parent


class Watched:
    """What a watch told, and whether it told all.

    Attributes:
        gaps: Changes that do not follow on the one before.
        deaths: Who was told to be unhealthy, as the subject says it.
    """

    def __init__(self) -> None:
        self.place: tuple[str, int] | None = None
        self.gaps: list[str] = []
        self.deaths: list[str] = []
        self.changes = 0

    def take(self, event: Any) -> None:
        self.changes += 1
        kind = str(event.kind)
        follows = self.place == (event.epoch, event.revision - 1)
        if kind != "resync" and not follows:
            self.gaps.append(f"{event.epoch}:{event.revision} after {self.place}")
        if kind == "unhealthy":
            self.deaths.append(event.subject)
        self.place = event.epoch, event.revision

    def told(self) -> dict[str, Any]:
        return {
            "place": self.place,
            "gaps": self.gaps,
            "deaths": self.deaths,
            "changes": self.changes,
        }


class Member:
    """One process of the fleet."""

    def __init__(self, registry: RedisModelRegistry, first: int) -> None:
        self.registry = registry
        self.first = first
        self.tasks = [asyncio.create_task(self.follow())]
        self.watched = Watched()
        self.errors: list[str] = []
        self.calls = 0

    async def follow(self) -> None:
        async with self.registry.watch() as watch:
            async for event in watch:
                self.watched.take(event)

    async def work(self) -> None:
        """What routers and other workers do meanwhile."""
        mine = ModelInstance(model_name="passing", host="10.0.0.2", port=self.first)
        shared = [
            ModelInstance(model_name="shared", host="10.0.0.3", port=port)
            for port in range(1, 11)
        ]
        while True:
            try:
                await self.registry.send_heartbeats(shared)
                await self.registry.register_instance(mine)
                async with self.registry.reserve(MODEL):
                    await self.registry.get_all_instances(MODEL)
                chosen = await self.registry.select_one_health_instance(MODEL)
                if chosen is not None:
                    await self.registry.report_success(chosen)
                await self.registry.deregister_instance(mine)
                self.calls += 1
            except RegistryError as error:
                self.errors.append(f"{type(error).__name__}: {error}")
            await asyncio.sleep(0.02)

    async def answer(self, view: Any, words: list[str]) -> object:
        match words[0]:
            case "view":
                return {
                    f"{item.model_name} {item.host}:{item.port}": json.loads(
                        item.model_dump_json(include=KNOWN)
                    )
                    for item in view.instances()
                }
            case "watch":
                return self.watched.told()
            case "work":
                self.tasks.append(asyncio.create_task(self.work()))
                return None
            case "worked":
                return {"calls": self.calls, "errors": self.errors}
            case _:
                method = getattr(self.registry, words[1])
                given = json.loads(" ".join(words[2:]))
                if words[1] == "set_readiness":
                    given[1] = Readiness(given[1])
                return await self._call(method, given)

    async def _call(self, method: Any, given: list[Any]) -> object:
        made = [ModelInstance.model_validate(g) if _fields(g) else g for g in given]
        try:
            found: Any = await method(*made)
        except RegistryError as error:
            return {"error": f"{type(error).__name__}: {error}"}
        items = cast("list[Any]", found if isinstance(found, list) else [found])
        return [
            json.loads(one.model_dump_json()) if isinstance(one, ModelInstance) else one
            for one in items
            if isinstance(one, (ModelInstance, bool, str))
        ]


def _fields(given: object) -> bool:
    return isinstance(given, dict)


async def lines() -> AsyncGenerator[list[str]]:
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader()
    await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := await reader.readline():
        yield line.decode().split()


async def main(url: str, name: str, first: int, count: int) -> None:
    async with contextlib.AsyncExitStack() as stack:
        registry = await stack.enter_async_context(
            RedisModelRegistry.from_url(
                url,
                heartbeat_timeout_secs=TIMEOUT_SECS,
                heartbeat_interval_secs=1.0,
                socket_timeout_secs=1.0,
                operation_timeout_secs=10.0,
            )
        )
        member = Member(registry, first)
        view = await stack.enter_async_context(registry.view())
        for port in range(first, first + count):
            item = ModelInstance(
                model_name=MODEL, host="10.0.0.1", port=port, metadata={"by": name}
            )
            announced = await stack.enter_async_context(registry.announce(item))
            await announced.ready()
        say({"ready": registry.name})
        async for words in lines():
            if words[0] == "leave":
                break
            for task in member.tasks:
                if task.done():
                    task.result()
            say(await member.answer(view, words))
        for task in member.tasks:
            task.cancel()
        await asyncio.gather(*member.tasks, return_exceptions=True)
    say("gone")


if __name__ == "__main__":
    home, url, name, first, count = sys.argv[1:]
    found = Path(redis_registry.__file__).resolve()
    assert found.is_relative_to(Path(home).resolve()), f"{found} is not of {home}"
    asyncio.run(main(url, name, int(first), int(count)))
