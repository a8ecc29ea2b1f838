"""The one connection that waits for news, for all watches and views of an event loop.

It reads the streams of all partitions with one blocking command, sees to it that no revision is
missing, and asks at least once a second who is overdue. What it finds goes to its followers at
once, in order. Where revisions are missing, or the epoch is another one, they are told to read
anew: there is no silent gap (promise R2). Of a Cluster each partition has a strand of its own, for
one command can't wait for several slots, and a node that is away holds up nobody else's news.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from redis_registry.errors import RegistryError
from redis_registry.store.executor import AsyncExecutor
from redis_registry.store.following import Entry, Overdue
from redis_registry.store.operations import Operations

__all__ = ["Lost", "Place", "Tail", "TailFollower"]

CHECK_SECS = 1.0
"""How often to ask who is overdue, at least; a silent connection is found out as fast."""

CHECK_LEAST_SECS = 0.02
"""How often at most, when deadlines pass in a row."""

BACKOFF_MOST_SECS = 2.0
"""Longest wait before another attempt; 200 readers then come back spread over 2 s."""

_log = logging.getLogger(__name__)


class Lost:
    """Why what was known is to be read anew."""

    BEGIN = "begin"
    TRIMMED = "trimmed"
    EPOCH = "new epoch"
    SLOW = "slow consumer"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Place:
    """How far a partition's stream has been read.

    Attributes:
        epoch: In which epoch.
        revision: The newest change read.
    """

    epoch: str
    revision: int


class TailFollower(Protocol):
    """What a tail tells its followers; all of it at once, on its loop."""

    def take(self, entry: Entry) -> None:
        """The next change."""
        ...

    def lost(self, partition: int, cause: str, seen: Place) -> None:
        """There are changes after ``seen`` that nobody will be told of: read anew."""
        ...

    def judge(self, partition: int, overdue: Overdue) -> None:
        """Who is overdue at this moment."""
        ...


@dataclass(eq=False)
class _Strand:
    """Partitions whose news one command waits for.

    Attributes:
        partitions: Which ones.
        ahead: Revisions that are known to have been reached, and were not read yet.
        next_check: When to ask again who is overdue, by the monotonic clock.
        error: Why it does not get on.
        placed: It is known where all of them stand.
    """

    partitions: range
    ahead: dict[int, int] = field(default_factory=dict[int, int])
    next_check: float = 0.0
    error: RegistryError | None = None
    placed: bool = False

    def hurry_in(self, secs: float) -> None:
        """Have the next look in that time at the latest."""
        secs = max(secs, CHECK_LEAST_SECS)
        self.next_check = min(self.next_check, time.monotonic() + secs)


class Tail:
    """Reads what changes, for ever, whatever Redis does.

    Args:
        operations: What to run.
        executor: How to run it.

    Attributes:
        places: How far each partition has been read; empty before the first answer.
        confirmed: When each partition was last known to be up to date (``time.monotonic``).
        heard: Of each partition the last answer to who is overdue, and when it came.
    """

    def __init__(self, operations: Operations, executor: AsyncExecutor) -> None:
        self.places: dict[int, Place] = {}
        self.confirmed: dict[int, float] = {}
        self.heard: dict[int, tuple[Overdue, float]] = {}
        self._operations = operations
        self._executor = executor
        self._followers: list[TailFollower] = []
        self._task: asyncio.Task[None] | None = None
        self._moved = asyncio.Event()
        self._partitions = 0  # 0: where not all of them stand is known yet
        self._following: list[asyncio.Task[None]] = []
        self._strands = [_Strand(range(0))]

    def add(self, follower: TailFollower) -> None:
        """Begin to tell somebody; the first one starts the tail on the running loop."""
        self._followers.append(follower)
        if self._task is None:
            self.heard.clear()
            self.places.clear()  # kept at the end, for views that are still read
            self._strands = [_Strand(range(0))]
            self._task = asyncio.get_running_loop().create_task(
                self._run(), name="redis-registry tail"
            )

    async def remove(self, follower: TailFollower) -> None:
        """Stop telling somebody; the last one stops the tail."""
        if follower in self._followers:
            self._followers.remove(follower)
        if not self._followers:
            await self.aclose()

    async def aclose(self) -> None:
        """Stop."""
        task, self._task = self._task, None
        self._followers.clear()
        self._partitions = 0
        if task is not None:
            # The strands too, at once: through the task they would take another step, and what
            # they learn then is none for the next beginning.
            for one in (task, *self._following):
                one.cancel()
            await asyncio.wait([task])

    async def positioned(self) -> int:
        """Wait until it knows where it is in all partitions; how many there are."""
        while not self._partitions:
            await self.moved()
        return self._partitions

    async def reached(self, partition: int, place: Place) -> bool:
        """Wait until it has read that far; ``False``: it is in another epoch by now."""
        self.hurry()
        while True:
            here = self.places[partition]
            if here.epoch != place.epoch:
                return False
            if here.revision >= place.revision:
                return True
            await self.moved()

    async def moved(self) -> None:
        """Wait until something was read."""
        await self._moved.wait()

    def hurry(self) -> None:
        """Have the next look at the partitions soon."""
        for strand in self._strands:
            strand.next_check = 0.0

    @property
    def error(self) -> RegistryError | None:
        """Why it does not get on at the moment."""
        return next(filter(None, (strand.error for strand in self._strands)), None)

    async def _run(self) -> None:
        await self._keep_on(self._strands[0], self._split)
        async with asyncio.TaskGroup() as group:
            self._following = [
                group.create_task(
                    self._keep_on(strand, lambda one=strand: self._follow(one)),
                    name=f"redis-registry tail {strand.partitions}",
                )
                for strand in self._strands
            ]

    async def _split(self) -> None:
        """Learn how many partitions there are, and who waits for which."""
        partitions = await self._executor.run(self._operations.join())
        each = 1 if self._executor.spread else partitions
        self._strands = [
            _Strand(range(first, first + each)) for first in range(0, partitions, each)
        ]

    async def _keep_on(
        self, strand: _Strand, what: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        """Do it until it is done, whatever Redis does."""
        attempt = 0
        while True:
            try:
                return await what()
            except RegistryError as error:
                attempt = attempt + 1 if strand.error else 0
                if strand.error is None:
                    _log.warning(
                        "can't follow the registry, trying again; views keep what they know",
                        extra={"redis": self._executor.where, "why": str(error)},
                    )
                strand.error = error
            except Exception:  # noqa: BLE001  a follower's mistake must not end the rest
                _log.exception("following the registry failed, trying again")
                attempt += 1
            self._tell_moved()
            most = min(BACKOFF_MOST_SECS, 0.05 * 2 ** min(attempt, 10))
            await asyncio.sleep(random.uniform(most / 10, most))  # noqa: S311  jitter

    async def _follow(self, strand: _Strand) -> None:
        while True:
            for partition in strand.partitions:
                await self._check(strand, partition)
            strand.placed = True
            if all(one.placed for one in self._strands):
                self._partitions = len(self.places)
            if strand.error is not None:
                strand.error = None
                _log.info(
                    "following the registry again",
                    extra={"redis": self._executor.where},
                )
            self._tell_moved()
            left = CHECK_LEAST_SECS
            while left > 0:
                after = {p: self.places[p].revision for p in strand.partitions}
                waiting = self._operations.tail(after, min(left, CHECK_SECS))
                self._dispatch(strand, await self._executor.wait(waiting))
                left = strand.next_check - time.monotonic()

    async def _check(self, strand: _Strand, partition: int) -> None:
        """Ask where a partition stands and who of it is overdue."""
        if partition == strand.partitions[0]:
            strand.next_check = time.monotonic() + CHECK_SECS
        asked = time.monotonic()
        found = await self._executor.run(
            self._operations.overdue(partition), deadline_secs=CHECK_SECS
        )
        here = self.places.get(partition)
        strand.ahead.pop(partition, None)
        if here is None:
            self.places[partition] = Place(found.epoch, found.revision)
            self.confirmed[partition] = asked
        elif here.epoch != found.epoch or here.revision > found.revision:
            self._lose(partition, Place(found.epoch, found.revision), Lost.EPOCH)
        elif here.revision < found.revision:
            strand.ahead[partition] = found.revision
        else:
            self.confirmed[partition] = asked
        self.heard[partition] = found, time.monotonic()
        for follower in list(self._followers):
            follower.judge(partition, found)
        if found.members:  # a heartbeat brings them back, and that is no event
            strand.hurry_in(self._operations.settings.heartbeat_timeout_secs / 10)
        if found.wait_us >= 0:
            strand.hurry_in(found.wait_us / 1_000_000 + 0.001)

    def _dispatch(self, strand: _Strand, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._take(entry)
        if not entries:
            self._miss_what_is_ahead(strand)
        now = time.monotonic()
        for partition in strand.partitions:
            if self.places[partition].revision >= strand.ahead.get(partition, 0):
                self.confirmed[partition] = now
        self._tell_moved()

    def _take(self, entry: Entry) -> None:
        here = self.places[entry.partition]
        place = Place(entry.epoch, entry.revision)
        if place.epoch != here.epoch:
            self._lose(entry.partition, place, Lost.EPOCH)
        elif place.revision != here.revision + 1:
            self._lose(entry.partition, place, Lost.TRIMMED)
        else:
            self.places[entry.partition] = place
            for follower in list(self._followers):
                self._tell(follower, entry, place)

    @staticmethod
    def _tell(follower: TailFollower, entry: Entry, place: Place) -> None:
        """What one can't take in, say of a newer release, it reads anew; the others go on."""
        try:
            follower.take(entry)
        except Exception:  # noqa: BLE001  whatever it is, nobody may miss a change silently
            _log.exception("a change can't be taken in, reading the partition anew")
            follower.lost(entry.partition, Lost.UNREADABLE, place)

    def _miss_what_is_ahead(self, strand: _Strand) -> None:
        """Nothing came: then what is known to have happened can't be read any more."""
        for partition, revision in strand.ahead.items():
            here = self.places[partition]
            if here.revision < revision:
                self._lose(partition, Place(here.epoch, revision), Lost.TRIMMED)

    def _lose(self, partition: int, place: Place, cause: str) -> None:
        _log.info(
            "changes are missing, reading the partition anew",
            extra={"partition": partition, "cause": cause, "revision": place.revision},
        )
        seen, self.places[partition] = self.places[partition], place
        for follower in list(self._followers):
            follower.lost(partition, cause, seen)

    def _tell_moved(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()
