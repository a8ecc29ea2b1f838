"""What watches and views were told: R2 and R3, or I6 of the fault plan."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from redis_registry import Kind, ModelInstance
from tests.chaos.actor import essence
from tests.chaos.judge.history import GONE, Chain, History, Person
from tests.chaos.notebook import Note

__all__ = ["FOLLOWING"]

Told = dict[str, str]
"""What is known of each identity, as :func:`tests.chaos.actor.essence` says it."""


def _essence(given: str | None) -> str | None:
    return None if given is None else essence(ModelInstance.model_validate_json(given))


@dataclass
class _Watched:
    """What one who watches has been told of one partition."""

    place: tuple[str, int] | None = None
    told: Told | None = None
    at: float = 0.0
    snapshots: list[tuple[str, int, Told]] = field(
        default_factory=list[tuple[str, int, Told]]
    )

    def take(self, note: Note) -> str:
        """The next event; what is wrong with it, or nothing."""
        place = (note["epoch"], note["rev"])
        wrong = self._wrong(note, place)
        self.place, self.at = place, note["at"]
        subject = note["subject"]
        if note["kind"] == Kind.RESYNC:
            self.told = _snapshot(note)
            self.snapshots.append((*place, dict(self.told)))
        elif self.told is not None:
            known, before = self.told.get(subject), _essence(note["before"])
            if before is not None and known != before:
                wrong = wrong or f"says that it was {before}, and told {known}"
            if note["instance"] is not None:
                self.told[subject] = _essence(note["instance"]) or ""
            elif note["kind"] in GONE:
                self.told.pop(subject, None)
        return wrong

    def _wrong(self, note: Note, place: tuple[str, int]) -> str:
        if self.place is None:
            return "" if note["kind"] == Kind.RESYNC else "begins without a resync"
        same = place[0] == self.place[0]
        if note["kind"] == Kind.RESYNC:
            back = same and place[1] < self.place[1]
            return f"goes back from {self.place}" if back else ""
        if not same:
            return "another epoch without a resync"
        if place[1] != self.place[1] + 1:
            return f"follows {self.place[1]} without a resync"
        return ""


def _snapshot(note: Note) -> Told:
    found: Told = {}
    for given in note["snapshot"]:
        item = ModelInstance.model_validate_json(given)
        found[f"{item.model_name}:{item.host}:{item.port}"] = essence(item)
    return found


def _watched(
    history: History, until: float = math.inf
) -> Iterator[tuple[Person, dict[int, _Watched], list[str]]]:
    """For each who watches: what it knew at a moment, and what was wrong on the way."""
    for person in history.persons.values():
        found: dict[int, _Watched] = {}
        wrong: list[str] = []
        for note in person.notes:
            if note["at"] > until:
                break
            if note["what"] == "watch" and note["after"] is None:
                found = {}
            elif note["what"] == "event":
                watched = found.setdefault(note["partition"], _Watched())
                if bad := watched.take(note):
                    wrong.append(
                        f"{person.name}, watch {note['watch']}: {note['kind']} {note['subject']} "
                        f"at {note['epoch']}:{note['rev']} {bad}"
                    )
        if found:
            yield person, found, wrong


def watches_miss_nothing(history: History) -> Iterator[str]:
    """R2: each revision once and in order, or a resync; a new watch goes on where the last one was."""
    for _, _, wrong in _watched(history):
        yield from wrong


def watches_tell_what_was_written(history: History) -> Iterator[str]:
    """R1, R2: an event says what the entry with its epoch and revision says."""
    for person, note in history.notes("event"):
        chain = history.chains.get(note["partition"])
        if note["kind"] == Kind.RESYNC or chain is None:
            continue
        entry = chain.epochs.get(note["epoch"], {}).get(note["rev"])
        if entry is None:
            continue  # written and lost between two rounds of the auditor
        event = entry.event
        said: list[Any] = [note["kind"], note["subject"], note["cause"], note["time"]]
        truth = [str(event.kind), event.subject, event.cause, event.at.isoformat()]
        told = _essence(note["instance"])
        true = event.instance and essence(event.instance)
        if said != truth or told != true:
            yield f"{person.name} was told {said} {told}; written was {truth} {true}"


def snapshots_are_true(history: History) -> Iterator[str]:
    """R2, R3: a snapshot is what all entries up to its revision make."""
    for partition, chain in history.chains.items():
        wanted: dict[tuple[str, int], list[tuple[str, Told]]] = {}
        for person, found, _ in _watched(history):
            for epoch, rev, told in found.get(partition, _Watched()).snapshots:
                wanted.setdefault((epoch, rev), []).append((person.name, told))
        yield from _compared(chain, wanted)


def _compared(
    chain: Chain, wanted: dict[tuple[str, int], list[tuple[str, Told]]]
) -> Iterator[str]:
    for entry, states in chain.folded():
        asked = wanted.get((entry.epoch, entry.rev))
        if not asked or states is None:
            continue
        after = {identity: essence(state) for identity, state in states.items()}
        if entry.event.instance is not None:
            after[entry.event.subject] = essence(entry.event.instance)
        elif entry.event.kind in GONE:
            after.pop(entry.event.subject, None)
        for name, told in asked:
            if told != after:
                yield (
                    f"{name}'s snapshot at {entry.epoch}:{entry.rev} "
                    f"{_difference(told, after)}"
                )


def _difference(told: Told, true: Told) -> str:
    for identity in sorted(told.keys() | true.keys()):
        if told.get(identity) != true.get(identity):
            return f"says of {identity}: {told.get(identity)}, true is {true.get(identity)}"
    return "differs"


def all_agree_in_the_end(history: History) -> Iterator[str]:
    """R3: once it is calm, watches and views say what Redis holds; and that within a bound."""
    for note in history.stage:
        if note["what"] == "unsettled":
            yield note["why"]
    truth = [note for note in history.stage if note["what"] == "truth"]
    if not truth:
        return
    held: Told = truth[-1]["held"]
    for person, found, _ in _watched(history, truth[-1]["at"]):
        if person.ended < truth[-1]["at"]:
            continue
        told: Told = {}
        for watched in found.values():
            told |= watched.told or {}
        if told != held:
            yield f"{person.name}'s watch in the end {_difference(told, held)}"


def holds(note: Note) -> str:
    """A view's content as one text, to be compared."""
    return json.dumps(note["held"], sort_keys=True)


FOLLOWING = (
    watches_miss_nothing,
    watches_tell_what_was_written,
    snapshots_are_true,
    all_agree_in_the_end,
)
