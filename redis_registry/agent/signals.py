"""What signals ask of an agent."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Generator
from contextlib import contextmanager

__all__ = ["Signals", "signals_of_the_process"]

_log = logging.getLogger(__name__)


class Signals:
    """SIGTERM or SIGINT: drain. A second one: stop now. A third one: kill."""

    def __init__(self) -> None:
        self.drain, self.stop, self.kill = (asyncio.Event() for _ in range(3))

    def come(self, number: int) -> None:
        """One has come."""
        name = signal.Signals(number).name
        for event, meaning in (
            (self.drain, "draining; once more to stop at once"),
            (self.stop, "stopping; once more to kill"),
            (self.kill, "killing"),
        ):
            if not event.is_set():
                event.set()
                _log.info(meaning, extra={"signal": name})
                return


@contextmanager
def signals_of_the_process() -> Generator[Signals]:
    """As long as the block lasts, signals are answered."""
    loop, signals = asyncio.get_running_loop(), Signals()
    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, signals.come, number)
    try:
        yield signals
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
