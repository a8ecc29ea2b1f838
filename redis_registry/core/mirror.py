"""What a reader keeps of a namespace: rows as they came, one immutable snapshot a model.

Pure: it is told of pages, entries and silences, and does no I/O. One thread writes; any thread
reads. A reader that finds a model unchanged gets the very snapshot it got before.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import is_

from redis_registry.core.decisions import Decisions, is_decision
from redis_registry.core.events import Kind, kind_of
from redis_registry.core.rows import (
    Change,
    ModelRows,
    Row,
    Snapshot,
    model_of,
    tell_unreadable,
)
from redis_registry.model import ModelInstance
from redis_registry.selection import Candidates
from redis_registry.store.following import Entry
from redis_registry.store.replies import Orders, Page
from redis_registry.wire.raw_rows import (
    held_out_until,
    is_row,
    row_at_rest,
    with_load,
)

__all__ = ["Mirror"]

_ENDS = frozenset({Kind.REMOVED, Kind.FORGOTTEN})


@dataclass
class Mirror:
    """Instances of a namespace, or of some of its models.

    Attributes:
        names: Only instances that these names find are kept; ``None``: all.
        models: By name; one without instances is not there.
        served: Further names that instances serve, and the models of these instances.
        decisions: What operators have decided; applied to what is shown, never to the rows.
        held_out: Of instances that are held out: until when, in µs of Redis's clock.
        awaiting: Identities of those whose time is over, and who are not back.
        touched: While it is being read: the newest entry about each instance, so that pages
            and entries fit together in whatever order they come; else ``None``.
    """

    names: frozenset[str] | None = None
    models: dict[str, ModelRows] = field(default_factory=dict[str, ModelRows])
    served: dict[str, tuple[str, ...]] = field(
        default_factory=dict[str, tuple[str, ...]]
    )
    decisions: Decisions = field(default_factory=Decisions)
    held_out: dict[str, int] = field(default_factory=dict[str, int])
    awaiting: set[str] = field(default_factory=set[str])
    touched: dict[str, int] | None = None
    _joined: dict[str, tuple[tuple[Snapshot, ...], Snapshot]] = field(
        default_factory=dict[str, tuple[tuple[Snapshot, ...], Snapshot]]
    )

    def snapshot(self, name: str) -> Snapshot:
        """The instances that a name finds, which may be an alias, or unknown."""
        name = self.decisions.aliases.get(name, name)
        if name in self.served:
            return self._join(name)
        found = self.models.get(name)
        return self._shown(found) if found else Snapshot(name)

    def behind(self, name: str) -> tuple[str, ...]:
        """The models whose instances a name finds: its own, and those that serve it too."""
        name = self.decisions.aliases.get(name, name)
        own = (name,) if name in self.models else ()
        return own + self.served.get(name, ())

    def _join(self, name: str) -> Snapshot:
        """What several models make of a name; the same object while none of them changes."""
        parts = tuple(
            self._shown(model)
            for model in map(self.models.get, self.behind(name))
            if model
        )
        made = self._joined.get(name)
        if made and len(made[0]) == len(parts) and all(map(is_, made[0], parts)):
            return made[1]
        found = (
            instance
            for part in parts
            for instance in part.instances
            if name in (part.model_name, *instance.serves)
        )
        snapshot = Snapshot(name, Candidates(found))
        self._joined[name] = parts, snapshot
        return snapshot

    def _shown(self, model: ModelRows) -> Snapshot:
        return model.snapshot(self.decisions.overrides(model.partition))

    def all(self) -> Iterator[ModelInstance]:
        """All instances, model by model."""
        for model in list(self.models.values()):
            yield from self._shown(model).instances

    def held(self, partition: int) -> Iterator[ModelInstance]:
        """What Redis holds of a partition, as it says it is.

        That is: without those it has lost, and nobody dead whom no event has called dead.
        """
        for model in list(self.models.values()):
            if model.partition == partition:
                for row in model.rows.values():
                    if not row.kept and (instance := row.held) is not None:
                        yield instance

    def rows(self) -> dict[int, list[bytes]]:
        """All rows of each partition, as they came."""
        found: dict[int, list[bytes]] = {}
        for model in list(self.models.values()):
            rows = [row.raw for row in list(model.rows.values()) if row.readable]
            found.setdefault(model.partition, []).extend(rows)
        return found

    @property
    def orders(self) -> Mapping[int, Orders]:
        """What operators have decided, of each partition."""
        return self.decisions.by_partition

    def row(self, identity: str) -> Row | None:
        """The row of an instance."""
        model = self.models.get(model_of(identity))
        return model.rows.get(identity) if model else None

    def _wants(self, identity: str, row: Row) -> bool:
        names = self.names
        return (
            names is None
            or model_of(identity) in names
            or not names.isdisjoint(row.names)
        )

    def _put(self, partition: int, identity: str, row: Row) -> None:
        until_us = held_out_until(row.raw)  # first, for it raises where that is no row
        name = model_of(identity)
        model = self.models.get(name)
        if model is None:
            model = self.models[name] = ModelRows(name, partition)
        before = model.rows.get(identity)
        model.rows[identity] = row
        model.version += 1
        self._index(model, before.names if before else (), row.names)
        self.awaiting.discard(identity)
        if until_us:
            self.held_out[identity] = until_us
        else:
            self.held_out.pop(identity, None)

    def _drop(self, identity: str) -> None:
        name = model_of(identity)
        model = self.models.get(name)
        self.held_out.pop(identity, None)
        self.awaiting.discard(identity)
        row = model.rows.pop(identity, None) if model is not None else None
        if model is not None and row is not None:
            model.version += 1
            self._index(model, row.names, ())
            if not model.rows:
                del self.models[name]

    def _index(
        self, model: ModelRows, gone: tuple[str, ...], come: tuple[str, ...]
    ) -> None:
        """Note that an instance of a model serves other names than before."""
        if gone == come:
            return
        model.serves.update(come)
        model.serves.subtract(gone)
        for name in {*gone, *come}:
            models = self.served.get(name, ())
            if model.serves[name]:
                if model.name not in models:
                    self.served[name] = (*models, model.name)
            else:
                del model.serves[name]
                left = tuple(one for one in models if one != model.name)
                if left:
                    self.served[name] = left
                else:
                    self.served.pop(name, None)
                    self._joined.pop(name, None)

    @staticmethod
    def removed(entry: Entry) -> str | None:
        """The identity that an entry says is removed; ``None``: it says something else."""
        if b"|" in entry.about or kind_of(entry.head) not in _ENDS:
            return None
        return entry.about.decode()

    def apply(self, entry: Entry, *, keep: bool = False) -> Change:
        """Take in an entry of the stream.

        Args:
            entry: The entry.
            keep: It is of an epoch that may have lost what instances said before it.
        """
        if is_decision(entry):
            names = self.decisions.tell(entry, reading=self.touched is not None)
            turned = self._turn(entry.partition, names)
            return Change(entry, "", None, None, frozenset(turned))
        kind = kind_of(entry.head)
        if b"|" in entry.about:
            identity, new = entry.about.split(b"|", 1)[0].decode(), Row(entry.about)
        elif kind in _ENDS:
            identity, new = entry.about.decode(), None
        else:
            return Change(entry, "", None, None)
        old = self.row(identity)
        if self.touched is not None:
            self.touched[identity] = entry.revision
        if new is None or not self._wants(identity, new):
            new = None
            self._drop(identity)
        else:
            if old is not None:
                new = old.turned_into(new, kind, keep=keep)
            self._put(entry.partition, identity, new)
        return Change(entry, model_of(identity), old, new)

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

    def serve_time(self, partition: int, now_us: int) -> set[str]:
        """Note whose time of being held out is over; names of the models changed."""
        changed: set[str] = set()
        for identity, until_us in list(self.held_out.items()):
            name = model_of(identity)
            model = self.models[name]
            if until_us <= now_us and model.partition == partition:
                del self.held_out[identity]
                self.awaiting.add(identity)
                model.rows[identity] = model.rows[identity].marked(served=True)
                model.version += 1
                changed.add(name)
        return changed

    def add(self, partition: int, page: Page, name: str = "") -> None:
        """Take in a page of a snapshot that is being read: of a name, or of all models."""
        self.decisions.add(partition, page)
        for raw in page.rows:
            if not is_row(raw):
                tell_unreadable(raw)
                continue
            identity = raw.split(b"|", 1)[0].decode()
            touched = (self.touched or {}).get(identity, -1)
            known = self.row(identity)
            if known is not None and name in {"", model_of(identity)}:
                # To come back in its place among those of its model.
                self._drop(identity)
            row = Row(row_at_rest(raw))
            if not self._wants(identity, row):
                continue
            if touched <= page.revision:
                self._put(partition, identity, row)
            elif known is not None:
                self._put(partition, identity, known)

    def take_over(
        self,
        partition: int,
        fresh: Mirror,
        *,
        age_secs: float = math.inf,
        gone: Container[str] = (),
    ) -> set[str]:
        """Replace a partition by what was read anew.

        Args:
            partition: Which one.
            fresh: What is there now.
            age_secs: For how long living workers have had occasion to be heard of anew. What
                was alive and is not there any more is shown on, as protected, until that is
                its timeout; and so is what instances themselves said last, and is not known
                there any more.
            gone: Identities that are known to have been removed.

        Returns:
            Names of the models that may have changed.
        """
        changed = {
            name for name, model in self.models.items() if model.partition == partition
        }
        for name in changed:
            for identity, row in self.models[name].rows.items():
                kept = None
                if row.timeout_secs > age_secs:
                    kept = row.kept_beside(fresh.row(identity), gone=identity in gone)
                if kept is not None:
                    fresh._put(partition, identity, kept)
        # Each in one step, for other threads read.
        self.models = {
            name: model for name, model in self.models.items() if name not in changed
        } | fresh.models
        served = dict(fresh.served)
        for name, models in self.served.items():
            left = tuple(one for one in models if one not in changed)
            if left:
                served[name] = left + served.get(name, ())
        self.served = served
        joined = self._joined.copy().items()  # a copy is one step; readers add to it
        self._joined = {n: made for n, made in joined if n in served}
        self.held_out = {i: t for i, t in self.held_out.items() if self.row(i)}
        self.held_out.update(fresh.held_out)
        waiting = self.awaiting - self.held_out.keys()
        self.awaiting = {i for i in waiting if self.row(i)}
        self.decisions.take_over(partition, fresh.decisions)
        return changed | set(fresh.models)

    def kept(self, partition: int) -> dict[str, Row]:
        """Rows of a partition that show what Redis has lost, by identity."""
        return {
            identity: row
            for model in list(self.models.values())
            if model.partition == partition
            for identity, row in model.rows.items()
            if row.kept or row.heard
        }

    def let_go(self, partition: int, identity: str, row: Row) -> None:
        """Show no more of an instance than Redis has."""
        if row.kept:
            self._drop(identity)
        else:
            self._put(partition, identity, row.forgetting())

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
                    model.rows[identity] = row.told(raw)
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
                name = model_of(identity)
                model = self.models[name]
                model.rows[identity] = row.marked(silent=silent)
                model.version += 1
                changed.add(name)
        return changed
