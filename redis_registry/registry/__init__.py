"""The front door for event loops; :mod:`redis_registry.sync_registry` is its twin for threads."""

from __future__ import annotations

from redis_registry.registry.explaining import ExplainSide
from redis_registry.registry.operators import OperatorSide
from redis_registry.registry.outcomes import OutcomeSide
from redis_registry.registry.readers import ReaderSide
from redis_registry.registry.reserving import ReserveSide
from redis_registry.registry.workers import WorkerSide

__all__ = ["RedisModelRegistry"]


class RedisModelRegistry(
    WorkerSide, ReaderSide, ExplainSide, ReserveSide, OutcomeSide, OperatorSide
):
    """A registry of model instances on one Redis, for event loops.

    Building one does no I/O and needs no event loop; the first awaited call connects, on the
    loop it runs on, and starts the checker there.

    Example:
        >>> registry = RedisModelRegistry.from_url("redis://localhost:6379/0")
        >>> async with registry:
        ...     await registry.register_instance(instance)

    Args:
        client: A ready ``redis.asyncio`` client (fakeredis included); it stays yours to close.
            Without one, the registry connects to ``settings.url`` by itself.
        settings: How it behaves; without it, from ``options`` and ``REDIS_REGISTRY_*``.
        run_checker: Whether this process shares in sweeping; ``False`` for workers and pure
            readers.
        telemetry: An observer of counts and durations.
        **options: Fields of :class:`~redis_registry.settings.RegistrySettings`.

    Raises:
        ConfigurationError: A setting is unknown or not acceptable.
    """
