"""What a reader keeps of instances: each as it came, and one immutable snapshot a model."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import unquote

from redis_registry.core.events import Event, Kind, decode_event
from redis_registry.errors import FormatMismatch
from redis_registry.model import Health, ModelInstance, Readiness
from redis_registry.selection import Candidates
from redis_registry.store.following import Entry
from redis_registry.wire.codec import UNREADABLE, decode_row, served_by
from redis_registry.wire.in_force import Overrides
from redis_registry.wire.raw_rows import (
    merged_row,
    said_later,
    timeout_secs,
    with_word,
)

__all__ = ["Change", "ModelRows", "Row", "Snapshot", "model_of", "tell_unreadable"]

_log = logging.getLogger(__name__)

_MOVES_DEADLINE = frozenset({Kind.REGISTERED, Kind.UPDATED, Kind.HEALTHY})
_WORDS = frozenset(Kind(readiness.value) for readiness in Readiness)
_LIGHT = ("silent", "kept", "served", "heard", "names")


def tell_unreadable(raw: bytes, error: Exception | None = None) -> None:
    """Log that a row is no row."""
    _log.warning(
        "record unreadable, left out of the view",
        extra={"row": raw[:120].decode(errors="backslashreplace")},
        exc_info=error,
    )


class Row:
    """One instance as it came, decoded when somebody looks.

    Args:
        raw: The row; see ``store/lua/lib/record.lua``.
        silent: Its deadline has passed, and nobody has flipped it.
        kept: Redis has lost it without saying why; it may be gone, or about to come back.
        served: The time for which it was held out is over.
        heard: An earlier row, when Redis has lost what the instance itself said last in that.
        names: The further names that it serves, where they are known.
    """

    __slots__ = (
        "_instance",
        "_logged",
        "heard",
        "kept",
        "names",
        "raw",
        "readable",
        "served",
        "silent",
    )

    def __init__(
        self,
        raw: bytes,
        *,
        silent: bool = False,
        kept: bool = False,
        served: bool = False,
        heard: bytes = b"",
        names: tuple[str, ...] | None = None,
    ) -> None:
        self.raw = raw
        self.names = served_by(raw) if names is None else names
        self.silent = silent
        self.kept = kept
        self.served = served
        self.heard = heard
        self.readable = True
        self._logged = False
        self._instance: ModelInstance | None = None

    @property
    def member(self) -> str:
        """The instance's member among the deadlines."""
        identity, _, tail, _ = self.raw.split(b"|", 3)
        return f"{identity.decode()}:{tail.decode()}"

    @property
    def healthy(self) -> bool:
        """Whether its record says so, and its last word is no goodbye."""
        return self._heard().split(b"|", 5)[4] == b"1"

    @property
    def timeout_secs(self) -> float:
        """After how long a silence it counts as dead."""
        return timeout_secs(self.raw)

    def _heard(self) -> bytes:
        return with_word(self.raw, self.heard) if self.heard else self.raw

    def marked(
        self,
        *,
        silent: bool | None = None,
        kept: bool | None = None,
        served: bool | None = None,
    ) -> Row:
        """The same row in another light."""
        silent = self.silent if silent is None else silent
        kept = self.kept if kept is None else kept
        served = self.served if served is None else served
        if (silent, kept, served) == (self.silent, self.kept, self.served):
            return self
        return self._but(self.raw, silent=silent, kept=kept, served=served)

    def told(self, raw: bytes) -> Row:
        """Another row of the same instance that says no more of its life than this one."""
        return self._but(raw)

    def turned_into(self, told: Row, kind: Kind, *, keep: bool) -> Row:
        """What an event makes of this row.

        Args:
            told: The event's.
            kind: Of the event.
            keep: Its epoch may have lost what the instance said before it.
        """
        raw = merged_row(self.raw, told.raw, whole=kind is not Kind.UNHEALTHY)
        silent = self.silent and kind not in _MOVES_DEADLINE
        row = Row(raw, silent=silent, names=told.names)
        remembers = (keep or self.heard) and kind not in _WORDS
        return row.remembering(self) if remembers else row

    def remembering(self, before: Row) -> Row:
        """The same row, with a later word of the instance, where one was heard and could be read."""
        heard = before.heard or before.raw
        if said_later(heard, self.raw) and before.instance is not None:
            return self._but(self.raw, heard=heard)
        return self

    def kept_beside(self, found: Row | None, *, gone: bool) -> Row | None:
        """What of this row outlives a loss of Redis.

        Args:
            found: What is there now.
            gone: It is known to have been removed.

        Returns:
            What to show instead; ``None``: nothing but what is there.
        """
        if found is None:
            return self.marked(kept=True) if self.healthy and not gone else None
        remembering = found.remembering(self)
        return None if remembering is found else remembering

    def forgetting(self) -> Row:
        """The same row with no more of the instance's words than Redis knows."""
        return self._but(self.raw, heard=b"") if self.heard else self

    def _but(self, raw: bytes, **light: Any) -> Row:
        same = {name: getattr(self, name) for name in _LIGHT}
        row = Row(raw, **(same | light))
        row.readable = self.readable or raw != self.raw
        row._logged = self._logged
        return row

    @property
    def held(self) -> ModelInstance | None:
        """The instance as Redis says it is; nobody is dead whom no event has called dead."""
        return self.forgetting().marked(silent=False).instance

    @property
    def instance(self) -> ModelInstance | None:
        """The instance; ``None`` when the row can't be read, which is logged once."""
        if self._instance is None and self.readable:
            try:
                self._instance = self._judged(decode_row(self._heard()))
            except (*UNREADABLE, FormatMismatch) as error:
                if not self._logged:
                    tell_unreadable(self.raw, error)
                self.readable, self._logged = False, True
        return self._instance

    def _judged(self, instance: ModelInstance) -> ModelInstance:
        seen: dict[str, object] = {}
        if self.silent and instance.healthy and instance.check_healthy:
            seen = {"healthy": False, "state": Health.OVERDUE}
        elif self.kept:
            seen = {"state": Health.PROTECTED}
        if self.served and instance.held_out:
            seen["held_out"] = instance.held_out.at(instance.held_out.until)
        return instance.model_copy(update=seen) if seen else instance


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All instances that a name finds at one moment; nothing of it ever changes.

    Attributes:
        model_name: The name: of a model, or one that instances of models serve too.
        candidates: What choosers take; keeps what they compute of it.
    """

    model_name: str
    candidates: Candidates = field(default_factory=Candidates)

    @property
    def instances(self) -> tuple[ModelInstance, ...]:
        """All of them; those of the model in order of registration, then those that serve it too."""
        return self.candidates.instances


class ModelRows:
    """The rows of one model, in order of registration, and the snapshot made of them.

    Attributes:
        serves: How many of them serve each further name.
    """

    __slots__ = ("_made", "name", "partition", "rows", "serves", "version")

    def __init__(self, name: str, partition: int) -> None:
        self.name = name
        self.partition = partition
        self.rows: dict[str, Row] = {}
        self.serves = Counter[str]()
        self.version = 0
        self._made: tuple[int, Snapshot] | None = None

    def snapshot(self, overrides: Overrides) -> Snapshot:
        """What is shown of them; the same object while nothing changes."""
        made, version = self._made, self.version
        if made is not None and made[0] == version:
            return made[1]
        # Copied in one step, for the writer may be at work in another thread.
        found = (row.instance for row in list(self.rows.values()))
        shown = (overrides.apply(item, 0) for item in found if item)
        snapshot = Snapshot(self.name, Candidates(shown))
        self._made = (version, snapshot)
        return snapshot


@dataclass(frozen=True)
class Change:
    """One entry of the stream and what it did to the mirror.

    Attributes:
        entry: The entry.
        model: The model it is about; empty: about none.
        old: The row before it.
        new: The row after it.
        turned: Models that look different because of it, if it is an operator's decision.
    """

    entry: Entry
    model: str
    old: Row | None
    new: Row | None
    turned: frozenset[str] = frozenset()

    @cached_property
    def event(self) -> Event:
        """It as an event, decoded once for all who watch.

        Raises:
            ValueError: It can't be read.
        """
        entry, old = self.entry, self.old
        if old is not None and old.kept:
            old = None  # Redis had lost it, and the watch was told so
        return decode_event(
            b"%d-0" % entry.revision,
            {entry.head: self.new.raw if self.new else entry.about},
            partition=entry.partition,
            before=old.held if old else None,
        )


def model_of(identity: str) -> str:
    """The model of an identity, which is given as text."""
    name = identity.partition(":")[0]
    return unquote(name) if "%" in name else name
