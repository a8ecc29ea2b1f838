"""Judges a history: every promise, after the fact, by what all processes and Redis itself have written.

Nothing here looks at the faults that were made: a promise holds or not whatever they were. What excuses a
silence (a process that stood still, a Redis that served nobody) is taken from what was seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.chaos.judge.answers import ANSWERS
from tests.chaos.judge.following import FOLLOWING
from tests.chaos.judge.history import History
from tests.chaos.judge.liveness import LIVENESS
from tests.chaos.judge.writing import WRITING

__all__ = ["CHECKS", "Verdict", "Violation", "judge"]

CHECKS: dict[str, Callable[[History], Iterator[str]]] = {
    check.__name__: check for check in (*LIVENESS, *WRITING, *FOLLOWING, *ANSWERS)
}
MOST = 20
"""Violations told of each kind: the first ones say it."""


class Violation(NamedTuple):
    """One broken promise.

    Attributes:
        check: Which check found it; its first line says which promise that is.
        what: What was seen.
    """

    check: str
    what: str


class Verdict(NamedTuple):
    """What became of a run.

    Attributes:
        violations: What was broken.
        operations: Calls of scripts that were judged.
        events: Entries of event streams that were judged.
        observations: Picks, reads, reservations and events seen that were judged.
        flips: How many instances were flipped.
        epochs: How many epochs there were.
    """

    violations: list[Violation]
    operations: int
    events: int
    observations: int
    flips: int
    epochs: int


def judge(home: Path) -> Verdict:
    """Judge the notebooks of a directory."""
    history = History(home)
    violations: list[Violation] = []
    for name, check in CHECKS.items():
        for number, what in enumerate(check(history)):
            if number < MOST:
                violations.append(Violation(name, what))
    entries = list(history.entries())
    seen = ("pick", "read", "reserve", "event", "view")
    return Verdict(
        violations,
        operations=sum(1 for _ in history.notes("call")),
        events=len(entries),
        observations=sum(1 for what in seen for _ in history.notes(what)),
        flips=sum(entry.event.kind == "unhealthy" for entry in entries),
        epochs=sum(len(chain.order) for chain in history.chains.values()),
    )
