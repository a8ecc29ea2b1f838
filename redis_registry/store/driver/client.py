"""How this package talks to Redis: connections that survive, to whatever the URL says is there.

redis-py's defaults are measured to be wrong for a registry (a paused server hangs one GET for
59 s, non-idempotent commands are retried ten times, an unread reply may be handed to the next
caller). So: RESP2, maintenance notifications off, no retries in the driver, explicit timeouts;
retries live in :mod:`redis_registry.store.executor`, under one deadline per call.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable
from typing import Any, Protocol, cast

import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel
from redis.asyncio.connection import parse_url as parse_async_url
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.connection import Connection, parse_url  # pyright: ignore[reportUnknownVariableType]  untyped
from redis.exceptions import MaxConnectionsError
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from redis_registry.errors import ConfigurationError
from redis_registry.settings import RegistrySettings
from redis_registry.store.driver.cluster import AsyncCluster, SyncCluster
from redis_registry.store.driver.patience import TimedPool, at_most, timed
from redis_registry.store.driver.sentinels import AsyncSentinels, SyncSentinels
from redis_registry.topology import Host, Topology

__all__ = [
    "AsyncClient",
    "SyncClient",
    "async_client",
    "is_fake",
    "server_of",
    "sync_client",
    "sync_twin",
]


class AsyncClient(Protocol):
    """The two things we need of an async driver."""

    def execute_command(self, *args: Any) -> Awaitable[Any]:
        """Send one command and await its reply."""
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...


class SyncClient(Protocol):
    """The two things we need of a sync driver."""

    def execute_command(self, *args: Any) -> Any:
        """Send one command and return its reply."""
        ...

    def close(self) -> None:
        """Close all connections."""
        ...


CONNECT_SECS = 1.5
"""Longest wait for a connection. A packet that asks for one and is lost, in the network or because
the server has no room for it, is sent again after 1 s: a wait of 1 s would end just before that."""

SENTINEL_SECS = 0.5
"""Longest wait for a Sentinel, which is near and has little to do; then the next one is asked."""

_SPOKEN: dict[str, Any] = {
    "protocol": 2,
    "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    # The driver's name and version are two commands more for each connection that is made, a fifth
    # of what it costs (measured): with a whole fleet's at once that is much. Ours has a name.
    "driver_info": None,
}


def _options(settings: RegistrySettings, url: dict[str, Any]) -> dict[str, Any]:
    """What every connection is made with; ``url``: what the URL says, by the driver's names."""
    options: dict[str, Any] = {
        **_SPOKEN,
        "socket_connect_timeout": min(CONNECT_SECS, settings.socket_timeout_secs),
        "socket_keepalive": True,
        "decode_responses": False,
        "client_name": "redis-registry",
        "max_connections": settings.max_connections,
        **url,
    }
    if "path" in options:
        del options["socket_keepalive"]
    return options


def _parsed(url: str, *, sync: bool) -> dict[str, Any]:
    """What a URL says, by the driver's names.

    Raises:
        ConfigurationError: The driver can't read it.
    """
    try:
        return dict(cast("Any", parse_url if sync else parse_async_url)(url))
    except ValueError as error:
        msg = f"not a Redis URL: {error}"
        raise ConfigurationError(msg) from error


def _for_sentinels(topology: Topology, url: dict[str, Any]) -> dict[str, Any]:
    """How to talk to the Sentinels: as to the servers, but with credentials of their own."""
    tls = {name: value for name, value in url.items() if name.startswith("ssl_")}
    return {
        **_SPOKEN,
        **tls,
        **dict(topology.credentials),
        "ssl": "connection_class" in url,
        "socket_timeout": SENTINEL_SECS,
        "socket_connect_timeout": SENTINEL_SECS,
    }


def _of_master(url: dict[str, Any]) -> dict[str, Any]:
    """What the URL says of the master, whose address the Sentinels know."""
    left = {k: v for k, v in url.items() if k not in {"host", "port"}}
    return {**left, "ssl": left.pop("connection_class", None) is not None}


