"""The program of the sender's process: hears what a worker says, and speaks for it.

Its input and output are lines of JSON; see :mod:`redis_registry.roles.sending.sender_process`.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from redis_registry.roles.sending.channel import Channel, open_channel
from redis_registry.roles.sending.life import Life
from redis_registry.roles.sending.threads import Threads


class _Child:
    """The program: hears what is said, and speaks for it."""

    def __init__(self, channel: Channel) -> None:
        self._threads = Threads(channel)
        self._lives: dict[int, Life] = {}
        self._lock = threading.Lock()

    def answer(self, number: int, kind: str, **more: object) -> None:
        with self._lock:
            print(json.dumps({"id": number, "is": kind, **more}), flush=True)  # noqa: T201  its output is the protocol

    def hear(self, message: dict[str, Any]) -> None:
        for item in message["lives"]:
            number, said = item["id"], item["said"]
            if "new" in item:
                self._begin(number, item["new"])
            life = self._lives[number]
            asked = life.take_wire(said)
            if asked is not None:
                asked.add_done_callback(self._told(number, life, said["version"]))
        self._threads.wake()

    def _told(
        self, number: int, life: Life, version: int
    ) -> Callable[[Future[None]], None]:
        def tell(done: Future[None]) -> None:
            if not done.cancelled() and done.exception() is None and life.told:
                self.answer(number, "told", what=life.told, version=version)

        return tell

    def _begin(self, number: int, wire: dict[str, Any]) -> None:
        life = self._lives[number] = Life.from_wire(wire)

        def registered(done: Future[None]) -> None:
            if not done.cancelled() and done.exception() is None:
                instance = life.instance.model_dump(mode="json")
                self.answer(number, "registered", instance=instance)

        def gone(_: Future[None]) -> None:
            error = life.error
            self.answer(
                number, "gone", error=error and type(error).__name__, why=str(error)
            )

        life.registered.add_done_callback(registered)
        life.gone.add_done_callback(gone)
        self._threads.of(life.instance).add(life)


def _main() -> None:
    first = json.loads(sys.stdin.readline())
    child = _Child(open_channel(first["channel"]))
    for line in sys.stdin:
        child.hear(json.loads(line))
    os._exit(0)  # the worker has ended: say no more, not even goodbye


if __name__ == "__main__":
    _main()
