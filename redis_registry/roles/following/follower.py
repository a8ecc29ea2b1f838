"""A mirror of some models that stays true: read once, then told of every change by the tail.

When changes may be missing it is read anew, beside the old one, which goes on serving until the
new one is whole (promises R3 and R4).
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from redis_registry.core.decisions import concerns, is_decision
from redis_registry.core.mirror import Mirror
from redis_registry.core.rows import Change, model_of
from redis_registry.errors import RegistryError
from redis_registry.model import EPOCH
from redis_registry.roles.following.copy_on_disk import DiskCopy, Saved
from redis_registry.roles.following.keeping import Keeping
from redis_registry.roles.following.loads import Loads
from redis_registry.roles.following.probing import Probing
from redis_registry.roles.following.reading import Reading
from redis_registry.roles.following.tail import Lost, Place, Tail
from redis_registry.store.executor import AsyncExecutor
from redis_registry.store.following import Entry, Overdue
from redis_registry.store.operations import Operations
from redis_registry.store.replies import Page
from redis_registry.wire.keys import partition_of

__all__ = ["Follower", "Listener"]

_log = logging.getLogger(__name__)


class Listener(Protocol):
    """Who wants to hear of it; called on the tail's loop, and must return at once."""

    def changed(self, change: Change, *, own: bool) -> None:
        """The next change of the mirror; ``own``: about the models of the names themselves."""
        ...

    def resynced(self, partition: int, cause: str) -> None:
        """A partition of the mirror was replaced as a whole."""
        ...

    def turned(self, models: set[str]) -> None:
        """Models look different, without any change in Redis: a deadline has passed."""
        ...

    def ended(self) -> None:
        """The registry was closed: there is no more to come."""
        ...


async def _ended(tasks: Sequence[asyncio.Task[None]]) -> None:
    if tasks:
        await asyncio.wait(tasks)


def _tell_failure(task: asyncio.Task[None]) -> None:
    """Promise S1: whatever it was, it is said."""
    if not task.cancelled() and (error := task.exception()):
        _log.error("a view or watch could not begin", exc_info=error)


