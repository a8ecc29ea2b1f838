"""The words of an explanation: why an instance is, or isn't, selectable, and what would change it."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from redis_registry.core.events import Event, Kind
from redis_registry.model import Identity, ModelInstance, Readiness
from redis_registry.selection import Reason
from redis_registry.wire.aliases import Alias
from redis_registry.wire.overrides import Override

__all__ = ["Explanation", "ModelExplanation", "Penalties", "Protection", "Transition"]


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True, protected_namespaces=())


class Protection(_Told):
    """Why nobody of a scope is judged by its deadline for now.

    Attributes:
        by: ``recovery``: the registry itself was away. ``guard``: too many would die at once.
        scope: A model's name; ``*``: all of its partition.
        cause: Why, in plain words.
        until: When it ends at the latest, by Redis's clock.
    """

    by: Literal["recovery", "guard"]
    scope: str
    cause: str
    until: datetime


class Penalties(_Told):
    """What is held against an instance.

    Attributes:
        failures_in_a_row: Calls to it that failed since the last that did not, by all who report.
        calls: How many were counted of late; old ones weigh less.
        failed: How many of them failed.
        flapping: Grows by 1 each time it comes back from the dead, and decays.
        ejections_in_a_row: How many times it was ejected without staying in for long between.
    """

    failures_in_a_row: int = 0
    calls: float = 0.0
    failed: float = 0.0
    flapping: float = 0.0
    ejections_in_a_row: int = 0


class Transition(_Told):
    """One change of an instance, or an operator's decision about it.

    Attributes:
        at: When, by Redis's clock.
        secs_ago: How long ago that is.
        kind: What happened.
        cause: Why.
        actor: Who did it.
        revision: Number of the change.
        address: ``host:port`` of the instance.
        readiness: What it was afterwards; ``None``: it was removed.
        reason: Why it was not ready.
        override: The override that was set, cleared or has ended.
    """

    at: datetime
    secs_ago: float
    kind: Kind
    cause: str
    actor: str
    revision: int
    address: str | None = None
    readiness: Readiness | None = None
    reason: str | None = None
    override: Override | None = None

    @classmethod
    def of(cls, event: Event, now: datetime, address: str | None) -> Transition:
        """An event as seen from a later moment."""
        item = event.instance
        return cls(
            at=event.at,
            secs_ago=max((now - event.at).total_seconds(), 0.0),
            kind=event.kind,
            cause=event.cause,
            actor=event.actor,
            revision=event.revision,
            address=address,
            readiness=item.readiness if item else None,
            reason=item.reason if item else None,
            override=event.override,
        )


class _Because(_Told):
    """What both explanations say.

    Attributes:
        because: Why it is as it is: one plain sentence, with the figures.
        remedy: What would change it; empty when nothing need.
        now: The moment it is about, by Redis's clock.
        alias: The alias it was asked by.
        protections: Why nobody is judged by its deadline for now.
        transitions: The last changes, at most 20, the newest first.
        looked_back_to: No further back than this was looked for them; ``None``: as far as
            events are kept, or until 20 were found.
    """

    because: str
    remedy: str = ""
    now: datetime
    alias: Alias | None = None
    protections: tuple[Protection, ...] = ()
    transitions: tuple[Transition, ...] = ()
    looked_back_to: datetime | None = None


class Explanation(_Because):
    """Why one instance may, or may not, receive new work.

    Attributes:
        model_name: Its model.
        host: Where it listens.
        port: On which port.
        selectable: Whether it may receive new work.
        reason: The one primary reason why not; ``None``: it may.
        last_resort: It is only held out, and nobody else of its model can work: it is chosen.
        instance: As reads show it, overrides applied; ``None``: the registry has none.
        beat_secs_ago: Age of its last heartbeat by Redis's clock.
        deadline_in_secs: When silence makes it dead; negative: that was so long ago; ``None``:
            never, it isn't checked, or is dead already.
        overrides: Operators' overrides in force on it, the one that wins last.
        penalties: What is held against it.
        in_flight: Reservations held of it.
        capacity: How many it takes at once; ``None``: any number.
    """

    model_name: str
    host: str
    port: int
    selectable: bool
    reason: Reason | None = None
    last_resort: bool = False
    instance: ModelInstance | None = None
    beat_secs_ago: float | None = None
    deadline_in_secs: float | None = None
    overrides: tuple[Override, ...] = ()
    penalties: Penalties = Penalties()
    in_flight: int = 0
    capacity: int | None = None

    @property
    def identity(self) -> Identity:
        """Model, host and port."""
        return Identity(self.model_name, self.host, self.port)


class ModelExplanation(_Because):
    """Why instances of a model do, or don't, receive new work.

    Attributes:
        model_name: The model; of an alias the one it stands for.
        known: Whether it has any instance.
        selectable: How many may receive new work.
        reasons: How many may not, by their primary reason.
        protected: How many are past their deadline and not judged by it for now.
        last_resort: Nobody may, and those that are only held out are chosen all the same.
        instances: What explains each, without transitions; those that may not receive work
            first, at most 1,000.
    """

    model_name: str
    known: bool
    selectable: int = 0
    reasons: dict[Reason, int] = {}
    protected: int = 0
    last_resort: bool = False
    instances: tuple[Explanation, ...] = ()
