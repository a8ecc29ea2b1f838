"""A controller replica that selects all the time, with a registry object of its own.

``python -m tests.load.picker URL MODEL TIMEOUT_SECS``

Answers each line of its input with what it has picked since the last one: per port the first
and the last moment, when the last empty pick began (or null), and how many picks it made.
Moments are of the monotonic clock, after the answer came.
"""

from __future__ import annotations

import asyncio
import sys
import time

from redis_registry import ModelInstance, RedisModelRegistry
from tests.load.programs import say


class Picks:
    """What was picked since somebody asked."""

    def __init__(self) -> None:
        self.over = False
        self.forget()

    def forget(self) -> None:
        self.first: dict[int, float] = {}
        self.last: dict[int, float] = {}
        self.empty: float | None = None
        self.count = 0

    def note(self, chosen: ModelInstance | None, began: float) -> None:
        self.count += 1
        if chosen is None:
            self.empty = began
        else:
            self.last[chosen.port] = time.monotonic()
            self.first.setdefault(chosen.port, self.last[chosen.port])

    def tell(self) -> None:
        """Answer a line of input; its end ends the program."""
        self.over = not sys.stdin.readline()
        say(
            {
                "first": self.first,
                "last": self.last,
                "empty": self.empty,
                "picks": self.count,
            }
        )
        self.forget()


async def main(url: str, model: str, timeout_secs: float) -> None:
    picks = Picks()
    async with RedisModelRegistry.from_url(
        url, heartbeat_timeout_secs=timeout_secs
    ) as registry:
        await registry.select_one_health_instance(model)
        say("ready")
        # Answered in the callback: a flag that it sets could be an old one, and block the loop.
        asyncio.get_running_loop().add_reader(sys.stdin, picks.tell)
        while not picks.over:
            began = time.monotonic()
            picks.note(await registry.select_one_health_instance(model), began)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