class Follower:
    """Keeps a mirror of all models, or of some.

    Args:
        tail: Who tells of changes.
        operations: How to read.
        executor: How to run that.
        names: What its instances are found by: names of models, and further ones that they
            serve; ``None``: all.
        path: Where to keep a copy for a cold start; ``None``: nowhere.

    Attributes:
        mirror: What is known; readable from any thread.
        probing: Asks for probes of those who were ejected, where somebody chooses.
        loads: Keeps the loads in it fresh, where somebody chooses by them.
        synced: Whether it was ever whole.
        shown: Whether there is anything to show: it was read, or was on disk.
        source: Where that is from: ``redis``, ``disk`` or ``None``.
        error: Why it is not, or why it can't be read anew.
    """

    def __init__(
        self,
        tail: Tail,
        operations: Operations,
        executor: AsyncExecutor,
        names: frozenset[str] | None,
        path: Path | None = None,
    ) -> None:
        self.mirror = Mirror(names)
        self.loads = Loads(self.mirror, operations, executor)
        self.probing = Probing(operations, executor)
        self.synced = asyncio.Event()
        self.shown = asyncio.Event()
        self.names = names
        self.path = path
        self.listeners: list[Listener] = []
        self.users = 0
        self.tail = tail
        self.source: str | None = None
        self._operations = operations
        self._executor = executor
        self._starting: asyncio.Task[None] | None = None
        self._readings: dict[int, Reading] = {}
        self._whole: set[int] = set()
        self._homes: list[int] = []
        self._own_homes: list[int] = []
        self._overdue: dict[int, frozenset[str]] = {}
        self._keeping = Keeping(self.mirror, self._turn)
        self._closed = False
        self._copy = (
            None
            if path is None
            else DiskCopy(path, operations.settings.namespace, self._show, self._copied)
        )
        self._saving: asyncio.Task[None] | None = None
        self._saved_at = 0.0

    @property
    def error(self) -> RegistryError | None:
        """What is in the way at the moment."""
        stuck = (reading.error for reading in self._readings.values())
        return self.tail.error or next(filter(None, stuck), None)

    @property
    def homes(self) -> list[int]:
        """The partitions of the models of these names, once they are known."""
        return self._own_homes

    @property
    def confirmed(self) -> float:
        """When all of it was last known to be up to date (``time.monotonic``); 0: never."""
        if not self._homes or not self.synced.is_set():
            return 0.0
        return min(self.tail.confirmed.get(home, 0.0) for home in self._homes)

    @property
    def places(self) -> list[Place]:
        """How far each of these partitions has been read."""
        return [self.tail.places[home] for home in self.homes]

    def start(self) -> None:
        """Begin, on the running loop."""
        self.tail.add(self)
        self.loads.open()
        self.probing.open()
        self._starting = asyncio.get_running_loop().create_task(
            self._start(), name="redis-registry follower"
        )
        self._starting.add_done_callback(_tell_failure)

    async def aclose(self) -> None:
        """Stop; all of it ends also when the wait for that is cancelled."""
        self._closed = True
        readings = [reading.task for reading in self._readings.values()]
        tasks = [t for t in (self._starting, self._saving, *readings) if t]
        self._readings.clear()
        self._keeping.close()
        for task in tasks:
            task.cancel()
        async with AsyncExitStack() as stack:
            stack.push_async_callback(_ended, tasks)
            stack.push_async_callback(self.probing.aclose)
            stack.push_async_callback(self.loads.aclose)
            stack.push_async_callback(self.tail.remove, self)
            if self._copy is not None:
                await self._copy.write()

    async def _start(self) -> None:
        if self._copy is not None:
            self._saving = asyncio.get_running_loop().create_task(
                self._copy.run(), name="redis-registry copy on disk"
            )
        partitions = await self.tail.positioned()
        # Instances that serve a name besides their model's can be in any partition.
        self._homes = self._own_homes = list(range(partitions))
        if self.names is not None:
            homes = {partition_of(name, partitions) for name in self.names}
            self._own_homes = sorted(homes)
        for home in self._homes:
            self.lost(home, Lost.BEGIN, self.tail.places[home])

    # --- the copy on disk ---------------------------------------------------------------------

    def _show(self, saved: Saved) -> None:
        if self._whole:
            return
        for home, rows in saved.rows.items():
            page = Page("", 0, rows, None)
            self.mirror.add(home, page._replace(orders=saved.orders[home]))
        self._saved_at = time.monotonic() - saved.age_secs
        self.source = "disk"
        self.shown.set()
        _log.warning(
            "a view begins with its snapshot on disk, until Redis answers",
            extra={"path": str(self.path), "age_secs": round(saved.age_secs, 1)},
        )

    def _copied(self) -> tuple[object, Saved] | None:
        """What to write, with what tells it from another; ``None``: nothing worth it."""
        if self.source != "redis":
            return None
        places = [self.tail.places[home] for home in self._homes]
        version = [(place.epoch, place.revision) for place in places]
        return version, Saved(self.mirror.rows(), self.age_secs, self.mirror.orders)

    # --- what the tail tells ------------------------------------------------------------------

    def take(self, entry: Entry) -> None:
        """The next change of a partition."""
        if entry.partition not in self._homes:
            return
        own = self.wants(entry)  # before: it may take the place of what is known
        reading = self._readings.get(entry.partition)
        if reading is not None:
            reading.fresh.apply(entry)
        young = reading is not None and reading.cause == Lost.EPOCH
        change = self.mirror.apply(entry, keep=young)
        turned = set(change.turned)
        if self.names is not None:
            turned &= self.names | self.mirror.models.keys()
        if not (own or change.old or change.new or turned):
            return
        if reading is None:  # else the resync to come tells of it
            for listener in list(self.listeners):
                listener.changed(change, own=own)
        elif change.model:
            self._turn({change.model})
        self._turn(turned)

    def wants(self, entry: Entry) -> bool:
        """Whether an entry is about the models of these names, or about none."""
        names = self.names
        if names is None:
            return True
        if entry.partition not in self._own_homes:
            return False
        if is_decision(entry):
            return concerns(entry, names) or self.mirror.decisions.replaces(
                entry, names
            )
        identity = entry.about.split(b"|", 1)[0].decode()
        return ":" not in identity or model_of(identity) in names

    def lost(self, partition: int, cause: str, seen: Place) -> None:
        """Changes are missing: read the partition anew."""
        if partition not in self._homes or self._closed:
            return
        before = self._readings.pop(partition, None)
        if before is not None:
            before.task.cancel()
            seen = before.seen
            cause = Lost.EPOCH if before.cause == Lost.EPOCH else cause
        self._readings[partition] = Reading(
            partition,
            self.names,
            cause,
            seen,
            self.tail.confirmed.get(partition, 0.0) if cause == Lost.EPOCH else 0.0,
            removals=cause == Lost.EPOCH or self._keeping.since(partition) > -math.inf,
            tail=self.tail,
            operations=self._operations,
            executor=self._executor,
            done=self._swap,
        )

    def judge(self, partition: int, overdue: Overdue) -> None:
        """Who is overdue."""
        before = self._overdue.get(partition, frozenset())
        self._overdue[partition] = overdue.members
        if partition in self._homes and (before or overdue.members):
            self._turn(self.mirror.silence(before, overdue.members))
        self._turn(self.mirror.expire(partition, overdue.now_us))
        self._turn(self.mirror.serve_time(partition, overdue.now_us))

    def _turn(self, models: set[str]) -> None:
        if models:
            for listener in list(self.listeners):
                listener.turned(models)

    # --- reading anew -------------------------------------------------------------------------

    def _swap(self, reading: Reading) -> None:
        """The new mirror is whole: from here on it serves."""
        partition, cause = reading.partition, reading.cause
        self._readings.pop(partition, None)
        since = self._occasion_since(partition, reading)
        if cause == Lost.EPOCH:
            self._miss_decisions(partition, reading.fresh)
        changed = self.mirror.take_over(
            partition,
            reading.fresh,
            age_secs=time.monotonic() - since,
            gone=reading.gone,
        )
        overdue, _ = self.tail.heard[partition]
        self._overdue[partition] = overdue.members
        self.mirror.silence((), overdue.members)
        self.mirror.serve_time(partition, overdue.now_us)
        self._whole.add(partition)
        self._keeping.begin(partition, since)
        if self._whole >= set(self._homes):
            self.source = "redis"
            self.synced.set()
            self.shown.set()
        for listener in list(self.listeners):
            listener.resynced(partition, cause)
        self._turn(changed)

    def _miss_decisions(self, partition: int, fresh: Mirror) -> None:
        now_us = self.tail.heard[partition][0].now_us
        lost = self.mirror.decisions.lost(partition, fresh.decisions, now_us)
        if lost:
            _log.warning(
                "Redis came back without decisions of operators: set them again, unless they were cleared",
                extra={"lost": lost},
            )

    def _occasion_since(self, partition: int, reading: Reading) -> float:
        """Since when living workers have had occasion to be heard of anew (``time.monotonic``).

        After a restart, a failover or a flush they are back within two heartbeats: until an epoch
        is one timeout old, an absence says nothing (promise R4). Nor does it until the former one
        was last heard of a timeout ago: while there were two masters, workers may have beaten at
        the other one. Later a snapshot is to be believed, unless nobody at all is left: that must
        last for two heartbeats.
        """
        now, timeout = (
            time.monotonic(),
            self._operations.settings.heartbeat_timeout_secs,
        )
        since = self._keeping.since(partition)
        if reading.cause == Lost.EPOCH or self.source == "disk":
            born_us = int(self.tail.places[partition].epoch.rpartition("-")[2])
            born = EPOCH + timedelta(microseconds=born_us)
            age_secs = (self.now(partition) - born).total_seconds()
            # A clock that was put back is no reason to keep anything for longer.
            since = max(since, now - max(age_secs, 0.0), reading.heard)
        was = any(item.healthy for item in self.mirror.held(partition))
        if was and not reading.fresh.models:
            since = max(since, now - timeout / 3)
        return since

    async def ready(self, within_secs: float) -> bool:
        """Wait until it is whole; whether that came to pass."""
        try:
            async with asyncio.timeout(within_secs):
                await self.synced.wait()
        except TimeoutError:
            return False
        return True

    def reading(self, partition: int) -> bool:
        """Whether a partition is being read anew at the moment."""
        return partition in self._readings

    def now(self, partition: int) -> datetime:
        """Redis's clock, as far as it is known; 1970 before Redis has answered."""
        found = self.tail.heard.get(partition)
        if found is None:
            return EPOCH
        overdue, heard = found
        secs = time.monotonic() - heard
        return EPOCH + timedelta(microseconds=overdue.now_us, seconds=secs)

    @property
    def age_secs(self) -> float:
        """Since when it may be out of date, in seconds; infinite before it was ever whole."""
        confirmed = self._saved_at if self.source == "disk" else self.confirmed
        return time.monotonic() - confirmed if confirmed else float("inf")
