"""What a plot must show in the history beyond the judge's checks: each yields what is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from redis_registry import Kind
from tests.chaos.judge.history import History

__all__ = [
    "Expectation",
    "a_new_epoch",
    "beats_back",
    "each_flipped_once",
    "fenced",
    "leases_go_on",
    "no_caller_error",
    "nobody_flipped",
    "nobody_flipped_without_checker",
    "nothing_lost",
    "refused_for_memory",
    "somebody_flipped",
    "something_lost",
    "told",
    "watches_resynced",
]

Expectation = Callable[[History], Iterator[str]]


def _flipped(history: History) -> list[str]:
    return [
        e.event.subject for e in history.entries() if e.event.kind is Kind.UNHEALTHY
    ]


def nobody_flipped(history: History) -> Iterator[str]:
    """Nobody whose process ran, whatever else went on; on a busy machine some stand still by themselves."""
    for entry in history.entries():
        instance = entry.event.instance
        if entry.event.kind is Kind.UNHEALTHY and instance is not None:
            life = history.life_of(
                entry.event.subject, instance.incarnation, entry.after
            )
            since = entry.after - 1.5 * history.timeout
            if life and life.could_beat(since, entry.at, history.timeout):
                yield f"{entry.event.subject} was flipped at {entry.at:.3f}"


def somebody_flipped(history: History) -> Iterator[str]:
    """The dead are found."""
    if not _flipped(history):
        yield "nobody was flipped"


def nobody_flipped_without_checker(history: History) -> Iterator[str]:
    """It takes a checker to flip."""
    until = next(n["at"] for n in history.stage if n["what"] == "no checker until now")
    for entry in history.entries():
        if entry.event.kind is Kind.UNHEALTHY and entry.at < until:
            yield f"{entry.event.subject} was flipped at {entry.at:.3f}"


def each_flipped_once(history: History) -> Iterator[str]:
    """One event for each death, however many would flip."""
    flips = _flipped(history)
    for identity in sorted(set(flips)):
        if flips.count(identity) > 1:
            yield f"{identity} was flipped {flips.count(identity)} times"
    if not flips:
        yield "nobody was flipped"


def a_new_epoch(history: History) -> Iterator[str]:
    """Redis may have lost something: everybody is told."""
    if not any(len(chain.order) > 1 for chain in history.chains.values()):
        yield "there is one epoch only"


def nothing_lost(history: History) -> Iterator[str]:
    """All that was ever written is there in the end: each epoch goes on from the last entry."""
    for chain in history.chains.values():
        for former, epoch in zip(chain.order, chain.order[1:], strict=False):
            last = max(chain.epochs[former])
            if chain.first[epoch] != last + 1:
                yield f"epoch {epoch} begins with {chain.first[epoch]}; {last} was the last one"


def something_lost(history: History) -> Iterator[str]:
    """Entries that were written are not in the epoch that goes on: else this plot shows nothing."""
    for chain in history.chains.values():
        for former, epoch in zip(chain.order, chain.order[1:], strict=False):
            if chain.first[epoch] <= max(chain.epochs[former]):
                return
    yield "nothing was lost"


def watches_resynced(history: History) -> Iterator[str]:
    """Every watch that was there got a snapshot of the new epoch."""
    for person in history.persons.values():
        causes = [
            note["cause"]
            for note in person.notes
            if note["what"] == "event" and note["kind"] == Kind.RESYNC
        ]
        if causes and person.born < history.calm and causes == ["begin"]:
            yield f"{person.name} was never told to begin anew"


def told(cause: str) -> Expectation:
    """Some watch was told to begin anew for a reason."""

    def expects(history: History) -> Iterator[str]:
        for _, note in history.notes("event"):
            if note["kind"] == Kind.RESYNC and note["cause"] == cause:
                return
        yield f"no watch was told: {cause}"

    return expects


def fenced(history: History) -> Iterator[str]:
    """The zombie was refused."""
    for _, note in history.notes("call"):
        if note.get("error") == "LeaseLost":
            return
    yield "nobody was refused for an older term"


def no_caller_error(history: History) -> Iterator[str]:
    """With a deadline of 15 s no reader and nobody who reserves is told of an error."""
    for person, note in history.notes("read failed"):
        yield f"{person.name}: {note['why']}"
    for person, note in history.notes("reserve"):
        if note.get("error") not in {None, "NoneAvailable"}:
            yield f"{person.name}: {note['error']}: {note.get('why')}"


def beats_back(within_secs: float) -> Expectation:
    """After the longest absence of Redis, heartbeats are answered again so soon."""

    def expects(history: History) -> Iterator[str]:
        spans = [span for away in history.away.values() for span in away]
        if not spans:
            yield "Redis was never away"
            return
        back = max(spans, key=lambda span: span[1] - span[0])[1]
        for person in history.of_role("worker"):
            answered = [
                n["at"] for n in person.notes if n.get("beats") and n["at"] > back
            ]
            if person.born < back < person.ended and not (
                answered and min(answered) < back + within_secs
            ):
                yield f"{person.name} beats again {answered[:1]}, Redis was back at {back:.3f}"

    return expects


def refused_for_memory(history: History) -> Iterator[str]:
    """A registration got a clear error."""
    for _, note in history.notes("call"):
        if note["script"] == "register" and note.get("error") == "OutOfMemory":
            return
    yield "no registration was refused for want of memory"


def leases_go_on(history: History) -> Iterator[str]:
    """Nobody holds the lease for as long as the clock was moved: terms are renewed all the time."""
    last = [n["at"] for n in history.stage if n["what"] == "calm"]
    sweeps = [
        note["at"]
        for _, note in history.notes("call", "controller")
        if note["script"] == "sweep" and note.get("token")
    ]
    gaps = [b - a for a, b in zip(sorted(sweeps), sorted(sweeps)[1:], strict=False)]
    if not gaps or max(gaps) > 2 * history.timeout or max(sweeps) < last[0] - 1:
        yield f"longest time without a sweep: {max(gaps, default=0):.2f} s"
