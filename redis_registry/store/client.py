"""How this package talks to Redis: connections that survive, and what each failure means.

redis-py's defaults are measured to be wrong for a registry (a paused server hangs one GET for
59 s, non-idempotent commands are retried ten times, an unread reply may be handed to the next
caller). So: RESP2, maintenance notifications off, no retries in the driver, explicit timeouts;
retries live in :mod:`redis_registry.store.executor`, under one deadline per call.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any, Protocol, cast

import redis
import redis.asyncio
from redis import exceptions as driver
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from redis_registry.errors import (
    AccessDenied,
    ConfigurationError,
    FormatMismatch,
    KeyConflict,
    LeaseLost,
    OutOfMemory,
    PartitionMismatch,
    PoolExhausted,
    RegistryError,
    RegistryRefused,
    RegistryUnavailable,
)
from redis_registry.settings import RegistrySettings, normal_url
from redis_registry.wire.codec import FORMAT

__all__ = [
    "DRIVER_ERRORS",
    "AsyncClient",
    "Fault",
    "SyncClient",
    "async_client",
    "classify",
    "is_fake",
    "sync_client",
    "sync_twin",
    "translate",
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


def _options(settings: RegistrySettings) -> dict[str, Any]:
    return {
        "socket_connect_timeout": min(CONNECT_SECS, settings.socket_timeout_secs),
        "socket_keepalive": True,
        "protocol": 2,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        "decode_responses": False,
        "client_name": "redis-registry",
        "max_connections": settings.max_connections,
    }


def async_client(settings: RegistrySettings) -> AsyncClient:
    """A driver client for one event loop; connects on its first command.

    It has no timeout and no waiting of its own: the executor bounds each attempt and takes
    turns, in one place and at half the cost. With hiredis (the extra ``speed``) all calls share
    one pipelined connection; without, each has one of its own for its time.
    """
    url = normal_url(settings.url)
    options = _options(settings)
    if url.startswith("unix:"):
        options.pop("socket_keepalive")
    try:
        pool = redis.asyncio.ConnectionPool.from_url(  # pyright: ignore[reportUnknownMemberType]
            url, retry=AsyncRetry(NoBackoff(), 0), socket_timeout=None, **options
        )
    except ValueError as error:
        raise ConfigurationError(f"not a Redis URL: {error}") from error
    try:
        from redis_registry.store.pipeline import PipelinedClient  # noqa: PLC0415
    except ModuleNotFoundError:
        return cast("AsyncClient", redis.asyncio.Redis.from_pool(pool))
    return PipelinedClient(pool, patience_secs=settings.socket_timeout_secs / 2)


def sync_client(settings: RegistrySettings) -> SyncClient:
    """A driver client for any number of threads; connects on its first command."""
    url = normal_url(settings.url)
    options = _options(settings)
    options["socket_timeout"] = options["timeout"] = settings.socket_timeout_secs
    if url.startswith("unix:"):
        options.pop("socket_keepalive")
    try:
        pool = redis.BlockingConnectionPool.from_url(  # pyright: ignore[reportUnknownMemberType]
            url, retry=Retry(NoBackoff(), 0), **options
        )
    except ValueError as error:
        raise ConfigurationError(f"not a Redis URL: {error}") from error
    return cast("SyncClient", redis.Redis.from_pool(pool))


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
    kept = ("host", "port", "path", "db", "username", "password", "credential_provider")
    ssl = {key: value for key, value in given.items() if key.startswith("ssl_")}
    options = {key: given[key] for key in kept if given.get(key) is not None}
    if "path" in options:
        options["unix_socket_path"] = options.pop("path")
    if not options:
        msg = "sync calls need to know where Redis is: build the registry with from_url"
        raise ConfigurationError(msg)
    return cast(
        "SyncClient",
        redis.Redis(
            **options,
            **ssl,
            ssl="SSL" in getattr(pool, "connection_class", type(None)).__name__,
            protocol=2,
            socket_timeout=2.0,
            socket_connect_timeout=CONNECT_SECS,
            retry=Retry(NoBackoff(), 0),
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        ),
    )


class Fault(Enum):
    """What a failure says about the call."""

    NOT_APPLIED = "not applied"
    """Redis refused for now, and did nothing."""

    UNKNOWN = "unknown"
    """No telling whether it was executed; every script may simply be repeated."""

    PERMANENT = "permanent"
    """It will be refused however often it is asked."""

    NO_SCRIPT = "no script"
    """The server doesn't have the script; send its text."""

    FOREIGN = "foreign"
    """Not the driver's at all: a bug, to be raised as it is."""


DRIVER_ERRORS = (driver.RedisError, OSError, TypeError, AttributeError)
"""All that a command may raise because of the server or the connection."""


_FOR_NOW = (
    "LOADING",
    "READONLY",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "NOREPLICAS",
    "BUSY",
    "MISCONF",
)


