"""Concurrent single heartbeats of one process, gathered into one call.

While one call is under way, those that arrive wait for the next: no timer, no added latency for
a lone caller, and the more callers there are, the larger the batches.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from redis_registry.model import ModelInstance
from redis_registry.store.operations import Beat

__all__ = ["Coalescer"]

_Waiting = list[tuple[ModelInstance, "asyncio.Future[Beat]"]]


class Coalescer:
    """Gathers heartbeats on one event loop.

    Args:
        send: Sends many heartbeats at once and answers for each, in order.
    """

    def __init__(
        self, send: Callable[[Sequence[ModelInstance]], Awaitable[Sequence[Beat]]]
    ) -> None:
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._waiting: _Waiting = []
        self._task: asyncio.Task[None] | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop it belongs to."""
        return self._loop

    def beat(self, instance: ModelInstance) -> asyncio.Future[Beat]:
        """Queue one heartbeat; cancelling the future leaves the others alone."""
        future: asyncio.Future[Beat] = self._loop.create_future()
        self._waiting.append((instance, future))
        if self._task is None:
            self._task = self._loop.create_task(self._drain(), name="heartbeats")
        return future

    async def _drain(self) -> None:
        batch: _Waiting = []
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                await self._flush(batch)
        finally:
            self._task = None
            for _, future in batch + self._waiting:  # only when this task was cancelled
                if not future.done():
                    future.cancel()

    async def _flush(self, batch: _Waiting) -> None:
        try:
            outcomes = await self._send([instance for instance, _ in batch])
        except Exception as error:  # noqa: BLE001  each caller gets it
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), outcome in zip(batch, outcomes, strict=True):
            if not future.done():
                future.set_result(outcome)

    async def aclose(self) -> None:
        """Let the batch under way end, and cancel what still waits."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
