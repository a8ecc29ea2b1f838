"""Concurrent single heartbeats of one process, gathered into few calls.

While calls are under way, heartbeats that arrive wait for the next: no timer, no added latency
for a lone caller, and the more callers there are, the larger the batches. A large crowd is sent
in two halves, so that this process prepares one while Redis works on the other.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence

from redis_registry.errors import RegistryClosed
from redis_registry.model import Beat, ModelInstance

__all__ = ["Coalescer"]

LANES = 2
"""Calls under way at once."""

CROWD = 64
"""A second call is worth its cost from this many waiting on; then half go with each."""

_Futures = list["asyncio.Future[Beat]"]


class Coalescer:
    """Gathers heartbeats on the running event loop.

    Args:
        send: Sends many heartbeats at once and answers for each, in order.

    Attributes:
        loop: The loop it belongs to.
    """

    def __init__(
        self, send: Callable[[Sequence[ModelInstance]], Awaitable[Sequence[Beat]]]
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self._send = send
        self._waiting: list[ModelInstance] = []
        self._futures: _Futures = []
        self._calls: set[asyncio.Task[None]] = set()
        self._enough = self._worth_a_call()

    def beat(self, instance: ModelInstance) -> asyncio.Future[Beat]:
        """Queue one heartbeat; cancelling the future leaves the others alone."""
        future: asyncio.Future[Beat] = self.loop.create_future()
        self._waiting.append(instance)
        self._futures.append(future)
        if len(self._futures) >= self._enough:
            self._plan()
        return future

    def _plan(self) -> None:
        """Not at once: those who call in the same turn of the loop shall come along."""
        self._enough = sys.maxsize
        self.loop.call_soon(self._dispatch)

    def _worth_a_call(self) -> int:
        """How many must wait to be worth another call."""
        if not self._calls:
            return 1
        return CROWD if len(self._calls) < LANES else sys.maxsize

    def _dispatch(self) -> None:
        while len(self._waiting) >= self._worth_a_call():
            size = len(self._waiting)
            if size >= 2 * CROWD and not self._calls:
                size = (size + 1) // 2
            batch, self._waiting = self._waiting[:size], self._waiting[size:]
            futures, self._futures = self._futures[:size], self._futures[size:]
            task = self.loop.create_task(self._flush(batch, futures), name="heartbeats")
            self._calls.add(task)
            task.add_done_callback(self._done)
        self._enough = self._worth_a_call()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        self._enough = self._worth_a_call()
        if len(self._futures) >= self._enough:
            self._plan()

    async def _flush(self, batch: Sequence[ModelInstance], futures: _Futures) -> None:
        try:
            outcomes = await self._send(batch)
        except BaseException as error:
            for future in futures:
                _fail(future, error)
            if not isinstance(error, Exception):
                raise
            return
        for future, outcome in zip(futures, outcomes, strict=True):
            if not future.done():
                future.set_result(outcome)

    async def aclose(self) -> None:
        """Cancel what is under way and what still waits; the callers are told."""
        for future in self._futures:
            _fail(future)
        self._waiting, self._futures = [], []
        for task in list(self._calls):
            task.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)


def _fail(future: asyncio.Future[Beat], error: BaseException | None = None) -> None:
    """Each caller gets the error; that we were cancelled is no cancellation of theirs."""
    if not isinstance(error, Exception):
        error = RegistryClosed("the registry was closed")
    if not future.done():
        future.set_exception(error)
