"""Every error the package raises, as one tree.

::

    RegistryError                    anything this package raises on purpose
    ├── InvalidInstance              a field of an instance is not acceptable (also a ValueError)
    ├── InvalidOverride              an override or an alias is not acceptable (also a ValueError)
    ├── ConfigurationError           settings that contradict each other or Redis (also a ValueError)
    │   ├── PartitionMismatch        the namespace was opened with another number of partitions
    │   └── FormatMismatch           the records in Redis are of a format this release can't read
    ├── RegistryUnavailable          Redis did not answer in time; the call may be repeated
    │   └── PoolExhausted            every connection of this process is busy
    ├── RegistryRefused              Redis answered and will not do it
    │   ├── AccessDenied             wrong password, or an ACL rule forbids a command or key
    │   ├── OutOfMemory              Redis is at maxmemory and takes no new instance
    │   ├── LimitReached             as many overrides or aliases as a partition may hold
    │   └── KeyConflict              a key of the registry is held by a value of another type
    ├── NoneAvailable                no instance can be reserved now; says for how long
    ├── Superseded                   a newer incarnation lives at this address
    ├── LeaseLost                    another checker holds the lease (or a newer term of it)
    ├── AgentError                   an agent can't do its work; carries its exit code
    ├── EmbeddedServerError          a server for development or tests did not start, or do as told
    │   └── NotAvailableHere         this machine lacks what it needs; says what to install
    └── RegistryClosed               the registry was closed before this call

Redis's own exceptions never leave the package; they hang on ``__cause__``.
"""

from __future__ import annotations

__all__ = [
    "AccessDenied",
    "AgentError",
    "ConfigurationError",
    "EmbeddedServerError",
    "FormatMismatch",
    "InvalidInstance",
    "InvalidOverride",
    "KeyConflict",
    "LeaseLost",
    "LimitReached",
    "NoneAvailable",
    "NotAvailableHere",
    "OutOfMemory",
    "PartitionMismatch",
    "PoolExhausted",
    "RegistryClosed",
    "RegistryError",
    "RegistryRefused",
    "RegistryUnavailable",
    "Superseded",
]


class RegistryError(Exception):
    """The root of the tree."""


class InvalidInstance(RegistryError, ValueError):
    """A field of an instance is not acceptable; the message names field, limit and value."""


class InvalidOverride(RegistryError, ValueError):
    """An override, its selector or an alias is not acceptable; nothing was stored."""


class ConfigurationError(RegistryError, ValueError):
    """Settings contradict each other, or what is recorded in Redis."""


class PartitionMismatch(ConfigurationError):
    """The namespace was first used with another number of partitions.

    Args:
        message: What to tell the user.
        recorded: The number of partitions that Redis has on record.
    """

    def __init__(self, message: str, recorded: int) -> None:
        super().__init__(message)
        self.recorded = recorded


class FormatMismatch(ConfigurationError):
    """The records in Redis were written by a release whose format this one can't read."""


class RegistryUnavailable(RegistryError):
    """Redis did not answer before the call's deadline; every operation may be repeated."""


class PoolExhausted(RegistryUnavailable):
    """As many calls as allowed are under way; raise ``max_connections`` or call less at once."""


class RegistryRefused(RegistryError):
    """Redis answered, and will not do it however often it is asked."""


class AccessDenied(RegistryRefused):
    """Wrong user or password, or an ACL rule that forbids a command or a key."""


class OutOfMemory(RegistryRefused):
    """Redis is at ``maxmemory``: no new instance; heartbeats and sweeps go on."""


class LimitReached(RegistryRefused):
    """A partition holds as many overrides or aliases as it may: clear some first."""


class KeyConflict(RegistryRefused):
    """A key of the registry holds a value of another type; nothing was changed."""


class NoneAvailable(RegistryError):
    """No instance of the model can be reserved now: all are full, or none may take work.

    Args:
        message: What to tell the user.
        retry_after_secs: A wait, in seconds, after which a place can be expected; ``None``: no
            wait is known to help.
    """

    def __init__(self, message: str, retry_after_secs: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_secs = retry_after_secs


class Superseded(RegistryError):
    """A newer incarnation lives at this address; the older one must stop claiming it.

    Attributes:
        by: The incarnation that lives there, where it is known.
    """

    by: str | None = None


class LeaseLost(RegistryError):
    """Another checker holds the lease, so this sweep ends without having changed a thing more."""


class AgentError(RegistryError):
    """An agent can't make its server a worker; nothing is left registered.

    Args:
        message: What is wrong, and what to do.
        exit_code: What the agent's process ends with.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class EmbeddedServerError(RegistryError):
    """A server for development or tests did not come up, or did not do as it was told."""


class NotAvailableHere(EmbeddedServerError):
    """This machine lacks a binary, a library or a right; the message says how to get it."""


class RegistryClosed(RegistryError):
    """The registry was closed; build a new one, or enter it again."""
