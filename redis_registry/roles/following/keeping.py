"""What a view shows on though Redis has lost it: each instance for its own timeout (promise R4)."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable

from redis_registry.core.mirror import Mirror
from redis_registry.core.rows import model_of

__all__ = ["Keeping"]

_log = logging.getLogger(__name__)


class Keeping:
    """Lets go of what a mirror has kept, and nobody has said again, when its time is over.

    Args:
        mirror: Whose rows.
        turn: Told of models that look different then.
    """

    def __init__(self, mirror: Mirror, turn: Callable[[set[str]], None]) -> None:
        self._mirror = mirror
        self._turn = turn
        self._since: dict[int, float] = {}
        self._timers: dict[int, asyncio.TimerHandle] = {}

    def since(self, partition: int) -> float:
        """From when on the time counts of what is kept of it; minus infinity: nothing is."""
        return self._since.get(partition, -math.inf)

    def begin(self, partition: int, since: float) -> None:
        """Look after what was just kept.

        Args:
            partition: Of which one.
            since: From when on its time counts (``time.monotonic``).
        """
        self._since[partition] = since
        self._let_go(partition)

    def close(self) -> None:
        """Let go of nothing any more."""
        for timer in self._timers.values():
            timer.cancel()

    def _let_go(self, partition: int) -> None:
        timer = self._timers.pop(partition, None)
        if timer is not None:
            timer.cancel()
        age_secs = time.monotonic() - self._since[partition]
        rows = self._mirror.kept(partition)
        over = {i: row for i, row in rows.items() if row.timeout_secs <= age_secs}
        for identity, row in over.items():
            self._mirror.let_go(partition, identity, row)
        if over.keys() < rows.keys():
            next_secs = min(rows[i].timeout_secs for i in rows.keys() - over.keys())
            loop = asyncio.get_running_loop()
            self._timers[partition] = loop.call_later(
                next_secs - age_secs + 0.001, self._let_go, partition
            )
        else:
            del self._since[partition]
        lost = {model_of(identity) for identity, row in over.items() if row.kept}
        if lost:
            _log.warning(
                "instances that Redis has lost did not come back, forgotten here too",
                extra={"models": sorted(lost)},
            )
        self._turn({model_of(identity) for identity in over})
