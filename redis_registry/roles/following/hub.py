"""All that is followed on one event loop: one tail, and one follower for each set of models."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from redis_registry.core.inputs import readable
from redis_registry.errors import InvalidInstance
from redis_registry.roles.following.follower import Follower
from redis_registry.roles.following.tail import Tail
from redis_registry.store.executor import AsyncExecutor
from redis_registry.store.operations import Operations

__all__ = ["Hub", "scope_of"]

Scope = frozenset[str] | None
"""Names of models; ``None``: all."""


def scope_of(models: str | Iterable[str] | None) -> Scope:
    """Which models to follow, as the front door takes it.

    Raises:
        InvalidInstance: Something is no name, or there is none.
    """
    if models is None:
        return None
    names = [
        readable(name) for name in ([models] if isinstance(models, str) else models)
    ]
    scope = frozenset(name for name in names if name is not None)
    if not scope or None in names:
        msg = f"models: give names of models, or None for all, not {models!r:.80}"
        raise InvalidInstance(msg)
    return scope


class Hub:
    """Shares one tail, and the mirrors, between the watches and views of an event loop.

    Args:
        operations: What to run.
        executor: How to run it.
    """

    def __init__(self, operations: Operations, executor: AsyncExecutor) -> None:
        self.operations = operations
        self.executor = executor
        self._tail = Tail(operations, executor)
        self._followers: dict[tuple[Scope, Path | None], Follower] = {}

    def follow(self, scope: Scope, path: Path | None = None) -> Follower:
        """A follower of these models, begun if there was none; to be given back."""
        follower = self._followers.get((scope, path))
        if follower is None:
            follower = Follower(self._tail, self.operations, self.executor, scope, path)
            follower.start()
            self._followers[scope, path] = follower
        follower.users += 1
        return follower

    async def leave(self, follower: Follower) -> None:
        """Give a follower back; the last one to do so stops it."""
        follower.users -= 1
        if follower.users == 0:
            self._followers.pop((follower.names, follower.path), None)
            await follower.aclose()

    async def aclose(self) -> None:
        """Stop all of them."""
        followers = list(self._followers.values())
        self._followers.clear()
        for follower in followers:
            follower.users = 0
            for listener in list(follower.listeners):
                listener.ended()
            await follower.aclose()
        await self._tail.aclose()
