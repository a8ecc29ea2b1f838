"""Every change, in order, as it happens; where some are missing, a snapshot instead."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import unquote

from redis_registry.core.events import (
    Event,
    Kind,
    decode_event,
    kind_of,
    position_of,
    position_text,
)
from redis_registry.core.rows import Change
from redis_registry.errors import (
    ConfigurationError,
    RegistryClosed,
    RegistryError,
    RegistryUnavailable,
)
from redis_registry.model import ModelInstance
from redis_registry.roles.follower import Follower
from redis_registry.roles.hub import Hub, Scope
from redis_registry.roles.tail import Lost, Place
from redis_registry.store.following import Entry

__all__ = ["BUFFER", "Watch"]

BUFFER = 10_000
"""Events that may wait for their consumer; then it gets a snapshot instead of a longer queue."""

_PATIENCE_SECS = 0.5


class _Resync(NamedTuple):
    """In the queue: here a snapshot is due."""

    partition: int
    cause: str


class Watch:
    """An endless iterator over what changes.

    Without ``after`` the first event (of each partition) is a resync with all there is; with it,
    what has changed since, or a resync if that is gone. Iterate it inside ``async with``:
    leaving the block ends it.

    Args:
        hub: Gives the hub of the running loop.
        scope: Only what concerns these models; ``None``: everything.
        after: Where to go on: what :attr:`position` or :attr:`Event.position` said.
        buffer: How many events may wait for their consumer.

    Raises:
        ConfigurationError: ``after`` is no position.
    """

    def __init__(
        self,
        hub: Callable[[], Hub],
        scope: Scope,
        *,
        after: str | None = None,
        buffer: int = BUFFER,
    ) -> None:
        self._make_hub = hub
        self._scope = scope
        self._after = None if after is None else position_of(after)
        self._buffer = buffer
        self._hub: Hub | None = None
        self._follower: Follower | None = None
        self._events: AsyncIterator[Event] | None = None
        self._queue: deque[Change | _Resync] = deque()
        self._begun: set[int] = set()
        self._places: dict[int, Place] = {}
        self._news = asyncio.Event()
        self._ended = False

    @property
    def position(self) -> str | None:
        """Where a new watch of the same models goes on after the events seen so far."""
        if not self._places:
            return None
        return position_text([(p.epoch, p.revision) for p in self._places.values()])

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """The next event.

        Raises:
            RegistryClosed: The registry was closed.
            ConfigurationError: ``after`` belongs to other models or another namespace.
            FormatMismatch: A newer release wrote what this one can't read.
        """
        if self._events is None:
            self._events = self._run()
        return await anext(self._events)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End it."""
        self._ended = True
        self._news.set()
        follower, self._follower = self._follower, None
        hub, self._hub = self._hub, None
        if follower is not None and hub is not None:
            if self in follower.listeners:
                follower.listeners.remove(self)
            await hub.leave(follower)

    # --- what the follower tells --------------------------------------------------------------

    def changed(self, change: Change) -> None:
        """The next change of the mirror."""
        if change.entry.partition in self._begun and self._concerns(change.entry):
            self._push(change)

    def resynced(self, partition: int, cause: str) -> None:
        """A partition was read anew."""
        if partition in self._begun:
            self._push(_Resync(partition, cause))

    def turned(self, models: set[str]) -> None:
        """A deadline has passed: that is no change in Redis."""

    def ended(self) -> None:
        """The registry was closed."""
        self._ended = True
        self._news.set()

    def _push(self, item: Change | _Resync) -> None:
        if len(self._queue) >= self._buffer:
            self._queue.clear()
            self._queue.extend(_Resync(home, Lost.SLOW) for home in self._begun)
        else:
            self._queue.append(item)
        self._news.set()

    def _concerns(self, entry: Entry) -> bool:
        """Whether one who watches some models wants to know; instances were sorted out before."""
        if self._scope is None:
            return True
        kind = kind_of(entry.head)
        if kind is Kind.GUARD:
            scope = entry.about.decode()
            return scope == "*" or unquote(scope) in self._scope
        return kind is not Kind.LEASE

    # --- what the consumer gets ---------------------------------------------------------------

    async def _run(self) -> AsyncIterator[Event]:
        follower = await self._begin()
        resume = self._resumed(follower)
        for (
            home
        ) in follower.homes:  # in one step with the snapshot or the place to resume at
            self._begun.add(home)
            if home not in resume:
                self._queue.append(_Resync(home, Lost.BEGIN))
        for home, (after, until) in resume.items():
            async for event in self._catch_up(home, after, until):
                yield event
        while True:
            self.check_open()
            if not self._queue:
                self._news.clear()
                await self._news.wait()
            elif (event := self._next(follower)) is not None:
                yield event

    def check_open(self) -> None:
        """Refuse to go on after the end.

        Raises:
            RegistryClosed: It has ended.
        """
        if self._ended:
            msg = "the watch has ended: it, or its registry, was closed"
            raise RegistryClosed(msg)

    async def _begin(self) -> Follower:
        self.check_open()
        hub = self._hub = self._make_hub()
        follower = self._follower = hub.follow(self._scope)
        follower.listeners.append(self)
        while not await follower.ready(_PATIENCE_SECS):
            self.check_open()
            if isinstance(follower.error, RegistryError) and not isinstance(
                follower.error, RegistryUnavailable
            ):
                raise follower.error
        return follower

    def _resumed(self, follower: Follower) -> dict[int, tuple[int, int]]:
        """For each partition that can be resumed: after which revision, and up to which."""
        if self._after is None:
            return {}
        homes, places = follower.homes, follower.places
        if len(self._after) != len(homes):
            msg = (
                f"after: a position of {len(self._after)} partitions, and there are {len(homes)}: "
                "it belongs to a watch of other models, or to another namespace"
            )
            raise ConfigurationError(msg)
        return {
            home: (revision, place.revision)
            for home, place, (epoch, revision) in zip(
                homes, places, self._after, strict=True
            )
            if epoch == place.epoch and revision <= place.revision
        }

    async def _catch_up(
        self, home: int, after: int, until: int
    ) -> AsyncIterator[Event]:
        """What was missed, as far as it is still there."""
        known: dict[str, ModelInstance] = {}
        hub, follower = self._hub, self._follower
        while after < until and hub is not None and follower is not None:
            entries = await hub.executor.wait(hub.operations.history(home, after))
            if not entries or entries[0].revision != after + 1:
                self._forget(home)
                self._queue.append(_Resync(home, Lost.TRIMMED))
                return
            for entry in entries:
                if entry.revision > until:
                    break
                after = entry.revision
                self._places[home] = Place(entry.epoch, after)
                if follower.wants(entry) and self._concerns(entry):
                    event = _decoded(entry, known)
                    yield event

    def _next(self, follower: Follower) -> Event | None:
        item = self._queue.popleft()
        if isinstance(item, Change):
            entry = item.entry
            self._places[entry.partition] = Place(entry.epoch, entry.revision)
            return item.event
        return self._resync(item, follower)

    def _forget(self, home: int) -> None:
        """Drop the events of a partition that wait: a snapshot has them."""
        self._queue = deque(
            item
            for item in self._queue
            if (item.partition if isinstance(item, _Resync) else item.entry.partition)
            != home
        )

    def _resync(self, due: _Resync, follower: Follower) -> Event | None:
        """A snapshot as of now; ``None``: it is being read anew, and another will follow."""
        if follower.reading(due.partition):
            return None
        self._forget(due.partition)
        place = follower.tail.places[due.partition]
        self._places[due.partition] = place
        return Event(
            revision=place.revision,
            epoch=place.epoch,
            kind=Kind.RESYNC,
            subject="*",
            cause=due.cause,
            actor="",
            at=follower.now(due.partition),
            instance=None,
            partition=due.partition,
            snapshot=tuple(follower.mirror.held(due.partition)),
        )


def _decoded(entry: Entry, known: dict[str, ModelInstance]) -> Event:
    event = decode_event(
        b"%d-0" % entry.revision,
        {entry.head: entry.about},
        partition=entry.partition,
        before=known.pop(entry.about.split(b"|", 1)[0].decode(), None),
    )
    if event.instance is not None:
        known[event.subject] = event.instance
    return event
