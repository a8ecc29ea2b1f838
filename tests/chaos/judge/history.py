"""All notebooks of a run as one history: who lived when, who called what, what was truly written."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from redis_registry import Event, Kind, ModelInstance
from redis_registry.core.events import decode_event
from tests.chaos.actor import essence
from tests.chaos.notebook import Note, read_notes
from tests.chaos.spans import Span, common, length_within, merged

__all__ = ["Chain", "Entry", "History", "Life", "Person"]

GONE = frozenset({Kind.REMOVED, Kind.FORGOTTEN})
SOFT = frozenset({"silence", "unswept"})
"""Causes of a recovery that give no more than one timeout, however often they come in a row."""

States = dict[str, ModelInstance]


class Entry(NamedTuple):
    """One entry of an event stream, as it was found there.

    Attributes:
        after: It was written after this moment,
        at: and before this one.
        event: What it says.
        other: Another entry with the same epoch and revision was found before.
    """

    partition: int
    epoch: str
    rev: int
    after: float
    at: float
    event: Event
    other: bool

    @property
    def about_instance(self) -> bool:
        """Whether it changes what is known of an instance."""
        return self.event.instance is not None or self.event.kind in GONE


@dataclass
class Person:
    """What became of one process.

    Attributes:
        stood: When it stood still by its own word: stopped, or starved.
        blocked: When its event loop did.
        away: When it was stopped, or cut off from Redis, on purpose.
    """

    name: str
    role: str
    born: float = math.inf
    ended: float = math.inf
    killed: bool = False
    stood: list[Span] = field(default_factory=list[Span])
    blocked: list[Span] = field(default_factory=list[Span])
    away: list[Span] = field(default_factory=list[Span])
    notes: list[Note] = field(default_factory=list[Note])

    def off(self, *, loop: bool = True) -> list[Span]:
        """When it could not do its work; ``loop``: what it does in its event loop."""
        outside = [(-math.inf, self.born), (self.ended, math.inf)]
        blocked = self.blocked if loop else []
        return merged([*self.stood, *blocked, *self.away, *outside])

    def well(self, begun: float, ended: float, most_secs: float) -> bool:
        """Whether it could work from one moment to another, but for at most so many seconds."""
        return length_within(self.off(), begun, ended) <= most_secs


class Life(NamedTuple):
    """One life of an instance.

    Attributes:
        incarnation: Empty: it has none, and beats as DB-GPT's workers do.
    """

    identity: str
    incarnation: str
    person: Person
    begun: float

    def could_beat(self, begun: float, ended: float, timeout: float) -> bool:
        """Whether its process ran from one moment to another, but for a third of a timeout.

        Only who has no incarnation beats in the event loop; a thread does it for the others.
        """
        off = self.person.off(loop=not self.incarnation)
        there = self.begun <= begun and ended <= self.person.ended
        return there and length_within(off, begun, ended) <= timeout / 3


class Chain:
    """The entries of one partition, epoch by epoch, each with what it follows on.

    An epoch goes on from what the server still had: with the revision before its first one. What the
    epoch before had beyond that was lost.
    """

    def __init__(self, entries: list[Entry]) -> None:
        self.epochs: dict[str, dict[int, Entry]] = {}
        self.order: list[str] = []
        self.first: dict[str, int] = {}
        self.twice = [entry for entry in entries if entry.other]
        for entry in entries:
            if entry.other:
                continue
            if entry.epoch not in self.epochs:
                self.epochs[entry.epoch] = {}
                self.order.append(entry.epoch)
            self.epochs[entry.epoch][entry.rev] = entry
        for epoch, found in self.epochs.items():
            self.first[epoch] = min(found)

    def before(self, epoch: str) -> str | None:
        """The epoch that it goes on from; ``None``: it began with nothing, or nobody knows."""
        wanted = self.first[epoch] - 1
        place = self.order.index(epoch)
        for former in reversed(self.order[:place]):
            if wanted in self.epochs[former]:
                return former
        return None

    def find(self, epoch: str, rev: int) -> Entry | None:
        """The entry with that revision in an epoch or in those that it goes on from."""
        at: str | None = epoch if epoch in self.epochs else None
        while at is not None:
            if rev >= self.first[at]:
                return self.epochs[at].get(rev)
            at = self.before(at)
        return None

    def folded(self) -> Iterator[tuple[Entry, States | None]]:
        """Each entry with what was known before it; ``None``: what came first is not known.

        The states are changed as the walk goes on: copy what you keep.
        """
        ends: dict[tuple[str, int], States | None] = {}
        # What an epoch goes on from is kept at the one place where that is.
        wanted = {(f, self.first[e] - 1) for e in self.order if (f := self.before(e))}
        for epoch in self.order:
            first = self.first[epoch]
            former = self.before(epoch)
            states: States | None
            if former is not None:
                kept = ends.get((former, first - 1))
                states = None if kept is None else dict(kept)
            else:
                states = {} if first == 1 else None
            for rev in sorted(self.epochs[epoch]):
                entry = self.epochs[epoch][rev]
                yield entry, states
                if states is not None and entry.about_instance:
                    if entry.event.instance is None:
                        states.pop(entry.event.subject, None)
                    else:
                        states[entry.event.subject] = entry.event.instance
                if (epoch, rev) in wanted:
                    ends[epoch, rev] = None if states is None else dict(states)


class History:
    """Everything that was written down.

    Args:
        home: The directory of the notebooks.
    """

    def __init__(self, home: Path) -> None:
        self.persons: dict[str, Person] = {}
        self.stage: list[Note] = []
        for path in sorted(home.glob("*.notes")):
            notes = list(read_notes(path))
            if path.stem == "stage":
                self.stage = notes
            elif notes:
                self.persons[path.stem] = _person(path.stem, notes)
        self._of_stage()
        opening = next(note for note in self.stage if note["what"] == "opens")
        self.settings: dict[str, Any] = opening["settings"]
        self.topology: str = opening["topology"]
        self.partitions: int = opening["partitions"]
        self.timeout = float(self.settings["heartbeat_timeout_secs"])
        self.end = self.stage[-1]["at"]
        self.calm = next((n["at"] for n in self.stage if n["what"] == "calm"), self.end)
        self.chains = self._chains()
        self.away = self._away()
        self._splits = merged(
            (note["begun"], note["at"])
            for note in self.stage
            if note["what"] == "two primaries"
        )
        self._clock = [
            (note["at"], note["ahead"])
            for note in self.stage
            if note["what"] == "clock"
        ]
        self.lives = list(self._lives())

    def _of_stage(self) -> None:
        open_: dict[tuple[str, str], float] = {}
        ends = {"joined": "cut off", "resumed": "paused"}
        for note in self.stage:
            person, what = self.persons.get(note.get("player", "")), note["what"]
            if person is None:
                continue
            if what in {"killed", "leaves"}:
                person.ended = min(person.ended, note["at"])
                person.killed = what == "killed"
            elif what in ends.values():
                open_.setdefault((what, person.name), note["at"])
            elif what in ends:
                begun = open_.pop((ends[what], person.name), note["at"])
                person.away.append((begun, note["at"]))
        for (_, name), begun in open_.items():
            self.persons[name].away.append((begun, math.inf))

    def _chains(self) -> dict[int, Chain]:
        found: dict[int, list[Entry]] = defaultdict(list)
        for note in self.stage:
            if note["what"] == "entry":
                found[note["partition"]].append(_entry(note))
        return {partition: Chain(entries) for partition, entries in found.items()}

    def _away(self) -> dict[int, list[Span]]:
        """When nobody served a partition."""
        found: dict[int, list[Span]] = defaultdict(list)
        for note in self.stage:
            if note["what"] == "away":
                found[note["partition"]].append((note["begun"], note["at"]))
        return {p: merged(found[p]) for p in range(self.partitions)}

    def _lives(self) -> Iterator[Life]:
        for person in self.persons.values():
            for note in person.notes:
                if note["what"] == "announced":
                    given = note["identity"], note["incarnation"] or ""
                    yield Life(*given, person, note["at"])

    def life_of(
        self, identity: str, incarnation: str | None, moment: float
    ) -> Life | None:
        """The newest life of that name at a moment."""
        named = (identity, incarnation or "")
        found = [
            life
            for life in self.lives
            if (life.identity, life.incarnation) == named and life.begun <= moment
        ]
        return max(found, key=lambda life: life.begun, default=None)

    # --- questions --------------------------------------------------------------------------------

    def of_role(self, role: str) -> list[Person]:
        """All who played it."""
        return [p for p in self.persons.values() if p.role == role]

    def notes(
        self, what: str, role: str | None = None
    ) -> Iterator[tuple[Person, Note]]:
        """Notes of a kind, of all or of those of a role."""
        for person in self.persons.values():
            if role is None or person.role == role:
                for note in person.notes:
                    if note["what"] == what:
                        yield person, note

    def entries(self) -> Iterator[Entry]:
        """All that was written, partition by partition."""
        for chain in self.chains.values():
            for epoch in chain.order:
                for rev in sorted(chain.epochs[epoch]):
                    yield chain.epochs[epoch][rev]

    def partition_of(self, identity: str) -> int:
        """Where an instance lives."""
        from redis_registry.wire.keys import partition_of

        return partition_of(identity.split(":", 1)[0], self.partitions)

    def leaderless(self) -> list[Span]:
        """When no controller could sweep."""
        spans: list[Span] = [(-math.inf, math.inf)]
        for person in self.of_role("controller"):
            spans = common(spans, person.off())
        return spans

    def split(self, begun: float, ended: float) -> bool:
        """Whether two servers took writes as the primary, so that one's will be lost."""
        return any(b <= ended and e >= begun for b, e in self._splits)

    def gained(self, begun: float, ended: float) -> float:
        """How many seconds more Redis's clock can have counted than ours, from one moment to another.

        A machine's wall clock is slewed, and stepped, while its monotonic one is not: 5 ms a second
        were seen on one that had slept.
        """
        first = bisect_right(self._clock, (begun, math.inf)) - 1
        last = bisect_right(self._clock, (ended, math.inf))
        least, most = math.inf, 0.0
        for _, ahead in self._clock[max(first, 0) : last]:
            least = min(least, ahead)
            most = max(most, ahead - least)
        return most

    def upsets(self, partition: int) -> list[tuple[float, bool]]:
        """When the registry noticed that it had been away; and whether Redis itself had been."""
        found: list[tuple[float, bool]] = []
        chain = self.chains.get(partition)
        if chain is None:
            return found
        for epoch in chain.order:
            entries = chain.epochs[epoch]
            found.append((entries[chain.first[epoch]].at, True))
            found += [
                (entry.at, entry.event.cause not in SOFT)
                for entry in entries.values()
                if entry.event.kind is Kind.RECOVERY
            ]
        return sorted(found)


