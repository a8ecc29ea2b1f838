"""Slow start: who has just come gets its share bit by bit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import datetime

from redis_registry.model import ModelInstance
from redis_registry.selection.candidates import Candidates
from redis_registry.selection.keys import Key
from redis_registry.selection.policy import Pick, Policy

__all__ = ["SlowStart", "ramps"]

STEPS = 32


def ramps(
    since: Sequence[datetime | None], now: float, window: float
) -> list[float] | None:
    """For each moment, which part of its weight who came then may have: linear, in 32 steps.

    They are relative to the largest, so that a fleet that is all new starts at full. ``None``:
    all have all of it, now and later.

    Args:
        since: When each came; ``None``: long ago.
        now: Seconds since the epoch, by the same clock.
        window: Seconds from nothing to all.
    """
    ages = [math.inf if came is None else now - came.timestamp() for came in since]
    if min(ages) >= window:
        return None
    parts = [_part(age / window) for age in ages]
    largest = max(parts)
    return [part / largest for part in parts]


def _part(done: float) -> float:
    """The step that has begun, so that it is never nothing."""
    return 1.0 if done >= 1 else (max(0, math.floor(done * STEPS)) + 1) / STEPS


class SlowStart:
    """Picks by a policy which is prepared anew whenever the ramps have risen by a step.

    The steps are the same in every process, as they hang on the clock that is given.

    Args:
        policy: What picks.
        able: Among these, at least one.
        now: Seconds since the epoch by the clock of ``since``, Redis's.
        window: Seconds from nothing to the whole weight.
    """

    __slots__ = ("_now", "_pick", "_policy", "_until", "_whole", "_window")

    def __init__(
        self,
        policy: Policy,
        able: Sequence[ModelInstance],
        now: Callable[[], float],
        window: float,
    ) -> None:
        self._policy, self._whole = policy, Candidates.of_able(able)
        self._now, self._window = now, window
        self._until = math.inf
        self._pick = self._prepare(now())

    def pick(self, key: Key | None) -> ModelInstance | None:
        """One of them."""
        now = self._now()
        if now >= self._until:
            self._pick = self._prepare(now)
        return self._pick(key)

    def _prepare(self, now: float) -> Pick:
        since = [instance.since for instance in self._whole.able]
        parts = ramps(since, now, self._window)
        step = self._window / STEPS
        # First, so that other threads go on with the old ramps while this one prepares.
        self._until = math.inf if parts is None else (now // step + 1) * step
        whole = self._whole
        return self._policy.prepare(whole if parts is None else whole.ramped(parts))
