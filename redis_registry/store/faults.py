"""What each failure of the driver says: whether the call may be repeated, and which error of ours it is."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from redis import exceptions as driver

from redis_registry.errors import (
    AccessDenied,
    FormatMismatch,
    InvalidInstance,
    KeyConflict,
    LeaseLost,
    OutOfMemory,
    PartitionMismatch,
    PoolExhausted,
    RegistryError,
    RegistryRefused,
    RegistryUnavailable,
)
from redis_registry.store.driver.sentinels import NoMaster, SentinelsRefuse
from redis_registry.wire.codec import FORMAT

__all__ = ["DRIVER_ERRORS", "Fault", "classify", "translate"]


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
    "Script attempted to access a non local key",  # its slot is on its way to another node
)


_FOR_NOW_TOO = (
    NoMaster,
    driver.ReadOnlyError,
    driver.TryAgainError,
    driver.ClusterDownError,
    driver.MasterDownError,
    driver.AskError,  # and MovedError: too often in a row
)
"""The same where the driver has a class for it, and takes the code out of the text."""


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
    (
        (driver.BusyLoadingError, *_FOR_NOW_TOO),
        Fault.NOT_APPLIED,
    ),
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
        f"{what}: the namespace at {where} has {recorded} partitions on record, which is not what "
        "this process began with: leave partitions unset to adopt that; if it was unset, the "
        "namespace was emptied and opened anew meanwhile, so restart this process",
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
        _is(driver.InvalidResponse),
        lambda text, what, where: RegistryRefused(
            f"{what}: what answers at {where} is no Redis: check host and port ({text})"
        ),
    ),
    (
        _is(SentinelsRefuse),
        lambda text, what, where: AccessDenied(
            f"{what}: no way to {where}: the Sentinels themselves deny access ({text}). "
            "?sentinel_username=…&sentinel_password=… in the URL says their credentials; the right "
            "they take is +sentinel|masters"
        ),
    ),
    (
        _is(NoMaster),
        lambda text, what, where: RegistryUnavailable(
            f"{what}: no way to {where}: {text}"
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
        lambda error: (
            isinstance(error, driver.ReadOnlyError) or _code("READONLY")(error)
        ),
        lambda _text, what, where: RegistryUnavailable(
            f"{what}: Redis at {where} is a replica and takes no writes; unless it is about to be "
            "promoted, give the address of its primary, or redis+sentinel:// or redis+cluster://"
        ),
    ),
    (
        _is(driver.AskError),
        lambda text, what, where: RegistryUnavailable(
            f"{what}: Redis at {where} is a node of a Cluster, and the key's slot is at another one "
            f"({text}): use redis+cluster://"
        ),
    ),
    (
        lambda error: isinstance(error, _FOR_NOW_TOO) or _code(*_FOR_NOW)(error),
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
        _code("RRTOOLARGE"),
        lambda text, what, _where: InvalidInstance(
            "{}: {}: takes {} bytes, the limit is {}: keep large things elsewhere and store a "
            "reference".format(what, *text.split()[1:4])
        ),
    ),
    (
        lambda error: "WRONGTYPE" in str(error),
        lambda text, what, where: KeyConflict(
            f"{what}: a key of the registry at {where} holds something else; nothing was changed. "
            f"Use another prefix or namespace ({text})"
        ),
    ),
)
