"""What this process has under way, and where."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from threading import Lock
from types import MappingProxyType
from typing import Protocol
from weakref import ref

from redis_registry.model import Identity, ModelInstance

__all__ = ["Follower", "Outstanding"]


class Follower(Protocol):
    """Who is told of every change, in order and one at a time."""

    def begin(self, counts: Mapping[Identity, int]) -> None:
        """What is under way now."""
        ...

    def changed(self, identity: Identity, by: int) -> None:
        """One more, or one less, is under way at an instance."""
        ...


class Outstanding:
    """Counts what this process has under way at each instance.

    Give one to every :class:`Chooser` that shares the work. Threads and event loops may use the
    same one. It takes memory for busy instances only::

        outstanding = Outstanding()
        chooser = Chooser("least_loaded", outstanding=outstanding)
        ...
        instance = chooser.choose(candidates)
        with outstanding.using(instance):
            await call(instance)

    Attributes:
        counts: By identity, those above 0; a live view.
    """

    def __init__(self) -> None:
        self._counts: dict[Identity, int] = {}
        self._followers: dict[str, list[ref[Follower]]] = {}
        self._lock = Lock()
        self.counts: Mapping[Identity, int] = MappingProxyType(self._counts)

    @contextmanager
    def using(self, instance: ModelInstance) -> Generator[None]:
        """Count one piece of work at an instance for the length of the block."""
        self.begin(instance)
        try:
            yield
        finally:
            self.end(instance)

    def begin(self, instance: ModelInstance) -> None:
        """One more is under way; where a block won't do. Call :meth:`end` exactly once."""
        identity = instance.identity
        with self._lock:
            self._counts[identity] = self._counts.get(identity, 0) + 1
            self._tell(identity, 1)

    def end(self, instance: ModelInstance) -> None:
        """One less is under way; nothing happens when none was."""
        identity = instance.identity
        with self._lock:
            left = self._counts.pop(identity, 0) - 1
            if left > 0:
                self._counts[identity] = left
            if left >= 0:
                self._tell(identity, -1)

    def follow(self, follower: Follower, models: Iterable[str]) -> None:
        """Tell ``follower`` of every change at instances of these models, while it lives.

        It is held weakly.
        """
        with self._lock:
            follower.begin(self._counts)
            for model in set(models):
                living = [one for one in self._followers.get(model, ()) if one()]
                self._followers[model] = [*living, ref(follower)]

    def _tell(self, identity: Identity, by: int) -> None:
        for one in self._followers.get(identity.model_name, ()):
            follower = one()
            if follower is not None:
                follower.changed(identity, by)
