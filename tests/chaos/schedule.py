"""A row of faults by chance, from a seed: what, how long, and what lies over what."""

from __future__ import annotations

import heapq
import time
from contextlib import AbstractContextManager, ExitStack
from itertools import count

from tests.chaos.faults import FAULTS, Fault
from tests.chaos.run import Plot
from tests.chaos.stage import Stage

__all__ = ["by_chance"]

MOST_AT_ONCE = 3
PAUSE_SECS = (0.1, 2.5)


def by_chance(secs: float) -> Plot:
    """Faults for so long; which, the stage's seed decides."""

    def plot(stage: Stage) -> None:
        _Schedule(stage, secs).play()

    return plot


class _Schedule:
    """The faults of one run, those that have begun and those that are over."""

    def __init__(self, stage: Stage, secs: float) -> None:
        self._stage = stage
        self._until = time.monotonic() + secs
        self._open: list[tuple[float, int, Fault, AbstractContextManager[None]]] = []
        self._number = count()
        self._known = [f for f in FAULTS if stage.topology in f.topologies]

    def play(self) -> None:
        with ExitStack() as stack:
            stack.callback(self._end_all)
            while time.monotonic() < self._until:
                self._begin()
                pause = self._stage.chance.uniform(*PAUSE_SECS)
                self._pass(time.monotonic() + pause)

    def _begin(self) -> None:
        chance = self._stage.chance
        fault = chance.choice(self._known)
        secs = chance.uniform(*fault.secs)
        if len(self._open) >= MOST_AT_ONCE:
            return
        if fault.of_redis and any(open_.of_redis for _, _, open_, _ in self._open):
            return
        self._stage.fault(fault.name, secs=round(secs, 2))
        playing = fault.play(self._stage)
        playing.__enter__()
        heapq.heappush(
            self._open, (time.monotonic() + secs, next(self._number), fault, playing)
        )

    def _pass(self, until: float) -> None:
        """Let time pass, and end what is due."""
        while True:
            now = time.monotonic()
            if self._open and self._open[0][0] <= now:
                self._end()
            elif now >= until:
                return
            else:
                due = min([until, *(end for end, *_ in self._open[:1])])
                time.sleep(max(0.0, due - now))

    def _end(self) -> None:
        _, _, fault, playing = heapq.heappop(self._open)
        playing.__exit__(None, None, None)
        self._stage.fault(f"{fault.name} ends")

    def _end_all(self) -> None:
        while self._open:
            self._end()
