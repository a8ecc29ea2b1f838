"""What a figure is: rounds of ours, rounds of what it is held against, and a floor."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Figure", "Floor", "Samples"]


@dataclass(frozen=True, slots=True)
class Samples:
    """One side's rounds.

    Attributes:
        rounds: One value a round, in the order taken.
        unit: What they count.
        of: What was measured.
    """

    rounds: Sequence[float]
    unit: str
    of: str

    @property
    def median(self) -> float:
        """The value that is reported."""
        return statistics.median(self.rounds)

    def as_json(self) -> dict[str, Any]:
        """All of it, for the record."""
        return {
            "of": self.of,
            "unit": self.unit,
            "median": self.median,
            "rounds": list(self.rounds),
        }


@dataclass(frozen=True, slots=True)
class Floor:
    """The bound a figure must keep.

    Attributes:
        bound: The number.
        least: It must be reached; otherwise it must not be passed.
        unit: ``x`` bounds the ratio ours / against; any other unit bounds ours.
    """

    bound: float
    least: bool
    unit: str = "x"

    def met(self, value: float) -> bool:
        """Whether the bound is kept."""
        return value >= self.bound if self.least else value <= self.bound

    def __str__(self) -> str:
        return f"{'>=' if self.least else '<='} {self.bound:,g} {self.unit}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the result.

    Attributes:
        name: What the line says.
        ours: Our side; ``None`` when it could not be measured.
        against: The other side, where there is one.
        floor: The bound; ``None``: told for information.
        missing: Why it could not be measured, and what would help.
    """

    name: str
    ours: Samples | None = None
    against: Samples | None = None
    floor: Floor | None = None
    missing: str | None = None

    @property
    def ratio(self) -> float | None:
        """Ours by the other's, of the medians."""
        if self.ours is None or self.against is None or not self.against.median:
            return None
        return self.ours.median / self.against.median

    @property
    def ok(self) -> bool | None:
        """Whether the floor is met; ``None``: there is none. Not measured is not met."""
        if self.floor is None:
            return None if self.missing is None else False
        if self.ours is None:
            return False
        value = self.ratio if self.floor.unit == "x" else self.ours.median
        return value is not None and self.floor.met(value)

    def as_json(self) -> dict[str, Any]:
        """All of it, for the record."""
        return {
            "name": self.name,
            "ours": self.ours.as_json() if self.ours else None,
            "against": self.against.as_json() if self.against else None,
            "ratio": self.ratio,
            "floor": str(self.floor) if self.floor else None,
            "ok": self.ok,
            "missing": self.missing,
        }
