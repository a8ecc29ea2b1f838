"""The sender as a process of its own, for work that holds the GIL.

The parent sends what its lives say as lines of JSON, and the child (``sender_program.py``)
runs the same :class:`~redis_registry.roles.sending.heartbeater.Heartbeater`. Both read one monotonic
clock, so evidence that the parent can't renew grows old in the child. When the parent dies the
child sees the end of its input and ends without goodbye: silence tells the truth.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import IO, Any, cast

from redis_registry.errors import RegistryClosed, RegistryError, Superseded
from redis_registry.model import ModelInstance, Readiness
from redis_registry.roles.sending.heartbeater import tell_superseded
from redis_registry.roles.sending.life import LAG_TICKS, Life

__all__ = ["SenderProcess"]

END_SECS = 5.0
RESTART_SECS = 0.5

_log = logging.getLogger(__name__)


class SenderProcess:
    """Speaks for lives through a child process; used as a :class:`Heartbeater`.

    Args:
        channel: What it is to speak through, as :meth:`Channel.described` has it.

    Attributes:
        silent: As of :class:`Heartbeater`.
    """

    def __init__(self, channel: Mapping[str, Any]) -> None:
        self._channel = channel
        self.silent = False
        self._lives: dict[int, Life] = {}
        self._number = 0
        self._changed = threading.Condition()
        self._woken = False
        self._thread: threading.Thread | None = None
        self._process = os.getpid()

    @property
    def alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread is not None

    def add(self, life: Life) -> None:
        """Begin to speak for a life; the child starts with the first."""
        if (
            self._process != os.getpid()
        ):  # forked: the thread, and its lives, are the parent's
            self._process = os.getpid()
            self._changed, self._lives, self._thread = threading.Condition(), {}, None
        with self._changed:
            self._number += 1
            self._lives[self._number] = life
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="redis-registry sender", daemon=True
                )
                self._thread.start()
        self.wake()

    def wake(self) -> None:
        """Something was said: send it at once."""
        with self._changed:
            self._woken = True
            self._changed.notify()

    def wake_if_news(self, life: Life) -> None:
        """As :meth:`Heartbeater.wake_if_news`; the child judges, so every report goes there."""
        del life
        self.wake()

    def stop(self) -> None:
        """Stop speaking for all, without goodbye, and wait for the child's end."""
        with self._changed:
            lives, self._lives = list(self._lives.values()), {}
            thread = self._thread
        for life in lives:
            life.end(RegistryClosed("the registry was closed"))
        self.wake()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._lives:
                    self._thread = None
                    return
            try:
                self._with_child()
            except Exception:  # noqa: BLE001  promise S1
                _log.exception("the sender's process failed, will be started again")
            threading.Event().wait(RESTART_SECS if self._lives else 0)

    def _with_child(self) -> None:
        """Run one child until nobody is left to speak for, or until it dies."""
        child = subprocess.Popen(
            [sys.executable, "-m", "redis_registry.roles.sending.sender_program"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            process_group=0,  # a Ctrl-C in the terminal is for the worker, who then says goodbye
        )
        said, answers = cast("IO[str]", child.stdin), cast("IO[str]", child.stdout)
        hearing = threading.Thread(
            target=self._hear,
            args=(answers,),
            name="sender's answers",
            daemon=True,
        )
        hearing.start()
        try:
            self._write(said, {"channel": self._channel})
            self._feed(said)
        except OSError:
            _log.exception("the sender's process has ended, it is started again")
        finally:
            with contextlib.suppress(OSError):
                said.close()
            try:
                child.wait(END_SECS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            hearing.join()
            answers.close()

    def _feed(self, pipe: IO[str]) -> None:
        known: set[int] = set()
        while True:
            with self._changed:
                lives = dict(self._lives)
                self._woken = False
            said: list[dict[str, object]] = []
            for number, life in lives.items():
                said.append({"id": number, "said": life.said_to_wire()})
                if number not in known:
                    said[-1]["new"] = life.to_wire()
                    known.add(number)
            self._write(pipe, {"lives": said})
            pipe.flush()
            if not lives:
                return
            pause = min(life.interval_secs for life in lives.values()) / LAG_TICKS
            with self._changed:
                if not self._woken:
                    self._changed.wait(pause)

    @staticmethod
    def _write(pipe: IO[str], message: Mapping[str, object]) -> None:
        pipe.write(json.dumps(message) + "\n")

    def _hear(self, pipe: IO[str]) -> None:
        for line in pipe:
            try:
                self._take(json.loads(line))
            except Exception:  # noqa: BLE001  promise S1
                _log.exception("an answer of the sender's process was not understood")
        self.wake()

    def _take(self, message: dict[str, Any]) -> None:
        number = message["id"]
        life = self._lives.get(number)
        if life is None:
            return
        if "instance" in message:
            life.instance = ModelInstance.model_validate(message["instance"])
        match message["is"]:
            case "registered":
                if not life.registered.done():
                    life.registered.set_result(None)
            case "told":
                readiness, reason = message["what"]
                life.tell_done((Readiness(readiness), reason), message["version"])
            case "gone":
                self._end(number, life, message)
            case other:
                _log.warning("the sender's process says %r", other)

    def _end(self, number: int, life: Life, message: dict[str, Any]) -> None:
        with self._changed:
            self._lives.pop(number, None)
        error: RegistryError | None = None
        if message.get("error"):
            error = _error_named(message["error"], message["why"])
        life.superseded = isinstance(error, Superseded)
        life.end(error)
        if life.superseded:
            tell_superseded(life)
        self.wake()


def _error_named(name: str, why: str) -> RegistryError:
    """One of our tree, by the name of its class."""
    kinds: list[type[RegistryError]] = [RegistryError]
    for kind in kinds:
        if kind.__name__ == name:
            with contextlib.suppress(TypeError):  # one that takes more than a message
                return kind(why)
        kinds.extend(kind.__subclasses__())
    return RegistryError(f"{name}: {why}")
