"""How a checker is doing."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

__all__ = ["CheckerStatus"]


@dataclass(slots=True)
class CheckerStatus:
    """How a checker is doing, for health checks.

    Attributes:
        running: Its coroutines exist.
        leads: Partitions whose lease it holds.
        sweeps: How often it swept.
        flips: How many instances it flipped.
        failures: Errors since its last success, in the worst partition.
        last_error: The newest error, as text.
        last_success: When the partition that has waited longest last succeeded, by this process's
            monotonic clock in seconds.
    """

    running: bool = False
    leads: set[int] = field(default_factory=set[int])
    sweeps: int = 0
    flips: int = 0
    failures: int = 0
    last_error: str | None = None
    last_success: float | None = None
    _failures: dict[int, int] = field(default_factory=dict[int, int], repr=False)
    _successes: dict[int, float] = field(default_factory=dict[int, float], repr=False)

    @property
    def quiet_secs(self) -> float | None:
        """Seconds since the last success; ``None``: none yet."""
        return (
            None if self.last_success is None else time.monotonic() - self.last_success
        )

    def failed(self, partition: int, attempt: int, error: Exception) -> None:
        """Note an error: so many in a row there."""
        self._failures[partition] = attempt
        self.failures = max(self._failures.values())
        self.last_error = f"{type(error).__name__}: {error}"

    def succeeded(self, partition: int) -> None:
        """Note a success: of that partition only."""
        self._failures.pop(partition, None)
        self.failures = max(self._failures.values(), default=0)
        self._successes[partition] = time.monotonic()
        self.last_success = min(self._successes.values())
