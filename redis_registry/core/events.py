"""What changed: the events that the scripts write, typed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from urllib.parse import unquote

from redis_registry.errors import ConfigurationError
from redis_registry.model import EPOCH, ModelInstance
from redis_registry.wire.aliases import Alias, decode_alias
from redis_registry.wire.codec import decode_row
from redis_registry.wire.overrides import Override, decode_override

__all__ = [
    "OF_ALIASES",
    "OF_OVERRIDES",
    "Event",
    "Kind",
    "decode_event",
    "kind_of",
    "position_of",
    "position_text",
]


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

    OVERRIDDEN = "overridden"
    """An operator set an override."""

    OVERRIDE_CLEARED = "override_cleared"
    OVERRIDE_EXPIRED = "override_expired"
    ALIAS_SET = "alias_set"
    ALIAS_REMOVED = "alias_removed"

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
        subject: An identity (escaped ``model:host:port``), a scope, a holder, or the name of an
            override or alias.
        cause: Why.
        actor: Who did it.
        at: When, by Redis's clock.
        instance: The instance after the change, as it says it is (without overrides); ``None``
            when it is gone or not about one.
        override: The override that was set, cleared or has expired.
        alias: The alias that was set or removed.
        before: The instance before the change, where the watcher knew it.
        partition: Which partition's change.
        snapshot: With a resync, all instances as of ``revision``, as they say they are; in order of
            registration.
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
    override: Override | None = None
    alias: Alias | None = None

    @property
    def position(self) -> str:
        """Where a watch goes on after this event: of its model, or of all of one partition."""
        return position_text([(self.epoch, self.revision)])


OF_OVERRIDES = frozenset(
    {Kind.OVERRIDDEN, Kind.OVERRIDE_CLEARED, Kind.OVERRIDE_EXPIRED}
)
OF_ALIASES = frozenset({Kind.ALIAS_SET, Kind.ALIAS_REMOVED})
"""Kinds of events that carry an override, or an alias."""


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
    epoch, told, cause, actor, at = head.split(b"|")
    kind = Kind(told.decode())
    instance = override = alias = None
    if kind in OF_OVERRIDES:
        override = decode_override(*about.split(b" ", 1))
        subject = override.name
    elif kind in OF_ALIASES:
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
        before=before,
        partition=partition,
    )
