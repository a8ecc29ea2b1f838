"""Which few of many instances one client keeps to."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from heapq import nsmallest

from redis_registry.errors import ConfigurationError
from redis_registry.model import ModelInstance
from redis_registry.selection.keys import digest_of

__all__ = ["subset"]


def subset(
    instances: Iterable[ModelInstance], client_id: str, size: int
) -> list[ModelInstance]:
    """The instances that this client keeps to, so that not everybody connects to everybody.

    The same for the same client everywhere. Each client ranks every instance by a hash of both
    and takes the first ``size``: one that goes is replaced by one other, one that comes displaces
    at most one. Over C clients an instance has about C x size / n of them, more or less by the
    square root of that. Costs O(n).

    Args:
        instances: Of one model.
        client_id: Any text that is this client's own and outlives its restarts.
        size: How many, at least 1.

    Returns:
        In the order given; all of them when there are no more than ``size``.

    Raises:
        ConfigurationError: The size is below 1.
    """
    if size < 1:
        raise ConfigurationError(f"subset: at least 1 instance (got {size})")
    known = list(instances)
    if len(known) <= size:
        return known
    client = client_id.encode("utf-8", "surrogatepass")
    ranked = nsmallest(
        size,
        (
            (blake2b(digest_of(instance.identity) + client).digest(), place)
            for place, instance in enumerate(known)
        ),
    )
    return [known[place] for place in sorted(place for _, place in ranked)]
