"""Runs operations: one executor for event loops, one for threads, the same operations in both.

A call is one EVALSHA; where the server doesn't know the script (a flush, a failover, a new
node) its text goes along once. What may be repeated is repeated, with full jitter, until the
call's one deadline.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

from redis_registry.errors import (
    PoolExhausted,
    RegistryClosed,
    RegistryError,
    RegistryUnavailable,
)
from redis_registry.settings import RegistrySettings
from redis_registry.store.driver.bound import Bound
from redis_registry.store.driver.client import (
    AsyncClient,
    SyncClient,
    async_client,
    sync_client,
    sync_twin,
)
from redis_registry.store.faults import DRIVER_ERRORS, Fault, classify, translate
from redis_registry.store.operations import Call, Command, Operation
from redis_registry.store.retrying import Policy
from redis_registry.telemetry import DEAF, Telemetry

__all__ = ["TOGETHER", "AsyncExecutor", "SyncExecutor"]

T = TypeVar("T")

_log = logging.getLogger(__name__)

FAKE_WAIT_SECS = 0.02
"""How often fakeredis is asked for news."""

TOGETHER = 8
"""Calls of one operation that are under way at once: fewer than any pool has connections."""


class _Lane(NamedTuple):
    """Connections for one kind of call on one event loop, and the turns to use them."""

    client: AsyncClient
    turns: asyncio.Semaphore


class AsyncExecutor:
    """Runs operations on the running event loop.

    Args:
        settings: Where Redis is, timeouts.
        client: A ready ``redis.asyncio`` client to use instead of own connections.
        telemetry: Who is told of retries.

    Attributes:
        spread: Partitions may live on several servers: one command can't wait for all of them.
    """

    def __init__(
        self,
        settings: RegistrySettings,
        *,
        client: AsyncClient | None = None,
        telemetry: Telemetry = DEAF,
    ) -> None:
        self._given = client
        self._lanes: dict[asyncio.AbstractEventLoop, dict[str, _Lane]] = {}
        self._policy = Policy(settings, client, telemetry)
        self.spread = self._policy.spread
        self._closed = False

    @property
    def where(self) -> str:
        """The server, for messages."""
        return self._policy.where

    def check_open(self) -> None:
        """Refuse calls after :meth:`aclose`.

        Raises:
            RegistryClosed: It was closed.
        """
        if self._closed:
            msg = "the registry is closed; build a new one, or enter it again"
            raise RegistryClosed(msg)

    def _lane(self, name: str) -> _Lane:
        """This loop's connections; heartbeats have a pool of their own."""
        self.check_open()
        loop = asyncio.get_running_loop()
        lanes = self._lanes.get(loop)
        if lanes is None:
            self._forget_ended_loops()
            lanes = self._lanes[loop] = {}
        lane = lanes.get(name)
        if lane is None:
            settings = self._policy.settings
            lane = lanes[name] = _Lane(
                self._given or async_client(settings, waits=name == "wait"),
                asyncio.Semaphore(settings.max_connections),
            )
        return lane

    def _forget_ended_loops(self) -> None:
        """Let go of connections whose loop was closed before they were."""
        for ended in [loop for loop in self._lanes if loop.is_closed()]:
            del self._lanes[ended]

    async def run(
        self, operation: Operation[T], *, deadline_secs: float | None = None
    ) -> T:
        """Run an operation to its end.

        Args:
            operation: What to do.
            deadline_secs: Bound of each call, retries included; ``None``: the settings'.

        Raises:
            RegistryError: As the tree in :mod:`redis_registry.errors` says.
        """
        try:
            calls = next(operation)
            while True:
                if len(calls) == 1:
                    replies: Sequence[Any] = [await self.call(calls[0], deadline_secs)]
                else:
                    replies = await self._together(calls, deadline_secs)
                calls = operation.send(replies)
        except StopIteration as done:
            return done.value
        finally:
            operation.close()

    async def _together(
        self, calls: Sequence[Call[Any] | Command[Any]], deadline_secs: float | None
    ) -> Sequence[Any]:
        turns = asyncio.Semaphore(TOGETHER)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self.call(call, deadline_secs, turns))
                    for call in calls
                ]
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from several.exceptions[0].__cause__
        return [task.result() for task in tasks]

    async def call(
        self,
        call: Call[T] | Command[T],
        deadline_secs: float | None = None,
        turns: asyncio.Semaphore | None = None,
    ) -> T:
        """Make one call, repeating it while it may be repeated and time is left.

        With ``turns`` each attempt takes one: between two others go ahead.
        """
        policy = self._policy
        secs = deadline_secs or policy.settings.operation_timeout
        lane, loop = self._lane(call.lane), asyncio.get_running_loop()
        until = loop.time() + secs
        attempt, whole = 0, False
        last: Exception | None = None
        while True:
            try:
                command = policy.command(call, whole=whole)
                if turns is None:
                    raw = await self._attempt(lane, command, until, loop)
                else:
                    async with Bound(until), turns:
                        raw = await self._attempt(lane, command, until, loop)
            except TimeoutError as error:
                if loop.time() >= until:
                    raise self._late(call, lane, secs, last) from error
                last = error
            except DRIVER_ERRORS as error:
                last = error
            else:
                if policy.troubled:
                    policy.fine(call)
                return call.read(raw)
            pause = policy.verdict(
                last, call, attempt, until - loop.time(), lane.client
            )
            whole = whole or classify(last) is Fault.NO_SCRIPT
            attempt += 1
            await asyncio.sleep(pause)
            self.check_open()

    async def wait(self, command: Command[T]) -> T:
        """Send a command that waits, once, on connections of its own kind.

        Raises:
            RegistryError: As the tree in :mod:`redis_registry.errors` says.
        """
        lane, loop = self._lane("wait"), asyncio.get_running_loop()
        secs = command.wait_secs + self._policy.settings.socket_timeout_secs
        until = loop.time() + secs
        try:
            raw = await self._attempt(
                lane, self._policy.waiting(command), until, loop, secs
            )
        except TimeoutError as error:
            raise self._late(command, lane, secs) from error
        except DRIVER_ERRORS as error:
            if classify(error) is Fault.FOREIGN:
                raise
            where = self._policy.at(lane.client, command)
            raise translate(error, command.name, where) from error
        if self._policy.fake and not raw:
            await asyncio.sleep(min(command.wait_secs, FAKE_WAIT_SECS))
        return command.read(raw)

    async def _attempt(
        self,
        lane: _Lane,
        command: Sequence[Any],
        until: float,
        loop: asyncio.AbstractEventLoop,
        most_secs: float | None = None,
    ) -> Any:
        """Send a command once; one unanswered attempt leaves time for another."""
        task = asyncio.current_task()
        cancelled = task.cancelling() if task else 0
        patience = loop.time() + (
            most_secs or self._policy.settings.socket_timeout_secs
        )
        try:
            async with Bound(min(until, patience)), lane.turns:
                return await lane.client.execute_command(*command)
        finally:
            if task and task.cancelling() > cancelled:
                # A driver can lose a cancellation: Python 3.11's wait_for does, and so does a
                # connection that fails while it is being given up.
                raise asyncio.CancelledError

    def _late(
        self,
        call: Call[Any] | Command[Any],
        lane: _Lane,
        secs: float,
        said: Exception | None = None,
    ) -> RegistryError:
        """Time is up; what Redis had ``said`` to the attempt before is worth more than that."""
        where = self._policy.at(lane.client, call)
        if said is not None and classify(said) is Fault.NOT_APPLIED:
            return translate(said, call.name, where)
        what = f"{call.name}: Redis at {where} did not answer within {secs:g} s"
        if lane.turns.locked():
            return PoolExhausted(
                f"{what}, and as many calls as allowed were under way: raise max_connections "
                f"({self._policy.settings.max_connections}), or call less at once"
            )
        return RegistryUnavailable(what)

    async def aclose(self) -> None:
        """Close this loop's connections; a client that was given stays its owner's."""
        self._closed = True
        self._forget_ended_loops()
        lanes = self._lanes.pop(asyncio.get_running_loop(), {})
        for lane in lanes.values():
            if lane.client is not self._given:
                await lane.client.aclose()

    def reopen(self) -> None:
        """Allow calls again after :meth:`aclose`."""
        self._closed = False


