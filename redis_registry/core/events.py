"""What changed: the events that the scripts write, typed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from redis_registry.errors import ConfigurationError
from redis_registry.model import EPOCH, ModelInstance
from redis_registry.wire.codec import decode_row

__all__ = ["Event", "Kind", "decode_event", "kind_of", "position_of", "position_text"]


class Kind(StrEnum):
    """What an event tells."""

    OPENED = "opened"
    """The partition was used for the first time (or after a flush)."""

    REGISTERED = "registered"
    UPDATED = "updated"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    DEREGISTERED = "deregistered"
    STARTING = "starting"
    READY = "ready"
    NOT_READY = "not_ready"
    DRAINING = "draining"
    WEDGED = "wedged"
    FAILED = "failed"
    EJECTED = "ejected"
    """Too many calls to it failed: kept out."""

    PROBING = "probing"
    """Somebody has its one probe."""

    RESTORED = "restored"
    """The probe succeeded: back in."""

    REMOVED = "removed"
    FORGOTTEN = "forgotten"
    LEASE = "lease"
    """A new term of sweeping began."""

    GUARD = "guard"
    """The guard holds flips of a scope, or lets go."""

    RECOVERY = "recovery"
    """The registry was away; nobody is flipped for one timeout."""

    RESYNC = "resync"
    """What a watcher knew is to be replaced by this snapshot: it is new, events are gone, or it
    was too slow. Never in the stream."""

    OTHER = "other"
    """Something that only a newer release knows."""

    @classmethod
    def _missing_(cls, value: object) -> Kind:  # noqa: ARG003  the enum's protocol
        return cls.OTHER


@dataclass(frozen=True, slots=True)
class Event:
    """One change.

    Attributes:
        revision: Its number: one higher than the change before, within the partition.
        epoch: Revisions are unique within it only.
        kind: What happened.
        subject: An identity (escaped ``model:host:port``), a scope or a holder.
        cause: Why.
        actor: Who did it.
        at: When, by Redis's clock.
        instance: The instance after the change; ``None`` when it is gone or not about one.
        before: The instance before the change, where the watcher knew it.
        partition: Which partition's change.
        snapshot: With a resync, all instances as of ``revision``; in order of registration.
    """

    revision: int
    epoch: str
    kind: Kind
    subject: str
    cause: str
    actor: str
    at: datetime
    instance: ModelInstance | None
    before: ModelInstance | None = None
    partition: int = 0
    snapshot: tuple[ModelInstance, ...] | None = None

    @property
    def position(self) -> str:
        """Where a watch goes on after this event: of its model, or of all of one partition."""
        return position_text([(self.epoch, self.revision)])


def position_text(places: Sequence[tuple[str, int]]) -> str:
    """Epoch and revision of each partition as one word."""
    return ",".join(f"{epoch}:{revision}" for epoch, revision in places)


def position_of(text: str) -> list[tuple[str, int]]:
    """Read back what :func:`position_text` made.

    Raises:
        ConfigurationError: The text is not of that form.
    """
    found: list[tuple[str, int]] = []
    for place in text.split(","):
        epoch, _, revision = place.rpartition(":")
        if not (epoch and revision.isdecimal()):
            msg = (
                f"after: {text!r:.80} is no position; give what a watch's or an event's "
                "position said, or None to begin with a snapshot"
            )
            raise ConfigurationError(msg)
        found.append((epoch, int(revision)))
    return found


def kind_of(head: bytes) -> Kind:
    """What an entry tells, from its head."""
    return Kind(head.split(b"|", 2)[1].decode())


def decode_event(
    entry_id: bytes,
    fields: Mapping[bytes, bytes],
    *,
    partition: int = 0,
    before: ModelInstance | None = None,
) -> Event:
    """Read one stream entry.

    Args:
        entry_id: ``<revision>-0``.
        fields: The one field.
        partition: Whose stream.
        before: The instance before the change, where it is known.

    Raises:
        ValueError: It is not of the form that ``store/lua/lib/open.lua`` writes.
    """
    ((head, about),) = fields.items()
    epoch, kind, cause, actor, at = head.split(b"|")
    subject = about.split(b"|", 1)[0].decode()
    return Event(
        revision=int(entry_id.split(b"-")[0]),
        epoch=epoch.decode(),
        kind=Kind(kind.decode()),
        subject=subject,
        cause=cause.decode(),
        actor=actor.decode(),
        at=EPOCH + timedelta(microseconds=int(at)),
        instance=decode_row(about) if b"|" in about else None,
        before=before,
        partition=partition,
    )
