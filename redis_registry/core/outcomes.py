"""How calls to instances ended, gathered into few reports.

Failures are told at once: those that arrive while a report is under way go with the next. A
success costs a look-up and an addition; it goes with the next failure, or within half a second.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from operator import itemgetter
from typing import Any

from redis_registry.model import ModelInstance
from redis_registry.store.outliers import Tally
from redis_registry.store.replies import Outcome, Verdict

__all__ = ["IGNORED", "Counts", "Reporter", "decides", "untold"]

IGNORED = Outcome(Verdict.IGNORED)
"""The answer when reports are switched off."""

FLUSH_SECS = 0.5
"""Longest age of a success that wasn't told."""

MOST_LIVES = 10_000
"""Bound of how many lives are counted before they are told."""

_log = logging.getLogger(__name__)

_Key = tuple[str, str, int, str | None]
_life: Callable[[Any], _Key] = itemgetter("model_name", "host", "port", "incarnation")


def untold(tallies: Sequence[Tally], error: BaseException) -> None:
    """Say that counts were lost; they are worth less than what a second try would cost."""
    _log.warning(
        "outcomes of calls could not be told; they are dropped",
        extra={"instances": len(tallies)},
        exc_info=error,
    )


def decides(instance: ModelInstance) -> bool:
    """Whether a success may be the one that brings it back in."""
    held = instance.held_out
    return held is not None and held.cause == "failures"


class Counts:
    """What was counted and not told yet; safe in threads."""

    def __init__(self) -> None:
        self._tallies: dict[_Key, Tally] = {}
        self._lock = threading.RLock()
        self._told = time.monotonic()

    def __len__(self) -> int:
        return len(self._tallies)

    def _tally(self, instance: ModelInstance) -> Tally:
        key = _life(instance.__dict__)
        tally = self._tallies.get(key)
        if tally is None:
            tally = self._tallies[key] = Tally(instance)
        return tally

    def succeed(self, instance: ModelInstance) -> None:
        """Count a call that ended well."""
        with self._lock:
            tally = self._tally(instance)
            tally.successes += 1
            tally.trailing = 0

    def fail(self, instance: ModelInstance, reason: str) -> None:
        """Count one that did not."""
        with self._lock:
            self._tally(instance).fail(reason)

    def due(self) -> bool:
        """Whether what was counted should be told now."""
        old = time.monotonic() >= self._told + FLUSH_SECS
        return old or len(self) >= MOST_LIVES

    def take(self) -> list[Tally]:
        """All of it, to be told."""
        with self._lock:
            tallies, self._tallies = list(self._tallies.values()), {}
            self._told = time.monotonic()
            return tallies

    def take_with_failure(self, instance: ModelInstance, reason: str) -> list[Tally]:
        """All of it and one more failure, whose tally is the last."""
        with self._lock:
            mine = self._tallies.pop(_life(instance.__dict__), Tally(instance))
            mine.fail(reason)
            self._tallies[_life(instance.__dict__)] = mine
            return self.take()


class Reporter:
    """Gathers reports on the running event loop.

    Args:
        send: Tells tallies, and answers for each, in order.

    Attributes:
        loop: The loop it belongs to.
    """

    def __init__(
        self, send: Callable[[Sequence[Tally]], Awaitable[Sequence[Outcome]]]
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self._send = send
        self._counts = Counts()
        self._waiting: dict[_Key, list[asyncio.Future[Outcome]]] = defaultdict(list)
        self._timer: asyncio.Handle | None = None
        self._urgent = False
        self._call: asyncio.Task[None] | None = None

    def failed(self, instance: ModelInstance, reason: str) -> asyncio.Future[Outcome]:
        """Count a failure; the future gets what it has led to."""
        self._counts.fail(instance, reason)
        return self._soon(instance)

    def succeeded(self, instance: ModelInstance) -> asyncio.Future[Outcome] | None:
        """Count a success; only of one that is held out there is something to wait for."""
        self._counts.succeed(instance)
        if decides(instance):
            return self._soon(instance)
        if self._timer is None:
            self._timer = self.loop.call_later(FLUSH_SECS, self._dispatch)
        elif len(self._counts) >= MOST_LIVES:
            self._hurry()
        return None

    def _soon(self, instance: ModelInstance) -> asyncio.Future[Outcome]:
        future: asyncio.Future[Outcome] = self.loop.create_future()
        self._waiting[_life(instance.__dict__)].append(future)
        self._hurry()
        return future

    def _hurry(self) -> None:
        """Not at once: those who call in the same turn of the loop shall come along."""
        if not self._urgent:
            self._urgent = True
            if self._call is None:
                self._rearm(self.loop.call_soon(self._dispatch))

    def _rearm(self, timer: asyncio.Handle | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = timer

    def _dispatch(self) -> None:
        self._rearm(None)
        if self._call is not None:
            self._urgent = True  # when that one has ended
            return
        self._urgent = False
        tallies = self._counts.take()
        waiting, self._waiting = self._waiting, defaultdict(list)
        if tallies:
            self._call = self.loop.create_task(
                self._flush(tallies, waiting), name="reports"
            )
            self._call.add_done_callback(self._done)

    def _done(self, _: asyncio.Task[None]) -> None:
        self._call = None
        if self._urgent:
            self._rearm(self.loop.call_soon(self._dispatch))

    async def _flush(
        self,
        tallies: Sequence[Tally],
        waiting: dict[_Key, list[asyncio.Future[Outcome]]],
    ) -> None:
        try:
            outcomes = await self._send(tallies)
        except BaseException as error:
            self._failed(tallies, waiting, error)
            if not isinstance(error, Exception):
                raise
            return
        for tally, outcome in zip(tallies, outcomes, strict=True):
            for future in waiting.get(_life(tally.instance.__dict__), ()):
                if not future.done():
                    future.set_result(outcome)

    def _failed(
        self,
        tallies: Sequence[Tally],
        waiting: dict[_Key, list[asyncio.Future[Outcome]]],
        error: BaseException,
    ) -> None:
        """Each caller gets the error; a cancellation of ours is theirs too."""
        if not waiting:
            untold(tallies, error)
        for future in (future for futures in waiting.values() for future in futures):
            if future.done():
                continue
            if isinstance(error, Exception):
                future.set_exception(error)
            else:
                future.cancel()

    async def aclose(self) -> None:
        """Tell what is left; nothing of it is under way afterwards."""
        while self._call is not None or len(self._counts):
            self._dispatch()
            if self._call is not None:
                await asyncio.gather(self._call, return_exceptions=True)
        self._rearm(None)
