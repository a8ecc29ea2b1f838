"""Every change, in order, as it happens; where some are missing, a snapshot instead."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
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
    FormatMismatch,
    RegistryClosed,
    RegistryError,
    RegistryUnavailable,
)
from redis_registry.model import ModelInstance
from redis_registry.roles.following.follower import Follower
from redis_registry.roles.following.hub import Hub, Scope
from redis_registry.roles.following.tail import Lost, Place
from redis_registry.store.following import Entry
from redis_registry.wire.codec import UNREADABLE

__all__ = ["BUFFER", "Watch"]

BUFFER = 10_000
"""Events that may wait for their consumer; then it gets a snapshot instead of a longer queue."""

_PATIENCE_SECS = 0.5

_log = logging.getLogger(__name__)


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
        self._queue: deque[Change | _Resync] = deque()
        self._begun: set[int] = set()
        self._places: dict[int, Place] = {}
        self._until: dict[int, int] = {}
        self._page: deque[Entry] = deque()
        self._known: dict[str, ModelInstance] = {}
        self._news = asyncio.Event()
        self._ended = False

    @property
    def position(self) -> str | None:
        """Where a new watch of the same models goes on after the events seen so far.

        ``None`` until the first event of each partition has come.
        """
        if not self._begun or len(self._places) < len(self._begun):
            return None
        places = [self._places[home] for home in sorted(self._places)]
        return position_text([(place.epoch, place.revision) for place in places])

    @property
    def hub(self) -> Hub | None:
        """What it follows; ``None`` before its first event was asked for, and after its end."""
        return self._hub

    def __aiter__(self) -> Self:
        return self

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

    def changed(self, change: Change, *, own: bool) -> None:
        """The next change of the mirror."""
        begun = change.entry.partition in self._begun
        if own and begun and self._concerns(change.entry):
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

    async def __anext__(self) -> Event:
        """The next event; a call that is cancelled misses nothing.

        Raises:
            RegistryClosed: The watch or its registry was closed.
            ConfigurationError: ``after`` belongs to other models or another namespace.
            FormatMismatch: A newer release wrote what this one can't read.
        """
        while True:
            self.check_open()
            follower = await self._begin()
            event = await self._missed(follower)
            if event is not None:
                return event
            if self._until:
                continue
            if not self._queue:
                self._news.clear()
                await self._news.wait()
            elif (event := self._next(follower)) is not None:
                return event

    def check_open(self) -> None:
        """Refuse to go on after the end.

        Raises:
            RegistryClosed: It has ended.
        """
        if self._ended:
            msg = "the watch has ended: it, or its registry, was closed"
            raise RegistryClosed(msg)

    async def _begin(self) -> Follower:
        """Follow, once; every step may be cancelled and taken again."""
        if self._follower is None:
            self._hub = self._make_hub()
            self._follower = self._hub.follow(self._scope)
            self._follower.listeners.append(self)
        follower = self._follower
        if self._begun:
            return follower
        while not await follower.ready(_PATIENCE_SECS):
            self.check_open()
            if isinstance(follower.error, RegistryError) and not isinstance(
                follower.error, RegistryUnavailable
            ):
                raise follower.error
        # In one step with the snapshot, or with the place up to which to catch up.
        self._resume(follower)
        self._begun.update(follower.homes)
        return follower

    def _resume(self, follower: Follower) -> None:
        """Note for each partition what was missed; where that can't be told, a resync is due."""
        homes, after = follower.homes, self._after
        if after is None:
            self._queue.extend(_Resync(home, Lost.BEGIN) for home in homes)
            return
        if len(after) != len(homes):
            msg = (
                f"after: a position of {len(after)} partitions, and there are {len(homes)}: "
                "it belongs to a watch of other models, or to another namespace"
            )
            raise ConfigurationError(msg)
        for home, here, (epoch, revision) in zip(
            homes, follower.places, after, strict=True
        ):
            if epoch == here.epoch and revision <= here.revision:
                self._places[home] = Place(epoch, revision)
                self._until[home] = here.revision
            else:
                self._queue.append(_Resync(home, Lost.EPOCH))

    async def _missed(self, follower: Follower) -> Event | None:
        """The next of what was missed; ``None``: there is no more of it."""
        while self._until:
            home, until = next(iter(self._until.items()))
            here = self._places[home]
            if here.revision >= until:
                del self._until[home]
                self._page.clear()
            elif not self._page:
                await self._read_page(home, here.revision)
            else:
                entry = self._page.popleft()
                # Another server may have been asked: one that was replaced, or lost the last writes.
                same = entry.epoch == here.epoch
                if not same or entry.revision != here.revision + 1:
                    self._give_up(home, Lost.TRIMMED if same else Lost.EPOCH)
                    continue
                self._places[home] = Place(entry.epoch, entry.revision)
                if follower.wants(entry) and self._concerns(entry):
                    return self._told(entry.partition, partial(self._decoded, entry))
        return None

    def _told(self, home: int, decode: Callable[[], Event]) -> Event | None:
        """An event; one that can't be read is no gap either: a resync is due instead."""
        try:
            return decode()
        except FormatMismatch:
            raise
        except UNREADABLE:
            _log.warning(
                "an event is unreadable, a resync follows",
                extra={"partition": home},
                exc_info=True,
            )
            self._give_up(home, Lost.UNREADABLE)
            return None

    def _give_up(self, home: int, cause: str) -> None:
        """What waits of a partition can't be told: a snapshot has it."""
        self._until.pop(home, None)
        self._page.clear()
        self._forget(home)
        self._queue.append(_Resync(home, cause))

    async def _read_page(self, home: int, after: int) -> None:
        if self._hub is None:
            return
        try:
            history = self._hub.operations.history(home, after)
            entries = await self._hub.executor.wait(history)
        except RegistryUnavailable:
            await asyncio.sleep(_PATIENCE_SECS)  # the tail tells of it
            return
        self._page.extend(entries)
        if not entries:
            self._give_up(home, Lost.TRIMMED)

    def _decoded(self, entry: Entry) -> Event:
        subject = entry.about.split(b"|", 1)[0].decode()
        event = decode_event(
            b"%d-0" % entry.revision,
            {entry.head: entry.about},
            partition=entry.partition,
            before=self._known.pop(subject, None),
        )
        if event.instance is not None:
            self._known[subject] = event.instance
        return event

    def _next(self, follower: Follower) -> Event | None:
        self._known.clear()
        item = self._queue.popleft()
        if isinstance(item, Change):
            entry = item.entry
            self._places[entry.partition] = Place(entry.epoch, entry.revision)
            return self._told(entry.partition, lambda: item.event)
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
            snapshot=tuple(
                instance
                for instance in follower.mirror.held(due.partition)
                if self._scope is None or instance.model_name in self._scope
            ),
        )
