"""Runs operations on event loops; :mod:`redis_registry.store.sync_executor` runs the same in threads.

A call is one EVALSHA; where the server doesn't know the script (a flush, a failover, a new
node) its text goes along once. What may be repeated is repeated, with full jitter, until the
call's one deadline.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, TypeVar

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
    async_client,
    server_of,
)
from redis_registry.store.faults import DRIVER_ERRORS, Fault, classify, translate
from redis_registry.store.operations import Call, Command, Operation
from redis_registry.store.retrying import Policy
from redis_registry.telemetry import DEAF, Telemetry

__all__ = ["CLOSED", "TOGETHER", "AsyncExecutor"]

T = TypeVar("T")

_log = logging.getLogger(__name__)

CLOSED = "the registry is closed; build a new one, or enter it again"

FAKE_WAIT_SECS = 0.02
"""How often fakeredis is asked for news."""

TOGETHER = 8
"""Calls of one operation that are under way at once: fewer than any pool has connections."""


class _Lane:
    """Connections for one kind of call on one event loop, and the turns to use them.

    Each server has turns of its own: who waits for a dead one must not take those of the living.

    Args:
        client: The driver's.
        most: Calls under way at once, at one server.
        spread: There are several.
    """

    def __init__(self, client: AsyncClient, most: int, *, spread: bool) -> None:
        self.client = client
        self._most = most
        self._spread = spread
        self._turns: dict[str, asyncio.Semaphore] = {}

    def turns(self, call: Call[Any] | Command[Any]) -> asyncio.Semaphore:
        """Those of the server that a call goes to."""
        server = server_of(self.client, call.keys[0]) if self._spread else ""
        turns = self._turns.get(server)
        if turns is None:
            turns = self._turns[server] = asyncio.Semaphore(self._most)
        return turns


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
            raise RegistryClosed(CLOSED)

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
            settings, waits = self._policy.settings, name == "wait"
            lane = lanes[name] = _Lane(
                self._given or async_client(settings, waits=waits),
                # As many wait as there are strands of the tail; each holds its turn all the time.
                sys.maxsize if waits else settings.max_connections,
                spread=self.spread,
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
        if not calls:
            return []
        turns = asyncio.Semaphore(TOGETHER)
        loop = asyncio.get_running_loop()
        tasks = [
            loop.create_task(self.call(call, deadline_secs, turns)) for call in calls
        ]
        # No TaskGroup: one that has failed ignores that its task is cancelled, and before Python
        # 3.13 leaves that it was cancelled once.
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            failed = [
                task
                for task in tasks
                if task.done() and (task.cancelled() or task.exception())
            ]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return [task.result() for task in failed or tasks]

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
                    raw = await self._attempt(lane, call, command, until)
                else:
                    async with Bound(until), turns:
                        raw = await self._attempt(lane, call, command, until)
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
        # History is not asked for on the connection on which the tail waits for news.
        lane = self._lane("wait" if command.wait_secs else command.lane)
        loop = asyncio.get_running_loop()
        secs = command.wait_secs + self._policy.settings.socket_timeout_secs
        until = loop.time() + secs
        try:
            words = self._policy.waiting(command)
            raw = await self._attempt(lane, command, words, until, secs)
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
        call: Call[Any] | Command[Any],
        words: Sequence[Any],
        until: float,
        most_secs: float | None = None,
    ) -> Any:
        """Send a command once; one unanswered attempt leaves time for another."""
        task = asyncio.current_task()
        cancelled = task.cancelling() if task else 0
        patience = asyncio.get_running_loop().time() + (
            most_secs or self._policy.settings.socket_timeout_secs
        )
        try:
            async with Bound(min(until, patience)), lane.turns(call):
                return await lane.client.execute_command(*words)
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
        if lane.turns(call).locked():
            return PoolExhausted(
                f"{what}, and as many calls as allowed were under way: raise max_connections "
                f"({self._policy.settings.max_connections}), or call less at once"
            )
        return RegistryUnavailable(what)

    @property
    def loops(self) -> set[asyncio.AbstractEventLoop]:
        """Where it has connections."""
        return set(self._lanes)

    async def aclose(self) -> None:
        """Refuse calls from now on, and close this loop's connections."""
        self._closed = True
        await self.leave()

    async def leave(self) -> None:
        """Close this loop's connections; a client that was given stays its owner's."""
        self._forget_ended_loops()
        lanes = self._lanes.pop(asyncio.get_running_loop(), {})
        for lane in lanes.values():
            if lane.client is not self._given:
                with suppress(*DRIVER_ERRORS):  # it is closed all the same
                    await lane.client.aclose()

    def reopen(self) -> None:
        """Allow calls again after :meth:`aclose`."""
        self._closed = False
