"""What those do who follow the changes: read a snapshot, wait for events, ask who is overdue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from redis_registry.model import EPOCH
from redis_registry.store.calls import Call, Command, Operation, ask
from redis_registry.store.readers import READ_PAGE, Readers
from redis_registry.store.replies import Page
from redis_registry.wire.keys import escape, partition_of

__all__ = ["EVENTS_PAGE", "Entry", "Following", "Overdue"]

EVENTS_PAGE = 1000
"""Events read per call."""

OVERDUE_PAGE = 1000


class Entry(NamedTuple):
    """One entry of a partition's stream, as it lies there.

    Attributes:
        partition: Which partition's.
        revision: Number of the change.
        head: ``epoch|kind|cause|actor|at``.
        about: The row, or a subject.
    """

    partition: int
    revision: int
    head: bytes
    about: bytes

    @property
    def epoch(self) -> str:
        """The epoch it was written in."""
        return self.head.split(b"|", 1)[0].decode()

    @property
    def at(self) -> datetime:
        """When it was written, by Redis's clock."""
        return EPOCH + timedelta(microseconds=int(self.head.rsplit(b"|", 1)[1]))


class Overdue(NamedTuple):
    """Answer of ``overdue.lua``.

    Attributes:
        now_us: Redis's clock.
        epoch: The partition's.
        revision: Number of the newest change.
        wait_us: Until the next deadline; -1: there is none.
        recovering_until_us: End of the recovery; 0: none.
        more: There are more overdue than this page.
        held: Scopes in which the guard holds flips back.
        members: Overdue members that are not protected.
    """

    now_us: int
    epoch: str
    revision: int
    wait_us: int
    recovering_until_us: int
    more: bool
    held: frozenset[str]
    members: frozenset[str]


def _read_overdue(reply: list[Any]) -> Overdue:
    held, members = (
        frozenset(item.decode(errors="surrogateescape") for item in reply[i])
        for i in (6, 7)
    )
    now, epoch, revision, wait, recovering, more = reply[:6]
    return Overdue(
        now, epoch.decode(), revision, wait, int(recovering), bool(more), held, members
    )


def _pairs(reply: Any) -> Any:
    """A map of Redis, which drivers give as a dictionary or as a list of pairs."""
    return reply.items() if isinstance(reply, dict) else reply or ()  # pyright: ignore[reportUnknownVariableType]


def _read_entries(partition: int, entries: Any) -> list[Entry]:
    found: list[Entry] = []
    for entry_id, fields in entries:
        pairs: Any = [fields] if isinstance(fields, list) else _pairs(fields)
        ((head, about),) = pairs
        found.append(Entry(partition, int(entry_id.split(b"-")[0]), head, about))
    return found


class Following(Readers):
    """Operations of watches and views."""

    def join(self) -> Operation[int]:
        """The number of partitions."""
        return (yield from self._join())

    def overdue(self, partition: int) -> Operation[Overdue]:
        """Who is overdue, all of them, and where the partition stands."""
        offset, found = 0, list[str]()
        while True:
            call: Call[Overdue] = self._call(
                "overdue", partition, [str(offset), str(OVERDUE_PAGE)], _read_overdue
            )
            (reply,) = yield [call]
            found.extend(reply.members)
            if not reply.more:
                return reply._replace(members=frozenset(found))
            offset += OVERDUE_PAGE

    def page(
        self, partition: int, name: str, after: tuple[bytes, bytes] | None
    ) -> Operation[Page]:
        """A page of all instances of a partition, or of those in it that a name finds."""
        partitions = yield from self._join()
        first = self._places_of(name, partitions)[partition]
        call = self._read(
            partition, name, healthy_only=False, after=after or first, follow=False
        )
        return (yield from ask(call))

    def loads(self, model_name: str) -> Operation[dict[str, bytes]]:
        """What the instances of a model last reported, by identity text, as it lies there."""
        partitions = yield from self._join()
        home, model = partition_of(model_name, partitions), escape(model_name)
        keys = self.keys(home)
        after, found = b"0", dict[str, bytes]()
        while True:
            args = [keys.base, model, after, str(READ_PAGE)]
            call: Call[list[Any]] = self._call(
                "loads", home, args, list, index=keys.index(model)
            )
            ((more, after, *pairs),) = yield [call]
            names = [name.decode() for name in pairs[::2]]
            found.update(zip(names, pairs[1::2], strict=True))
            if not more:
                return found

    def tail(
        self, after: Mapping[int, int], block_secs: float
    ) -> Command[Sequence[Entry]]:
        """Wait for events after a revision of each partition."""
        keys = [self.keys(partition).named("events") for partition in after]
        partition_of = {
            key.encode(): partition for key, partition in zip(keys, after, strict=True)
        }

        def read(reply: Any) -> list[Entry]:
            return [
                entry
                for key, entries in _pairs(reply)
                for entry in _read_entries(partition_of[key], entries)
            ]

        ids = [f"{revision}-0" for revision in after.values()]
        return Command(
            ["XREAD", "COUNT", EVENTS_PAGE, "STREAMS", *keys, *ids],
            keys,
            read,
            wait_secs=block_secs,
        )

    def newest(self, partition: int, before: int | None) -> Command[Sequence[Entry]]:
        """A page of events, the newest first, before a revision; ``None``: from the end."""
        key = self.keys(partition).named("events")

        def read(reply: Any) -> list[Entry]:
            return _read_entries(partition, reply or [])

        last = "+" if before is None else f"({before}-0"
        return Command(["XREVRANGE", key, last, "-", "COUNT", EVENTS_PAGE], [key], read)

    def history(self, partition: int, after: int) -> Command[Sequence[Entry]]:
        """A page of events after a revision."""
        key = self.keys(partition).named("events")

        def read(reply: Any) -> list[Entry]:
            return _read_entries(partition, reply or [])

        words = ["XRANGE", key, f"({after}-0", "+", "COUNT", EVENTS_PAGE]
        return Command(words, [key], read)
