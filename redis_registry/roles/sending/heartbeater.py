"""The sender of heartbeats: one thread speaks for all announced instances of a process.

A thread with connections of its own goes on while the worker's event loop is blocked. All lives
that are due travel in one call a partition, with the evidence they carry.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Callable, Sequence

from redis_registry.errors import (
    RegistryClosed,
    RegistryError,
    RegistryUnavailable,
    Superseded,
)
from redis_registry.model import Beat, ModelInstance, superseded
from redis_registry.roles.sending.channel import Channel, Said
from redis_registry.roles.sending.life import Life

__all__ = ["Heartbeater", "tell_superseded"]

TOGETHER = 0.1
"""A beat due within this share of its interval goes along with one that is due now."""

AGAIN = (0.85, 0.95)
"""From one attempt to the next while the registry is away, in intervals: below 1, so that even
who has failed a moment before its return has its answer within one interval."""

IDLE_SECS = 60.0
FRESH_SECS = 1.0

_log = logging.getLogger(__name__)


class Heartbeater:
    """Registers, beats, tells readiness and deregisters, in a thread of its own.

    Args:
        channel: What it speaks through; nobody else does.

    Attributes:
        silent: Who waited last for the registry to be told something waited in vain.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.silent = False
        self._lives: list[Life] = []
        self._changed = threading.Condition()
        self._woken = False
        self._thread: threading.Thread | None = None
        self._process = os.getpid()

    def add(self, life: Life) -> None:
        """Begin to speak for a life; the thread starts with the first."""
        if (
            self._process != os.getpid()
        ):  # forked: the thread, and its lives, are the parent's
            self._process = os.getpid()
            self._changed, self._lives, self._thread = threading.Condition(), [], None
        with self._changed:
            self._lives.append(life)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="redis-registry heartbeats", daemon=True
                )
                self._thread.start()
        self.wake()

    @property
    def alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread is not None

    def wake(self) -> None:
        """Something was said: look at once."""
        with self._changed:
            self._woken = True
            self._changed.notify()

    def wake_if_news(self, life: Life) -> None:
        """Look at once, if the evidence has changed what is to be said of a life."""
        if life.news(time.monotonic()):
            self.wake()

    def stop(self) -> threading.Thread | None:
        """Stop speaking for all, without goodbye.

        Returns:
            The thread, which ends after its step; ``None``: there is none.
        """
        with self._changed:
            lives, self._lives = self._lives, []
            thread = self._thread
        for life in lives:
            self._finish(life, RegistryClosed("the registry was closed"))
        self.wake()
        return thread

    def _run(self) -> None:
        while True:
            with self._changed:
                lives = list(self._lives)
                if not lives:
                    self._thread = None
                    return
                self._woken = False
            try:
                self._serve(lives)
                pause = self._pause()
            except Exception:  # noqa: BLE001  promise S1
                _log.exception("heartbeats failed, will go on")
                pause = random.uniform(0.1, 0.5)  # noqa: S311  not a secret
            with self._changed:
                if not self._woken:
                    self._changed.wait(pause)

    def _pause(self) -> float:
        """Until the next beat or judgement, in seconds."""
        now = time.monotonic()
        with self._changed:
            next_ = min(
                (min(life.due, life.next_judgement(now)) for life in self._lives),
                default=now,
            )
        return min(max(next_ - now, 0.0), IDLE_SECS)

    def _serve(self, lives: Sequence[Life]) -> None:
        """One round: newcomers, goodbyes, news of readiness, and the beats that are due."""
        for life in lives:
            if life.gone.done():
                continue  # by stop(), while another's attempt was under way
            now = time.monotonic()
            # While the registry is away, each life has one attempt when it is due.
            free = life.failures == 0 or life.due <= now
            if life.leaving:
                self._try(life, self._leave)
            elif not life.registered.done():
                if life.due <= now:
                    self._try(life, self._register)
            elif free and life.news(now):
                self._try(life, self._tell)
        self._beat([life for life in self._lives if life.registered.done()])

    def _try(self, life: Life, what: Callable[[Life], None]) -> None:
        """Do something for one life; what goes wrong is that life's business alone."""
        began = time.monotonic()
        try:
            what(life)
        except Superseded as error:
            self._supersede(life, error)
        except RegistryUnavailable as error:
            self._failed([life], error, began)
        except RegistryError as error:
            if life.registered.done():
                self._failed([life], error, began)
            else:
                self._finish(life, error)
        except Exception as error:  # noqa: BLE001  a bug, of this life alone
            _log.exception(
                "heartbeats of an instance failed, will try again",
                extra={"instance": str(life.instance.identity)},
            )
            self._failed([life], RegistryError(str(error)), began)

    def _register(self, life: Life) -> None:
        version, said = life.version, life.judged(time.monotonic())
        # Only a life that has just begun may find that its name is too small: the host's clock
        # was put back. One that had to wait may really be the older one.
        fresh = not life.attempted and life.age(time.monotonic()) < FRESH_SECS
        life.attempted = True
        record = life.saying(said)
        try:
            taken = self._channel.register(record, version + 1)
        except Superseded as error:
            if not (fresh and life.rename_after(error.by)):
                raise
            record = life.saying(said)
            taken = self._channel.register(record, version + 1)
        life.written = record.serves
        self._take(life, said, taken, version)
        life.failures = 0
        interval = life.pace_secs
        companions = [
            other.due
            for other in self._lives
            if other.registered.done() and other.pace_secs == interval
        ]
        phase = random.uniform(0, interval)  # noqa: S311  not a secret
        life.due = min(companions, default=time.monotonic() + phase)
        if not life.registered.done():
            life.registered.set_result(None)

    def _tell(self, life: Life) -> None:
        version, said = life.version, life.judged(time.monotonic())
        readiness, reason = said
        taken = None
        if life.written == life.instance.serves:
            taken = self._channel.ready(life.instance, readiness, reason, version + 1)
        if taken is None:
            self._register(life)
        else:
            self._take(life, said, taken, version)

    @staticmethod
    def _take(life: Life, said: Said, taken: Said, version: int) -> None:
        """What the registry has on record now; not always what was said."""
        if taken == said:
            life.tell_done(said, version)
            return
        if taken != life.told:
            _log.warning(
                "%s is not taken, will say it again",
                said[0].value,
                extra={"instance": str(life.instance.identity), "why": taken[1]},
            )
        life.told_otherwise(taken)

    def _leave(self, life: Life) -> None:
        if life.attempted:
            try:
                self._channel.deregister(life.instance, remove=life.forgotten)
            except RegistryUnavailable as error:
                if time.monotonic() < life.leave_by:
                    raise
                _log.warning(
                    "not deregistered, its silence will tell",
                    extra={"instance": str(life.instance.identity), "why": str(error)},
                )
        self._finish(life, None)

    def _beat(self, lives: Sequence[Life]) -> None:
        now = time.monotonic()
        if not any(life.due <= now for life in lives):
            return
        due = [life for life in lives if life.due <= now + TOGETHER * life.pace_secs]
        records = [life.saying(life.told or life.wanted) for life in due]
        loads = [life.evidence(now) for life in due]
        try:
            beats = self._channel.heartbeats(records, loads)
        except RegistryError as error:
            self._failed(due, error, now)
            return
        factor = random.uniform(0.9, 1.0)  # noqa: S311  not a secret
        for life, beat in zip(due, beats, strict=True):
            if beat is Beat.SUPERSEDED:
                self._supersede(life, superseded(life.instance))
                continue
            if beat is Beat.REREGISTER:
                self._try(life, self._register)
                continue
            if life.failures:
                _log.info(
                    "heartbeats are taken again",
                    extra={"instance": str(life.instance.identity)},
                )
            life.failures = 0
            life.follow(self._channel.advised_interval_secs)
            life.due = now + factor * life.pace_secs

    def _failed(
        self, lives: Sequence[Life], error: RegistryError, began: float
    ) -> None:
        """Try again: soon after a first failure, then about once an interval, each at its own time.

        Full jitter once; from then on the phase is random, so that a fleet that comes back
        together arrives evenly over one interval. It counts from the moment an attempt began:
        one that ran into its timeout is not followed by a longer pause.
        """
        now, chance = time.monotonic(), random.uniform(0, 0.5)  # noqa: S311  not a secret
        again = random.uniform(*AGAIN)  # noqa: S311  not a secret
        for life in lives:
            life.failures += 1
            interval = life.pace_secs
            if life.failures == 1:
                life.due = now + interval * chance
            else:
                life.due = max(began + interval * again, now)
            if life.leaving:
                life.due = min(life.due, now + chance)
            if life.failures == 1:
                _log.warning(
                    "heartbeat failed, trying again",
                    extra={"instance": str(life.instance.identity), "why": str(error)},
                )

    def _supersede(self, life: Life, error: Superseded) -> None:
        life.superseded = True
        _log.error(
            "superseded: this process must stop claiming the address",
            extra={"instance": str(life.instance.identity), "why": str(error)},
        )
        self._finish(life, error)
        tell_superseded(life)

    def _finish(self, life: Life, error: RegistryError | None) -> None:
        """Speak no more for a life."""
        with self._changed:
            if life in self._lives:
                self._lives.remove(life)
        life.end(error)


def tell_superseded(life: Life) -> None:
    """Call whom the worker wanted to be called, in a thread: it may block, or end blocks."""
    tell = life.options.on_superseded
    if tell is not None:
        threading.Thread(
            target=_call, args=(tell, life.instance), name="on_superseded", daemon=True
        ).start()


def _call(tell: Callable[[ModelInstance], object], instance: ModelInstance) -> None:
    try:
        tell(instance)
    except SystemExit:
        _log.warning(
            "on_superseded: sys.exit ends only its thread; os.kill(os.getpid(), SIGTERM) ends the worker"
        )
    except Exception:  # noqa: BLE001  the caller's code
        _log.exception("on_superseded failed")
