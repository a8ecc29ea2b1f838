"""Waiting that Ctrl-C ends: where we wait, not in the middle of starting a process."""

from __future__ import annotations

import signal
import time

__all__ = ["Interrupted", "listen", "pause"]

_numbers: list[int] = []


class Interrupted(Exception):
    """A signal asked us to end.

    Args:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.number = number


def listen() -> None:
    """From now on, signals that ask us to end are remembered."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: _numbers.append(number))


def pause(secs: float) -> None:
    """Sleep.

    Raises:
        Interrupted: A signal has come, now or earlier.
    """
    time.sleep(secs)
    if _numbers:
        raise Interrupted(_numbers[0])
