"""Sentinels, asked one after the other who is master, and why none of them named one.

redis-py puts the repr of each Sentinel into one text, and what they refuse can't be told from
silence: it would be asked again until the deadline.
"""

from __future__ import annotations

from typing import Any

import redis
import redis.asyncio
from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import TimeoutError as TimedOut

from redis_registry.topology import Host

__all__ = ["AsyncSentinels", "NoMaster", "SentinelsRefuse", "SyncSentinels"]

_REFUSED = (AuthenticationError, AuthorizationError, NoPermissionError)
_NO_TABLE = (*_REFUSED, Disconnected, TimedOut)
"""This one does not tell; the next is asked."""


class SentinelsRefuse(AuthenticationError):
    """All Sentinels that answer want other credentials."""


class NoMaster(Disconnected):
    """Sentinels answer, and none of them names the master."""


class _Search:
    """One search for a master: what was heard so far. No I/O.

    Args:
        manager: redis-py's keeper of the Sentinels.
        service: Their name of the master.
    """

    def __init__(self, manager: Any, service: str) -> None:
        self.sentinels = list(manager.sentinels)
        self._manager = manager
        self._service = service
        self._known: set[str] | None = None
        self._refusal: Exception | None = None
        self._last: Exception | None = None

    def heard(self, sentinel: Any, masters: dict[str, Any]) -> Host | None:
        """The master's address, if this Sentinel names it; then it is asked first from now on."""
        self._known = (self._known or set()) | set(masters)
        state = masters.get(self._service)
        if not state or not self._manager.check_master_state(state, self._service):
            return None
        others = [other for other in self.sentinels if other is not sentinel]
        self._manager.sentinels = [sentinel, *others]
        return state["ip"], state["port"]

    def failed(self, error: Exception) -> None:
        """One told nothing."""
        self._last = error
        if isinstance(error, _REFUSED):
            self._refusal = error

    def why(self) -> Exception:
        """Why there is no address. One that answers counts more than those that refuse."""
        if self._known is None and self._refusal:
            return SentinelsRefuse(str(self._refusal))
        if self._known is None:
            return Disconnected(f"no Sentinel answers: {self._last}")
        if self._service in self._known:
            return NoMaster(f"they know {self._service!r}, and call it down")
        known = ", ".join(map(repr, sorted(self._known))) or "none at all"
        return NoMaster(f"they know no master {self._service!r}, but {known}")


class AsyncSentinels(redis.asyncio.Sentinel):
    """Sentinels, asked on an event loop."""

    async def discover_master(self, service_name: str) -> Host:
        """The master's address.

        Raises:
            redis.RedisError: None names it; the error says why.
        """
        search = _Search(self, service_name)
        for sentinel in search.sentinels:
            try:
                found = search.heard(sentinel, await sentinel.sentinel_masters())
            except _NO_TABLE as error:
                search.failed(error)
            else:
                if found:
                    return found
        raise search.why()


class SyncSentinels(redis.Sentinel):
    """Sentinels, asked by threads."""

    def discover_master(self, service_name: str) -> Host:
        """The master's address.

        Raises:
            redis.RedisError: None names it; the error says why.
        """
        search = _Search(self, service_name)
        for sentinel in search.sentinels:
            try:
                found = search.heard(sentinel, sentinel.sentinel_masters())
            except _NO_TABLE as error:
                search.failed(error)
            else:
                if found:
                    return found
        raise search.why()
