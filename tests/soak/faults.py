"""What happens to a registry in production, by chance: each fault ends by itself."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Self

from redis_registry.testing import Proxy, Standalone
from tests.helpers import wait_for
from tests.load.programs import Program

__all__ = ["Faults"]


class Faults:
    """Injects them, one after the other.

    Args:
        server: Redis.
        proxy: Through which all members reach it.
        lasting: Members that live through all of it, by name; some are frozen for a while.
        visit: Starts one more member, which is killed and replaced.
        chance: Where the chances come from.

    Attributes:
        done: How often each was injected.
        visitor: The member that is killed and replaced.
    """

    def __init__(
        self,
        server: Standalone,
        proxy: Proxy,
        lasting: dict[str, Program],
        visit: Callable[[], Program],
        chance: random.Random,
    ) -> None:
        self.done: Counter[str] = Counter()
        self._server = server
        self._proxy = proxy
        self._lasting = lasting
        self._visit = visit
        self._chance = chance
        self.visitor = visit()
        self.kinds: dict[str, Callable[[], object]] = {
            "Redis killed": self._kill_redis,
            "Redis frozen": self._freeze_redis,
            "connections cut": proxy.cut,
            "replies lost": lambda: proxy.lose_replies(5),
            "network silent": lambda: self._for_a_while("frozen"),
            "network refusing": lambda: self._for_a_while("refusing"),
            "answers swallowed": lambda: self._for_a_while("swallowing"),
            "scripts flushed": lambda: server.call("SCRIPT", "FLUSH"),
            "visitor killed": self._kill_visitor,
            "controller frozen": lambda: self._freeze("controller"),
            "reader frozen": lambda: self._freeze("reader"),
        }

    def __enter__(self) -> Self:
        assert self.visitor.hear() == "ready"
        return self

    def __exit__(self, *_: object) -> None:
        self.visitor.kill()

    def one(self, name: str | None = None) -> None:
        """Inject one, by name or by chance, and wait until it has ended."""
        name = name or self._chance.choice(list(self.kinds))
        self.kinds[name]()
        self.done[name] += 1

    def _while(self, least: float, most: float) -> None:
        """How long a fault lasts, or the pause after one; it is waited for on purpose."""
        time.sleep(self._chance.uniform(least, most))

    def flood(self, full: Callable[[], bool]) -> None:
        """Have nobody flipped or forgotten until it is full, and all read anew: the highest water."""
        sweepers = [self._lasting["controller"], self.visitor]
        for one in sweepers:
            one.signal(signal.SIGSTOP)
        wait_for(full, "as many are listed as may be", within_secs=120)
        self._kill_redis()
        self.pause()
        for one in sweepers:
            one.signal(signal.SIGCONT)

    def pause(self) -> None:
        """Between two faults."""
        self._while(1, 6)

    def _kill_redis(self) -> None:
        self._server.kill()
        self._while(0, 1.5)
        self._server.start()

    def _freeze_redis(self) -> None:
        self._server.pause()
        self._while(0.2, 3)
        self._server.resume()

    def _for_a_while(self, how: str) -> None:
        setattr(self._proxy, how, True)
        if how == "refusing":
            self._proxy.cut()
        self._while(0.2, 2)
        setattr(self._proxy, how, False)

    def _kill_visitor(self) -> None:
        self.visitor.kill()
        self.visitor = self._visit()
        assert self.visitor.hear() == "ready"
        self.visitor.ask("go on")

    def _freeze(self, name: str) -> None:
        program = self._lasting[name]
        program.signal(signal.SIGSTOP)
        self._while(0.5, 3)
        program.signal(signal.SIGCONT)
