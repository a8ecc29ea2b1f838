"""Announcing an instance: registered, kept alive, drained and deregistered, by a context manager."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Iterable, Sequence
from concurrent import futures
from concurrent.futures import Future
from types import TracebackType
from typing import Self, cast

from pydantic import ValidationError

from redis_registry.core.address import check_address
from redis_registry.core.inputs import checked
from redis_registry.errors import InvalidInstance, RegistryClosed, Superseded
from redis_registry.model import (
    MAX_REASON,
    Load,
    ModelInstance,
    Readiness,
    explain_invalid,
    superseded,
)
from redis_registry.roles.sending.life import BEATS_IN_TIMEOUT, HowToAnnounce, Life
from redis_registry.roles.sending.loop_lag import LoopTicker
from redis_registry.roles.sending.senders import Sender

__all__ = ["Announcement", "SyncAnnouncement", "new_life"]

AWAY_SECS = 0.5
"""How long a goodbye is tried when the registry was away already; silence says the same."""

GRACE_SECS = 3.0
"""Beyond its patience: an attempt that is under way ends by itself."""

_log = logging.getLogger(__name__)


def new_life(
    timeout_secs: float,
    instance: object,
    how: HowToAnnounce,
    *,
    urls: Sequence[str],
) -> Life:
    """A new life of an instance, to be announced.

    Args:
        timeout_secs: The registry's heartbeat timeout.
        instance: Who it is.
        how: How it is announced.
        urls: Where the registry is, or where its controllers are.

    Raises:
        InvalidInstance: Not an instance, an interval that can't keep it alive, or an address
            that others can't reach.
    """
    given = checked(instance)
    _check_times(how)
    life = Life.of(given, _interval_of(timeout_secs, given, how), how)
    if not life.options.any_address:
        check_address(given, urls)
    return life


def _interval_of(
    timeout_secs: float, instance: ModelInstance, how: HowToAnnounce
) -> float:
    """From one heartbeat to the next: as asked for, else a third of the timeout.

    Raises:
        InvalidInstance: It is not above 0 and at most half of the timeout.
    """
    timeout = instance.heartbeat_timeout_secs or timeout_secs
    given = how.get("interval_secs")
    interval = timeout / 3 if given is None else given
    if not 0 < interval <= timeout / BEATS_IN_TIMEOUT:
        msg = (
            f"interval_secs: {interval} can't keep an instance alive whose timeout is "
            f"{timeout:g} s: take at most half of it"
        )
        raise InvalidInstance(msg)
    return interval


def _check_times(how: HowToAnnounce) -> None:
    for name, value in how.items():
        if not name.endswith("_secs") or value is None:
            continue
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0 <= cast("float", value) < math.inf:
            msg = f"{name}: must be a number of seconds, got {value!r:.60}"
            raise InvalidInstance(msg)
    if how.get("sender", "thread") not in ("thread", "process"):
        msg = f"sender: 'thread' or 'process', not {how.get('sender')!r:.60}"
        raise InvalidInstance(msg)


def _plain(reason: object) -> str:
    """A reason as text that can be stored; an exception's own words if it is one."""
    text = str(reason)[:MAX_REASON]
    return text.encode(errors="backslashreplace").decode()[:MAX_REASON]


