"""A bound in time on what a driver does, also on one that loses its cancellation."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import cast

__all__ = ["Bound"]

AGAIN_SECS = 0.05
"""From one cancellation to the next; tidying up after the first one is done by then."""


class Bound:
    """``async with``: ends what is in it at a time of the loop's clock.

    As :func:`asyncio.timeout_at`, which cancels once. Python 3.11's ``wait_for`` loses a cancellation
    that comes as its own wait ends, and redis-py waits so for Sentinels: then it goes on to the next
    wait, which may have no end. So here it is cancelled until it ends.

    Args:
        when: By the loop's clock, in seconds.

    Raises:
        TimeoutError: It was ended.
    """

    def __init__(self, when: float) -> None:
        self._when = when
        self._fired = 0

    async def __aenter__(self) -> None:
        self._task = cast("asyncio.Task[object]", asyncio.current_task())
        self._loop = asyncio.get_running_loop()
        self._before = self._task.cancelling()
        self._next = self._loop.call_at(self._when, self._fire)

    def _fire(self) -> None:
        self._fired += 1
        self._task.cancel()
        self._next = self._loop.call_later(AGAIN_SECS, self._fire)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._next.cancel()
        left = self._before
        for _ in range(self._fired):
            left = self._task.uncancel()
        # Else somebody else wants it to end too, and shall see that.
        if self._fired and left <= self._before and kind is asyncio.CancelledError:
            raise TimeoutError from error
