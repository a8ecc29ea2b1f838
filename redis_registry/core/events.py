"""What changed: the events that the scripts write, typed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from redis_registry.model import EPOCH, ModelInstance
from redis_registry.wire.codec import decode_row

__all__ = ["Event", "Kind", "decode_event"]


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
    """

    revision: int
    epoch: str
    kind: Kind
    subject: str
    cause: str
    actor: str
    at: datetime
    instance: ModelInstance | None


def decode_event(entry_id: bytes, fields: Mapping[bytes, bytes]) -> Event:
    """Read one stream entry.

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
    )
