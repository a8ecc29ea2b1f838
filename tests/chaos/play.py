"""Plays one task and prints what the judge says: ``python -m tests.chaos.play KIND NAME --home DIR``."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from tests.chaos.judge import Verdict, judge
from tests.chaos.judge.history import History
from tests.chaos.mutants import CHAOS_MUTANTS
from tests.chaos.result import verdict_json
from tests.chaos.run import Plot, perform
from tests.chaos.scenarios import SCENARIOS, Scenario
from tests.chaos.schedule import by_chance
from tests.chaos.stage import Stage
from tests.chaos.tested import TESTED, TESTS_SECS


def _scenario(name: str) -> Scenario:
    return next(scenario for scenario in SCENARIOS if scenario.name == name)


def _play_tests(asked: argparse.Namespace) -> tuple[Verdict, list[str]]:
    """A row that plain tests prove: red is a violation."""
    tests = next(tested.tests for tested in TESTED if tested.name == asked.name)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--tb=short",
        "-p",
        "no:cacheprovider",
    ]
    command += ["--run-load", f"--hypothesis-seed={asked.seed}", *tests]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=TESTS_SECS, check=False
    )
    verdict = Verdict([], 0, 0, 0, 0, 0)
    # Where all were skipped, nothing was shown.
    shown = done.returncode == 0 and " passed" in done.stdout
    return verdict, [] if shown else [done.stdout[-1500:]]


def _play(asked: argparse.Namespace) -> tuple[Verdict, list[str]]:
    home = Path(asked.home)
    if asked.kind == "random":
        stage = Stage(asked.name, home, seed=asked.seed, binary=asked.binary)
        perform(stage, by_chance(asked.secs))
        return judge(home), []
    name = asked.name
    if asked.kind == "mutant":
        name = next(m.scenario for m in CHAOS_MUTANTS if m.name == asked.name)
    scenario = _scenario(name)
    package = Path(asked.package) if asked.kind == "mutant" else None
    plot: Plot = scenario.plot
    stage = Stage(
        scenario.topology,
        home,
        seed=asked.seed,
        binary=None if scenario.stage.get("clocked") else asked.binary,
        package=package,
        **scenario.stage,
    )
    perform(stage, plot)
    history = History(home)
    missing = [what for expects in scenario.expects for what in expects(history)]
    return judge(home), missing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("scenario", "tested", "random", "mutant"))
    parser.add_argument("name")
    parser.add_argument("--home", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--secs", type=float, default=30.0)
    parser.add_argument("--binary")
    parser.add_argument("--package")
    asked = parser.parse_args()
    verdict, missing = _play_tests(asked) if asked.kind == "tested" else _play(asked)
    sys.stdout.write(verdict_json(verdict, missing) + "\n")
    sys.stdout.flush()
    os._exit(0)  # threads of proxies that hang must not keep a verdict from being read


if __name__ == "__main__":
    main()