class SyncExecutor:
    """Runs operations in the calling thread; safe in any number of threads.

    Args:
        settings: Where Redis is, timeouts.
        twin_of: A ready async client whose server to use.
        telemetry: Who is told of retries.

    Attributes:
        spread: Partitions may live on several servers.
    """

    def __init__(
        self,
        settings: RegistrySettings,
        *,
        twin_of: AsyncClient | None = None,
        telemetry: Telemetry = DEAF,
    ) -> None:
        self._twin_of = twin_of
        self._clients: dict[str, SyncClient] = {}
        self._lock = threading.Lock()
        self._policy = Policy(settings, twin_of, telemetry)
        self.spread = self._policy.spread

    def _client(self, lane: str) -> SyncClient:
        with self._lock:
            if lane not in self._clients:
                if self._twin_of is not None:
                    self._clients[lane] = sync_twin(self._twin_of)
                else:
                    self._clients[lane] = sync_client(self._policy.settings)
            return self._clients[lane]

    def run(
        self,
        operation: Operation[T],
        *,
        deadline_secs: float | None = None,
        lane: str | None = None,
    ) -> T:
        """Run an operation to its end; as :meth:`AsyncExecutor.run`.

        With a deadline of 0 each call is tried once. With a ``lane`` all calls take that one's
        connections.
        """
        try:
            calls = next(operation)
            while True:
                if len(calls) > 1 and self.spread:
                    replies = self._together(calls, deadline_secs, lane)
                else:
                    replies = [self.call(call, deadline_secs, lane) for call in calls]
                calls = operation.send(replies)
        except StopIteration as done:
            return done.value
        finally:
            operation.close()

    def _together(
        self,
        calls: Sequence[Call[Any] | Command[Any]],
        deadline_secs: float | None,
        lane: str | None,
    ) -> list[Any]:
        """All at once: a node that is away must not keep the others' calls from being made."""
        settings = self._policy.settings
        if deadline_secs is None:
            deadline_secs = settings.operation_timeout
        until = time.monotonic() + deadline_secs

        def one(call: Call[Any] | Command[Any]) -> Any:
            return self.call(call, max(until - time.monotonic(), 0.0), lane)

        # Those of one node that is away must leave threads for the others.
        with ThreadPoolExecutor(min(len(calls), settings.max_connections)) as pool:
            return list(pool.map(one, calls))

    def call(
        self,
        call: Call[T] | Command[T],
        deadline_secs: float | None = None,
        lane: str | None = None,
    ) -> T:
        """Make one call, repeating it while it may be repeated and time is left."""
        secs = deadline_secs
        if secs is None:
            secs = self._policy.settings.operation_timeout
        until = time.monotonic() + secs
        attempt, whole = 0, False
        while True:
            client = self._client(lane or call.lane)
            try:
                raw = client.execute_command(*self._policy.command(call, whole=whole))
            except DRIVER_ERRORS as error:
                pause = self._policy.verdict(
                    error, call, attempt, until - time.monotonic(), client
                )
                whole = whole or classify(error) is Fault.NO_SCRIPT
            else:
                if self._policy.troubled:
                    self._policy.fine(call)
                return call.read(raw)
            attempt += 1
            if pause:  # a script that was not known is sent again at once
                time.sleep(pause)

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            for client in self._clients.values():
                client.close()
            self._clients.clear()
