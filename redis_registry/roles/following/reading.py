"""A partition read anew, beside the mirror that goes on serving until this one is whole."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from redis_registry.core.mirror import Mirror
from redis_registry.errors import RegistryError
from redis_registry.roles.following.tail import Lost, Place, Tail
from redis_registry.store.executor import AsyncExecutor
from redis_registry.store.operations import Operations

__all__ = ["Reading"]

SPREAD_SECS = 0.5
"""After a restart of Redis its readers read anew spread over this time."""

BACKOFF_MOST_SECS = 2.0

_log = logging.getLogger(__name__)


class Reading:
    """Reads a partition until it is whole; begins at once, on the running loop.

    Args:
        partition: Which one.
        names: Which names to read of it; ``None``: all models.
        cause: Why.
        seen: How far it was known before changes went missing.
        heard: When it was last known to be up to date before that (``time.monotonic``); 0: never.
        removals: Whether to look for those who were removed among the changes that went missing.
        tail: Who tells of changes meanwhile.
        operations: How to read.
        executor: How to run that.
        done: Called when it is whole.

    Attributes:
        fresh: What has been read so far; to be told of each change.
        gone: Identities whose removal is among the changes that went missing.
        error: Why it does not get on.
    """

    def __init__(
        self,
        partition: int,
        names: frozenset[str] | None,
        cause: str,
        seen: Place,
        heard: float,
        *,
        removals: bool,
        tail: Tail,
        operations: Operations,
        executor: AsyncExecutor,
        done: Callable[[Reading], None],
    ) -> None:
        self.partition = partition
        self.cause = cause
        self.seen = seen
        self.heard = heard
        self.fresh = Mirror(names, touched={})
        self.gone: set[str] = set()
        self.error: RegistryError | None = None
        self._names = names
        self._removals = removals
        self._tail = tail
        self._operations = operations
        self._executor = executor
        self._done = done
        self.task = asyncio.get_running_loop().create_task(
            self._run(), name="redis-registry resync"
        )

    async def _run(self) -> None:
        if self.cause == Lost.EPOCH:
            await asyncio.sleep(random.uniform(0, SPREAD_SECS))  # noqa: S311  jitter
        attempt = 0
        while not await self._read():
            attempt += 1
            most = min(BACKOFF_MOST_SECS, 0.05 * 2 ** min(attempt, 10))
            await asyncio.sleep(random.uniform(most / 10, most))  # noqa: S311  jitter
            self.fresh = Mirror(self._names, touched={})

    async def _read(self) -> bool:
        try:
            whole = await self._read_pages()
            if whole and self._removals:
                await self._read_removals()
            if whole:
                self.gone |= (self.fresh.touched or {}).keys()
                self._done(self)
        except RegistryError as error:
            self.error = error
            return False
        except Exception:  # noqa: BLE001  whatever it is, the old mirror goes on serving
            _log.exception("reading a partition anew failed, trying again")
            return False
        return whole

    async def _read_pages(self) -> bool:
        """Read all pages; whether they fit together with what the tail tells."""
        newest = self._tail.places[self.partition]
        for name in [""] if self._names is None else sorted(self._names):
            after, more = None, True
            while more:
                page = await self._executor.run(
                    self._operations.page(self.partition, name, after)
                )
                self.fresh.add(self.partition, page, name)
                if page.epoch != newest.epoch:
                    self._tail.hurry()
                    return False
                newest = Place(page.epoch, max(newest.revision, page.revision))
                after, more = page.after, page.after is not None
        return await self._tail.reached(self.partition, newest)

    async def _read_removals(self) -> None:
        """Find removals among the changes that went missing, as far as they are still there.

        After a restart or a failover the stream mostly goes on where it was; after a flush it
        begins anew.
        """
        before, seen = None, self.seen
        while page := await self._executor.wait(
            self._operations.newest(self.partition, before)
        ):
            for entry in page:
                if entry.epoch == seen.epoch and entry.revision <= seen.revision:
                    return
                identity = Mirror.removed(entry)
                if identity is not None:
                    self.gone.add(identity)
            before = page[-1].revision
