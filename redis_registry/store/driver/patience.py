"""How long a call of a thread may still take, known to all that it waits for on its way.

redis-py has timeouts by the step: a free connection, its being made, each line of its greeting, the
reply. One after the other they would take a call far beyond its deadline.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

import redis

__all__ = ["TimedPool", "at_most", "keeping_to", "timed"]

LEAST_SECS = 0.001
"""A socket that is given no time at all does not wait."""


class _Calls(threading.local):
    until: float | None = None


_call = _Calls()


@contextmanager
def keeping_to(until: float) -> Generator[None]:
    """For the length of the block, whatever this thread waits for ends by then.

    Args:
        until: By the monotonic clock, in seconds.
    """
    before, _call.until = _call.until, until
    try:
        yield
    finally:
        _call.until = before


def at_most(secs: float) -> float:
    """So long, or less if the call of this thread has to end before."""
    if _call.until is None:
        return secs
    return min(secs, max(_call.until - time.monotonic(), LEAST_SECS))


class TimedPool(redis.BlockingConnectionPool):
    """Waits for a free connection no longer than the call may take."""

    _most_secs: float

    @property
    def timeout(self) -> float:
        """How long, in seconds."""
        return at_most(self._most_secs)

    @timeout.setter
    def timeout(self, secs: float) -> None:
        self._most_secs = secs


class _Timed:
    """A connection that is made, and answers, within what the call may take."""

    socket_timeout: float
    socket_connect_timeout: float

    def _connect(self) -> Any:
        own = self.socket_timeout, self.socket_connect_timeout
        self.socket_timeout, self.socket_connect_timeout = map(at_most, own)
        try:
            return cast("Any", super())._connect()  # noqa: SLF001  its own
        finally:
            self.socket_timeout, self.socket_connect_timeout = own

    def read_response(self, *args: Any, **options: Any) -> Any:
        """Wait for a reply, in a greeting too."""
        options.setdefault("timeout", at_most(self.socket_timeout))
        return cast("Any", super()).read_response(*args, **options)


@functools.cache
def timed(kind: type[Any]) -> type[Any]:
    """A kind of redis-py's connections that keeps to :func:`keeping_to`."""
    return type(f"Timed{kind.__name__}", (_Timed, kind), {})