def _says(error: Exception, *words: str) -> bool:
    """Whether Redis's error code is one of ``words``.

    Redis 6.2 hides an inner error in the text, and redis-py strips codes that it knows.
    """
    text = str(error)
    return text.startswith(words) or any(f"-{word} " in text for word in words)


def classify(error: Exception) -> Fault:
    """Sort a driver's exception by the first row that fits."""
    for kinds, fault in _FAULTS:
        if isinstance(error, kinds):
            return fault
    if isinstance(error, driver.RedisError):
        return Fault.NOT_APPLIED if _says(error, *_FOR_NOW) else Fault.PERMANENT
    return Fault.UNKNOWN if _from_transport(error) else Fault.FOREIGN


# In this order: the driver derives the first rows from its ConnectionError.
_FAULTS: tuple[tuple[tuple[type[Exception], ...], Fault], ...] = (
    ((driver.NoScriptError,), Fault.NO_SCRIPT),
    (
        (
            driver.AuthenticationError,
            driver.AuthorizationError,
            driver.MaxConnectionsError,
        ),
        Fault.PERMANENT,
    ),
    ((driver.BusyLoadingError, driver.ReadOnlyError), Fault.NOT_APPLIED),
    ((driver.ConnectionError, driver.TimeoutError, OSError), Fault.UNKNOWN),
)


def _from_transport(error: Exception) -> bool:
    """CPython 3.12+ raises these from a write on a connection the peer closed (redis-py #4287)."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    name = trace.tb_frame.f_code.co_filename if trace else ""
    return "asyncio" in name or "redis/asyncio" in name


def translate(error: Exception, what: str, where: str) -> RegistryError:
    """Our error for a driver's; to be raised ``from`` it.

    Args:
        error: What the driver raised.
        what: The operation, for the message.
        where: The server, for the message (no password in it).
    """
    text = str(error) or type(error).__name__
    for matches, build in _TRANSLATIONS:
        if matches(error):
            return build(text, what, where)
    return RegistryRefused(f"{what}: Redis at {where} refused: {text}")


def _is(*kinds: type[Exception]) -> Callable[[Exception], bool]:
    return lambda error: isinstance(error, kinds)


def _code(*words: str) -> Callable[[Exception], bool]:
    return lambda error: (
        isinstance(error, driver.ResponseError) and _says(error, *words)
    )


def _denied(text: str, what: str, where: str) -> RegistryError:
    return AccessDenied(
        f"{what}: Redis at {where} denies access: {text}. Check user, password and the ACL rules "
        "(docs/how-to/operate.md lists the commands needed)"
    )


def _partitions(text: str, what: str, where: str) -> RegistryError:
    recorded = int(text.split()[1])
    return PartitionMismatch(
        f"{what}: the namespace at {where} has {recorded} partitions on record; "
        "leave partitions unset to adopt that",
        recorded,
    )


_TRANSLATIONS: tuple[
    tuple[Callable[[Exception], bool], Callable[[str, str, str], RegistryError]], ...
] = (
    (
        _is(driver.MaxConnectionsError),
        lambda text, what, where: PoolExhausted(
            f"{what}: every connection to {where} is busy: raise max_connections ({text})"
        ),
    ),
    (
        _is(
            driver.AuthenticationError,
            driver.AuthorizationError,
            driver.NoPermissionError,
        ),
        _denied,
    ),
    (
        _code("NOPERM", "WRONGPASS", "NOAUTH", "ACL failure", "The user executing"),
        _denied,
    ),
    (
        _is(
            driver.ConnectionError,
            driver.TimeoutError,
            OSError,
            TypeError,
            AttributeError,
        ),
        lambda text, what, where: RegistryUnavailable(
            f"{what}: no answer from Redis at {where}: {text}"
        ),
    ),
    (
        _code(*_FOR_NOW),
        lambda text, what, where: RegistryUnavailable(
            f"{what}: Redis at {where} is not ready: {text}"
        ),
    ),
    (
        lambda error: isinstance(error, driver.OutOfMemoryError) or _says(error, "OOM"),
        lambda _text, what, where: OutOfMemory(
            f"{what}: Redis at {where} is at maxmemory and takes nothing new; heartbeats and sweeps "
            "go on. Raise maxmemory, or remove instances"
        ),
    ),
    (
        _code("RRFENCED"),
        lambda text, what, _where: LeaseLost(
            f"{what}: the lease has passed on ({text.partition(' ')[2]})"
        ),
    ),
    (
        _code("RRFORMAT"),
        lambda text, what, where: FormatMismatch(
            f"{what}: the records at {where} are of format {text.split()[1]}, this release speaks "
            f"{FORMAT}: run the same release everywhere, or use another namespace"
        ),
    ),
    (_code("RRPARTITIONS"), _partitions),
    (
        lambda error: "WRONGTYPE" in str(error),
        lambda text, what, where: KeyConflict(
            f"{what}: a key of the registry at {where} holds something else; nothing was changed. "
            f"Use another prefix or namespace ({text})"
        ),
    ),
)
