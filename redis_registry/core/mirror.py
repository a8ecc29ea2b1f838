"""What a reader keeps of a namespace: rows as they came, one immutable snapshot a model.

Pure: it is told of pages, entries and silences, and does no I/O. One thread writes; any thread
reads. A reader that finds a model unchanged gets the very snapshot it got before.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import unquote

from redis_registry.core.decisions import Decisions, is_decision
from redis_registry.core.events import Event, Kind, decode_event, kind_of
from redis_registry.errors import FormatMismatch
from redis_registry.model import Health, ModelInstance
from redis_registry.selection import Candidates
from redis_registry.store.following import Entry
from redis_registry.store.replies import Orders, Page
from redis_registry.wire.codec import (
    UNREADABLE,
    decode_row,
    merged_row,
    row_at_rest,
    with_load,
)
from redis_registry.wire.in_force import Overrides

__all__ = ["Change", "Mirror", "Row", "Snapshot"]

_log = logging.getLogger(__name__)

_MOVES_DEADLINE = frozenset({Kind.REGISTERED, Kind.UPDATED, Kind.HEALTHY})
_ENDS = frozenset({Kind.REMOVED, Kind.FORGOTTEN})


class Row:
    """One instance as it came, decoded when somebody looks.

    Args:
        raw: The row; see ``store/lua/lib/record.lua``.
        silent: Its deadline has passed, and nobody has flipped it.
        kept: Redis has lost it without saying why; it may be gone, or about to come back.
    """

    __slots__ = ("_instance", "kept", "raw", "silent")

    def __init__(self, raw: bytes, *, silent: bool = False, kept: bool = False) -> None:
        self.raw = raw
        self.silent = silent
        self.kept = kept
        self._instance: ModelInstance | None = None

    @property
    def member(self) -> str:
        """The instance's member among the deadlines."""
        identity, _, tail, _ = self.raw.split(b"|", 3)
        return f"{identity.decode()}:{tail.decode()}"

    @property
    def healthy(self) -> bool:
        """Whether its record says so."""
        return self.raw.split(b"|", 5)[4] == b"1"

    def marked(self, *, silent: bool | None = None, kept: bool | None = None) -> Row:
        """The same row in another light."""
        silent = self.silent if silent is None else silent
        kept = self.kept if kept is None else kept
        if (silent, kept) == (self.silent, self.kept):
            return self
        return Row(self.raw, silent=silent, kept=kept)

    @property
    def instance(self) -> ModelInstance | None:
        """The instance; ``None`` when the row can't be read, which is logged once."""
        if self._instance is None and self.raw:
            try:
                self._instance = self._judged(decode_row(self.raw))
            except (*UNREADABLE, FormatMismatch):
                _log.warning(
                    "record unreadable, left out of the view",
                    extra={"row": self.raw[:120].decode(errors="backslashreplace")},
                    exc_info=True,
                )
                self.raw = b""
        return self._instance

    def _judged(self, instance: ModelInstance) -> ModelInstance:
        if self.silent and instance.healthy and instance.check_healthy:
            return instance.model_copy(
                update={"healthy": False, "state": Health.OVERDUE}
            )
        if self.kept:
            return instance.model_copy(update={"state": Health.PROTECTED})
        return instance


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All instances of one model at one moment; nothing of it ever changes.

    Attributes:
        model_name: The model.
        candidates: What choosers take; keeps what they compute of it.
    """

    model_name: str
    candidates: Candidates = field(default_factory=Candidates)

    @property
    def instances(self) -> tuple[ModelInstance, ...]:
        """All of them, in order of registration."""
        return self.candidates.instances


class _Model:
    """The rows of one model, in order of registration, and the snapshot made of them."""

    __slots__ = ("_made", "name", "partition", "rows", "version")

    def __init__(self, name: str, partition: int) -> None:
        self.name = name
        self.partition = partition
        self.rows: dict[str, Row] = {}
        self.version = 0
        self._made: tuple[int, Snapshot] | None = None

    def snapshot(self, overrides: Overrides) -> Snapshot:
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
            before=old.marked(silent=False).instance if old else None,
        )


def _model_of(identity: str) -> str:
    name = identity.partition(":")[0]
    return unquote(name) if "%" in name else name


@dataclass
class Mirror:
    """Instances of a namespace, or of some of its models.

    Attributes:
        models: By name; one without instances is not there.
        decisions: What operators have decided; applied to what is shown, never to the rows.
        touched: While it is being read: the newest entry about each instance, so that pages
            and entries fit together in whatever order they come; else ``None``.
    """

    models: dict[str, _Model] = field(default_factory=dict[str, _Model])
    decisions: Decisions = field(default_factory=Decisions)
    touched: dict[str, int] | None = None

    def snapshot(self, model_name: str) -> Snapshot:
        """The instances of a model, which may be unknown, or of the one an alias stands for."""
        model_name = self.decisions.aliases.get(model_name, model_name)
        found = self.models.get(model_name)
        return self._shown(found) if found else Snapshot(model_name)

    def _shown(self, model: _Model) -> Snapshot:
        return model.snapshot(self.decisions.overrides(model.partition))

    def all(self) -> Iterator[ModelInstance]:
        """All instances, model by model."""
        for model in list(self.models.values()):
            yield from self._shown(model).instances

    def held(self, partition: int) -> Iterator[ModelInstance]:
        """What Redis holds of a partition, as it says it is: without those it has lost."""
        for model in list(self.models.values()):
            if model.partition == partition:
                for row in model.rows.values():
                    if not row.kept and (instance := row.instance):
                        yield instance

    def rows(self) -> dict[int, list[bytes]]:
        """All rows of each partition, as they came."""
        found: dict[int, list[bytes]] = {}
        for model in list(self.models.values()):
            rows = [row.raw for row in list(model.rows.values()) if row.raw]
            found.setdefault(model.partition, []).extend(rows)
        return found

    @property
    def orders(self) -> Mapping[int, Orders]:
        """What operators have decided, of each partition."""
        return self.decisions.by_partition

    def row(self, identity: str) -> Row | None:
        """The row of an instance."""
        model = self.models.get(_model_of(identity))
        return model.rows.get(identity) if model else None

    def _put(self, partition: int, identity: str, row: Row) -> None:
        name = _model_of(identity)
        model = self.models.get(name)
        if model is None:
            model = self.models[name] = _Model(name, partition)
        model.rows[identity] = row
        model.version += 1

    def _drop(self, identity: str) -> None:
        name = _model_of(identity)
        model = self.models.get(name)
        if model is not None and model.rows.pop(identity, None) is not None:
            model.version += 1
            if not model.rows:
                del self.models[name]

    @staticmethod
    def removed(entry: Entry) -> str | None:
        """The identity that an entry says is removed; ``None``: it says something else."""
        if b"|" in entry.about or kind_of(entry.head) not in _ENDS:
            return None
        return entry.about.decode()

    def apply(self, entry: Entry) -> Change:
        """Take in an entry of the stream."""
        if is_decision(entry):
            names = self.decisions.tell(entry, reading=self.touched is not None)
            turned = self._turn(entry.partition, names)
            return Change(entry, "", None, None, frozenset(turned))
        kind = kind_of(entry.head)
        if b"|" not in entry.about:
            if kind not in _ENDS:
                return Change(entry, "", None, None)
            identity, new = entry.about.decode(), None
        else:
            identity, new = entry.about.split(b"|", 1)[0].decode(), Row(entry.about)
        old = self.row(identity)
        if self.touched is not None:
            self.touched[identity] = entry.revision
        if new is None:
            self._drop(identity)
        else:
            if old is not None:
                raw = merged_row(old.raw, new.raw, whole=kind is not Kind.UNHEALTHY)
                new = Row(raw, silent=old.silent and kind not in _MOVES_DEADLINE)
            self._put(entry.partition, identity, new)
        return Change(entry, _model_of(identity), old, new)

    def _turn(self, partition: int, names: set[str] | None) -> set[str]:
        """Have models shown anew; ``None``: all of a partition."""
        if names is None:
            found = list(self.models.values())
            names = {model.name for model in found if model.partition == partition}
        for name in names & set(self.models):
            self.models[name].version += 1
        return names

    def expire(self, partition: int, now_us: int) -> set[str]:
        """Leave out overrides that have ended; names of the models that may have changed."""
        ended = self.decisions.expire(partition, now_us)
        return self._turn(partition, None) if ended else set()

    def add(self, partition: int, page: Page) -> None:
        """Take in a page of a snapshot that is being read."""
        self.decisions.add(partition, page)
        for raw in page.rows:
            identity = raw.split(b"|", 1)[0].decode()
            touched = (self.touched or {}).get(identity, -1)
            known = self.row(identity)
            if known is not None:
                self._drop(identity)  # to come back in its place
            if touched <= page.revision:
                self._put(partition, identity, Row(row_at_rest(raw)))
            elif known is not None:
                self._put(partition, identity, known)

    def take_over(
        self,
        partition: int,
        fresh: Mirror,
        *,
        keep: bool,
        gone: Container[str] = (),
    ) -> set[str]:
        """Replace a partition by what was read anew.

        Args:
            partition: Which one.
            fresh: What is there now.
            keep: Go on showing what was alive and is not there any more, as protected.
            gone: Identities that are known to have been removed.

        Returns:
            Names of the models that may have changed.
        """
        changed = {
            name for name, model in self.models.items() if model.partition == partition
        }
        if keep:
            for name in changed:
                for identity, row in self.models[name].rows.items():
                    lost = fresh.row(identity) is None and identity not in gone
                    if lost and row.healthy:
                        fresh._put(partition, identity, row.marked(kept=True))
        for name in changed:
            del self.models[name]
        self.models.update(fresh.models)
        self.decisions.take_over(partition, fresh.decisions)
        return changed | set(fresh.models)

    def let_go(self, partition: int) -> set[str]:
        """Drop what was kept of a partition and did not come back; the models changed."""
        gone = [
            identity
            for model in list(self.models.values())
            if model.partition == partition
            for identity, row in model.rows.items()
            if row.kept
        ]
        for identity in gone:
            self._drop(identity)
        return {_model_of(identity) for identity in gone}

    def report(self, model_name: str, loads: Mapping[str, bytes]) -> None:
        """What the instances of a model report by now; those not named have said nothing new.

        Args:
            model_name: The model.
            loads: By identity, as JSON.
        """
        model = self.models.get(model_name)
        for identity, load in loads.items() if model else ():
            row = model.rows.get(identity) if model else None
            if model is not None and row is not None:
                raw = with_load(row.raw, load)
                if raw is not row.raw:
                    model.rows[identity] = Row(raw, silent=row.silent, kept=row.kept)
                    model.version += 1

    def silence(self, before: Iterable[str], now: Iterable[str]) -> set[str]:
        """Mark who is overdue.

        Args:
            before: Members that were.
            now: Members that are.

        Returns:
            Names of the models changed.
        """
        was, is_ = set(before), set(now)
        changed: set[str] = set()
        for member in was | is_:
            identity, silent = member.rsplit(":", 2)[0], member in is_
            row = self.row(identity)
            if row is not None and row.member == member and row.silent != silent:
                name = _model_of(identity)
                model = self.models[name]
                model.rows[identity] = row.marked(silent=silent)
                model.version += 1
                changed.add(name)
        return changed
