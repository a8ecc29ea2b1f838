"""Runs operations in threads, as :mod:`redis_registry.store.executor` does on event loops."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from redis_registry.errors import RegistryClosed
from redis_registry.settings import RegistrySettings
from redis_registry.store.driver.client import (
    AsyncClient,
    SyncClient,
    sync_client,
    sync_twin,
)
from redis_registry.store.driver.patience import keeping_to
from redis_registry.store.executor import CLOSED
from redis_registry.store.faults import DRIVER_ERRORS, Fault, classify
from redis_registry.store.operations import Call, Command, Operation
from redis_registry.store.retrying import Policy
from redis_registry.telemetry import DEAF, Telemetry

__all__ = ["SyncExecutor"]

T = TypeVar("T")


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
        self._closed = False
        self._clients: dict[str, SyncClient] = {}
        self._lock = threading.Lock()
        self._policy = Policy(settings, twin_of, telemetry)
        self.spread = self._policy.spread

    def _client(self, lane: str) -> SyncClient:
        with self._lock:
            if self._closed:
                raise RegistryClosed(CLOSED)
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
        secs = deadline_secs
        if secs is None:
            secs = self._policy.settings.operation_timeout
        try:
            calls = next(operation)
            while True:
                until = time.monotonic() + secs if secs else None
                if len(calls) > 1 and self.spread:
                    replies = self._together(calls, until, lane)
                else:
                    replies = [self.call(call, until, lane) for call in calls]
                calls = operation.send(replies)
        except StopIteration as done:
            return done.value
        finally:
            operation.close()

    def _together(
        self,
        calls: Sequence[Call[Any] | Command[Any]],
        until: float | None,
        lane: str | None,
    ) -> list[Any]:
        """All at once: a node that is away must not keep the others' calls from being made."""

        def one(call: Call[Any] | Command[Any]) -> Any:
            return self.call(call, until, lane)

        # Those of one node that is away must leave threads for the others.
        threads = min(len(calls), self._policy.settings.max_connections)
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(one, calls))

    def call(
        self,
        call: Call[T] | Command[T],
        until: float | None = None,
        lane: str | None = None,
    ) -> T:
        """Make one call, repeating it while it may be repeated and time is left.

        Args:
            call: What to ask.
            until: By the monotonic clock, in seconds; ``None``: it is tried once.
            lane: Whose connections to use.
        """
        attempt, whole = 0, False
        while True:
            client = self._client(lane or call.lane)
            command = self._policy.command(call, whole=whole)
            # One unanswered attempt leaves time for another.
            patience = time.monotonic() + self._policy.settings.socket_timeout_secs
            try:
                with keeping_to(min(until or patience, patience)):
                    raw = client.execute_command(*command)
            except DRIVER_ERRORS as error:
                left = until - time.monotonic() if until else 0.0
                pause = self._policy.verdict(error, call, attempt, left, client)
                whole = whole or classify(error) is Fault.NO_SCRIPT
            else:
                if self._policy.troubled:
                    self._policy.fine(call)
                return call.read(raw)
            attempt += 1
            if pause:  # a script that was not known is sent again at once
                time.sleep(pause)

    def close(self) -> None:
        """Refuse calls from now on, and close the connections."""
        with self._lock:
            self._closed = True
            for client in self._clients.values():
                client.close()
            self._clients.clear()

    def reopen(self) -> None:
        """Allow calls again after :meth:`close`."""
        self._closed = False