class Timeline:
    """What was on record of one identity, and when."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._states: list[ModelInstance | None] = []

    def add(self, at: float, state: ModelInstance | None) -> None:
        """The next state."""
        self._times.append(at)
        self._states.append(state)

    def at(self, moment: float) -> ModelInstance | None:
        """What was on record at a moment."""
        place = bisect_right(self._times, moment)
        return self._states[place - 1] if place else None


def timelines(chain: Chain) -> dict[str, Timeline]:
    """By identity, each state from the earliest moment on at which it may have been written.

    What a new epoch has lost is gone with its first entry.
    """
    found: dict[str, Timeline] = defaultdict(Timeline)
    epoch = ""
    known: set[str] = set()
    for entry, states in chain.folded():
        if entry.epoch != epoch:
            epoch = entry.epoch
            for identity in known - (states or {}).keys():
                found[identity].add(entry.after, None)
            for identity, state in (states or {}).items():
                found[identity].add(entry.after, state)
            known = set(states or {})
        if entry.about_instance:
            found[entry.event.subject].add(entry.after, entry.event.instance)
            known.add(entry.event.subject)
    return found


def _person(name: str, notes: list[Note]) -> Person:
    person = Person(name, "", notes=notes)
    for note in notes:
        if note["what"] == "born":
            person.role, person.born = note["role"], note["at"]
        elif note["what"] == "stall":
            stood = person.blocked if note.get("of") == "loop" else person.stood
            stood.append((note["begun"], note["at"]))
        elif note["what"] == "blocked":  # who is killed meanwhile never tells its end
            person.blocked.append((note["at"], note["at"] + note["secs"]))
        elif note["what"] == "left":
            person.ended = note["at"]
    return person


def _entry(note: Note) -> Entry:
    head = note["head"].encode(errors="surrogateescape")
    about = note["about"].encode(errors="surrogateescape")
    event = decode_event(
        b"%d-0" % note["rev"], {head: about}, partition=note["partition"]
    )
    return Entry(
        note["partition"],
        note["epoch"],
        note["rev"],
        note["after"],
        note["at"],
        event,
        note["other"],
    )


def same(first: ModelInstance | None, second: ModelInstance | None) -> bool:
    """Whether two say the same, but for what heartbeats move."""
    if first is None or second is None:
        return first is second
    return essence(first) == essence(second)