class _Announced:
    """What both faces say; the sender's thread carries it to the registry.

    Args:
        life: The new life.
        sender: Who speaks for it.
        patience_secs: How long to wait for an answer before the sender goes on alone.
    """

    def __init__(self, life: Life, sender: Sender, *, patience_secs: float) -> None:
        self._life = life
        self._sender = sender
        self._patience = patience_secs

    @property
    def instance(self) -> ModelInstance:
        """The instance with its incarnation."""
        return self._life.instance

    @property
    def superseded(self) -> bool:
        """Whether a newer life has taken the address; this one is not announced any more."""
        return self._life.superseded

    @property
    def readiness(self) -> Readiness:
        """What the registry was last told."""
        told = self._life.told
        return told[0] if told else self._life.wanted[0]

    def report(
        self,
        *,
        in_flight: int | None = None,
        queued: int | None = None,
        capacity: int | None = None,
        **numbers: float,
    ) -> None:
        """Say how loaded it is; it goes with the next heartbeat. Never blocks.

        Args:
            in_flight: Requests being worked on; another number than before counts as progress.
            queued: Requests waiting for that.
            capacity: How many may be in flight at once.
            **numbers: Anything else, by name.

        Raises:
            InvalidInstance: A number is negative or not finite.
        """
        try:
            load = Load(
                in_flight=in_flight, queued=queued, capacity=capacity, numbers=numbers
            )
        except ValidationError as error:
            raise InvalidInstance(explain_invalid(error)) from error
        self._life.report(load)
        self._sender.wake_if_news(self._life)

    def progress(self) -> None:
        """Show that work gets done, where the number in flight doesn't."""
        self._life.progress()

    def forget(self) -> None:
        """Have it removed at the end of the block, not left listed as unhealthy."""
        self._life.forgotten = True

    def _say(self, readiness: Readiness, reason: str) -> Future[None]:
        self._check_living()
        said = self._life.want(readiness, _plain(reason))
        self._sender.wake()
        return said

    @property
    def _drains(self) -> bool:
        """Whether it has said so: while the registry is away that is not waited for twice."""
        return self._life.wanted[0] is Readiness.DRAINING

    def _serve(self, names: Iterable[str]) -> Future[None]:
        # One text is no list of its letters: the check of the instance refuses it.
        given = names if isinstance(names, str) else list(names)
        fields = self._life.instance.model_dump() | {"serves": given}
        served = ModelInstance.of(**fields).serves
        self._check_living()
        said = self._life.serve(served)
        self._sender.wake()
        return said

    def _check_living(self) -> None:
        if not self._life.begun:
            msg = "not announced yet: use it as a context manager, (async) with"
            raise RegistryClosed(msg)
        if self._life.superseded:
            raise superseded(self._life.instance)

    def _enter(self) -> Future[None]:
        self._life.begin()
        self._sender.add(self._life)
        return self._life.registered

    @property
    def _leaving_secs(self) -> float:
        """How long to wait for each of its last words."""
        away = self._life.failures or self._sender.silent
        return AWAY_SECS if away else self._patience

    def _leave(self) -> tuple[Future[None], float]:
        """Ask for the goodbye; when it is done, and how long to wait for it at most."""
        secs = self._leaving_secs
        self._life.leave(secs)
        self._sender.wake()
        # Once in a process: its other lives, and their last words, don't wait as long again.
        return self._life.gone, secs if self._sender.silent else secs + GRACE_SECS

    def _left(self) -> None:
        """That wait is over."""
        if not self._life.gone.done():
            self._sender.silent = True
            _log.warning(
                "the registry does not take its goodbye, its silence will tell",
                extra={"instance": str(self._life.instance.identity)},
            )

    def _drain_secs(self, given: float | None) -> float:
        return self._life.options.drain_timeout_secs if given is None else given

    def _came(self, future: Future[None]) -> bool:
        self._sender.silent = False
        future.result()
        return True

    def _late(self) -> bool:
        self._sender.silent = True
        _log.warning(
            "the registry has not taken it yet; going on, it is told again and again",
            extra={"instance": str(self._life.instance.identity)},
        )
        return False