UNLIMITED = 2**31
"""redis-py's own default; whoever calls takes turns."""

_MANAGED = redis.sentinel.SentinelManagedConnection
_MANAGED_TLS = redis.sentinel.SentinelManagedSSLConnection


class _AsyncMaster(redis.asyncio.sentinel.SentinelConnectionPool):
    """Connections to the master that the Sentinels name."""

    async def aclose(self) -> None:
        """Close those to the Sentinels too."""
        await super().aclose()
        manager = cast("Any", self.sentinel_manager)  # untyped
        for sentinel in manager.sentinels:
            await sentinel.aclose()


def async_client(settings: RegistrySettings, *, waits: bool = False) -> AsyncClient:
    """A driver client for one event loop; connects on its first command.

    It has no timeout and no waiting of its own: the executor bounds each attempt and takes
    turns, in one place and at half the cost. With hiredis (the extra ``speed``) all calls share
    one pipelined connection; without, each has one of its own for its time.

    Args:
        settings: Where Redis is, timeouts.
        waits: It is for commands that wait: of a Cluster each partition has a connection of
            its own, for one command can't wait for several slots.
    """
    topology = Topology.of(settings.url)
    url = _parsed(topology.url, sync=False)
    retry = AsyncRetry(NoBackoff(), 0)
    options: dict[str, Any] = {"retry": retry, "socket_timeout": None}
    # A call that a Cluster sends on to another node has its turn at the first one.
    options["max_connections"] = UNLIMITED
    if topology.kind == "sentinel":
        sentinel = AsyncSentinels(
            topology.hosts,
            sentinel_kwargs=_for_sentinels(topology, url) | {"retry": retry},
        )
        made = _options(settings, _of_master(url)) | options
        return _speaking(_AsyncMaster(topology.service, sentinel, **made), settings)

    def node(host: Host) -> AsyncClient:
        named = url | {"host": host[0], "port": host[1]}
        made = _options(settings, named) | options
        return _speaking(redis.asyncio.ConnectionPool(**made), settings)

    if topology.kind == "cluster":
        return AsyncCluster(topology.hosts, node, apart=waits)
    pool = redis.asyncio.ConnectionPool(**_options(settings, url) | options)
    return _speaking(pool, settings)


def _speaking(pool: Any, settings: RegistrySettings) -> AsyncClient:
    try:
        from redis_registry.store.driver.pipeline import (  # noqa: PLC0415  needs hiredis
            PipelinedClient,
        )
    except ModuleNotFoundError:
        return cast("AsyncClient", redis.asyncio.Redis.from_pool(pool))
    patience = min(settings.socket_timeout_secs, settings.operation_timeout) / 2
    return PipelinedClient(pool, patience_secs=patience)


class _SyncMaster:
    """A client of the master that the Sentinels name; threads wait for a connection.

    Args:
        pool: redis-py's, which has no waiting of its own.
        sentinel: Its Sentinels.
        settings: How many connections, and how long to wait for one.
    """

    def __init__(self, pool: Any, sentinel: Any, settings: RegistrySettings) -> None:
        self._sentinel = sentinel
        self._client: Any = redis.Redis.from_pool(pool)
        self.connection_pool = pool
        self._turns = threading.BoundedSemaphore(settings.max_connections)
        self._secs = settings.socket_timeout_secs

    def execute_command(self, *args: Any) -> Any:
        """Send one command and return its reply."""
        secs = at_most(self._secs)
        if not self._turns.acquire(timeout=secs):
            msg = f"none came free within {secs:g} s"
            raise MaxConnectionsError(msg)
        try:
            return self._client.execute_command(*args)
        finally:
            self._turns.release()

    def close(self) -> None:
        """Close all connections."""
        self._client.close()
        for sentinel in self._sentinel.sentinels:
            sentinel.close()


