"""A worker: announces some instances in one process, works, and drains on SIGTERM.

``python -m tests.load.announcer URL MODEL FIRST COUNT --timeout 3``

Says ``ready`` once all are. On SIGTERM it drains, while one request per instance is in flight
for ``--work`` seconds, and says how many were finished. With ``--load`` it first says
``loading``, blocks its event loop for that long, as the loading of a model does, and then says
when it called ``ready()`` and when that was answered.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import time

from redis_registry import RedisModelRegistry
from redis_registry.roles.sending.announcing import Announcement
from tests.helpers import instance
from tests.load.programs import say


async def ready(announced: list[Announcement], load_secs: float) -> None:
    if load_secs:
        say("loading")
        time.sleep(load_secs)  # noqa: ASYNC251  a model's loading does that
    called = time.monotonic()
    for one in announced:
        await one.ready()
    if load_secs:
        say([called, time.monotonic()])
    else:
        say("ready")


async def drain(announced: list[Announcement], work_secs: float) -> None:
    for one in announced:
        one.report(in_flight=1)

    async def work(one: Announcement) -> None:
        await asyncio.sleep(work_secs)
        one.report(in_flight=0)

    async with asyncio.TaskGroup() as group:
        drained = [group.create_task(one.drain()) for one in announced]
        for one in announced:
            group.create_task(work(one))
    say(sum(task.result() for task in drained))


async def main(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    async with (
        RedisModelRegistry.from_url(
            options.url, run_checker=False, heartbeat_timeout_secs=options.timeout
        ) as registry,
        contextlib.AsyncExitStack() as stack,
    ):
        announced = [
            await stack.enter_async_context(
                registry.announce(
                    instance(options.first + n, options.model),
                    startup_budget_secs=options.budget,
                )
            )
            for n in range(options.count)
        ]
        await ready(announced, options.load)
        # Also when who started it is gone: nothing is left running.
        loop.add_reader(sys.stdin, stop.set)
        await stop.wait()
        await drain(announced, options.work)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("model")
    parser.add_argument("first", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("--timeout", type=float, default=3.0)
    parser.add_argument("--load", type=float, default=0.0)
    parser.add_argument("--budget", type=float)
    parser.add_argument("--work", type=float, default=0.3)
    asyncio.run(main(parser.parse_args()))
