"""What the registry tells an observer; the default observer is deaf.

The core emits to this small protocol and knows no metrics library.
:class:`redis_registry.metrics.PrometheusTelemetry` is one listener, a list in a test another.
"""

from __future__ import annotations

from typing import Protocol

__all__ = ["DEAF", "Telemetry"]


class Telemetry(Protocol):
    """Something that counts and measures; every method must be quick and must not raise."""

    def count(self, name: str, amount: int = 1, **labels: str) -> None:
        """Add ``amount`` to the counter ``name`` (``flips``, ``sweeps``, ``retries``, …)."""
        ...

    def observe(self, name: str, secs: float, **labels: str) -> None:
        """Record that something called ``name`` took ``secs`` seconds."""
        ...

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Set the gauge ``name`` to ``value``."""
        ...


class _Deaf:
    """Hears nothing."""

    def count(self, name: str, amount: int = 1, **labels: str) -> None:
        pass

    def observe(self, name: str, secs: float, **labels: str) -> None:
        pass

    def gauge(self, name: str, value: float, **labels: str) -> None:
        pass


DEAF: Telemetry = _Deaf()
