"""A process that reserves again and again, with a registry object of its own.

``python -m tests.load.reserver URL MODEL COUNT TOGETHER HOLD_SECS RATE [POLICY]``

``TOGETHER`` tasks make ``COUNT`` reservations, each held for ``HOLD_SECS`` (0: given back at
once), at most ``RATE`` of them begun a second in all (0: as fast as they can). Prints ``ready``,
begins with the first line of input, and prints how often each port was picked and how long each
entering took, in microseconds. The policy ``ping`` only asks Redis for a PING.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections import Counter

from redis_registry import RedisModelRegistry
from tests.load.programs import say


class Run:
    """One run of one process."""

    def __init__(
        self, registry: RedisModelRegistry, model: str, count: int, policy: str
    ) -> None:
        self.registry = registry
        self.model = model
        self.left = count
        self.policy = policy
        self.picked = Counter[int]()
        self.took_us: list[int] = []

    async def work(self, hold_secs: float, pause_secs: float) -> None:
        begin = time.monotonic() + random.uniform(0, pause_secs)
        while self.left > 0:
            self.left -= 1
            if pause_secs:  # by the clock: who comes late does not thin out the load
                await asyncio.sleep(begin - time.monotonic())
                begin += pause_secs
            if self.policy == "ping":  # what the machine and the way to Redis take
                await self.ping()
                continue
            start = time.perf_counter()
            async with self.registry.reserve(
                self.model, policy=self.policy, wait_secs=5
            ) as made:
                self.took_us.append(round((time.perf_counter() - start) * 1e6))
                self.picked[made.instance.port] += 1
                if hold_secs:
                    await asyncio.sleep(hold_secs)

    async def ping(self) -> None:
        client = self.registry._executor._lane("call").client
        start = time.perf_counter()
        await client.execute_command("PING")
        self.took_us.append(round((time.perf_counter() - start) * 1e6))


async def main(
    url: str,
    model: str,
    count: int,
    together: int,
    hold_secs: float,
    rate: float,
    policy: str = "least_in_flight",
) -> None:
    async with RedisModelRegistry.from_url(url, run_checker=False) as registry:
        run = Run(registry, model, count, policy)
        async with registry.reserve(model):
            say("ready")
        await asyncio.to_thread(sys.stdin.readline)
        pause_secs = together / rate if rate else 0.0
        async with asyncio.TaskGroup() as group:
            for _ in range(together):
                group.create_task(run.work(hold_secs, pause_secs))
        say({"picked": run.picked, "took_us": run.took_us})


if __name__ == "__main__":
    url, model, count, together, hold_secs, rate, *policy = sys.argv[1:]
    asyncio.run(
        main(
            url,
            model,
            int(count),
            int(together),
            float(hold_secs),
            float(rate),
            *policy,
        )
    )
