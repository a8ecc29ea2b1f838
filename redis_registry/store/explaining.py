"""What explains a model, or one instance of it: all that Redis knows, in few calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from redis_registry.model import Identity
from redis_registry.store.calls import Command, Operation, ask
from redis_registry.store.following import EVENTS_PAGE, Entry, Following
from redis_registry.store.replies import Page, Status, read_status
from redis_registry.store.reserving import Reserving
from redis_registry.wire.aliases import Alias
from redis_registry.wire.codec import held_out_until
from redis_registry.wire.keys import (
    address_of,
    escape,
    identity_text,
    partition_of,
)

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
        model_name: The model whose instances these are.
        alias: What the name that was asked for is an alias of, where it is one.
        identity: The instance that was asked for; ``None``: the whole model was.
        page: The last page of the model: clock and orders.
        rows: The model's rows, all pages; where one instance was asked for and it isn't held out,
            only its own.
        status: Of the model's partition.
        in_flight: Reservations held of each instance, or of the one.
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
    status: Status
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

        An alias is followed, unless there is an instance of that name itself.
        """
        partitions = yield from self._join()
        home = partition_of(model_name, partitions)
        rows, page = yield from self._rows(home, model_name, identity)
        alias = page.orders.aliases.get(model_name)
        if alias is not None and (identity is None or not row_of(rows, identity)):
            model_name = alias.model_name
            home = partition_of(model_name, partitions)
            identity = identity and identity._replace(model_name=model_name)
            rows, page = yield from self._rows(home, model_name, identity)
        status = yield from ask(self._call("status", home, [], read_status))
        in_flight = yield from self.in_flight(model_name, identity)
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
            status,
            in_flight,
            marks,
            entries,
            oldest,
        )

    def _rows(
        self, home: int, model_name: str, identity: Identity | None
    ) -> Operation[tuple[Sequence[bytes], Page]]:
        """What must be read: of one instance its row, unless it may be the last of its model."""
        if identity is not None:
            place = yield from ask(self._place(home, identity))
            page = yield from ask(
                self._read(
                    home,
                    escape(model_name),
                    healthy_only=False,
                    after=(b"0", b"+inf" if place is None else b"%d" % (place - 1)),
                    size=1,
                    follow=False,
                )
            )
            row = row_of(page.rows, identity)
            if place is None or (row is not None and not held_out_until(row)):
                return page.rows, page
        return (yield from self._whole(home, model_name))

    def _place(self, home: int, identity: Identity) -> Command[int | None]:
        """Where an instance is in the index of its model; ``None``: nowhere."""
        key = self.keys(home).index(escape(identity.model_name))
        return Command(
            ["ZSCORE", key, address_of(identity)],
            [key],
            lambda reply: None if reply is None else int(float(reply)),
        )

    def _whole(
        self, home: int, model_name: str
    ) -> Operation[tuple[Sequence[bytes], Page]]:
        rows: list[bytes] = []
        after = None
        while True:
            page = yield from self.page(home, escape(model_name), after)
            rows += page.rows
            after = page.after
            if after is None:
                return rows, page

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


def row_of(rows: Sequence[bytes], identity: Identity) -> bytes | None:
    """The row of an instance among these; ``None``: there is none."""
    begin = identity_text(identity).encode() + b"|"
    return next((row for row in rows if row.startswith(begin)), None)