def sync_client(settings: RegistrySettings) -> SyncClient:
    """A driver client for any number of threads; connects on its first command."""
    topology = Topology.of(settings.url)
    url = _parsed(topology.url, sync=True)
    retry = Retry(NoBackoff(), 0)
    options: dict[str, Any] = {
        "retry": retry,
        "socket_timeout": settings.socket_timeout_secs,
    }
    if topology.kind == "sentinel":
        sentinel = SyncSentinels(
            topology.hosts,
            sentinel_kwargs=_for_sentinels(topology, url) | {"retry": retry},
        )
        made = _options(settings, _of_master(url)) | options
        tls = made.pop("ssl")
        made["connection_class"] = timed(_MANAGED_TLS if tls else _MANAGED)
        pool = redis.sentinel.SentinelConnectionPool(topology.service, sentinel, **made)
        return _SyncMaster(pool, sentinel, settings)

    def node(host: Host) -> SyncClient:
        return one(url | {"host": host[0], "port": host[1]})

    def one(said: dict[str, Any]) -> SyncClient:
        made = _options(settings, said) | options
        made["timeout"] = settings.socket_timeout_secs
        made["connection_class"] = timed(said.get("connection_class", Connection))
        return cast("SyncClient", redis.Redis.from_pool(TimedPool(**made)))

    if topology.kind == "cluster":
        return SyncCluster(topology.hosts, node)
    return one(url)


def server_of(client: object, key: str) -> str:
    """Which of the servers behind a URL a key's calls go to, ``host:port``; empty: it is not known.

    It is where Sentinels or a Cluster say that it is, which need not be reachable from here.
    """
    if isinstance(client, AsyncCluster | SyncCluster):
        host = client.owner(key)
    else:
        pool = getattr(client, "connection_pool", None)
        host = cast("Host | None", getattr(pool, "master_address", None))
    return f"{host[0]}:{host[1]}" if host else ""


def is_fake(client: object) -> bool:
    """Whether this is fakeredis, which takes no ``#!lua`` line."""
    return any(base.__module__.startswith("fakeredis") for base in type(client).__mro__)


def sync_twin(client: AsyncClient) -> SyncClient:
    """A sync client for the server that a ready async client talks to.

    Raises:
        ConfigurationError: There is no telling from this client where that is.
    """
    pool: Any = getattr(client, "connection_pool", None)
    given: dict[str, Any] = dict(getattr(pool, "connection_kwargs", {}))
    if is_fake(client):
        import fakeredis  # noqa: PLC0415  only who brought one has it

        kept = ("server", "host", "port", "db")  # one of the first two names its server
        same = {name: given[name] for name in kept if given.get(name) is not None}
        return cast("SyncClient", fakeredis.FakeRedis(**same))
    nodes: Any = getattr(client, "nodes_manager", None)
    if nodes is not None:
        given = dict(cast("Any", client).connection_kwargs)
    kept = ("host", "port", "path", "db", "username", "password", "credential_provider")
    options = {key: given[key] for key in kept if given.get(key) is not None}
    options |= {key: value for key, value in given.items() if key.startswith("ssl_")}
    if "path" in options:
        options["unix_socket_path"] = options.pop("path")
    # Of a master that Sentinels name the pool has a password, say, and no place.
    if hasattr(pool, "sentinel_manager") or (nodes is None and not options):
        msg = (
            "sync calls, announce and reserve need to know where Redis is: build the registry with "
            "from_url; behind Sentinel: redis+sentinel://host:26379/mymaster"
        )
        raise ConfigurationError(msg)
    kind = getattr(pool, "connection_class", given.get("connection_class", type(None)))
    options["ssl"] = "SSL" in kind.__name__
    if nodes is None:
        return _twin(options)
    hosts = [(node.host, int(node.port)) for node in nodes.startup_nodes.values()]
    return SyncCluster(
        hosts, lambda host: _twin(options | {"host": host[0], "port": host[1]})
    )


def _twin(options: dict[str, Any]) -> SyncClient:
    made = redis.Redis(
        **options,
        **_SPOKEN,
        socket_timeout=2.0,
        socket_connect_timeout=CONNECT_SECS,
        retry=Retry(NoBackoff(), 0),
    )
    pool: Any = made.connection_pool
    pool.connection_class = timed(pool.connection_class)
    return cast("SyncClient", made)
