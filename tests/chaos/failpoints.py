"""Places where a process can be made to stop, to die or to fail: before and after each script call.

Every operation is a row of script calls, so whatever can come between two processes comes between
two calls: these are all the places that matter.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from typing import Literal

from tests.chaos.notebook import Notebook

__all__ = ["Failpoints", "Moment"]

Moment = Literal["before", "after"]


@dataclass(frozen=True)
class _Armed:
    script: str
    moment: Moment
    act: str
    secs: float


class Failpoints:
    """Those of one process; each acts once.

    Args:
        book: Where it is noted when one acts.
    """

    def __init__(self, book: Notebook) -> None:
        self._book = book
        self._armed: list[_Armed] = []

    def arm(self, script: str, moment: Moment, act: str, secs: float = 0.0) -> None:
        """Act at the next call of a script.

        Args:
            script: Its name.
            moment: Before it is sent, or after its answer has come.
            act: ``stop`` (SIGSTOP, until somebody lets it go on), ``die`` (SIGKILL), ``sleep``.
            secs: For how long it sleeps.
        """
        self._armed.append(_Armed(script, moment, act, secs))

    def disarm(self) -> None:
        """Nothing more is to happen."""
        self._armed.clear()

    def reached(self, script: str, moment: Moment) -> None:
        """A call is about to be made, or was answered."""
        for armed in self._armed:
            if (armed.script, armed.moment) == (script, moment):
                self._armed.remove(armed)
                self._book.write(
                    "failpoint", script=script, moment=moment, act=armed.act
                )
                if armed.act == "sleep":
                    time.sleep(armed.secs)
                else:
                    number = signal.SIGSTOP if armed.act == "stop" else signal.SIGKILL
                    os.kill(os.getpid(), number)
                return
