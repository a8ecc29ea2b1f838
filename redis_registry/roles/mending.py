"""Mends what no script leaves behind: a Redis that evicts keys does, or somebody who deletes them."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable

from redis_registry.store.operations import Mended, Operation, Operations, Term

__all__ = ["Mending"]

CALLS = 20
"""At most so many a step; a larger partition is walked through in several."""

SETS = ("deadlines", "down", "out", "served", "models")

_log = logging.getLogger(__name__)


class Mending:
    """A walk through all that one partition holds, a little at a time, again and again.

    Args:
        operations: What to run.
        interval_secs: How often it may go a step further.
    """

    def __init__(self, operations: Operations, interval_secs: float) -> None:
        self._operations = operations
        self._interval_secs = interval_secs
        self._next = 0.0
        self._ahead: deque[str] = deque()
        self._cursor = "0"

    async def step(
        self, term: Term, ask: Callable[[Operation[Mended]], Awaitable[Mended]]
    ) -> int:
        """Go on, if it is time; how many places were mended."""
        if time.monotonic() < self._next:
            return 0
        self._next = time.monotonic() + self._interval_secs
        self._ahead = self._ahead or deque(SETS)
        mended = 0
        for _ in range(CALLS):
            found = await ask(self._operations.mend(term, self._ahead[0], self._cursor))
            mended += found.places
            self._ahead.extend(f"m:{model}" for model in found.models)
            self._cursor = found.cursor
            if found.cursor == "0":
                self._ahead.popleft()
            if not self._ahead:
                break
        if mended:
            _log.warning(
                "records and their places did not agree, which no operation leaves; mended",
                extra={"partition": term.partition, "places": mended},
            )
        return mended
