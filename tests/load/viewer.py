"""Views that note when they see a change.

``python -m tests.load.viewer URL COUNT``: COUNT registries of one process, each with one view.

Says ``ready``; asked ``ages``, it says how old, in seconds, each change was when each view saw it
(its metadata carries the writer's monotonic clock, the same in all processes of a host), and
begins anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable

from redis_registry import RedisModelRegistry, View
from tests.load.programs import say

MODEL = "watched"


def noting(view: View, ages: list[float]) -> Callable[[frozenset[str]], None]:
    seen = [0.0]

    def note(_models: frozenset[str]) -> None:
        now = time.monotonic()
        (instance,) = view.instances(MODEL)
        if instance.metadata["at"] != seen[0]:
            seen[0] = instance.metadata["at"]
            ages.append(now - seen[0])

    return note


async def main(url: str, count: int) -> None:
    ages: list[float] = []
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(count):
            registry = await stack.enter_async_context(
                RedisModelRegistry.from_url(url, run_checker=False)
            )
            view = await stack.enter_async_context(registry.view())
            view.on_change(noting(view, ages))
        say("ready")
        while await asyncio.to_thread(sys.stdin.readline):
            say(ages)
            ages.clear()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
