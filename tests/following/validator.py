"""Judges what a watch told: complete, in order, and true (promises R1 to R3)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from redis_registry import Event, Identity, Kind, ModelInstance

__all__ = ["Untrue", "Validator", "essence"]


class Untrue(AssertionError):
    """The watch has lied, or kept silent."""


def essence(item: ModelInstance) -> dict[str, object]:
    """What events tell of an instance: all but what heartbeats move."""
    return item.model_dump(exclude={"last_heartbeat", "load", "state"})


@dataclass
class Validator:
    """Replays the events of a watch of everything in one partition.

    Attributes:
        state: What the events say there is.
        counts: How many events of each kind came.
        causes: Why resyncs came.
    """

    state: dict[Identity, ModelInstance] = field(
        default_factory=dict[Identity, ModelInstance]
    )
    counts: Counter[Kind] = field(default_factory=Counter[Kind])
    causes: Counter[str] = field(default_factory=Counter[str])
    place: tuple[str, int] | None = None

    def take_all(self, events: Iterable[Event]) -> None:
        """Many events, in order."""
        for event in events:
            self.take(event)

    def take(self, event: Event) -> None:
        """The next event.

        Raises:
            Untrue: It can't follow on the one before.
        """
        self.counts[event.kind] += 1
        place = (event.epoch, event.revision)
        if event.kind is Kind.RESYNC:
            self._resync(event, place)
        elif self.place is None:
            raise Untrue(f"it begins with {event.kind}, not with a resync")
        elif event.epoch != self.place[0]:
            raise Untrue(f"another epoch without a resync: {event}")
        elif event.revision != self.place[1] + 1:
            raise Untrue(f"{event.revision} follows {self.place[1]} without a resync")
        else:
            self._change(event)
        self.place = place

    def _resync(self, event: Event, place: tuple[str, int]) -> None:
        self.causes[event.cause] += 1
        if event.snapshot is None:
            raise Untrue("a resync without a snapshot")
        same = self.place is not None and self.place[0] == place[0]
        if same and self.place is not None and place[1] < self.place[1]:
            raise Untrue(f"revisions go back from {self.place[1]} to {place[1]}")
        self.state = {item.identity: item for item in event.snapshot}

    def _change(self, event: Event) -> None:
        identity = (
            event.instance.identity
            if event.instance
            else event.before.identity
            if event.before
            else None
        )
        if identity is None:
            return
        known = self.state.get(identity)
        if (known is None) != (event.before is None):
            raise Untrue(f"before the event: {event.before}, known: {known}")
        if known and event.before and essence(known) != essence(event.before):
            raise Untrue(f"before the event: {event.before}, known: {known}")
        if event.instance is None:
            del self.state[identity]
        else:
            self.state[identity] = event.instance

    def compare(self, truth: Iterable[ModelInstance]) -> None:
        """The end: what the events say must be what Redis holds.

        Raises:
            Untrue: It is not.
        """
        held = {item.identity: essence(item) for item in truth}
        told = {identity: essence(item) for identity, item in self.state.items()}
        for identity in held.keys() | told.keys():
            if held.get(identity) != told.get(identity):
                raise Untrue(
                    f"{identity}: Redis holds {held.get(identity)}, told {told.get(identity)}"
                )
