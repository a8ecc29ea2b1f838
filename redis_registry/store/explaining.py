"""What explains a model, or one instance of it: all that Redis knows, in few calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import unquote

from redis_registry.model import Identity
from redis_registry.store.calls import Command, Operation, ask
from redis_registry.store.following import EVENTS_PAGE, Entry, Following
from redis_registry.store.readers import SERVED
from redis_registry.store.replies import Page, Status, read_status
from redis_registry.store.reserving import Reserving
from redis_registry.wire.aliases import Alias
from redis_registry.wire.keys import (
    address_of,
    escape,
    identity_of,
    identity_text,
    partition_of,
)
from redis_registry.wire.raw_rows import held_out_until

__all__ = ["MOST_TRANSITIONS", "Explaining", "Found", "Marks", "row_of"]

MOST_TRANSITIONS = 20
"""How many of the last changes are looked for."""

MOST_PAGES = 5
"""How many pages of events are read for them, at most."""

_DECISIONS = frozenset({b"overridden", b"override_cleared", b"override_expired"})


class Marks(NamedTuple):
    """What a record keeps of its troubles, as it lies there; see lib/out.lua and outcome.lua.

    Attributes:
        flaps: ``penalty:at µs``.
        calls: ``failures in a row:at µs:successes:failures``, the latter two decayed until then.
    """

    flaps: bytes = b""
    calls: bytes = b""


class Found(NamedTuple):
    """What was found.

    Attributes:
        model_name: The name that finds these instances.
        alias: What the name that was asked for is an alias of, where it is one.
        identity: The instance that was asked for; ``None``: the whole model was.
        page: The last page of the name's partition: clock and orders.
        rows: The rows, all pages; where one instance was asked for and it isn't held out, only
            its own.
        statuses: Of the partitions of these instances.
        in_flight: Reservations held of each of them.
        marks: Of the one instance.
        entries: The last changes of the instance, and decisions that may concern it; of a model
            without instances, the last changes of those it had. The newest first.
        looked_back_to: The oldest entry read, where older ones were left unread.
    """

    model_name: str
    alias: Alias | None
    identity: Identity | None
    page: Page
    rows: Sequence[bytes]
    statuses: Sequence[Status]
    in_flight: Mapping[Identity, int]
    marks: Marks
    entries: Sequence[Entry]
    looked_back_to: Entry | None


def _read_marks(reply: Sequence[bytes | None]) -> Marks:
    return Marks(*(item or b"" for item in reply))


class Explaining(Following, Reserving):
    """Operations of those who ask why."""

    def explain(
        self, model_name: str, identity: Identity | None = None
    ) -> Operation[Found]:
        """What explains a model, or one instance of it.

        An alias is followed, unless there is an instance of that name itself. An instance can be
        asked for by any name that it serves.
        """
        partitions = yield from self._join()
        rows, page = yield from self._rows(model_name, identity)
        alias = page.orders.aliases.get(model_name)
        if alias is not None and (identity is None or not row_of(rows, identity)):
            model_name = alias.model_name
            named = identity and identity._replace(model_name=model_name)
            rows, page = yield from self._rows(model_name, named)
        if identity is not None and not row_of(rows, identity):
            identity = _by_further_name(rows, identity, model_name)
        home = partition_of(identity[0] if identity else model_name, partitions)
        models = {row.split(b":", 1)[0].decode() for row in rows}
        homes = {home} | {partition_of(unquote(model), partitions) for model in models}
        statuses = yield [self._call("status", at, [], read_status) for at in homes]
        in_flight = yield from self.flights(map(_identity, rows))
        marks, entries, oldest = Marks(), list[Entry](), None
        if identity is not None:
            marks = yield from ask(self._marks(home, identity))
            subject = identity_text(identity)
            entries, oldest = yield from self._look_back(home, subject, whole=True)
        elif not rows:
            subject = escape(model_name) + ":"
            entries, oldest = yield from self._look_back(home, subject, whole=False)
        return Found(
            model_name,
            alias,
            identity,
            page,
            rows,
            statuses,
            in_flight,
            marks,
            entries,
            oldest,
        )

    def _rows(
        self, name: str, identity: Identity | None
    ) -> Operation[tuple[Sequence[bytes], Page]]:
        """What must be read: of one instance its row, unless it may be the last of its model."""
        if identity is not None:
            home = partition_of(name, (yield from self._join()))
            place = yield from ask(self._place(home, identity))
            if place is not None:
                before = b"0", b"%d" % (place - 1)
                page = yield from ask(
                    self._read(
                        home,
                        name,
                        healthy_only=False,
                        after=before,
                        size=1,
                        follow=False,
                    )
                )
                row = row_of(page.rows, identity)
                if row is not None and not held_out_until(row):
                    return [row], page
            else:  # perhaps one of another model is asked for by a name that it serves too
                return (yield from self._whole(name, own=False))
        return (yield from self._whole(name))

    def _place(self, home: int, identity: Identity) -> Command[int | None]:
        """Where an instance is in the index of its model; ``None``: nowhere."""
        key = self.keys(home).index(escape(identity.model_name))
        return Command(
            ["ZSCORE", key, address_of(identity)],
            [key],
            lambda reply: None if reply is None else int(float(reply)),
        )

    def _whole(
        self, name: str, *, own: bool = True
    ) -> Operation[tuple[Sequence[bytes], Page]]:
        """All rows that a name finds, and the last page of its own partition.

        The page holds the overrides of all partitions. Without ``own`` the rows are those of
        other models.
        """
        rows: list[bytes] = []
        pages: list[Page] = []
        for home in self._places_of(name, (yield from self._join())):
            page = yield from self.page(home, name, None if own else SERVED)
            rows += page.rows
            while page.after is not None:
                page = yield from self.page(home, name, page.after)
                rows += page.rows
            pages.append(page)
        orders = pages[0].orders
        for page in pages[1:]:
            for override in page.orders.overrides:
                orders = orders._replace(overrides=orders.overrides.put(override))
        return rows, pages[0]._replace(orders=orders)

    def _marks(self, home: int, identity: Identity) -> Command[Marks]:
        key = self.keys(home).instance(identity_text(identity))
        return Command(["HMGET", key, "flaps", "calls"], [key], _read_marks)

    def _look_back(
        self, home: int, subject: str, *, whole: bool
    ) -> Operation[tuple[list[Entry], Entry | None]]:
        """The last changes of a subject, and the oldest entry read if older ones are unread.

        Args:
            home: The partition.
            subject: An identity, or what identities begin with.
            whole: It is an identity; then decisions of operators are taken along.
        """
        wanted, found, changes = subject.encode(), list[Entry](), 0
        before: int | None = None
        entry: Entry | None = None
        for _ in range(MOST_PAGES):
            entries = yield from ask(self.newest(home, before))
            for entry in entries:
                if _concerns(entry, wanted, whole=whole):
                    found.append(entry)
                    changes += 1
                    if changes == MOST_TRANSITIONS:
                        return found, None
                elif whole and _kind(entry) in _DECISIONS:
                    found.append(entry)
            if entry is None or len(entries) < EVENTS_PAGE:
                return found, None
            before = entry.revision
        return found, entry


def _kind(entry: Entry) -> bytes:
    return entry.head.split(b"|", 2)[1]


def _concerns(entry: Entry, wanted: bytes, *, whole: bool) -> bool:
    if not entry.about.startswith(wanted) or _kind(entry) == b"lease":
        return False
    return not whole or entry.about[len(wanted) : len(wanted) + 1] in {b"", b"|"}


def _identity(row: bytes) -> Identity:
    return Identity(*identity_of(row.split(b"|", 1)[0].decode()))


def _by_further_name(
    rows: Sequence[bytes], identity: Identity, model_name: str
) -> Identity:
    """The instance at that address among these: it was asked for by a name that it also serves."""
    for row in rows:
        found = _identity(row)
        if found[1:] == identity[1:]:
            return found
    return identity._replace(model_name=model_name)


def row_of(rows: Sequence[bytes], identity: Identity) -> bytes | None:
    """The row of an instance among these; ``None``: there is none."""
    begin = identity_text(identity).encode() + b"|"
    return next((row for row in rows if row.startswith(begin)), None)
