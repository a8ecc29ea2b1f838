"""What changed: the events that the scripts write, typed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from urllib.parse import unquote

from redis_registry.model import EPOCH, ModelInstance
from redis_registry.wire.aliases import Alias, decode_alias
from redis_registry.wire.codec import decode_row
from redis_registry.wire.overrides import Override, decode_override

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
    REMOVED = "removed"
    FORGOTTEN = "forgotten"
    LEASE = "lease"
    """A new term of sweeping began."""

    GUARD = "guard"
    """The guard holds flips of a scope, or lets go."""

    RECOVERY = "recovery"
    """The registry was away; nobody is flipped for one timeout."""

    OVERRIDDEN = "overridden"
    """An operator set an override."""

    OVERRIDE_CLEARED = "override_cleared"
    OVERRIDE_EXPIRED = "override_expired"
    ALIAS_SET = "alias_set"
    ALIAS_REMOVED = "alias_removed"


@dataclass(frozen=True, slots=True)
class Event:
    """One change.

    Attributes:
        revision: Its number: one higher than the change before, within the partition.
        epoch: Revisions are unique within it only.
        kind: What happened.
        subject: An identity (escaped ``model:host:port``), a scope, a holder, or the name of an
            override or alias.
        cause: Why.
        actor: Who did it.
        at: When, by Redis's clock.
        instance: The instance after the change, as it says it is (without overrides); ``None``
            when it is gone or not about one.
        override: The override that was set, cleared or has expired.
        alias: The alias that was set or removed.
    """

    revision: int
    epoch: str
    kind: Kind
    subject: str
    cause: str
    actor: str
    at: datetime
    instance: ModelInstance | None
    override: Override | None = None
    alias: Alias | None = None


_OF_OVERRIDES = {Kind.OVERRIDDEN, Kind.OVERRIDE_CLEARED, Kind.OVERRIDE_EXPIRED}
_OF_ALIASES = {Kind.ALIAS_SET, Kind.ALIAS_REMOVED}


def decode_event(entry_id: bytes, fields: Mapping[bytes, bytes]) -> Event:
    """Read one stream entry.

    Raises:
        ValueError: It is not of the form that ``store/lua/lib/open.lua`` writes.
    """
    ((head, about),) = fields.items()
    epoch, told, cause, actor, at = head.split(b"|")
    kind = Kind(told.decode())
    instance = override = alias = None
    if kind in _OF_OVERRIDES:
        override = decode_override(*about.split(b" ", 1))
        subject = override.name
    elif kind in _OF_ALIASES:
        alias = decode_alias(*about.split(b" ", 1))
        subject = alias.alias
    else:
        subject = about.split(b"|", 1)[0].decode()
        instance = decode_row(about) if b"|" in about else None
    return Event(
        revision=int(entry_id.split(b"-")[0]),
        epoch=epoch.decode(),
        kind=kind,
        subject=subject,
        cause=unquote(cause.decode()),
        actor=actor.decode(),
        at=EPOCH + timedelta(microseconds=int(at)),
        instance=instance,
        override=override,
        alias=alias,
    )
