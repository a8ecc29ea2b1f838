"""Many instances announced by one registry object of one process.

``python -m tests.load.many FACE URL COUNT INTERVAL_SECS``, where FACE is ``async`` or ``sync``.

Says ``ready`` once all are; answers a line of its input with the id of its sender's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading

from redis_registry import RedisModelRegistry, SyncModelRegistry
from tests.helpers import instances
from tests.load.programs import say

SENDER = "redis-registry heartbeats"


def tell() -> bool:
    """Answer a line of input; ``False``: there is no more."""
    if not sys.stdin.readline():
        return False
    say([t.native_id for t in threading.enumerate() if t.name == SENDER])
    return True


async def async_face(url: str, count: int, interval_secs: float) -> None:
    over, loop = asyncio.Event(), asyncio.get_running_loop()
    async with (
        RedisModelRegistry.from_url(url, run_checker=False) as registry,
        contextlib.AsyncExitStack() as stack,
    ):
        for item in instances(count):
            announced = await stack.enter_async_context(
                registry.announce(item, interval_secs=interval_secs)
            )
            await announced.ready()
            announced.report(in_flight=0, capacity=8)
        say("ready")
        loop.add_reader(sys.stdin, lambda: tell() or over.set())
        await over.wait()


def sync_face(url: str, count: int, interval_secs: float) -> None:
    with (
        SyncModelRegistry.from_url(url) as registry,
        contextlib.ExitStack() as stack,
    ):
        for item in instances(count):
            announced = stack.enter_context(
                registry.announce(item, interval_secs=interval_secs)
            )
            announced.ready()
            announced.report(in_flight=0, capacity=8)
        say("ready")
        while tell():
            pass


if __name__ == "__main__":
    face, url, count, interval = sys.argv[1:]
    if face == "async":
        asyncio.run(async_face(url, int(count), float(interval)))
    else:
        sync_face(url, int(count), float(interval))
