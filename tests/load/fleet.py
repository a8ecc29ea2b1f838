"""Many workers in one process, each with a registry object, a sender and connections of its own.

``python -m tests.load.fleet URL FIRST COUNT TIMEOUT_SECS``

Says ``ready`` when all are; answers each line of its input with all attempts up to then as
``[port, began, ended, answered]``, by the monotonic clock.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from typing import Any

from redis_registry import SyncModelRegistry
from tests.helpers import instance
from tests.load.programs import say

MODEL = "glm@llm"

attempts: list[tuple[int, float, float, bool]] = []


def worker(url: str, port: int, timeout_secs: float) -> SyncModelRegistry:
    """A registry object whose sender notes each of its attempts."""
    registry = SyncModelRegistry.from_url(url, heartbeat_timeout_secs=timeout_secs)
    channel: Any = registry._senders._channel
    ask = channel._ask

    def noted(operation: Any) -> Any:
        began, answered = time.monotonic(), False
        try:
            reply = ask(operation)
            answered = True
            return reply
        finally:
            attempts.append((port, began, time.monotonic(), answered))

    channel._ask = noted
    return registry


def main(url: str, first: int, count: int, timeout_secs: float) -> None:
    logging.disable()  # 5,000 complaints at once would be most of the load
    # Each thread that waits for the GIL wakes so often to ask for it. With hundreds of them, and
    # a busy machine, that alone takes all of it; real workers are processes of their own.
    sys.setswitchinterval(1.0)
    workers = [worker(url, first + n, timeout_secs) for n in range(count)]
    with contextlib.ExitStack() as stack:
        for n, registry in enumerate(workers):
            announced = registry.announce(instance(first + n, MODEL))
            stack.enter_context(announced).ready()
        say("ready")
        for _ in sys.stdin:
            say(list(attempts))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
