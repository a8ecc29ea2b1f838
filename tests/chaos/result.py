"""One task of a session of chaos, and what came of it."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from tests.chaos.judge import Verdict
from tests.chaos.mutants import CHAOS_MUTANTS
from tests.chaos.tested import TESTS_SECS

__all__ = ["Kind", "Result", "Task", "verdict_json"]

Kind = Literal["scenario", "tested", "random", "mutant"]
_SHOWN = 3


@dataclass(frozen=True)
class Task:
    """What to play.

    Attributes:
        name: Of the scenario or mutant; of a random row the topology.
    """

    kind: Kind
    name: str
    seed: int
    secs: float = 30.0

    @property
    def limit_secs(self) -> float:
        """What takes longer hangs; setting the stage and judging have their time too."""
        return TESTS_SECS + 20 if self.kind == "tested" else self.secs + 190

    def words(self) -> list[str]:
        """It as arguments of :mod:`tests.chaos.play`."""
        return [
            self.kind,
            self.name,
            "--seed",
            str(self.seed),
            "--secs",
            str(self.secs),
        ]

    def again(self) -> str:
        """The command that plays it again."""
        if self.kind == "random":
            how = f"--random 1 --topology {self.name} --secs {self.secs:g}"
        elif self.kind == "mutant":
            how = "--mutants"
        else:
            how = f"--scenario {self.name}"
        return f"make chaos ARGS='{how} --seed {self.seed}'"


def verdict_json(verdict: Verdict, missing: list[str]) -> str:
    """What :mod:`tests.chaos.play` prints."""
    found = [f"{v.check}: {v.what}" for v in verdict.violations]
    return json.dumps(verdict._asdict() | {"violations": found, "missing": missing})


@dataclass
class Result:
    """What came of a task.

    Attributes:
        violations: Promises broken.
        missing: What the plot should have shown, and did not.
        secs: How long it took.
        home: Where the notebooks are, if they were kept.
    """

    task: Task
    violations: list[str]
    missing: list[str] = field(default_factory=list[str])
    operations: int = 0
    events: int = 0
    observations: int = 0
    flips: int = 0
    epochs: int = 0
    secs: float = 0.0
    home: Path | None = None

    @classmethod
    def parsed(cls, task: Task, out: str, error: str) -> Self:
        """What :mod:`tests.chaos.play` printed."""
        try:
            given: dict[str, Any] = json.loads(out.splitlines()[-1])
        except (IndexError, ValueError):
            return cls(task, [f"it broke down: {(error or out)[-2000:]}"])
        return cls(task, **given)

    def ended(self, home: Path, secs: float) -> Self:
        """It is over: notebooks that convict nobody are thrown away."""
        self.secs = secs
        if self.good:
            shutil.rmtree(home, ignore_errors=True)
        else:
            self.home = home
        return self

    @property
    def good(self) -> bool:
        """Whether it is as it should be: a broken version convicted, anything else in order."""
        if self.task.kind == "mutant":
            # By the check that is made for it: a broken version that can't even run proves nothing.
            (by,) = (m.by for m in CHAOS_MUTANTS if m.name == self.task.name)
            return any(told.startswith(f"{by}: ") for told in self.violations)
        return not (self.violations or self.missing)

    def line(self) -> str:
        """It in a line, and the first of what is wrong."""
        task = self.task
        what = (
            "convicted"
            if task.kind == "mutant" and self.good
            else "ok"
            if self.good
            else "FAILED"
        )
        figures = f"{self.operations} calls, {self.events} events, {self.flips} flips, {self.secs:.0f} s"
        text = f"{what:9} {task.kind} {task.name}, seed {task.seed}: {figures}"
        if self.good and task.kind == "mutant":
            return f"{text}\n      {self.violations[0][:200]}"
        wrong = [*self.missing, *self.violations][:_SHOWN]
        if self.good or not wrong:
            return text
        return "\n      ".join(
            [text, *(w[:400] for w in wrong), f"notebooks: {self.home}"]
        )

    def as_json(self) -> dict[str, Any]:
        """It for a file."""
        return {
            **self.__dict__,
            "task": self.task.__dict__,
            "home": str(self.home or ""),
            "good": self.good,
        }
