"""A reader's local copy: answers from memory, says how fresh it is, outlives Redis."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack

from redis_registry.core.events import position_text
from redis_registry.core.rows import Change, Snapshot
from redis_registry.errors import RegistryClosed, RegistryUnavailable
from redis_registry.model import ModelInstance
from redis_registry.roles.following.follower import Follower
from redis_registry.roles.following.hub import Hub, Scope
from redis_registry.selection import (
    Chooser,
    HowToChoose,
    Key,
    Labels,
    Outstanding,
    Policy,
)

__all__ = ["STALE_SECS", "View", "ViewReads"]

STALE_SECS = 3.0
"""A view that has not been confirmed for so long calls itself stale; it usually is every second."""

MOST_CHOOSERS = 1000
"""Ways to choose that a view remembers: many more than a router has."""

DISK_PATIENCE_SECS = 1.0
"""How long Redis is given to answer before a snapshot on disk will do."""

_log = logging.getLogger(__name__)

Changed = Callable[[frozenset[str]], None]


class ViewReads:
    """What a view answers; from memory, in any thread.

    Args:
        hub: Gives the hub of the loop that it follows on.
        scope: Names of models; ``None``: all.
        path: Where to keep a copy for a cold start without Redis; ``None``: nowhere.
        wait_secs: How long entering waits for the first snapshot.

    Attributes:
        outstanding: What this process has under way, for policies that go by load: say so with
            ``with view.outstanding.using(instance):``.
    """

    def __init__(
        self,
        hub: Callable[[], Hub],
        scope: Scope,
        *,
        path: Path | None,
        wait_secs: float,
    ) -> None:
        self.scope = scope
        self._make_hub = hub
        self._hub: Hub | None = None
        self._path = path
        self._wait_secs = wait_secs
        self._follower: Follower | None = None
        self.outstanding = Outstanding()
        self.resyncs: Counter[str] = Counter()  # how often it was read anew, by cause
        self._choosers: dict[object, Chooser] = {}
        self._callbacks: list[Changed] = []
        self._dirty: set[str] = set()

    @property
    def _live(self) -> Follower:
        if self._follower is None:
            msg = "the view is not open: use it inside its with block"
            raise RegistryClosed(msg)
        return self._follower

    def snapshot(self, model_name: str) -> Snapshot:
        """All instances that a name finds now; the same object while nothing changes.

        The name may be a model's, one that instances of models serve too, or an alias.
        """
        return self._live.mirror.snapshot(model_name)

    def instances(self, model_name: str | None = None) -> tuple[ModelInstance, ...]:
        """All instances of a model (or of all models), unhealthy ones too.

        They are shared with every other reader of this process: don't change them.

        Args:
            model_name: Exact name, of a model, adapter or alias; an unknown one has no
                instances.
        """
        if model_name is None:
            return tuple(self._live.mirror.all())
        return self.snapshot(model_name).instances

    def select(
        self,
        model_name: str,
        policy: str | Policy = "weighted",
        key: Key | None = None,
        **how: Unpack[HowToChoose],
    ) -> ModelInstance | None:
        """One instance that may take new work; ``None`` if there is none.

        Answers in microseconds, and remembers from call to call what a policy has to (whose turn
        it is). With labels, zones and the like it is faster to keep what :meth:`chooser` gives.
        One that was ejected and has served its time is among the answers for exactly one probe
        over all replicas; it has ``held_out`` then, and how the call ended must be reported.

        Example:
            >>> view.select("glm@llm", "power_of_two")
            >>> view.select("glm@llm", "consistent_hash", key=session, labels="gpu=a100")

        Args:
            model_name: Exact name.
            policy: One of :data:`~redis_registry.POLICIES`, or one of your own.
            key: Of a session, for the hashing policies.
            **how: Fields of :class:`~redis_registry.HowToChoose`: ``labels``, ``zones``,
                ``canary``, ``slow_start_secs`` and more.

        Raises:
            ConfigurationError: There is no such policy, or it needs a key.
        """
        chooser = self._choosers.get(policy) if not how else None
        if chooser is None:
            chooser = self._kept_chooser(policy, how)
        follower = self._live
        snapshot = follower.mirror.snapshot(model_name)
        if chooser.by_load and snapshot.model_name not in follower.loads.wanted:
            follower.loads.want(snapshot.model_name)
        if follower.mirror.awaiting or follower.probing.granted:
            probe = follower.probing.draw(snapshot)
            if probe is not None:
                return probe
        return chooser.choose(snapshot.candidates, key)

    def able(
        self,
        model_name: str,
        labels: Labels | str | None = None,
        *,
        zones: Iterable[str] = (),
        strict_zones: bool = False,
    ) -> tuple[ModelInstance, ...]:
        """Those that may take new work, from memory; what ``reserve`` may pick from.

        Example:
            >>> async with registry.reserve(
            ...     "glm@llm", candidates=lambda: view.able("glm@llm", "gpu=a100")
            ... ) as reservation:
            ...     await call(reservation.instance)

        Args:
            model_name: Exact name.
            labels: Only those with these.
            zones: In order of preference; the next only when the one before has nobody able.
            strict_zones: Nobody from other zones than these.

        Raises:
            ConfigurationError: The labels can't be read.
        """
        found = self.snapshot(model_name).candidates
        if labels is not None:
            found = found.narrowed(Labels.of(labels))
        if order := tuple(zones):
            found = found.nearest(order, strict=strict_zones)
        return found.able

    def chooser(
        self, policy: str | Policy = "weighted", **how: Unpack[HowToChoose]
    ) -> Chooser:
        """A chooser for this view, to be kept: it knows Redis's clock and what is under way.

        Example:
            >>> chooser = view.chooser("least_loaded", zones=("eu-1", "eu-2"))
            >>> instance = chooser.choose(view.snapshot("glm@llm").candidates)

        Raises:
            ConfigurationError: As of :class:`~redis_registry.Chooser`.
        """
        how.setdefault("outstanding", self.outstanding)
        how.setdefault("now", self.now)
        return Chooser(policy, **how)

    def _kept_chooser(self, policy: str | Policy, how: HowToChoose) -> Chooser:
        said = (policy, repr(sorted(how.items()))) if how else policy
        found = self._choosers.get(said)
        if found is None:
            if len(self._choosers) >= MOST_CHOOSERS:
                self._choosers.clear()
            found = self._choosers.setdefault(said, self.chooser(policy, **how))
        return found

    def now(self) -> float:
        """Redis's clock, as far as it is known here, in seconds since the epoch."""
        return self._live.now(0).timestamp()

    def models(self) -> list[str]:
        """Names of all models with an instance, in alphabetical order."""
        return sorted(self._live.mirror.models)

    def names(self) -> list[str]:
        """All names that find instances: models, adapters, aliases; in alphabetical order."""
        mirror = self._live.mirror
        known = mirror.models.keys() | mirror.served.keys()
        aliases = mirror.decisions.aliases
        return sorted(known | {a for a, name in aliases.items() if name in known})

    @property
    def staleness_secs(self) -> float:
        """Since when the view may be out of date, in seconds.

        Redis is asked every second, so it mostly lies below one. From a snapshot on disk: since
        that was written, by this host's clock. Infinite while it knows nothing.
        """
        return self._live.age_secs

    @property
    def stale(self) -> bool:
        """Whether it has not been confirmed for 3 s: Redis is away, or does not answer."""
        return self.staleness_secs > STALE_SECS

    @property
    def source(self) -> str | None:
        """Where its content is from: ``redis``, ``disk``, or ``None`` when there is none yet."""
        return self._live.source

    @property
    def error(self) -> Exception | None:
        """Why it is stale; ``None``: nothing is in the way."""
        return self._live.error

    @property
    def revision(self) -> int:
        """Number of the newest change in it; of several partitions, their sum."""
        return sum(place.revision for place in self._live.places)

    @property
    def position(self) -> str:
        """Epoch and revision of each partition; a watch of the same models resumes there."""
        return position_text([(p.epoch, p.revision) for p in self._live.places])

    def on_change(self, callback: Changed) -> Callable[[], None]:
        """Have a function called with the names of the models that have changed.

        It is called on the view's event loop (of a view for threads, in its thread), and must
        not block. What it raises is logged.

        Returns:
            A function that ends it.
        """
        self._callbacks.append(callback)

        def end() -> None:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

        return end

    # --- what the follower tells --------------------------------------------------------------

    def changed(self, change: Change, *, own: bool) -> None:  # noqa: ARG002  a listener's
        """A change of the mirror."""
        if change.model:
            self.turned({change.model})

    def resynced(self, partition: int, cause: str) -> None:  # noqa: ARG002  of whichever partition
        """A partition was read anew; which models that concerns is told apart."""
        self.resyncs[cause] += 1

    def turned(self, models: set[str]) -> None:
        """Models look different: callbacks are called once for all that come together."""
        if not self._callbacks:
            return
        if not self._dirty:
            asyncio.get_running_loop().call_soon(self._call_back)
        self._dirty |= models

    def ended(self) -> None:
        """The registry was closed: it shows what it knows, and calls itself stale."""

    def _call_back(self) -> None:
        models, self._dirty = frozenset(self._dirty), set()
        for callback in list(self._callbacks):
            try:
                callback(models)
            except Exception:  # noqa: BLE001  theirs must not end ours
                _log.exception("a view's on_change callback failed")

    # --- on the loop that it follows on -------------------------------------------------------

    async def _open(self) -> None:
        """Begin to follow, and wait until there is something to show."""
        if self._follower is not None:
            msg = "the view is open already; make another one with registry.view()"
            raise RegistryClosed(msg)
        self._hub = self._make_hub()
        self._follower = self._hub.follow(self.scope, self._path)
        self._follower.listeners.append(self)
        try:
            await self._ready(self._wait_secs)
        except BaseException:
            await self._close()
            raise

    async def _ready(self, within_secs: float | None) -> None:
        secs = self._wait_secs if within_secs is None else within_secs
        follower = self._live
        patience = min(secs, DISK_PATIENCE_SECS) if self._path else secs
        if secs == 0 or await follower.ready(patience) or follower.shown.is_set():
            return
        if await follower.ready(secs - patience):
            return
        cause = follower.error
        if cause is not None and not isinstance(cause, RegistryUnavailable):
            raise cause
        msg = (
            f"the view has nothing to show after {secs:g} s: {cause or 'no answer yet'}. "
            "Give a snapshot path to begin without Redis, or wait_secs=0 to go on without"
        )
        raise RegistryUnavailable(msg) from cause

    async def _close(self) -> None:
        follower, self._follower = self._follower, None
        hub, self._hub = self._hub, None
        if follower is not None and hub is not None:
            follower.listeners.remove(self)
            await hub.leave(follower)


class View(ViewReads):
    """A view for event loops; open inside its ``async with`` block."""

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._close()

    async def ready(self, within_secs: float | None = None) -> None:
        """Wait until there is something to show: read from Redis, or without Redis from disk.

        Args:
            within_secs: Longest wait; ``None``: as long as entering waits. 0: no wait, no error.

        Raises:
            RegistryUnavailable: Neither Redis nor a snapshot on disk had anything in time.
            RegistryError: What Redis says against it.
        """
        await self._ready(within_secs)