class Announcement(_Announced):
    """An announced instance, for event loops."""

    async def __aenter__(self) -> Self:
        registered = self._enter()
        try:
            await self._wait(registered, self._patience)
        except BaseException:
            self._leave()
            raise
        self._ticker = LoopTicker.here()
        self._ticker.add(self._life)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                if not self._drains:
                    with contextlib.suppress(Superseded, RegistryClosed):
                        said = self._say(Readiness.DRAINING, "")
                        await self._wait(said, self._leaving_secs)
                await self._until_idle(None)
        finally:
            gone, secs = self._leave()
            self._ticker.discard(self._life)
            # Also when this task is being cancelled: the goodbye is worth its short wait.
            await asyncio.wait([asyncio.wrap_future(gone)], timeout=secs)
            self._left()

    async def _wait(self, future: Future[None], secs: float) -> bool:
        """Wait for the sender; ``False``: it is not that far."""
        waiting = asyncio.wrap_future(future)
        waiting.add_done_callback(lambda done: done.cancelled() or done.exception())
        done, _ = await asyncio.wait([waiting], timeout=secs)
        return self._came(future) if done else self._late()

    async def ready(self) -> bool:
        """It wants work.

        Returns:
            Whether the registry knows; ``False``: it is away, and is told when it is back.

        Raises:
            Superseded: A newer life has taken the address.
        """
        return await self._wait(self._say(Readiness.READY, ""), self._patience)

    async def not_ready(self, reason: str) -> bool:
        """It wants no work for now, and why; as :meth:`ready`."""
        return await self._wait(self._say(Readiness.NOT_READY, reason), self._patience)

    async def serve(self, names: Iterable[str]) -> bool:
        """It takes work under these further names, say of adapters, and no longer under others.

        Example:
            >>> await announced.serve(["sql-lora", "chat-lora"])

        Args:
            names: All of them, beside its model's.

        Returns:
            As of :meth:`ready`.

        Raises:
            InvalidInstance: One is no name, or there are more than 256.
            Superseded: A newer life has taken the address.
        """
        return await self._wait(self._serve(names), self._patience)

    async def drain(self, timeout_secs: float | None = None) -> bool:
        """Take no new work, and wait until nothing reported is in flight.

        Args:
            timeout_secs: Longest wait; ``None``: as announced.

        Returns:
            Whether nothing is in flight any more.

        Raises:
            Superseded: A newer life has taken the address.
        """
        await self._wait(self._say(Readiness.DRAINING, ""), self._patience)
        return await self._until_idle(timeout_secs)

    async def _until_idle(self, timeout_secs: float | None) -> bool:
        idle = asyncio.wrap_future(self._life.idle())
        done, _ = await asyncio.wait([idle], timeout=self._drain_secs(timeout_secs))
        return bool(done)


class SyncAnnouncement(_Announced):
    """An announced instance, for threads."""

    def __enter__(self) -> Self:
        registered = self._enter()
        try:
            self._wait(registered, self._patience)
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                if not self._drains:
                    with contextlib.suppress(Superseded, RegistryClosed):
                        said = self._say(Readiness.DRAINING, "")
                        self._wait(said, self._leaving_secs)
                self._until_idle(None)
        finally:
            gone, secs = self._leave()
            futures.wait([gone], timeout=secs)
            self._left()

    def _wait(self, future: Future[None], secs: float) -> bool:
        done, _ = futures.wait([future], timeout=secs)
        return self._came(future) if done else self._late()

    def ready(self) -> bool:
        """As :meth:`Announcement.ready`."""
        return self._wait(self._say(Readiness.READY, ""), self._patience)

    def not_ready(self, reason: str) -> bool:
        """As :meth:`Announcement.not_ready`."""
        return self._wait(self._say(Readiness.NOT_READY, reason), self._patience)

    def serve(self, names: Iterable[str]) -> bool:
        """As :meth:`Announcement.serve`."""
        return self._wait(self._serve(names), self._patience)

    def drain(self, timeout_secs: float | None = None) -> bool:
        """As :meth:`Announcement.drain`."""
        self._wait(self._say(Readiness.DRAINING, ""), self._patience)
        return self._until_idle(timeout_secs)

    def _until_idle(self, timeout_secs: float | None) -> bool:
        secs = self._drain_secs(timeout_secs)
        return bool(futures.wait([self._life.idle()], timeout=secs).done)
