"""Shows that an event loop runs: one timer for all that is announced on it."""

from __future__ import annotations

import asyncio
import time

from redis_registry.roles.sending.life import LAG_TICKS, Life

__all__ = ["LoopTicker"]

_tickers: dict[asyncio.AbstractEventLoop, LoopTicker] = {}


class LoopTicker:
    """Ticks for the lives of one event loop, as often as the quickest of them needs.

    A timer and not a task: nothing can cancel it, and it renews itself before it does anything
    else. It starts with the first life and ends with the last.
    """

    def __init__(self) -> None:
        self._lives: set[Life] = set()
        self._period = 0.0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    def here(cls) -> LoopTicker:
        """The running loop's."""
        for ended in [loop for loop in list(_tickers) if loop.is_closed()]:
            _tickers.pop(ended, None)
        return _tickers.setdefault(asyncio.get_running_loop(), cls())

    def add(self, life: Life) -> None:
        """Tick for a life as well."""
        self._lives.add(life)
        if len(self._lives) == 1 or life.interval_secs / LAG_TICKS < self._period:
            self._tick()
        else:
            life.tick(self._due)

    def discard(self, life: Life) -> None:
        """Tick no more for a life."""
        self._lives.discard(life)
        if not self._lives:
            self._stop()
            _tickers.pop(asyncio.get_running_loop(), None)

    def _tick(self) -> None:
        self._stop()
        self._period = min(life.interval_secs for life in self._lives) / LAG_TICKS
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._period, self._tick)
        self._due = time.monotonic() + self._period
        for life in self._lives:
            life.tick(self._due)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
