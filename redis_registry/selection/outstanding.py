"""What this process has under way, and where."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock
from types import MappingProxyType
from weakref import ref

from redis_registry.model import Identity, ModelInstance

__all__ = ["Outstanding", "Tally"]


class Tally:
    """What is under way at each of some instances, by place, and in all; kept up to date.

    A pick reads its list instead of looking identities up, which takes longer the more there are.

    Args:
        identities: Of the instances.
        loads: What to begin with at each.

    Attributes:
        loads: Of each place, what it began with and what is under way there.
        total: What is under way at all of them.
    """

    __slots__ = ("__weakref__", "_places", "loads", "total")

    def __init__(self, identities: Sequence[Identity], loads: Iterable[int]) -> None:
        self._places = {identity: place for place, identity in enumerate(identities)}
        self.loads = list(loads)
        self.total = 0

    @property
    def models(self) -> set[str]:
        """Of the instances."""
        return {identity.model_name for identity in self._places}

    def change(self, identity: Identity, by: int) -> None:
        """So much more (or less) is under way there; one call at a time."""
        place = self._places.get(identity)
        if place is not None:
            self.loads[place] += by
            self.total += by
            self._changed(place, by)

    def _changed(self, place: int, by: int) -> None:
        """For those who do more with it."""


class _Follower(ref[Tally]):
    """A tally that is told, while it lives; of which models, also when it has gone."""

    __slots__ = ("models",)
    models: set[str]


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
        self._followers: dict[str, list[_Follower]] = {}
        # Tallies go at any moment, also inside our lock: noted here, struck off with it.
        self._gone: deque[_Follower] = deque()
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
            self._strike_off()
            self._counts[identity] = self._counts.get(identity, 0) + 1
            self._tell(identity, 1)

    def end(self, instance: ModelInstance) -> None:
        """One less is under way; nothing happens when none was."""
        identity = instance.identity
        with self._lock:
            self._strike_off()
            left = self._counts.pop(identity, 0) - 1
            if left > 0:
                self._counts[identity] = left
            if left >= 0:
                self._tell(identity, -1)

    def follow(self, tally: Tally) -> None:
        """Keep a tally up to date, while it lives: it is held weakly."""
        follower = _Follower(tally, self._goes)
        follower.models = tally.models
        with self._lock:
            self._strike_off()
            for identity, count in self._counts.items():
                tally.change(identity, count)
            for model in follower.models:
                self._followers.setdefault(model, []).append(follower)

    def _goes(self, gone: _Follower) -> None:
        """Called in whatever thread lets a tally go; one that works with ours strikes it off then."""
        self._gone.append(gone)
        if self._lock.acquire(blocking=False):
            try:
                self._strike_off()
            finally:
                self._lock.release()

    def _strike_off(self) -> None:
        """Drop the tallies that are gone: models come and go, we stay."""
        while self._gone:
            gone = self._gone.popleft()
            for model in gone.models:
                left = [one for one in self._followers[model] if one is not gone]
                if left:
                    self._followers[model] = left
                else:
                    del self._followers[model]

    def _tell(self, identity: Identity, by: int) -> None:
        for one in self._followers.get(identity.model_name, ()):
            tally = one()
            if tally is not None:
                tally.change(identity, by)
